//! Keys that openvpn 2.6.14 has made, and the first packets of its clients, recorded on the wire.

use data_encoding::HEXLOWER;

use super::client_key::{ClientKey, Metadata, ServerKey, split_wrapped};
use super::static_key::StaticKey;
use super::test_primitives::Aws;
use super::wire::{KeyId, Kind, Message, Packet, early};
use super::wrapping::tls_auth::{self, Digest, Direction};
use super::wrapping::{Keys, Stamp, Wrapping, tls_crypt};
use crate::role::Role;

/// `openvpn --genkey secret`
#[rustfmt::skip]
const STATIC_KEY: &str = concat!(
    "-----BEGIN OpenVPN Static key V1-----\n",
    "078f73bec193f79641e95a8bdef1aa4b\n",
    "87d8c11975c8665619cc36325c858c80\n",
    "4b4e11a75917b9e66fb62d4c8bba3a73\n",
    "893f820f0b760589f276d6a135b6f920\n",
    "c7e37946ff88aee2cf34f6ba25bffb4a\n",
    "16740bec2bd989431d4a8f7301fc9b0d\n",
    "12775591ad4bb3092c277842e0531e22\n",
    "600454a9050ef06552a7991cb4360c17\n",
    "cff20f44b1bb16a6fc99eecb1a877712\n",
    "77989f26e48bcf4640c6105db7db23fc\n",
    "ea9aa1b4b51455e90aca3a4a29183601\n",
    "326bc89713602cef849662b0cb7e0d12\n",
    "7d5fe73dda604de5b161cbcc61d46a57\n",
    "57ac40f995ffcbb327a8cf62b84424a3\n",
    "330eb8c77cb1cac4d77920add93cb82a\n",
    "0105e6ba5e938aac376892033e5c119d\n",
    "-----END OpenVPN Static key V1-----\n",
);

/// `openvpn --genkey tls-crypt-v2-server`
#[rustfmt::skip]
const SERVER_KEY: &str = concat!(
    "-----BEGIN OpenVPN tls-crypt-v2 server key-----\n",
    "zKWGTQjAdhB0/KpRVQMWP36rXIB53n8+RZLcw2jBEYkfN5nGpwwgCsUjDQU1dziY\n",
    "lGX/JMrndAP1vaqmhp3yKVRdEPVCqT8ibE+nk5mAl22f5hlmm4VP7m/K1N0kEecC\n",
    "m4pGJElK5r9XACCYyqVx/MCEYVDjel10rGsvE00zzuE=\n",
    "-----END OpenVPN tls-crypt-v2 server key-----\n",
);

/// `openvpn --tls-crypt-v2 … --genkey tls-crypt-v2-client`
#[rustfmt::skip]
const CLIENT_KEY: &str = concat!(
    "-----BEGIN OpenVPN tls-crypt-v2 client key-----\n",
    "a6jtJJt/PUA1HytkhEX2pk/f2TF9Tqaoki0RKu1q5ZfnpDHONjD065JHcaWKOXkq\n",
    "fZkMMTHhVR2nCBkc3AOxFjdAftuYUHspcQFoJeWsut1GLx9oyzD2+aKEJWmm5bY/\n",
    "yDMacD3nLxGFOCvA9e3G+iUlMPdF3525vqO4fW4VL4Los6qxjNahHziuz0NS0Gbh\n",
    "MgkbsRtmNErBdhikKQpO4cMj5tjSvhkUSRcZJz9R5VlBq0xRTSGwofvlJ9LyB6ke\n",
    "L0Zqk1j28FMMhToYtWuH33F9VGqE3zhgIn+7EwReSmStEwq58zDZWqYy9qMnWC4O\n",
    "av/lxBQo3B5WMBbibVuYtHKOKsHg7ooz5ggwHOquDgrR1wNWT7bkECJyMS3x2w64\n",
    "L6bZ9WxowlAonRand8rR6tm74CJlNpFmw7XRIRYDeBjysU4l7l/CRN/IYhcudKmD\n",
    "eTWAcfYLjDlNPxk9fZLSOWuLtXBFlhdETdc2k+2B54yJJ3bEnuAR5etdn0BfaDH9\n",
    "tJB4UyFX87MnRXQ9wlxBS6BC6AN/injLjHtDCYAi9WUofKKNHaFPYHmsLEBtAk9Y\n",
    "bSxPxqJnn84g3J6fy32YHikGFY/Fp6MNncdhm3QzDO6/KAar5I06EsAC7m5vMpL1\n",
    "V2irn+hNx0eKjIDzhOPpkKciqLfWdGbK6IvQuKliEV2wEMYR/cydAWYRdLYd+wOg\n",
    "qVs8POMtGKxXqB8K1fgKfoNb4j35Dr47pwEr\n",
    "-----END OpenVPN tls-crypt-v2 client key-----\n",
);

/// The same with `device 7` as metadata.
#[rustfmt::skip]
const CLIENT_KEY_OF_A_DEVICE: &str = concat!(
    "-----BEGIN OpenVPN tls-crypt-v2 client key-----\n",
    "0a0n/lSg9Q9JWSPbpdsvSmVR+Cp9NEOo+bccQtRHq8iHUMaVxvNSgaL1d8sgR21S\n",
    "wMI/siKNoX2qKJPwMPrc9rQBcdRZ+R2MnZ/FaGTsxxvrirtiba9KHFn6cl2/ibsS\n",
    "6Xk/qqckKXV+A2GaneI7mG0iVY6Ttf6NlFFVMS0hukxX3C8ZhSiWlCVLdV9P5MJo\n",
    "oJuC/Ud4F/YZTMPW52SVou25rLbRcV17SRBHc/jYhvwe0v/58KJzCjtb4LbT1e/0\n",
    "yJVmk3P48hZuOOjSshJsTfSDfkTaI355jQ17ybyVwPuO2QiOkK4Skgprhz0jYk+Z\n",
    "wqTHmKDEajceT+WRna31/E169JemyYM5KFv69RseKx8lPdEpBPQ6XbG2ceijyBhc\n",
    "lInJSxh2bGVS4U5TrydLdd4dkmHLwQ0HTtf7OhOBUB0I3fq9cj/kPXI6QZCTkcXr\n",
    "JBlFCFDR+MPwVsp9oPLRO73FV2k/PyjH7rrnduAcXBQlSrZGuR/4B43WpaBCWzTB\n",
    "ldSxHN5Bfb/DDVBgcuCEJUyRQdgXQ0Gb3EnlXVHM85wTX3RW7D7N/sfM5iGINYc0\n",
    "MQ3nYKpjs1C+4VgXbLTimdFFaRCTEvq5Pgd3USvRQBaEgX4Xf4f3tyakUzaMi+Jp\n",
    "64WcxK+xd5nLl2DgVCHmdCSqb1X+mN5bGbbXmoZzi9PbN0m9e2D3lgNElle+ruTf\n",
    "gkHFZd3bii4GLUoryPbYH+330Jp1crFgLQEr\n",
    "-----END OpenVPN tls-crypt-v2 client key-----\n",
);

/// Without a key.
#[rustfmt::skip]
const PLAIN: &str = "38e818722747dd001b0000000000";

/// tls-auth, `key-direction 1`, with the usual digest.
#[rustfmt::skip]
const AUTH: &str = "38aa62100a7f64e46228e284e65ec84f32662809ef13dfb80a2da82a7c000000016b0e28000000000000";

/// tls-auth without a direction, `auth SHA512`.
#[rustfmt::skip]
const AUTH_SHA512: &str = concat!(
    "383d26469e9235972bce49bea1c57ca159e673a2d2c40ce561f9cbd3cf708ca6c7c8cbe9042123b070febadb678192be2342",
    "2e501cfd44ca0a4b5eb8d393510f5f1fa63d2df8c01ac3000000016b0e28040000000000",
);

/// tls-crypt.
#[rustfmt::skip]
const CRYPT: &str = concat!(
    "38b7a67fbc40528b76000000016b0e2808b0f5e0a1c0b7460fb27320eda2f379039148e249a1860346161f7b02703565a837",
    "b174bd56",
);

/// tls-crypt-v2, under [`CLIENT_KEY`].
#[rustfmt::skip]
const CRYPT_V2: &str = concat!(
    "50b966b6c556465a1e0f0000016b0e280c763434f7b45441fc31a58cbcfe1da1198545c3a1d234dbd04eb390496ef779f6b8",
    "9c33f80d728e2ac1e0ee8a33e608301ceaae0e0ad1d703564fb6e4102272312df1db0eb82fa6d9f56c68c250289d16a777ca",
    "d1ead9bbe02265369166c3b5d12116037818f2b14e25ee5fc244dfc862172e74a98379358071f60b8c394d3f193d7d92d239",
    "6b8bb570459617444dd73693ed81e78c892776c49ee011e5eb5d9f405f6831fdb49078532157f3b32745743dc25c414ba042",
    "e8037f8a78cb8c7b43098022f565287ca28d1da14f6079ac2c406d024f586d2c4fc6a2679fce20dc9e9fcb7d981e2906158f",
    "c5a7a30d9dc7619b74330ceebf2806abe48d3a12c002ee6e6f3292f55768ab9fe84dc7478a8c80f384e3e990a722a8b7d674",
    "66cae88bd0b8a962115db010c611fdcc9d01661174b61dfb03a0a95b3c3ce32d18ac57a81f0ad5f80a7e835be23df90ebe3b",
    "a7012b",
);

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn key() -> StaticKey {
    StaticKey::parse(STATIC_KEY).unwrap()
}

fn assert_is_reset(packet: &Packet, kind: Kind) {
    assert_eq!(packet.key, KeyId::FIRST);
    assert_eq!(packet.acks, None);
    assert_eq!(packet.message, Some(Message { kind, number: 0, payload: Vec::new() }));
}

#[test]
fn first_packet_of_each_client_is_opened_and_made_again() {
    let auth = |digest, direction| Keys::Auth(tls_auth::Keys::new(digest, &key(), direction));
    let crypt = |role| Keys::Crypt(tls_crypt::Keys::new(&key(), role));
    let cases = [
        (PLAIN, Keys::Plain, Keys::Plain),
        (AUTH, auth(Digest::Sha1, Direction::Normal), auth(Digest::Sha1, Direction::Inverse)),
        (AUTH_SHA512, auth(Digest::Sha512, Direction::Both), auth(Digest::Sha512, Direction::Both)),
        (CRYPT, crypt(Role::Server), crypt(Role::Client)),
    ];
    for (datagram, server, client) in cases {
        let datagram = hex(datagram);
        let (packet, stamp) = server.open::<Aws>(&datagram).unwrap();
        assert_is_reset(&packet, Kind::ResetClient);
        assert!(stamp.is_none_or(|stamp| stamp.count == 1));
        let again = client.seal::<Aws>(stamp.unwrap_or(Stamp { time: 0, count: 1 }), &packet);
        assert_eq!(again, Ok(datagram));
    }
}

#[test]
fn client_with_a_key_of_its_own_brings_it_along() {
    let datagram = hex(CRYPT_V2);
    let (rest, wrapped) = split_wrapped(&datagram).unwrap();
    let (key, metadata) = ServerKey::parse(SERVER_KEY).unwrap().unwrap::<Aws>(wrapped).unwrap();
    assert!(metadata.made_at().is_some());
    let server = Keys::Crypt(tls_crypt::Keys::new(&key, Role::Server));
    let (packet, stamp) = server.open::<Aws>(rest).unwrap();
    assert_is_reset(&packet, Kind::ResetClientWithKey);
    let stamp = stamp.unwrap();
    assert_eq!(stamp.count, early::FIRST_COUNT);
    let own = ClientKey::parse(CLIENT_KEY).unwrap();
    assert_eq!((own.key.bytes(), &own.wrapped[..]), (key.bytes(), wrapped));
    let keys = tls_crypt::Keys::new(&own.key, Role::Client);
    let mut client = Wrapping::with_wrapped_key(keys, own.wrapped, stamp);
    assert_eq!(client.seal::<Aws>(&packet), Ok(datagram));
}

#[test]
fn files_are_written_as_openvpn_writes_them() {
    assert_eq!(key().to_text().as_str(), STATIC_KEY);
    let server = ServerKey::parse(SERVER_KEY).unwrap();
    assert_eq!(server.to_text().as_str(), SERVER_KEY);
    for text in [CLIENT_KEY, CLIENT_KEY_OF_A_DEVICE] {
        let client = ClientKey::parse(text).unwrap();
        assert_eq!(client.to_text().as_str(), text);
        let (unwrapped, metadata) = server.unwrap::<Aws>(&client.wrapped).unwrap();
        assert_eq!(unwrapped.bytes(), client.key.bytes());
        assert_eq!(server.wrap::<Aws>(&unwrapped, &metadata), Ok(client.wrapped));
    }
}

#[test]
fn metadata_of_ones_own_choice_is_found() {
    let client = ClientKey::parse(CLIENT_KEY_OF_A_DEVICE).unwrap();
    let (_, metadata) = ServerKey::parse(SERVER_KEY).unwrap().unwrap::<Aws>(&client.wrapped).unwrap();
    assert_eq!(metadata.chosen(), Some(&b"device 7"[..]));
    assert_eq!(Some(metadata), Metadata::user(b"device 7".to_vec()));
}

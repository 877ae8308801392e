//! Keys that openvpn 2.6.14 has made, and the beginnings of sessions between its client and its server, recorded on
//! the wire: each line has a packet, from `C` the client or `S` the server.

use data_encoding::HEXLOWER;

use super::client_key::{ClientKey, Metadata, ServerKey, split_wrapped};
use super::data::inbound::Inbound;
use super::data::keys::{EXPORTED_LEN, Exported};
use super::data::outbound::Outbound;
use super::data::{Content, Preface};
use super::reliability::Reliability;
use super::static_key::StaticKey;
use super::test_primitives::Aws;
use super::wire::{Acks, Head, KeyId, Kind, Opcode, Packet, early};
use super::wrapping::tls_auth::{self, Digest, Direction};
use super::wrapping::{Keys, Stamp, Wrapping, tls_crypt};
use crate::drop_reason::DropReason;
use crate::role::Role;
use crate::sealing::suite::Suite;
use crate::sealing::test_cipher::AwsCipher;

/// `openvpn --genkey secret`
#[rustfmt::skip]
const STATIC_KEY: &str = concat!(
    "-----BEGIN OpenVPN Static key V1-----\n",
    "5e6020c7c043f65bc6ac1acc61ba4238\n",
    "c722f3a60055d2a0cedcfb1405247531\n",
    "af560b4ec1a2a20061d8e314294773e6\n",
    "3a441ab98c2fd064951b3a73021f2447\n",
    "53d6e5dbe9fb9526b502342caaa98adf\n",
    "7340b3f2e6f505a7f859ef9f63b847f0\n",
    "9d2efa002916dddcb0b920c6d7b4fc77\n",
    "12acc9d6dc34d187d2bdfb38ae5a424b\n",
    "544fdf00bfac7fdedf465fc917fd9717\n",
    "56b6d0466ddc342eb0039898a108f391\n",
    "a3cb87c35426582edb3f42634865f452\n",
    "2104946dfc50985b064e035140317978\n",
    "81d8c26a6782f18a8266afdd113b4586\n",
    "e8e462203c0ef32375d5a448c1d595d6\n",
    "11b554b3831dc7d8c32d084f2533f1a3\n",
    "8e97e9991d6860a76c23deda7bc523b4\n",
    "-----END OpenVPN Static key V1-----\n",
);

/// `openvpn --genkey tls-crypt-v2-server`
#[rustfmt::skip]
const SERVER_KEY: &str = concat!(
    "-----BEGIN OpenVPN tls-crypt-v2 server key-----\n",
    "v7rB0nrGx/WSyGqIhbmwiYWXgz7KeSMLulxIBMgMpXupNOWxehuPuPINSIJQrq1H\n",
    "+tDN5JOwUkiffNTZ2OgYmBiFRgRFraVHolNbtt8t/JmsfybDMbmezJuV2baxpcpy\n",
    "sEpmU6kIX1018mlQ/iCL62YQRurCalE2v0Vglj4QeJI=\n",
    "-----END OpenVPN tls-crypt-v2 server key-----\n",
);

/// `openvpn --tls-crypt-v2 … --genkey tls-crypt-v2-client`
#[rustfmt::skip]
const CLIENT_KEY: &str = concat!(
    "-----BEGIN OpenVPN tls-crypt-v2 client key-----\n",
    "ux9RWK2oHc/DHbSO+HXmxf5PJNjRY3xVAEP2XlvOeiM9w/igl6xDdcrA27c2y8WE\n",
    "63MiN6a6Qd1p4xgW95HZtcY+0vDagWDNVUNp6Lu8njCrkynhY7uake1teSqLTaEY\n",
    "LliXPWdeSLEnfpX+d5HC2Hzy77WAcT2K+97DBJVqD/qXMQ9Me9i9ZqJeYNA1lehD\n",
    "2hcvcOZ7eNbqBTD5L3whpFhydx0GOi1CS/c2l/MSkn2SaBjyB++0PHC7Qkv/VOgm\n",
    "oCAh2Nc9S7ni3pXV0Z7QdMoUamwpH7MxIC2k94DNCtDjSASq4rlKiFBRgJUTewS1\n",
    "1LUL8z55FqkK9kVUwt+ONJkusCR1vtNH4VWb0o903bU2XKpGTg/a4ELi26ooGub1\n",
    "Gw+0utGLggv6KaDf+ialHerZL1LvC82v4cXt77kelCxuNKlIq0h3pdGgD5+oV13N\n",
    "qcFRE6bnVLIqL82p2eWpyaNupZk1P7m87H0CitnbYMivKOxVLRox2kGxyifP2IL9\n",
    "axRHDZMJlZ5gAzcbhcZIS8l2TIsLv5RaJRg4MO9k8V6VEnkjgRzfm1q41ye2AnA3\n",
    "wlyYP6/o5dtmZznhgEHfGY1FISvpzh/lNbVLINfOYNZ+fRTo1xHNuLeqNTkXW2ff\n",
    "Id7HQcX79gRSn2O5N74R34XDbTs3pbScbHKfD41oOAgy19IgRM3LB31KI2+HDdku\n",
    "LbBl5nLJjD5o4NUX1KiLWX2U2IVtXnn4SAEr\n",
    "-----END OpenVPN tls-crypt-v2 client key-----\n",
);

/// The same with `device 7` as metadata.
#[rustfmt::skip]
const CLIENT_KEY_OF_A_DEVICE: &str = concat!(
    "-----BEGIN OpenVPN tls-crypt-v2 client key-----\n",
    "2eKrbny+W7xC7+Y9ryilFOhEv7dOKFWIThdvPxy6fGP9JDpNkNcsZaqhIL36yto1\n",
    "7hgCZ6wAxzAJ93JfqPIQ+OcYD7ZEjYyJxtcy2pe32WxQvimxvz6WINYLqwjG0FTA\n",
    "vUUcd/9SAUb46zjkRo9t80CJM4HWvKQMJErFnhQFDZUVbSe5hQMzpoulVXkS1IZ+\n",
    "mqH1gFOm4aNtZE60zVaAYcjcOrtnL3Dggr/oU3GzMDZicDG1qWiZF5zxYYskd48i\n",
    "Yj9OL+qbBR2VgJHPilx6MtK4fJLwD6Rlx2B1M+Evf7Ch31fh05/iV6yJ3FNhgh4m\n",
    "BMtNVgAAGDpwx+Jm4l4cKccuv7WiF6v6/4P3XyV5mcFJgU3IIHJTI8JZQajrutrJ\n",
    "7bUmkMHlBhysQCRQeDJw00ACH4ZRnFVUu0FBAE9H9PAgUhJioqXeWXcqX7YD1Bcw\n",
    "kQrv6wkOxhFe3kIQlYuyeaMLzhTcovwysneFO9WTnLVidwwC48wB4Fso25fQeAaA\n",
    "RANRAcd3eY/qVXdQt1pkAfRBaB+0Yoje7GT99RQ9gyTxDLcYVScjQrKxIfT2YnfT\n",
    "FrVu1vHl2CKnfNh5ByDpWyZGlyrSpEoue6tqS0OzHA26LUsJS1WzCpHMuBmkJz5f\n",
    "b/zwRG8t545rvnOryONTaPL5869xpESTD5jgAyC6asoxJDp+MaDyKM6D3edBJ4vr\n",
    "wJTXrT27q0E83tr6BpLaaS/tGRirqtyVJQEr\n",
    "-----END OpenVPN tls-crypt-v2 client key-----\n",
);

const CRYPT_V2: &str = include_str!("vectors/crypt_v2.txt");

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn key() -> StaticKey {
    StaticKey::parse(STATIC_KEY).unwrap()
}

fn own_key() -> ClientKey {
    ClientKey::parse(CLIENT_KEY).unwrap()
}

/// Each recording, with the keys of the server and those of the client.
fn recordings() -> [(&'static str, Keys, Keys); 5] {
    let auth = |digest, direction| Keys::Auth(tls_auth::Keys::new(digest, &key(), direction));
    let crypt = |key: &StaticKey, role| Keys::Crypt(tls_crypt::Keys::new(key, role));
    let own = own_key().key;
    [
        (include_str!("vectors/plain.txt"), Keys::Plain, Keys::Plain),
        (
            include_str!("vectors/auth.txt"),
            auth(Digest::Sha1, Direction::Normal),
            auth(Digest::Sha1, Direction::Inverse),
        ),
        (
            include_str!("vectors/auth_sha512.txt"),
            auth(Digest::Sha512, Direction::Both),
            auth(Digest::Sha512, Direction::Both),
        ),
        (include_str!("vectors/crypt.txt"), crypt(&key(), Role::Server), crypt(&key(), Role::Client)),
        (CRYPT_V2, crypt(&own, Role::Server), crypt(&own, Role::Client)),
    ]
}

fn packets(recording: &str) -> impl Iterator<Item = (Role, Vec<u8>)> {
    recording.lines().map(|line| {
        let (sender, hex) = line.split_once(' ').unwrap();
        let sender = if sender == "C" { Role::Client } else { Role::Server };
        (sender, self::hex(hex))
    })
}

fn is_data(datagram: &[u8]) -> bool {
    Head::parse(datagram).is_ok_and(|head| head.opcode == Opcode::DataV2)
}

#[test]
fn every_control_packet_is_opened_and_made_again() {
    for (recording, server, client) in recordings() {
        for (sender, datagram) in packets(recording).filter(|(_, datagram)| !is_data(datagram)) {
            let (sender, receiver) = match sender {
                Role::Client => (&client, &server),
                Role::Server => (&server, &client),
            };
            let (rest, wrapped) = split_wrapped(&datagram).unwrap();
            let (packet, stamp) = receiver.open::<Aws>(rest).unwrap();
            let again = sender.seal::<Aws>(stamp.unwrap_or(Stamp { time: 0, count: 1 }), &packet).unwrap();
            assert_eq!([&again[..], wrapped].concat(), datagram);
        }
    }
}

/// One end's view of what the other one sends.
struct Listener {
    wrapping: Wrapping,
    reliability: Reliability,
    /// Messages in order.
    kinds: Vec<Kind>,
    stream: Vec<u8>,
}

impl Listener {
    fn new(keys: Keys) -> Self {
        let wrapping = Wrapping::new(keys, Stamp { time: 0, count: 1 });
        Self { wrapping, reliability: Reliability::new(0), kinds: Vec::new(), stream: Vec::new() }
    }

    fn hear(&mut self, datagram: &[u8]) -> Packet {
        let (rest, _) = split_wrapped(datagram).unwrap();
        let packet = self.wrapping.open::<Aws>(rest).unwrap();
        let taken = self.reliability.handle_packet(packet.clone());
        assert!(matches!(taken, Ok(()) | Err(DropReason::Replayed)), "{taken:?}");
        while let Some(message) = self.reliability.poll_message() {
            self.kinds.push(message.kind);
            if matches!(message.kind, Kind::Control | Kind::ControlWithKey) {
                self.stream.extend(message.payload);
            }
        }
        packet
    }
}

#[test]
fn sessions_are_followed_from_the_resets_to_data() {
    for (recording, server, client) in recordings() {
        let (mut server, mut client) = (Listener::new(server), Listener::new(client));
        let (mut of_client, mut of_server) = (None, None);
        let mut data = 0;
        for (sender, datagram) in packets(recording) {
            if is_data(&datagram) {
                assert_eq!(Preface::parse(&datagram), Ok(Preface { key: KeyId::FIRST, peer_id: 0 }));
                data += 1;
                continue;
            }
            let (listener, own, peer) = match sender {
                Role::Client => (&mut server, &mut of_client, of_server),
                Role::Server => (&mut client, &mut of_server, of_client),
            };
            let packet = listener.hear(&datagram);
            assert_eq!(packet.session, *own.get_or_insert(packet.session), "an end keeps its session id");
            let receiver = packet.acks.as_ref().map(Acks::receiver);
            assert!(receiver.is_none() || receiver == peer, "and names the other's");
        }
        assert!(matches!(server.kinds[0], Kind::ResetClient | Kind::ResetClientWithKey));
        assert_eq!(client.kinds[0], Kind::ResetServer);
        // Both begin with a handshake of TLS and end with sealed records, which a byte out of place would break off.
        for stream in [&server.stream, &client.stream] {
            assert_eq!(stream[0], 22);
            assert_eq!(records(stream).last(), Some(&23));
        }
        assert!(data > 0, "and then there is data");
    }
}

/// The types of the records of TLS that a stream consists of.
fn records(mut stream: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    while let [kind, 3, _, l0, l1, rest @ ..] = stream {
        types.push(*kind);
        stream = &rest[usize::from(u16::from_be_bytes([*l0, *l1]))..];
    }
    assert!(stream.is_empty(), "nothing is left over");
    types
}

#[test]
fn client_with_a_key_of_its_own_brings_it_along() {
    let with_key: Vec<_> = packets(CRYPT_V2).filter(|(_, datagram)| matches!(datagram[0], 0x50 | 0x58)).collect();
    assert_eq!(with_key.len(), 2, "the reset, and the first message of TLS, as the server asks for it again");
    let (_, answer) = packets(CRYPT_V2).nth(1).unwrap();
    let [.., (_, _, client)] = recordings();
    let (answer, _) = client.open::<Aws>(&answer).unwrap();
    assert!(early::asks_for_key(&answer.message.unwrap().payload));
    let own = own_key();
    for (_, datagram) in &with_key {
        let (rest, wrapped) = split_wrapped(datagram).unwrap();
        let (key, metadata) = ServerKey::parse(SERVER_KEY).unwrap().unwrap::<Aws>(wrapped).unwrap();
        assert!(metadata.made_at().is_some());
        assert_eq!((key.bytes(), wrapped), (own.key.bytes(), &own.wrapped[..]));
        let server = Keys::Crypt(tls_crypt::Keys::new(&key, Role::Server));
        let (packet, stamp) = server.open::<Aws>(rest).unwrap();
        assert!(stamp.is_some_and(|stamp| early::is_understood(stamp.count)));
        let keys = tls_crypt::Keys::new(&own.key, Role::Client);
        let mut client = Wrapping::with_wrapped_key(keys, own.wrapped.clone(), stamp.unwrap());
        assert_eq!(client.seal::<Aws>(&packet).as_ref(), Ok(datagram));
    }
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

/// Keys that a client has told in its log, and what it sealed and opened with them.
struct Data {
    sender: Role,
    key: &'static str,
    iv: &'static str,
    datagrams: &'static [&'static str],
}

const DATA: [Data; 2] = [
    Data {
        sender: Role::Client,
        key: "ff5080fb823ffe81917a7e83cd93ba763eda4e0b158f9becf390dbb74f69744b",
        iv: "6c2870fc594652fb",
        datagrams: &[
            "4800000000000001e02e4b2f168c1ad5f87fe9349a6b26e538f43fdd7b2921005659fc41412fd43e",
            "4800000000000002d2bb4f105a26d39e94a0f484463b67e33069d05e1640aa1e295dbb7a186ff30c",
            "4800000000000003b9304cdc2416e72090e78358f207b267444a1b009ad1ddc99e8dad9ccba335b5",
        ],
    },
    Data {
        sender: Role::Server,
        key: "cf959f5da9ab6c394bfd8a7cd4394c001459c9913bde6df254a0b24600099337",
        iv: "5ce71473491eb627",
        datagrams: &[concat!(
            "48000000000000019c17fb0000c62ac79193b12d07f461e129ac77a2bba2e3b3f06fe235cccc0e97",
            "58d6491ed1dc4290dc95ae7d110af5f7bf085943d18cf4d7a4346a6fffbff3c8"
        )],
    },
];

#[test]
fn data_of_both_ends_is_opened_and_made_again() {
    for Data { sender, key, iv, datagrams } in DATA {
        let (cipher, mac) = match sender {
            Role::Client => (0, 64),
            Role::Server => (128, 192),
        };
        let mut exported = [0; EXPORTED_LEN];
        exported[cipher..][..32].copy_from_slice(&hex(key));
        exported[mac..][..8].copy_from_slice(&hex(iv));
        let keys = || Exported::new(exported).v2(Suite::Aes256Gcm, sender);
        let mut inbound = Inbound::<AwsCipher>::v2(keys(), KeyId::FIRST).unwrap();
        let outbound = Outbound::<AwsCipher>::new(keys(), KeyId::FIRST, 0).unwrap();
        for datagram in datagrams {
            let mut opened = hex(datagram);
            let range = inbound.open(&mut opened).unwrap().range;
            let plaintext = opened.get(range).unwrap();
            let content = if sender == Role::Client { Content::Ping } else { Content::Packet };
            assert_eq!(Content::of(plaintext), content);
            assert!(content == Content::Ping || plaintext[0] >> 4 == 6);
            assert_eq!(outbound.datagram(plaintext), Ok(hex(datagram)));
        }
    }
}

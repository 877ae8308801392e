use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::dtls::suite::CipherSuite;

/// The hello of OpenConnect 9 by GnuTLS 3.7, without the session id that it got.
const GNUTLS: &str = "fefd475b2cdae31b796e4207893335b9d6494b0d0ba035d361a7d29eeafff572999c0014659f2c873687be71bed9b63356\
                      6b417784b11b95000200a90100003e000500050100000000000d00220020040108090804040308070501080a080505\
                      0308080601080b080606030201020300230000ff01000100001c00024000";

fn hello() -> Vec<u8> {
    let beginning = HelloBeginning { random: [7; RANDOM_LEN], session_id: &[1; 32], cookie: &[2; 20] };
    ClientHello::encode(&beginning, CipherSuite::PSK.into_iter().map(CipherSuite::code))
}

/// A hello with these extensions instead of ours.
fn hello_with(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = hello();
    body.truncate(body.len() - 7);
    let mut list = Vec::new();
    for (kind, value) in extensions {
        list.extend(kind.to_be_bytes());
        put_vector(&mut list, value);
    }
    put_vector(&mut body, &list);
    body
}

#[test]
fn hello_of_a_stranger_is_read() {
    let body = HEXLOWER.decode(GNUTLS.as_bytes()).unwrap();
    let hello = ClientHello::parse(&body).unwrap();
    assert_eq!((hello.beginning.session_id.len(), hello.beginning.cookie.len()), (0, 20));
    assert_eq!(hello.suites().collect::<Vec<_>>(), [0xa9]);
    assert!(hello.names_renegotiation && hello.app_id.is_none());
}

#[test]
fn our_hello_round_trips_and_is_as_long_as_old_gateways_want_it() {
    let body = hello();
    let hello = ClientHello::parse(&body).unwrap();
    assert_eq!(hello.beginning.session_id, [1; 32]);
    assert_eq!(hello.session(), [1; 32]);
    assert_eq!(hello.suites().collect::<Vec<_>>(), [0xa9, 0xccab, 0xa8]);
    assert!(hello.names_renegotiation);
    assert!(body.len() - 20 + 25 >= 93, "ocserv drops shorter datagrams");
}

#[test]
fn session_of_an_old_client_is_in_its_extension() {
    let body = hello_with(&[(APP_ID, &[3, 7, 8, 9])]);
    assert_eq!(ClientHello::parse(&body).unwrap().session(), [7, 8, 9]);
    for value in [&[][..], &[0], &[3, 7, 8], &[2, 7, 8, 9]] {
        assert_eq!(ClientHello::parse(&hello_with(&[(APP_ID, value)])), None, "{value:?}");
    }
}

#[test]
fn hello_cut_short_anywhere_is_refused() {
    let body = hello();
    for len in 0..body.len() {
        // Without any extension it is whole again.
        assert_eq!(ClientHello::parse(&body[..len]).is_some(), len == body.len() - 7, "{len}");
    }
    assert_eq!(ClientHello::parse(&[&body[..], &[0]].concat()), None);
}

#[test]
fn hello_that_begins_a_renegotiation_or_repeats_an_extension_is_refused() {
    assert!(ClientHello::parse(&hello_with(&[(RENEGOTIATION_INFO, &[0])])).is_some());
    assert_eq!(ClientHello::parse(&hello_with(&[(RENEGOTIATION_INFO, &[12; 13])])), None);
    assert_eq!(ClientHello::parse(&hello_with(&[(5, &[1]), (5, &[1])])), None);
}

#[test]
fn client_of_another_version_is_refused() {
    for (version, is_read) in [(0xfefd, true), (0xfefc, true), (0xfeff, false), (0x0303, false), (0x0100, false)] {
        let mut body = hello();
        body[..2].copy_from_slice(&u16::to_be_bytes(version));
        assert_eq!(HelloBeginning::parse(&body).is_some(), is_read, "{version:#x}");
    }
}

#[test]
fn hello_without_suites_or_with_half_a_one_is_refused() {
    let suites_at = 2 + RANDOM_LEN + 33 + 21;
    for len in [0, 5, 7] {
        let mut body = hello();
        body.splice(suites_at..suites_at + 8, [0, len].into_iter().chain(std::iter::repeat_n(0xa8, len.into())));
        assert_eq!(ClientHello::parse(&body), None, "{len}");
    }
}

#[test]
fn server_hello_round_trips_and_must_not_have_what_was_not_asked_for() {
    for names_renegotiation in [false, true] {
        let hello = ServerHello { random: [9; RANDOM_LEN], session_id: &[4; 32], suite: 0xa9, names_renegotiation };
        let body = hello.encode();
        assert_eq!(ServerHello::parse(&body), Some(hello));
        for len in 0..body.len() {
            let is_whole = names_renegotiation && len == body.len() - 7;
            assert_eq!(ServerHello::parse(&body[..len]).is_some(), is_whole, "{len}");
        }
    }
    let plain = ServerHello { random: [9; RANDOM_LEN], session_id: &[], suite: 0xa9, names_renegotiation: false };
    // Extended master secret, which our hello does not offer.
    let unasked = [&plain.encode()[..], &[0, 4, 0, 0x17, 0, 0]].concat();
    assert_eq!(ServerHello::parse(&unasked), None);
    let mut compressed = plain.encode();
    *compressed.last_mut().unwrap() = 1;
    assert_eq!(ServerHello::parse(&compressed), None);
}

#[test]
fn small_bodies_are_exact() {
    assert_eq!(verify_request(&encode_verify_request(&[5; 20])), Some(&[5; 20][..]));
    assert_eq!(identity(&encode_client_key_exchange(b"psk")), Some(&b"psk"[..]));
    for body in [&[][..], &[0, 4, b'p', b's', b'k'], &[0, 2, b'p', b's', b'k'], &[0]] {
        assert_eq!(identity(body), None);
    }
    assert_eq!(identity(&encode_client_key_exchange(&[7; MAX_IDENTITY + 1])), None);
    assert_eq!(verify_request(&[0xfe, 0xff, 2, 1]), None);
}

#[test]
fn fragment_beyond_its_message_or_of_an_unknown_kind_is_refused() {
    let fragment = Fragment { kind: Kind::ClientHello, length: 10, number: 3, offset: 4, part: &[1; 6] };
    let encoded = fragment.encode();
    assert_eq!(Fragment::split_first(&[&encoded[..], &[1]].concat()), Some((fragment, &[1][..])));
    for (place, byte) in [(0, 99), (3, 9), (8, 5), (11, 7), (1, 1), (6, 0xff)] {
        let mut wrong = encoded.clone();
        wrong[place] = byte;
        assert_eq!(Fragment::split_first(&wrong), None, "{place}");
    }
    let huge = Fragment { length: MAX_MESSAGE + 1, ..fragment };
    assert_eq!(Fragment::split_first(&huge.encode()), None);
}

proptest! {
    #[test]
    fn no_parser_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        ClientHello::parse(&body);
        ServerHello::parse(&body);
        Fragment::split_first(&body);
        verify_request(&body);
        identity(&body);
    }
}

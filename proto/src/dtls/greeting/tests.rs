use super::*;
use crate::dtls::message::MAX_MESSAGE;
use crate::dtls::suite::CipherSuite;
use crate::sealing::test_cipher::start;

fn home() -> SocketAddr {
    "198.51.100.7:40000".parse().unwrap()
}

fn body(session_id: &[u8], cookie: &[u8]) -> Vec<u8> {
    let beginning = HelloBeginning { random: [7; RANDOM_LEN], session_id, cookie };
    ClientHello::encode(&beginning, CipherSuite::PSK.into_iter().map(CipherSuite::code))
}

fn datagram(sequence: u64, fragment: &Fragment<'_>) -> Vec<u8> {
    plain(ContentType::Handshake, DTLS_1_0, sequence, &fragment.encode())
}

fn hello(number: u16, cookie: &[u8]) -> Vec<u8> {
    let body = body(&[1; 32], cookie);
    datagram(number.into(), &Fragment { kind: Kind::ClientHello, length: body.len(), number, offset: 0, part: &body })
}

/// The cookie that comes back for a first hello.
fn asked(greeter: &Greeter, now: Instant) -> Vec<u8> {
    let Ok(Greeting::Ask(answer)) = greeter.greet(&hello(0, &[]), home(), now) else { panic!("no question") };
    answer[answer.len() - COOKIE_LEN..].to_vec()
}

fn is_proven(greeting: &Result<Greeting, DropReason>) -> bool {
    matches!(greeting, Ok(Greeting::Proven(_)))
}

#[test]
fn who_brings_the_cookie_back_is_proven_and_named() {
    let (now, greeter) = (start(), Greeter::new([3; 32], start()));
    let cookie = asked(&greeter, now);
    let greeting = greeter.greet(&hello(1, &cookie), home(), now);
    let introduction = Introduction { session: vec![1; 32], random: [7; RANDOM_LEN], number: 1, sequence: 1 };
    assert_eq!(greeting, Ok(Greeting::Proven(introduction)));
}

#[test]
fn cookie_is_worth_nothing_to_others() {
    let now = start();
    let greeter = Greeter::new([3; 32], now);
    let cookie = asked(&greeter, now);
    assert!(is_proven(&greeter.greet(&hello(1, &cookie), home(), now)), "the control");
    for other in ["198.51.100.7:40001", "198.51.100.8:40000", "[2001:db8::7]:40000"] {
        assert!(!is_proven(&greeter.greet(&hello(1, &cookie), other.parse().unwrap(), now)), "{other}");
    }
    assert!(!is_proven(&Greeter::new([4; 32], now).greet(&hello(1, &cookie), home(), now)), "another gateway");
    for byte in 0..COOKIE_LEN {
        let mut changed = cookie.clone();
        changed[byte] ^= 1;
        assert!(!is_proven(&greeter.greet(&hello(1, &changed), home(), now)));
    }
    for len in 0..COOKIE_LEN {
        assert!(!is_proven(&greeter.greet(&hello(1, &cookie[..len]), home(), now)));
    }
    assert!(!is_proven(&greeter.greet(&hello(1, &[9; 255]), home(), now)), "the longest cookie there is");
    let other_session = body(&[2; 32], &cookie);
    let part = &other_session[..];
    let other_session = Fragment { kind: Kind::ClientHello, length: part.len(), number: 1, offset: 0, part };
    assert!(!is_proven(&greeter.greet(&datagram(1, &other_session), home(), now)));
}

#[test]
fn cookie_is_good_for_two_periods_at_most() {
    let now = start();
    let greeter = Greeter::new([3; 32], now);
    for begin in [Duration::ZERO, PERIOD - Duration::from_secs(1), 1000 * PERIOD] {
        let made = now + begin;
        let cookie = asked(&greeter, made);
        assert!(is_proven(&greeter.greet(&hello(1, &cookie), home(), made + PERIOD - Duration::from_secs(1))));
        for later in [2 * PERIOD, 256 * PERIOD, 257 * PERIOD] {
            assert!(!is_proven(&greeter.greet(&hello(1, &cookie), home(), made + later)), "{later:?}");
        }
    }
}

#[test]
fn answer_is_shorter_than_what_it_answers_and_repeats_its_numbers() {
    let now = start();
    let greeter = Greeter::new([3; 32], now);
    let first = hello(2, &[]);
    let Ok(Greeting::Ask(answer)) = greeter.greet(&first, home(), now) else { panic!("no question") };
    assert!(answer.len() < first.len());
    let header = Header::parse(&answer).unwrap();
    assert_eq!((header.sequence, header.version), (2, DTLS_1_0));
    let (fragment, _) = Fragment::split_first(&answer[HEADER_LEN..]).unwrap();
    assert_eq!((fragment.kind, fragment.number), (Kind::HelloVerifyRequest, 2));
    // The shortest beginning of all: no session id, no cookie, and nothing behind.
    let beginning = [&[0xfe, 0xfd][..], &[7; RANDOM_LEN], &[0, 0]].concat();
    let short = Fragment { kind: Kind::ClientHello, length: 100, number: 0, offset: 0, part: &beginning };
    let short = datagram(0, &short);
    let Ok(Greeting::Ask(answer)) = greeter.greet(&short, home(), now) else { panic!("no question") };
    assert!(answer.len() <= short.len(), "nobody can be made to send more than he was sent");
}

#[test]
fn first_fragment_of_a_hello_is_enough() {
    let now = start();
    let greeter = Greeter::new([3; 32], now);
    let cookie = asked(&greeter, now);
    let whole = body(&[1; 32], &cookie);
    let length = whole.len();
    let needed = 2 + RANDOM_LEN + 33 + 21;
    for cut in 0..length {
        let part = &whole[..cut];
        let first = Fragment { kind: Kind::ClientHello, length, number: 1, offset: 0, part };
        assert_eq!(is_proven(&greeter.greet(&datagram(1, &first), home(), now)), cut >= needed, "{cut}");
        let later = Fragment { offset: 1, part: &whole[1..cut.max(1)], ..first };
        assert!(greeter.greet(&datagram(1, &later), home(), now).is_err());
    }
}

#[test]
fn whatever_is_no_hello_is_dropped_in_silence() {
    let now = start();
    let greeter = Greeter::new([3; 32], now);
    let first = hello(0, &[]);
    for len in 0..first.len() {
        assert!(greeter.greet(&first[..len], home(), now).is_err());
    }
    // Another type, version, epoch, message or offset; and numbers near their end.
    for (place, byte) in [(0, 23), (1, 3), (4, 1), (13, 2), (13, 16), (21, 1), (17, 1)] {
        let mut other = first.clone();
        other[place] = byte;
        assert!(greeter.greet(&other, home(), now).is_err(), "{place}");
    }
    let part = body(&[1; 32], &[]);
    let fragment = Fragment { kind: Kind::ClientHello, length: part.len(), number: 0, offset: 0, part: &part };
    assert!(greeter.greet(&datagram(LAST_SEQUENCE - ROOM, &fragment), home(), now).is_ok(), "the control");
    assert_eq!(greeter.greet(&datagram(LAST_SEQUENCE, &fragment), home(), now), Err(DropReason::BadRecord));
    let far = Fragment { number: LAST_HELLO + 1, ..fragment };
    assert_eq!(greeter.greet(&datagram(0, &far), home(), now), Err(DropReason::BadRecord));
    let huge = Fragment { length: MAX_MESSAGE + 1, ..fragment };
    assert_eq!(greeter.greet(&datagram(0, &huge), home(), now), Err(DropReason::BadRecord));
}

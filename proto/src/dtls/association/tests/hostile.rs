//! What attackers send, and what their place in the path lets them change.

use super::*;
use crate::dtls::message::{HelloBeginning, Message, ServerHello, encode_verify_request};
use crate::dtls::record::{DTLS_1_0, Header, LAST_SEQUENCE};

/// A handshake message as a record holds it.
fn message(kind: Kind, number: u16, body: &[u8]) -> Vec<u8> {
    Message { epoch: 0, kind, number, body: body.to_vec() }.encode()
}

#[test]
fn garbage_between_the_flights_does_not_hinder_a_handshake() {
    for plan in plans() {
        let mut world = World::new(plan);
        for round in 0..200_usize {
            world.run(ms(1));
            let (by, _, mut datagram) = world.sent[round % world.sent.len()].clone();
            // Cut, of another epoch, of another type, or nothing at all.
            match round % 4 {
                0 => datagram.truncate(round % datagram.len()),
                1 => datagram[4] ^= 0x40,
                2 => datagram[0] = u8::try_from(round).unwrap() | 0x80,
                _ => datagram = vec![0x16; round % 30],
            }
            match by {
                Role::Client => world.inject_to_server(&datagram),
                Role::Server => world.inject_to_client(&datagram),
            }
        }
        assert_eq!(world.is_established(), [true; 2]);
        assert!(world.dropped.len() > 50);
    }
}

#[test]
fn none_of_100_000_replayed_datagrams_brings_data_or_ends_anything() {
    let mut world = World::established(Plan::psk(CipherSuite::PskAes256Gcm));
    for number in 0..40_u8 {
        say(&mut world, Role::Client, &[number; 100]);
        say(&mut world, Role::Server, &[number; 100]);
    }
    assert_eq!((world.client_events.len(), world.server_events.len()), (40, 40), "each came once");
    let recorded: Vec<_> = world.sent.drain(..).collect();
    for (by, _, datagram) in recorded.iter().cycle().take(100_000) {
        match by {
            Role::Client => world.inject_to_server(datagram),
            Role::Server => world.inject_to_client(datagram),
        }
        // What the greeter asks is of no interest here.
        world.sent.clear();
    }
    assert_eq!((world.client_events.len(), world.server_events.len()), (40, 40));
    say(&mut world, Role::Client, b"still there");
    assert_eq!(world.server_events.pop(), Some(Event::Data(b"still there".to_vec())));
}

#[test]
fn reflected_datagrams_are_not_opened() {
    let mut world = World::established(Plan::psk(CipherSuite::PskAes256Gcm));
    let sent = say(&mut world, Role::Client, b"to the gateway");
    world.inject_to_client(&sent);
    assert_eq!(world.dropped.pop(), Some(DropReason::AuthenticationFailed), "each direction has a key of its own");
    assert_eq!(world.client_events, []);
}

#[test]
fn alert_in_the_clear_ends_nothing() {
    let mut world = World::new(Plan::psk(CipherSuite::PskAes256Gcm));
    for alert in [Alert::CLOSE, Refusal::Unexpected.alert()] {
        let datagram = plain(ContentType::Alert, DTLS_1_2, 99, &alert.encode());
        for _ in 0..15 {
            world.run(ms(10));
            world.inject_to_client(&datagram);
            world.inject_to_server(&datagram);
        }
    }
    assert_eq!(world.client_events, [Event::Established]);
    assert_eq!(world.server_events, [Event::Established]);
    let outbound = world.client.outbound().unwrap().clone();
    let fatal = outbound.record(ContentType::Alert, &Refusal::Unexpected.alert().encode()).unwrap();
    world.inject_to_server(&fatal);
    assert_eq!(world.server_events.pop(), Some(Event::Closed(Ending::Alerted(10))), "the control");
}

#[test]
fn finished_in_the_clear_is_not_taken() {
    let mut world = World::new(Plan::psk(CipherSuite::PskAes256Gcm));
    world.tamper = |by, number, datagram| (by == Role::Server || number < 2).then_some(datagram);
    world.run(ms(100));
    let forged = plain(ContentType::Handshake, DTLS_1_2, 50, &message(Kind::Finished, 3, &[0; 12]));
    world.inject_to_server(&forged);
    world.inject_to_client(&forged);
    assert_eq!(world.dropped, [DropReason::UnknownEpoch; 2]);
    assert_eq!(world.is_established(), [false; 2]);
}

#[test]
fn renegotiation_is_declined_and_the_association_goes_on() {
    let mut world = World::established(Plan::psk(CipherSuite::PskAes256Gcm));
    let hello = message(Kind::ClientHello, 0, &[0xfe; 60]);
    let renegotiation = world.client.outbound().unwrap().record(ContentType::Handshake, &hello).unwrap();
    world.transmit(Role::Client, renegotiation);
    let request = message(Kind::HelloRequest, 0, &[]);
    let request = world.server().outbound().unwrap().record(ContentType::Handshake, &request).unwrap();
    world.transmit(Role::Server, request);
    let sent = world.sent.len();
    world.run(ms(100));
    let answers: Vec<_> = world.sent[sent..].iter().map(|(_, _, datagram)| datagram[0]).collect();
    assert_eq!(answers, [ContentType::Alert.code(); 2]);
    assert_eq!((&world.client_events[..], &world.server_events[..]), (&[][..], &[][..]));
    say(&mut world, Role::Client, b"still there");
    assert_eq!(world.server_events, [Event::Data(b"still there".to_vec())]);
}

#[test]
fn suite_that_somebody_on_the_way_struck_out_is_noticed() {
    let mut world = World::new(Plan::new(psk(&CipherSuite::PSK), psk(&CipherSuite::PSK)));
    world.tamper = |by, number, mut datagram| {
        if (by, number) == (Role::Client, 1) {
            let strong = CipherSuite::PskAes256Gcm.code().to_be_bytes();
            let at = datagram.windows(2).rposition(|pair| pair == strong).unwrap();
            datagram[at..at + 2].copy_from_slice(&[0x13, 0x37]);
        }
        Some(datagram)
    };
    world.run(ms(200));
    assert_eq!(world.server_events, [Event::Closed(Ending::Refused(Refusal::Changed))]);
    assert_eq!(world.client_events, [Event::Closed(Ending::Alerted(51))]);
}

#[test]
fn server_hello_for_another_suite_or_with_what_was_not_asked_is_refused() {
    let plain_hello = ServerHello { random: [1; 32], session_id: &[], suite: 0xa9, names_renegotiation: false };
    let extended = [&plain_hello.encode()[..], &[0, 4, 0, 0x17, 0, 0]].concat();
    let weaker = ServerHello { suite: CipherSuite::PskAes128Gcm.code(), ..plain_hello.clone() }.encode();
    let same_session = ServerHello { session_id: &world::SESSION, ..plain_hello }.encode();
    for (body, refusal) in
        [(extended, Refusal::Malformed), (weaker, Refusal::NotOffered), (same_session, Refusal::NotOffered)]
    {
        let suites = [CipherSuite::PskAes256Gcm];
        let mut world = World::new(Plan::new(psk(&suites), psk(&suites)));
        world.inject_to_client(&plain(ContentType::Handshake, DTLS_1_2, 0, &message(Kind::ServerHello, 0, &body)));
        assert_eq!(world.client_events, [Event::Closed(Ending::Refused(refusal))]);
    }
}

#[test]
fn answer_with_a_session_id_of_its_own_is_no_resumption() {
    let mut world = World::new(Plan::psk(CipherSuite::PskAes256Gcm));
    world.tamper = |_, _, _| None;
    let hello = ServerHello { random: [1; 32], session_id: &[9; 32], suite: 0xa9, names_renegotiation: true };
    for (number, kind, body) in [(0, Kind::ServerHello, hello.encode()), (1, Kind::ServerHelloDone, Vec::new())] {
        let flight = plain(ContentType::Handshake, DTLS_1_2, number.into(), &message(kind, number, &body));
        world.inject_to_client(&flight);
    }
    assert_eq!((&world.client_events[..], &world.dropped[..]), (&[][..], &[][..]));
    let answer = world.sent_by(Role::Client).pop().unwrap();
    assert_eq!(answer[HEADER_LEN], Kind::ClientKeyExchange.code(), "it goes on with keys of its own");
}

#[test]
fn gateway_that_asks_for_cookies_without_end_gets_one_hello_for_each_and_is_given_up() {
    let mut world = World::new(Plan::psk(CipherSuite::PskAes256Gcm));
    world.tamper = |_, _, _| None;
    for number in 0..1000_u16 {
        let request = message(Kind::HelloVerifyRequest, number, &encode_verify_request(&[7; 255]));
        world.inject_to_client(&plain(ContentType::Handshake, DTLS_1_0, number.into(), &request));
    }
    let hellos = world.sent_by(Role::Client);
    assert!(hellos.len() == 1001 && hellos.iter().all(|hello| hello.len() < 400), "{}", hellos.len());
    world.run(2 * PATIENCE);
    assert_eq!(world.client_events, [Event::Closed(Ending::Silence)]);
}

#[test]
fn messages_out_of_turn_are_refused() {
    for kind in [Kind::ServerHelloDone, Kind::ServerKeyExchange, Kind::ClientHello, Kind::NewSessionTicket] {
        let mut world = World::new(Plan::psk(CipherSuite::PskAes256Gcm));
        world.inject_to_client(&plain(ContentType::Handshake, DTLS_1_2, 0, &message(kind, 0, &[])));
        assert_eq!(world.client_events, [Event::Closed(Ending::Refused(Refusal::Unexpected))]);
    }
}

#[test]
fn hello_of_somebody_else_than_was_introduced_is_refused() {
    let introduction = Introduction {
        session: world::SESSION.to_vec(),
        random: [1; 32],
        number: 16,
        sequence: LAST_SEQUENCE - (1 << 16),
    };
    for (random, is_taken) in [([1; 32], true), ([2; 32], false)] {
        let setup = world::setup(psk(&CipherSuite::PSK), 2);
        let mut server = world::End::server(setup, &introduction, crate::sealing::test_cipher::start());
        let beginning = HelloBeginning { random, session_id: &world::SESSION, cookie: &[0; 20] };
        let body = crate::dtls::message::ClientHello::encode(&beginning, [0xa9].into_iter());
        let mut datagram = plain(ContentType::Handshake, DTLS_1_2, 7, &message(Kind::ClientHello, 16, &body));
        server.handle_datagram(&mut datagram, crate::sealing::test_cipher::start()).unwrap();
        let answer = server.poll_transmit().unwrap();
        let header = Header::parse(&answer).unwrap();
        assert_eq!(header.content == ContentType::Handshake, is_taken);
        assert_eq!(header.sequence, introduction.sequence, "numbers near their end do not wrap");
        assert_eq!(server.poll_event().is_some(), !is_taken);
    }
}

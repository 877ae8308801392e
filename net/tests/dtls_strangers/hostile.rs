//! What strangers and bad roads do to a handshake, and what is refused.

use super::*;

const SUITE: CipherSuite = CipherSuite::PskAes256Gcm;
const REPLAYS: usize = 100_000;
/// Bytes of the header of a record of a handshake, and of that of the message in it.
const HEADERS: usize = 13 + 12;

type Start = fn(&str, CipherSuite, &[&str]) -> Option<Stranger>;

/// The clients among the strangers, with the options by which they say what they are told and no more.
const CLIENTS: [(Start, &[&str]); 2] = [(openssl_client, &["-quiet"]), (gnutls_client, &[])];
/// The same, with datagrams into which no hello of theirs fits.
const NARROW_CLIENTS: [(Start, &[&str]); 2] =
    [(openssl_client, &["-quiet", "-mtu", "256", "-cipher", "ALL"]), (gnutls_client, &["--mtu", "100"])];

/// Whether a datagram begins with a part of a message of a handshake.
fn is_piece(datagram: &[u8]) -> bool {
    let is_plain_handshake = datagram.len() > HEADERS && datagram[0] == 22 && datagram[3..5] == [0, 0];
    is_plain_handshake && datagram[14..17] != datagram[22..25]
}

#[test]
fn bad_road_brings_everything_once_and_nothing_else() {
    for ((start, options), suite) in
        CLIENTS.into_iter().flat_map(|client| CipherSuite::PSK.map(|suite| (client, suite)))
    {
        let (mut ours, port) = Ours::server(setup(psk(suite)));
        ours.road = Road::bad();
        let Some(mut stranger) = start(&port, suite, options) else { return };
        ours.talk(&mut stranger);
        let said: Vec<_> = (10..30).map(|number| format!("number {number}\n")).collect();
        for text in &said {
            stranger.say(text);
            ours.run_until(|ours| ours.has_heard(text));
        }
        // What is late comes before this.
        stranger.say("behind the rest\n");
        ours.run_until(|ours| ours.has_heard("behind the rest\n"));
        assert!(said.iter().all(|text| ours.heard(text) == 1), "{:?}", ours.events);
        assert_eq!(ours.established(), 1);
    }
}

#[test]
fn handshake_of_a_stranger_in_pieces_is_put_together() {
    for (start, options) in NARROW_CLIENTS {
        let (mut ours, port) = Ours::server(Setup { largest_datagram: 0, ..setup(psk(SUITE)) });
        let Some(mut stranger) = start(&port, SUITE, options) else { return };
        ours.talk(&mut stranger);
        assert!(ours.came.iter().any(|datagram| is_piece(datagram)), "its hello came in pieces");
    }
}

#[test]
fn none_of_100_000_replayed_datagrams_is_accepted_or_answered() {
    for (start, options) in CLIENTS {
        let (mut ours, port) = Ours::server(setup(psk(SUITE)));
        let Some(mut stranger) = start(&port, SUITE, options) else { return };
        ours.talk(&mut stranger);
        let (end, _) = ours.end.as_mut().unwrap();
        for datagram in ours.came.iter().cycle().take(REPLAYS) {
            end.handle_datagram(&mut datagram.clone(), Instant::now()).ok();
        }
        assert_eq!((end.poll_event(), end.poll_transmit()), (None, None));
        stranger.say("still there\n");
        ours.run_until(|ours| ours.has_heard("still there\n"));
        assert_eq!((ours.heard("from the stranger\n"), ours.established()), (1, 1));
    }
}

#[test]
fn openssl_that_asks_for_a_renegotiation_gets_none() {
    let (mut ours, port) = Ours::server(setup(psk(SUITE)));
    let Some(mut stranger) = openssl_client(&port, SUITE, &[]) else { return };
    ours.talk(&mut stranger);
    // To s_client a line of this letter alone is a command.
    stranger.say("R\n");
    // OpenSSL takes no for the end, and says so.
    ours.run_until(|ours| matches!(ours.events.last(), Some(Event::Closed(Ending::Alerted(_) | Ending::Theirs))));
    assert_eq!(ours.established(), 1);
}

#[test]
fn gnutls_that_asks_for_a_renegotiation_gets_none() {
    let (mut ours, port) = Ours::server(setup(psk(SUITE)));
    // It asks as soon as it is through.
    let Some(_stranger) = gnutls_client(&port, SUITE, &["--rehandshake"]) else { return };
    let is_alert = |datagram: &Vec<u8>| datagram[0] == ContentType::Alert.code();
    ours.run_until(|ours| ours.sent.iter().any(is_alert));
    assert_eq!(ours.established(), 1);
}

#[test]
fn stranger_with_another_key_is_never_let_in() {
    let other = Credential::PreSharedKey { key: vec![1; 32].into(), suites: vec![SUITE] };
    let (mut ours, port) = Ours::server(setup(other));
    let Some(_stranger) = openssl_client(&port, SUITE, &["-quiet"]) else { return };
    // The control is every other test here: with the same key it is let in.
    ours.run_until(|ours| ours.end.is_some());
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        ours.step();
    }
    assert!(ours.events.is_empty());
    assert!(ours.end.is_some_and(|(end, _)| end.outbound().is_none()));
}

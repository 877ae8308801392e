mod hostile;
mod world;

use std::rc::Rc;

use super::*;
use crate::dtls::handshake::Credential;
use crate::dtls::secret::MasterSecret;
use world::{Plan, World, ms, psk, resumed};

const DATA: ContentType = ContentType::ApplicationData;

/// Every way to keys.
fn plans() -> impl Iterator<Item = Plan> {
    CipherSuite::PSK.map(Plan::psk).into_iter().chain(CipherSuite::RESUMED.map(Plan::resumed))
}

/// One end says something to the other; what it sent.
fn say(world: &mut World, by: Role, text: &[u8]) -> Vec<u8> {
    let end = if by == Role::Client { &world.client } else { world.server.as_ref().unwrap() };
    let datagram = end.outbound().unwrap().record(DATA, text).unwrap();
    world.transmit(by, datagram.clone());
    world.run(ms(50));
    datagram
}

#[test]
fn every_suite_brings_data_both_ways() {
    for plan in plans() {
        let mut world = World::established(plan);
        assert_eq!(world.client.suite(), world.server().suite());
        say(&mut world, Role::Client, b"from the client");
        say(&mut world, Role::Server, b"from the gateway");
        assert_eq!(world.server_events, [Event::Data(b"from the client".to_vec())]);
        assert_eq!(world.client_events, [Event::Data(b"from the gateway".to_vec())]);
        assert_eq!(world.client.poll_timeout(), None, "an established association needs no clock");
        assert_eq!(world.dropped, []);
    }
}

#[test]
fn gateway_that_asks_for_no_cookie_is_understood() {
    for mut plan in plans() {
        plan.asks = false;
        let mut world = World::established(plan);
        assert_eq!(world.sent_by(Role::Client).len(), 2, "a hello, and the last flight");
        say(&mut world, Role::Client, b"from the client");
        say(&mut world, Role::Server, b"from the gateway");
        assert_eq!(world.server_events, [Event::Data(b"from the client".to_vec())]);
        assert_eq!(world.client_events, [Event::Data(b"from the gateway".to_vec())]);
    }
}

#[test]
fn preference_of_the_server_decides() {
    for suite in CipherSuite::PSK {
        let others = CipherSuite::PSK.into_iter().filter(|other| *other != suite);
        let preferences: Vec<_> = [suite].into_iter().chain(others).collect();
        let mut world = World::established(Plan::new(psk(&CipherSuite::PSK), psk(&preferences)));
        assert_eq!(world.server().suite(), Some(suite));
    }
}

#[test]
fn handshake_survives_loss_reordering_and_repetition() {
    for seed in 0..60 {
        for mut plan in plans() {
            plan.link.loss_percent = 20.0;
            plan.link.duplicate_percent = 10.0;
            plan.link.reorder_percent = 20.0;
            plan.link.reorder_ms = 300.0;
            plan.seed = seed;
            plan.asks = seed % 3 > 0;
            // Hellos and keys then come in pieces.
            plan.client.largest_datagram = if seed % 2 == 0 { 0 } else { 1200 };
            plan.server.largest_datagram = plan.client.largest_datagram;
            let mut world = World::new(plan);
            world.run(PATIENCE);
            assert_eq!(world.is_established(), [true; 2], "seed {seed}");
        }
    }
}

#[test]
fn finished_that_overtakes_the_keys_waits_for_them() {
    for suite in CipherSuite::PSK {
        let mut world = World::new(Plan::psk(suite));
        // The client's last flight does not arrive as it was sent.
        world.tamper = |by, number, datagram| ((by, number) != (Role::Client, 2)).then_some(datagram);
        world.run(ms(100));
        let mut flight = world.sent_by(Role::Client).pop().unwrap();
        let key_exchange = split_first(&mut flight).unwrap().1.len();
        let change = split_first(&mut flight[key_exchange..]).unwrap().1.len();
        let (first, finished) = flight.split_at(key_exchange + change);
        world.inject_to_server(&[9; 40]);
        world.inject_to_server(finished);
        assert_eq!(world.server_events, []);
        world.inject_to_server(first);
        assert_eq!(world.server_events, [Event::Established], "without a word more from the client");
        assert_eq!(world.dropped.len(), 1, "the garbage");
    }
}

#[test]
fn hello_in_pieces_is_put_together() {
    let mut plan = Plan::psk(CipherSuite::PskAes256Gcm);
    (plan.client.largest_datagram, plan.server.largest_datagram) = (0, 0);
    let world = World::established(plan);
    let sent = world.sent_by(Role::Client);
    assert!(sent.len() > 3 && sent.iter().all(|datagram| datagram.len() <= SMALLEST_DATAGRAM));
    let hellos = sent.iter().filter(|datagram| datagram[13] == Kind::ClientHello.code()).count();
    assert_eq!(hellos, 3, "the one with the cookie takes two");
}

#[test]
fn silence_is_answered_by_repeating_ever_more_slowly_and_then_given_up() {
    let mut world = World::new(Plan::psk(CipherSuite::PskAes256Gcm));
    world.tamper = |_, _, _| None;
    world.run(2 * PATIENCE);
    let times: Vec<u128> = world.sent.iter().map(|(_, at, _)| at.as_millis()).collect();
    assert_eq!(times, [0, 500, 1500, 3500, 7500, 15_500, 23_500]);
    assert_eq!(world.client_events, [Event::Closed(Ending::Silence)]);
    assert_eq!(world.client.poll_timeout(), None);
}

#[test]
fn last_flight_that_gets_lost_is_sent_again() {
    let mut world = World::new(Plan::psk(CipherSuite::PskAes256Gcm));
    world.tamper = |by, number, datagram| ((by, number) != (Role::Server, 2)).then_some(datagram);
    world.run(ms(100));
    assert_eq!(world.is_established(), [false, true]);
    world.run(ms(1000));
    assert_eq!(world.is_established(), [true; 2]);

    let mut world = World::new(Plan::resumed(CipherSuite::RsaAes128Gcm));
    world.tamper = |by, number, datagram| ((by, number) != (Role::Client, 2)).then_some(datagram);
    world.run(ms(100));
    assert_eq!(world.is_established(), [true, false]);
    world.run(ms(1000));
    assert_eq!(world.is_established(), [true; 2]);
}

#[test]
fn ends_that_are_established_stay_silent() {
    for plan in plans() {
        let mut world = World::established(plan);
        let sent = world.sent.len();
        world.run(Duration::from_secs(3600));
        assert_eq!(world.sent.len(), sent);
    }
}

#[test]
fn other_key_or_secret_never_establishes() {
    let other_key = Credential::PreSharedKey { key: vec![66; 32].into(), suites: CipherSuite::PSK.to_vec() };
    let other_secret = Credential::Resumed { master: MasterSecret::new([66; 48]), suite: CipherSuite::RsaAes256Gcm };
    for plan in
        [Plan::new(other_key, psk(&CipherSuite::PSK)), Plan::new(other_secret, resumed(CipherSuite::RsaAes256Gcm))]
    {
        let mut world = World::new(plan);
        world.run(2 * PATIENCE);
        assert_eq!(world.client_events, [Event::Closed(Ending::Silence)]);
        assert_eq!(world.server_events, [Event::Closed(Ending::Silence)]);
        assert!(world.dropped.contains(&DropReason::AuthenticationFailed));
    }
}

#[test]
fn ends_without_a_suite_in_common_part_at_once() {
    let client = psk(&[CipherSuite::PskAes128Gcm]);
    let mut world = World::new(Plan::new(client, psk(&[CipherSuite::PskAes256Gcm])));
    world.run(ms(200));
    assert_eq!(world.server_events, [Event::Closed(Ending::Refused(Refusal::NoCommonSuite))]);
    let alert = world.sent_by(Role::Server).pop().unwrap();
    assert_eq!(alert[HEADER_LEN..], [2, 40]);
}

#[test]
fn server_that_resumes_and_client_that_does_not_part() {
    let server = resumed(CipherSuite::RsaAes256Gcm);
    let mut world = World::new(Plan::new(psk(&[CipherSuite::RsaAes256Gcm]), server));
    world.run(ms(200));
    assert_eq!(world.client_events, [Event::Closed(Ending::Refused(Refusal::NotOffered))]);
    assert_eq!(world.is_established(), [false; 2]);
}

#[test]
fn either_end_closes_and_the_other_hears_of_it() {
    let mut world = World::established(Plan::psk(CipherSuite::PskAes256Gcm));
    world.client.handle_close();
    world.run(ms(50));
    assert_eq!(world.client_events, [Event::Closed(Ending::Ours)]);
    assert_eq!(world.server_events, [Event::Closed(Ending::Theirs)]);
    assert!(world.client.outbound().is_none() && world.server().outbound().is_none());
    let mut world = World::established(Plan::resumed(CipherSuite::RsaAes256Gcm));
    world.server().handle_close();
    world.run(ms(50));
    assert_eq!(world.client_events, [Event::Closed(Ending::Theirs)]);
    world.client.handle_close();
    world.run(ms(50));
    assert_eq!(world.client_events.len(), 1, "it ends once");
}

#[test]
fn worker_opens_data_and_hands_the_rest_in() {
    let mut world = World::established(Plan::psk(CipherSuite::PskAes256Gcm));
    let mut inbound = world.server().take_inbound().unwrap();
    assert!(world.server().take_inbound().is_none(), "there is one");
    let outbound = Rc::clone(world.client.outbound().unwrap());
    let mut datagram = outbound.record(DATA, b"data").unwrap();
    let now = world.now;
    assert_eq!(world.server().handle_datagram(&mut datagram, now), Err(DropReason::UnknownEpoch));
    let opened = inbound.open(&mut datagram).unwrap();
    assert_eq!(datagram[opened.range], *b"data");
    world.client.handle_close();
    let mut alert = world.client.poll_transmit().unwrap();
    let opened = inbound.open(&mut alert).unwrap();
    world.server().handle_opened(opened.content, &alert[opened.range], now).unwrap();
    assert_eq!(world.server().poll_event(), Some(Event::Closed(Ending::Theirs)));
}

#[test]
fn nothing_is_given_away_before_both_ends_are_proven() {
    let mut world = World::new(Plan::resumed(CipherSuite::RsaAes256Gcm));
    // The gateway has its keys with the second hello. The client's Finished never comes.
    world.tamper = |by, number, datagram| (by == Role::Server || number < 2).then_some(datagram);
    world.run(ms(200));
    assert_eq!(world.is_established(), [true, false]);
    assert!(world.client.outbound().is_some() && world.client.take_inbound().is_some(), "the control");
    assert!(world.server().outbound().is_none() && world.server().take_inbound().is_none());
    let data = world.client.outbound().unwrap().record(DATA, b"early").unwrap();
    world.inject_to_server(&data);
    world.run(2 * PATIENCE);
    assert_eq!(world.server_events, [Event::Closed(Ending::Silence)]);
}

#[test]
fn data_that_overtakes_the_last_message_is_told_after_it() {
    let mut world = World::new(Plan::resumed(CipherSuite::RsaAes256Gcm));
    // The client's last flight is on its way for longer than what follows it.
    world.tamper = |by, number, datagram| (by == Role::Server || number < 2).then_some(datagram);
    world.run(ms(100));
    let finished = world.sent_by(Role::Client).pop().unwrap();
    let outbound = Rc::clone(world.client.outbound().unwrap());
    let texts: Vec<_> = (0..=EARLY).map(|number| vec![u8::try_from(number).unwrap(); 1400]).collect();
    let records: Vec<_> = texts.iter().map(|text| outbound.record(DATA, text).unwrap()).collect();
    world.dropped.clear();
    records.iter().for_each(|record| world.inject_to_server(record));
    assert!(world.server_events.is_empty() && world.dropped.is_empty(), "they wait");
    world.inject_to_server(&finished);
    let told = texts[1..].iter().cloned().map(Event::Data);
    let told: Vec<_> = [Event::Established].into_iter().chain(told).collect();
    assert!(world.server_events == told, "all but the oldest, which gave way");
    world.inject_to_server(&records[EARLY]);
    assert_eq!((world.dropped.pop(), world.server_events.len()), (Some(DropReason::Replayed), told.len()));
}

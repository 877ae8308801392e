use proptest::prelude::*;

use super::*;
use crate::sealing::test_cipher::start;

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4000))
}

const GATEWAY: u8 = 1;

fn client(now: Instant) -> Path {
    Path::client(address(GATEWAY), KEEP_ALIVE, [1; SEED_LEN], now)
}

fn packet(from: u8, newest: bool) -> Received {
    Received { from: address(from), len: 60, newest, probe: None }
}

fn with(probe: Probe, from: u8) -> Received {
    Received { probe: Some(probe), ..packet(from, true) }
}

fn probes(path: &mut Path) -> Vec<PathTransmit> {
    std::iter::from_fn(|| path.poll_transmit()).collect()
}

fn events(path: &mut Path) -> Vec<PathEvent> {
    std::iter::from_fn(|| path.poll_event()).collect()
}

/// Answers every probe request that waits to be sent, from where it was sent to.
fn answer_all(path: &mut Path, now: Instant) {
    for PathTransmit { to, probe } in probes(path) {
        if let Some(answer) = probe.answer() {
            path.handle_received(&Received { from: to, len: 60, newest: true, probe: Some(answer) }, now);
        }
    }
}

/// A client that is up.
fn connected(now: Instant) -> Path {
    let mut path = client(now);
    answer_all(&mut path, now);
    assert_eq!(events(&mut path), [PathEvent::Up(address(GATEWAY))]);
    path
}

/// A server that is up with a client at `address(from)`.
fn serving(from: u8, now: Instant) -> Path {
    let mut path = Path::server([2; SEED_LEN], now);
    path.handle_received(&packet(from, true), now);
    answer_all(&mut path, now);
    assert_eq!(events(&mut path), [PathEvent::Up(address(from))]);
    path
}

/// Lets time pass to `end`, sending all the while, without any answer; returns when the path went down.
fn run_unanswered(path: &mut Path, mut now: Instant, end: Instant) -> Option<Instant> {
    while now < end {
        path.handle_sent(now);
        path.handle_timeout(now);
        drop(probes(path));
        if events(path).contains(&PathEvent::Down) {
            return Some(now);
        }
        now += Duration::from_millis(10);
    }
    None
}

#[test]
fn repeated_probe_of_a_path_that_is_up_is_told_once() {
    let now = start();
    let mut path = client(now);
    path.handle_timeout(now + Duration::from_millis(300));
    assert!(!path.take_unanswered(), "nothing was up yet");
    let mut path = connected(now);
    let sent = now + ACTIVE_INTERVAL;
    path.handle_sent(sent);
    path.handle_timeout(sent);
    assert!(!path.take_unanswered(), "the first probe may still be answered");
    for repetition in 1..=4 {
        path.handle_timeout(sent + Duration::from_millis(300) * repetition);
        assert!(path.take_unanswered() && !path.take_unanswered(), "repetition {repetition}");
    }
    path.handle_timeout(sent + ANSWER_WITHIN);
    assert_eq!(path.state(), PathState::Down);
    assert!(!path.take_unanswered());
}

#[test]
fn first_repetition_comes_after_four_round_trips_of_the_path() {
    for (round_trip, expected) in [(1, 50), (30, 120), (200, 300)] {
        let now = start();
        let mut path = client(now);
        let answered = now + Duration::from_millis(round_trip);
        answer_all(&mut path, answered);
        let sent = answered + ACTIVE_INTERVAL;
        path.handle_sent(sent);
        path.handle_timeout(sent);
        assert_eq!(path.poll_timeout(), Some(sent + Duration::from_millis(expected)), "{round_trip} ms");
        path.handle_timeout(sent + Duration::from_millis(expected));
        assert!(path.take_unanswered());
        assert_eq!(path.poll_timeout(), Some(sent + Duration::from_millis(expected) + REPEAT_AFTER), "then as ever");
        path.handle_rebind(sent + Duration::from_secs(1));
        assert_eq!(path.poll_timeout(), Some(sent + Duration::from_secs(1) + REPEAT_AFTER), "another network");
    }
}

#[test]
fn nothing_is_up_before_an_answer() {
    let now = start();
    let mut path = client(now);
    assert_eq!(path.state(), PathState::Probing);
    let first = probes(&mut path);
    assert_eq!(first.len(), 1);
    path.handle_received(&packet(GATEWAY, true), now);
    assert_eq!(path.state(), PathState::Probing, "packets prove one direction only");
    path.handle_received(&with(Probe { kind: Kind::Answer, nonce: [0; 16] }, GATEWAY), now);
    assert_eq!(path.state(), PathState::Probing, "somebody else's answer");
    path.handle_received(&with(first[0].probe.answer().unwrap(), GATEWAY), now);
    assert_eq!(events(&mut path), [PathEvent::Up(address(GATEWAY))]);
}

#[test]
fn blocked_from_the_start_is_down_and_tried_again_later() {
    let now = start();
    let mut path = client(now);
    let down = run_unanswered(&mut path, now, now + Duration::from_secs(3)).unwrap();
    assert_eq!(down, now + ANSWER_WITHIN);
    let retry = path.poll_timeout().unwrap();
    assert_eq!(retry, down + RETRY_AFTER);
    path.handle_timeout(retry);
    answer_all(&mut path, retry);
    assert_eq!(events(&mut path), [PathEvent::Up(address(GATEWAY))]);
}

#[test]
fn failure_shows_within_three_seconds_of_any_moment() {
    for blocked_after in (0..40).map(|step| Duration::from_millis(step * 50)) {
        let begin = start();
        let mut path = connected(begin);
        let mut now = begin;
        while now < begin + blocked_after {
            path.handle_sent(now);
            path.handle_timeout(now);
            answer_all(&mut path, now);
            now += Duration::from_millis(10);
        }
        let down = run_unanswered(&mut path, now, now + Duration::from_secs(5)).unwrap();
        assert!(down - now <= Duration::from_secs(3), "blocked {blocked_after:?}, down after {:?}", down - now);
    }
}

#[test]
fn idle_path_that_broke_shows_within_three_seconds_of_the_first_packet() {
    let begin = start();
    let mut path = connected(begin);
    let now = begin + Duration::from_secs(10);
    path.handle_sent(now);
    assert!(path.poll_timeout().unwrap() <= now);
    let down = run_unanswered(&mut path, now, now + Duration::from_secs(5)).unwrap();
    assert!(down - now <= Duration::from_secs(3));
}

#[test]
fn what_comes_in_does_not_hide_that_nothing_goes_out() {
    let begin = start();
    let mut path = connected(begin);
    let mut now = begin;
    while events(&mut path).is_empty() {
        assert!(now < begin + Duration::from_secs(3));
        path.handle_sent(now);
        path.handle_received(&packet(GATEWAY, true), now);
        path.handle_timeout(now);
        drop(probes(&mut path));
        now += Duration::from_millis(10);
    }
    assert_eq!(path.state(), PathState::Down);
}

#[test]
fn pauses_between_retries_double_up_to_16_seconds() {
    let mut now = start();
    let mut path = client(now);
    let mut pauses = Vec::new();
    while pauses.len() < 7 {
        let next = path.poll_timeout().unwrap();
        if path.series.is_none() {
            pauses.push((next - now).as_secs());
        }
        now = next;
        path.handle_timeout(now);
        drop(probes(&mut path));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 16, 16]);
}

#[test]
fn flapping_path_is_retried_ever_more_slowly_and_a_sound_one_is_not() {
    for (up_for, expected) in [(5, 4), (120, 1)] {
        let mut now = start();
        let mut path = client(now);
        for _ in 0..2 {
            run_unanswered(&mut path, now, now + Duration::from_secs(9)).unwrap();
            now = path.poll_timeout().unwrap();
            path.handle_timeout(now);
            answer_all(&mut path, now);
            now += Duration::from_secs(up_for);
        }
        let down = run_unanswered(&mut path, now, now + Duration::from_secs(9)).unwrap();
        assert_eq!((path.poll_timeout().unwrap() - down).as_secs(), expected);
    }
}

#[test]
fn idle_client_keeps_the_binding_alive_and_an_idle_server_is_silent() {
    let now = start();
    let mut path = connected(now);
    assert_eq!(path.poll_timeout(), Some(now + KEEP_ALIVE));
    path.handle_timeout(now + KEEP_ALIVE);
    assert_eq!(probes(&mut path).len(), 1);
    let path = serving(7, now);
    assert_eq!(path.poll_timeout(), None);
}

#[test]
fn idle_hour_takes_fifteen_probes() {
    let (now, mut count) = (start(), 0);
    let mut path = connected(now);
    while let Some(due) = path.poll_timeout().filter(|due| *due <= now + Duration::from_secs(3600)) {
        path.handle_timeout(due);
        count += path.transmits.len();
        answer_all(&mut path, due);
    }
    assert_eq!(count, 15);
}

#[test]
fn doubt_and_rebind_probe_at_once() {
    let now = start();
    let mut path = connected(now);
    path.handle_doubt(now + DOUBT_PAUSE / 2);
    assert!(probes(&mut path).is_empty(), "it was proven just now");
    path.handle_doubt(now + DOUBT_PAUSE);
    path.handle_doubt(now + DOUBT_PAUSE);
    assert_eq!(probes(&mut path).len(), 1, "one series at a time");
    let mut path = client(now);
    let down = run_unanswered(&mut path, now, now + Duration::from_secs(3)).unwrap();
    path.handle_doubt(down);
    assert!(probes(&mut path).is_empty(), "it is known to be down");
    path.handle_rebind(down);
    answer_all(&mut path, down);
    assert_eq!(events(&mut path), [PathEvent::Up(address(GATEWAY))]);
}

#[test]
fn server_that_is_down_tries_again_when_it_hears_the_client() {
    let now = start();
    let mut path = serving(7, now);
    let down = run_unanswered(&mut path, now, now + Duration::from_secs(5)).unwrap();
    assert_eq!(path.poll_timeout(), None, "on its own it would only feed a dead binding");
    path.handle_received(&packet(7, true), down);
    assert!(probes(&mut path).is_empty(), "not at once");
    path.handle_received(&packet(7, true), down + RETRY_AFTER);
    answer_all(&mut path, down + RETRY_AFTER);
    assert_eq!(events(&mut path), [PathEvent::Up(address(7))]);
}

#[test]
fn request_is_answered_where_it_came_from() {
    let now = start();
    let mut path = serving(7, now);
    let request = Probe { kind: Kind::Request, nonce: [9; 16] };
    path.handle_received(&with(request, 7), now);
    assert_eq!(probes(&mut path), [PathTransmit { to: address(7), probe: request.answer().unwrap() }]);
}

#[test]
fn client_follows_its_gateway_nowhere_and_answers_nobody_else() {
    let now = start();
    let mut path = connected(now);
    let request = Probe { kind: Kind::Request, nonce: [9; 16] };
    for received in [packet(66, true), with(request, 66)] {
        path.handle_received(&received, now);
        assert_eq!((path.candidate(), path.address()), (None, Some(address(GATEWAY))));
        assert!(probes(&mut path).is_empty() && events(&mut path).is_empty());
    }
}

#[test]
fn answers_have_a_rate() {
    let now = start();
    let mut path = serving(7, now);
    let mut answered = 0;
    for _ in 0..10_000 {
        path.handle_received(&with(Probe { kind: Kind::Request, nonce: [9; 16] }, 7), now);
        answered += probes(&mut path).len();
    }
    assert_eq!(answered, 50);
    path.handle_received(&with(Probe { kind: Kind::Request, nonce: [9; 16] }, 7), now + Duration::from_secs(1));
    assert_eq!(probes(&mut path).len(), 1);
}

#[test]
fn session_moves_when_the_new_address_answers_and_not_before() {
    let now = start();
    let mut path = serving(7, now);
    path.handle_received(&packet(8, true), now);
    assert_eq!((path.address(), path.candidate()), (Some(address(7)), Some(address(8))));
    let sent = probes(&mut path);
    assert_eq!((sent.len(), sent[0].to), (1, address(8)));
    let answer = sent[0].probe.answer().unwrap();
    path.handle_received(&with(answer, 7), now);
    assert_eq!(path.address(), Some(address(7)), "an answer from elsewhere proves nothing");
    path.handle_received(&with(answer, 8), now);
    assert_eq!(events(&mut path), [PathEvent::Moved(address(8))]);
    assert_eq!((path.address(), path.candidate(), path.state()), (Some(address(8)), None, PathState::Up));
}

#[test]
fn late_packet_from_the_old_network_does_not_flip_back() {
    let now = start();
    let mut path = serving(7, now);
    path.handle_received(&packet(8, true), now);
    answer_all(&mut path, now);
    path.handle_received(&packet(7, false), now);
    let request = Probe { kind: Kind::Request, nonce: [9; 16] };
    path.handle_received(&Received { newest: false, ..with(request, 7) }, now);
    assert_eq!((path.address(), path.candidate()), (Some(address(8)), None));
    assert!(probes(&mut path).is_empty(), "and is not answered");
}

#[test]
fn race_of_copied_packets_moves_nothing_and_earns_three_times_its_bytes_at_most() {
    let begin = start();
    let mut path = serving(7, begin);
    let (mut to_attacker, mut from_attacker) = (0, 0);
    for step in 0..2000 {
        let now = begin + Duration::from_millis(step);
        // The attacker's copies arrive first, so the originals are dropped as replayed.
        if step % 100 == 0 {
            path.handle_received(&Received { len: 56, ..packet(66, true) }, now);
            from_attacker += 56;
        } else {
            path.handle_received(&packet(7, true), now);
        }
        path.handle_timeout(now);
        to_attacker +=
            probes(&mut path).iter().filter(|sent| sent.to == address(66)).count() as u64 * PROBE_DATAGRAM_LEN;
        assert!(to_attacker <= 3 * from_attacker);
        assert_eq!(path.address(), Some(address(7)));
    }
    assert!(!events(&mut path).contains(&PathEvent::Moved(address(66))));
}

#[test]
fn unvalidated_address_gets_three_times_its_bytes_whatever_it_sends() {
    let now = start();
    let mut path = Path::server([2; SEED_LEN], now);
    let request = Probe { kind: Kind::Request, nonce: [9; 16] };
    let (mut sent, mut received) = (0, 0);
    for step in 0..100 {
        let now = now + Duration::from_millis(step * 20);
        path.handle_received(&Received { len: 36, ..with(request, 66) }, now);
        received += 36;
        path.handle_timeout(now);
        sent += probes(&mut path).len() as u64 * PROBE_DATAGRAM_LEN;
        assert!(sent <= 3 * received, "{sent} for {received}");
    }
    assert_eq!(path.state(), PathState::Waiting);
}

#[test]
fn candidate_that_does_not_answer_is_forgotten() {
    let now = start();
    let mut path = serving(7, now);
    path.handle_received(&packet(8, true), now);
    drop(probes(&mut path));
    let end = now + ANSWER_WITHIN;
    path.handle_timeout(end);
    assert_eq!((path.candidate(), path.address(), path.poll_timeout()), (None, Some(address(7)), None));
}

#[test]
fn dead_old_path_costs_the_mover_one_round_trip() {
    let begin = start();
    let mut path = serving(7, begin);
    path.handle_sent(begin);
    let moved = begin + Duration::from_millis(100);
    path.handle_received(&packet(8, true), moved);
    let answer = probes(&mut path)[0].probe.answer().unwrap();
    let back = moved + Duration::from_millis(40);
    path.handle_received(&with(answer, 8), back);
    assert_eq!(events(&mut path), [PathEvent::Moved(address(8))]);
}

#[test]
fn nonces_are_never_the_same() {
    let mut nonces = Nonces::new(b"path", [3; SEED_LEN]);
    let drawn: std::collections::HashSet<_> = (0..1000).map(|_| nonces.draw()).collect();
    assert_eq!(drawn.len(), 1000);
    assert_ne!(Nonces::new(b"path", [3; SEED_LEN]).draw(), Nonces::new(b"path", [4; SEED_LEN]).draw());
    assert_ne!(Nonces::new(b"path", [3; SEED_LEN]).draw(), Nonces::new(b"other", [3; SEED_LEN]).draw());
}

#[derive(Debug, Clone)]
enum Op {
    Receive { from: u8, newest: bool },
    Request { from: u8, newest: bool },
    AnswerLast { from: u8 },
    Sent,
    Doubt,
    Rebind,
    Wait { ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let from = 1..5_u8;
    prop_oneof![
        (from.clone(), any::<bool>()).prop_map(|(from, newest)| Op::Receive { from, newest }),
        (from.clone(), any::<bool>()).prop_map(|(from, newest)| Op::Request { from, newest }),
        from.prop_map(|from| Op::AnswerLast { from }),
        Just(Op::Sent),
        Just(Op::Doubt),
        Just(Op::Rebind),
        (0..4000_u64).prop_map(|ms| Op::Wait { ms }),
    ]
}

proptest! {
    #[test]
    fn invariants_hold_after_any_steps(server: bool, ops in proptest::collection::vec(op(), 0..80)) {
        let mut now = start();
        let mut path = if server { Path::server([2; SEED_LEN], now) } else { client(now) };
        let mut asked: Vec<PathTransmit> = Vec::new();
        let mut answered: Vec<SocketAddr> = Vec::new();
        let mut address_before = path.address();
        for op in ops {
            match op {
                Op::Receive { from, newest } => path.handle_received(&packet(from, newest), now),
                Op::Request { from, newest } => {
                    let request = Probe { kind: Kind::Request, nonce: [9; 16] };
                    path.handle_received(&Received { newest, ..with(request, from) }, now);
                }
                Op::AnswerLast { from } => {
                    if let Some(last) = asked.iter().rev().find(|asked| asked.to == address(from)) {
                        answered.push(last.to);
                        path.handle_received(&with(last.probe.answer().unwrap(), from), now);
                    }
                }
                Op::Sent => path.handle_sent(now),
                Op::Doubt => path.handle_doubt(now),
                Op::Rebind => path.handle_rebind(now),
                Op::Wait { ms } => now += Duration::from_millis(ms),
            }
            path.handle_timeout(now);
            prop_assert!(path.poll_timeout().is_none_or(|at| at > now), "a timeout that was handled is gone");
            let sent = probes(&mut path);
            prop_assert!(sent.len() <= MAX_TRANSMITS);
            asked.extend(sent.into_iter().filter(|sent| sent.probe.kind == Kind::Request));
            if path.address() != address_before {
                prop_assert!(answered.contains(&path.address().unwrap()), "only an answer moves a session");
                address_before = path.address();
            }
            prop_assert!(path.state() != PathState::Up || path.address().is_some());
            drop(events(&mut path));
        }
    }
}

use proptest::prelude::*;

use super::RaceEvent::{Ask, Dial, Drop, Lost, Won};
use super::Transport::{Quic, Tls};
use super::*;

#[expect(clippy::disallowed_methods, reason = "only differences from it matter")]
fn start() -> Instant {
    Instant::now()
}

fn events(race: &mut Race) -> Vec<RaceEvent> {
    std::iter::from_fn(|| race.poll_event()).collect()
}

/// A race in which both are dialled, and the time.
fn both_dialled() -> (Race, Instant) {
    let now = start();
    let mut race = Race::new(true, now);
    assert_eq!(events(&mut race), [Dial(Quic), Dial(Tls)]);
    (race, now)
}

#[test]
fn quic_that_answers_soon_never_has_tls_dialled() {
    let now = start();
    let mut race = Race::new(false, now);
    assert_eq!((events(&mut race), race.poll_timeout()), (vec![Dial(Quic)], Some(now + TLS_AFTER)));
    race.handle_proven(Quic, now);
    race.handle_accepted(Quic);
    assert_eq!(events(&mut race), [Ask(Quic), Won(Quic)]);
    race.handle_timeout(now + TLS_AFTER);
    assert_eq!((events(&mut race), race.poll_timeout()), (vec![], None));
}

#[test]
fn tls_is_dialled_later_or_once_quic_has_failed() {
    let now = start();
    let mut silent = Race::new(false, now);
    silent.handle_timeout(now + TLS_AFTER / 2);
    assert_eq!(events(&mut silent), [Dial(Quic)]);
    silent.handle_timeout(now + TLS_AFTER);
    assert_eq!(events(&mut silent), [Dial(Tls)]);
    let mut failed = Race::new(false, now);
    failed.handle_failed(Quic, Failure::NoAnswer, now);
    assert_eq!(events(&mut failed), [Dial(Quic), Dial(Tls)]);
    failed.handle_failed(Tls, Failure::NoAnswer, now);
    assert_eq!(events(&mut failed), [Lost]);
}

#[test]
fn tls_waits_a_little_for_quic_but_not_where_that_has_failed() {
    let now = start();
    let dialled = || {
        let mut race = Race::new(false, now);
        race.handle_timeout(now + TLS_AFTER);
        race.handle_proven(Tls, now + TLS_AFTER);
        assert_eq!(events(&mut race), [Dial(Quic), Dial(Tls)]);
        race
    };
    let mut silent = dialled();
    assert_eq!(silent.poll_timeout(), Some(now + TLS_ASKED_AFTER));
    silent.handle_timeout(now + TLS_ASKED_AFTER);
    assert_eq!(events(&mut silent), [Ask(Tls)]);
    let mut late = dialled();
    late.handle_proven(Quic, now + TLS_AFTER);
    assert_eq!(events(&mut late), [Ask(Quic)]);
    let mut failed = dialled();
    failed.handle_failed(Quic, Failure::NoAnswer, now + TLS_AFTER);
    assert_eq!(events(&mut failed), [Ask(Tls)]);
}

#[test]
fn only_the_first_that_is_proven_is_asked_and_the_other_is_dropped() {
    for (first, second) in [(Quic, Tls), (Tls, Quic)] {
        let (mut race, now) = both_dialled();
        race.handle_proven(first, now);
        race.handle_proven(second, now);
        assert_eq!(events(&mut race), [Ask(first)]);
        race.handle_accepted(second);
        assert_eq!(events(&mut race), [], "it was not asked");
        race.handle_accepted(first);
        assert_eq!(events(&mut race), [Drop(second), Won(first)]);
    }
}

#[test]
fn gateway_that_refuses_is_not_asked_again() {
    let (mut race, now) = both_dialled();
    race.handle_proven(Quic, now);
    race.handle_proven(Tls, now);
    race.handle_failed(Quic, Failure::Refused, now);
    assert_eq!(events(&mut race), [Ask(Quic), Drop(Tls), Lost]);
}

#[test]
fn refusal_of_whom_nothing_proves_to_be_the_gateway_ends_nothing() {
    let (mut race, now) = both_dialled();
    race.handle_failed(Quic, Failure::Refused, now);
    race.handle_proven(Tls, now);
    race.handle_accepted(Tls);
    assert_eq!(events(&mut race), [Ask(Tls), Won(Tls)]);
}

#[test]
fn connection_that_ends_unanswered_leaves_the_question_to_the_other() {
    let (mut race, now) = both_dialled();
    race.handle_proven(Quic, now);
    race.handle_failed(Quic, Failure::NoAnswer, now);
    assert_eq!(events(&mut race), [Ask(Quic)]);
    race.handle_proven(Tls, now);
    assert_eq!(events(&mut race), [Ask(Tls)]);
}

#[test]
fn silent_gateway_is_asked_on_the_other_connection_and_never_on_both() {
    let (mut race, now) = both_dialled();
    race.handle_proven(Quic, now);
    assert_eq!(race.poll_timeout(), None, "there is no other yet");
    race.handle_timeout(now + ANSWER_WITHIN);
    assert_eq!(events(&mut race), [Ask(Quic)]);
    race.handle_proven(Tls, now + ANSWER_WITHIN);
    assert_eq!(events(&mut race), [Drop(Quic), Ask(Tls)]);
    race.handle_accepted(Quic);
    assert_eq!(events(&mut race), [], "its answer comes too late");

    let (mut race, now) = both_dialled();
    race.handle_proven(Quic, now);
    race.handle_proven(Tls, now);
    assert_eq!(race.poll_timeout(), Some(now + ANSWER_WITHIN));
    race.handle_timeout(now + ANSWER_WITHIN);
    assert_eq!(events(&mut race), [Ask(Quic), Drop(Quic), Ask(Tls)]);
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Quic), Just(Tls)]
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Proven(Transport),
    Accepted(Transport),
    Failed(Transport, Failure),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        transport().prop_map(Op::Proven),
        transport().prop_map(Op::Accepted),
        (transport(), prop_oneof![Just(Failure::NoAnswer), Just(Failure::Refused)])
            .prop_map(|(of, failure)| Op::Failed(of, failure)),
        (0_u64..3000).prop_map(Op::Wait),
    ]
}

proptest! {
    #[test]
    fn no_two_connections_are_asked_at_a_time(blocks in any::<bool>(), ops in prop::collection::vec(op(), 0..40)) {
        let mut now = start();
        let mut race = Race::new(blocks, now);
        let (mut asked, mut is_over) = (None, false);
        for op in ops {
            match op {
                Op::Proven(of) => race.handle_proven(of, now),
                Op::Accepted(of) => race.handle_accepted(of),
                Op::Failed(of, failure) => {
                    race.handle_failed(of, failure, now);
                    asked = asked.filter(|asked| *asked != of);
                }
                Op::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    race.handle_timeout(now);
                }
            }
            while let Some(event) = race.poll_event() {
                prop_assert!(!is_over, "{event:?} comes after the end");
                match event {
                    Ask(of) => prop_assert_eq!(asked.replace(of), None),
                    Drop(of) => asked = asked.filter(|asked| *asked != of),
                    Won(of) => prop_assert_eq!(asked, Some(of)),
                    Dial(_) | Lost => {}
                }
                is_over = matches!(event, Won(_) | Lost);
            }
        }
    }
}

//! Hosts that sleep for hours, under virtual time.

use super::*;
use crate::sealing::test_cipher::start;

const HOUR: Duration = Duration::from_secs(3600);
const LASTS: Duration = Duration::from_secs(30);
const RTT: Duration = Duration::from_millis(40);

/// What a client with one connection does, whose gateway answers or not, until nothing is due any more: each event with
/// the time after waking. `waiting` datagrams are read in the first moment after waking.
fn after_waking(slept: Duration, rtt: Duration, waiting: u64, answers: bool) -> Vec<(Duration, WakeEvent)> {
    let woke = start();
    let (mut awakening, mut received, mut now) = (Awakening::new(LASTS), 7, woke);
    awakening.handle_wake(slept, rtt, now);
    received += waiting;
    let (mut done, mut answer_at) = (Vec::new(), None);
    loop {
        while let Some(event) = awakening.poll_event() {
            done.push((now - woke, event));
            if answers && event != WakeEvent::GiveUp {
                answer_at = Some(now + rtt);
            }
        }
        let Some(due) = awakening.poll_timeout() else { return done };
        now = due;
        if answer_at.take_if(|at| *at <= now).is_some() {
            received += 1;
        }
        awakening.handle_timeout(received, now);
    }
}

fn events(done: &[(Duration, WakeEvent)]) -> Vec<WakeEvent> {
    done.iter().map(|(_, event)| *event).collect()
}

#[test]
fn night_of_sleep_is_noticed_by_the_first_look_and_told_once() {
    let mut watch = SleepWatch::new(HOUR);
    assert_eq!(watch.handle_look(HOUR + LOOK_EVERY), None);
    // The timer of the next look stood still for eight hours, and then had half its time left.
    let woke = HOUR + LOOK_EVERY + 8 * HOUR + LOOK_EVERY / 2;
    assert_eq!(watch.handle_look(woke), Some(8 * HOUR - LOOK_EVERY / 2));
    assert_eq!(watch.handle_look(woke + LOOK_EVERY), None);
}

#[test]
fn stop_of_four_seconds_is_noticed_and_a_busy_second_is_not() {
    let mut watch = SleepWatch::new(Duration::ZERO);
    let mut now = Duration::ZERO;
    for (passes, noticed) in [(1.0, false), (2.5, false), (3.9, false), (4.0, true), (1.0, false), (0.1, false)] {
        now += Duration::from_secs_f64(passes);
        assert_eq!(watch.handle_look(now).is_some(), noticed, "{passes} s");
    }
    assert_eq!(watch.handle_look(Duration::ZERO), None, "a clock that goes back is no sleep");
    assert_eq!(watch.handle_look(LOOK_EVERY), None);
}

#[test]
fn connection_that_nobody_can_know_any_more_is_given_up_at_once() {
    for slept in [LASTS, 8 * HOUR] {
        let done = after_waking(slept, RTT, 3, true);
        assert_eq!(done, [(Duration::ZERO, WakeEvent::GiveUp)], "{slept:?}");
    }
}

#[test]
fn gateway_that_answers_keeps_its_connection() {
    for rtt in [Duration::from_micros(200), RTT, Duration::from_millis(450)] {
        let done = after_waking(Duration::from_secs(10), rtt, 0, true);
        assert_eq!(events(&done), [WakeEvent::Probe, WakeEvent::Ask], "{rtt:?}");
    }
}

#[test]
fn silent_gateway_is_given_up_within_half_a_second_whatever_waited_in_the_sockets() {
    for waiting in [0, 20] {
        let done = after_waking(Duration::from_secs(10), RTT, waiting, false);
        assert_eq!(events(&done), [WakeEvent::Probe, WakeEvent::Ask, WakeEvent::GiveUp]);
        assert!(done[2].0 <= Duration::from_millis(500), "{done:?}");
    }
}

#[test]
fn slow_path_gets_four_round_trips_and_a_hopeless_one_two_seconds() {
    for (rtt, wait) in [(400, 1600), (5000, 2000)] {
        let done = after_waking(Duration::from_secs(10), Duration::from_millis(rtt), 0, false);
        assert_eq!(done[2], (SETTLING + Duration::from_millis(wait), WakeEvent::GiveUp));
    }
}

#[test]
fn host_that_sleeps_again_meanwhile_is_judged_by_the_second_sleep() {
    let now = start();
    let mut awakening = Awakening::new(LASTS);
    awakening.handle_wake(Duration::from_secs(5), RTT, now);
    awakening.handle_timeout(0, now + SETTLING);
    awakening.handle_wake(8 * HOUR, RTT, now + SETTLING);
    assert_eq!((awakening.poll_event(), awakening.poll_event()), (Some(WakeEvent::GiveUp), None));
    assert_eq!(awakening.poll_timeout(), None);
}

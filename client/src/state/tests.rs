//! The life cycle, step by step.

mod portal;

use super::back_off::{FIRST_ATTEMPT, FIRST_RETRY};
use super::following::{HELD_AFTER, LONGEST_PAUSE};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const LONG: u32 = u32::MAX;

fn drain(life: &mut LifeCycle) -> Vec<Event> {
    std::iter::from_fn(|| life.poll_event()).collect()
}

fn attempt() -> Event {
    Event::Attempt { timeout: FIRST_ATTEMPT }
}

fn connecting(now: Instant) -> LifeCycle {
    let mut life = LifeCycle::new(Some(PATIENCE), now);
    life.handle_start(now);
    assert_eq!(drain(&mut life), [attempt()]);
    life
}

fn connected(now: Instant) -> LifeCycle {
    let mut life = connecting(now);
    life.handle_connected(now);
    life
}

fn reconnecting(now: Instant) -> LifeCycle {
    let mut life = connected(now);
    life.handle_lost(Obstacle::NoAnswer, "idle timeout", LONG, now);
    life
}

/// Runs the clock to the next timeout and returns it.
fn wake(life: &mut LifeCycle) -> Instant {
    let at = life.poll_timeout().unwrap();
    life.handle_timeout(LONG, at);
    at
}

#[test]
fn start_begins_an_attempt_at_once() {
    let now = Instant::now();
    let mut life = connecting(now);
    assert_eq!(life.state(), State::Connecting);
    life.handle_start(now);
    assert_eq!(drain(&mut life), [], "a second start does nothing");
}

#[test]
fn connected_clears_reason_and_timers() {
    let now = Instant::now();
    let mut life = connecting(now);
    life.handle_attempt_failed(Obstacle::NoAnswer, "no answer", 0, now);
    assert_eq!(life.reason(), "no answer");
    let at = wake(&mut life);
    life.handle_connected(at);
    assert_eq!((life.state(), life.reason(), life.since()), (State::Connected, "", at));
    assert_eq!(life.poll_timeout(), None);
}

#[test]
fn first_retry_is_within_200_ms_and_waits_double_to_2_s() {
    let now = Instant::now();
    let mut life = LifeCycle::new(None, now);
    life.handle_start(now);
    let mut waits = Vec::new();
    let mut clock = now;
    for _ in 0..7 {
        life.handle_attempt_failed(Obstacle::NoAnswer, "", LONG, clock);
        let at = wake(&mut life);
        waits.push((at - clock).as_millis());
        clock = at;
    }
    assert_eq!(waits, [200, 400, 800, 1600, 2000, 2000, 2000]);
}

#[test]
fn attempt_that_hangs_is_abandoned_and_the_next_gets_more_time() {
    let now = Instant::now();
    let mut life = connecting(now);
    let at = wake(&mut life);
    assert_eq!(at - now, RESOLVE_TIMEOUT + FIRST_ATTEMPT);
    assert_eq!(drain(&mut life), [Event::Abandon]);
    assert_eq!(life.state(), State::Connecting);
    wake(&mut life);
    assert_eq!(drain(&mut life), [Event::Attempt { timeout: FIRST_ATTEMPT * 3 / 2 }]);
}

#[test]
fn attempt_that_fails_early_does_not_lengthen_the_next() {
    let now = Instant::now();
    let mut life = connecting(now);
    life.handle_attempt_failed(Obstacle::NoAnswer, "no answer", 0, now + FIRST_ATTEMPT / 2);
    wake(&mut life);
    assert_eq!(drain(&mut life), [attempt()]);
}

#[test]
fn nothing_is_left_to_connect_without_the_device() {
    let now = Instant::now();
    let mut life = connected(now);
    life.handle_lost(Obstacle::DeviceGone, "deleted", 0, now);
    assert_eq!(drain(&mut life), [Event::Finished(Some(Obstacle::DeviceGone))]);
    let mut life = reconnecting(now);
    let at = wake(&mut life);
    drain(&mut life);
    life.handle_attempt_failed(Obstacle::DeviceGone, "deleted", 0, at);
    assert_eq!((life.state(), drain(&mut life).len()), (State::Disconnected, 1));
}

#[test]
fn first_connection_is_given_up_when_patience_ends() {
    let now = Instant::now();
    let mut life = connecting(now);
    while life.state() == State::Connecting {
        let at = wake(&mut life);
        assert!(at - now <= PATIENCE);
    }
    let events = drain(&mut life);
    assert_eq!(events.last(), Some(&Event::Finished(Some(Obstacle::NoAnswer))));
    assert_eq!(life.state(), State::Disconnected);
    assert_eq!(life.poll_timeout(), None);
}

#[test]
fn what_a_stranger_can_cause_is_tried_again_for_ever() {
    for obstacle in [Obstacle::IdentityMismatch, Obstacle::Clock, Obstacle::BrokenOff, Obstacle::NoAnswer] {
        let now = Instant::now();
        let mut life = LifeCycle::new(None, now);
        life.handle_start(now);
        let mut clock = now;
        for _ in 0..1000 {
            life.handle_attempt_failed(obstacle, "forged", LONG, clock);
            clock = wake(&mut life);
        }
        assert!(drain(&mut life).iter().all(|event| *event == attempt()), "{obstacle:?}");
        assert_eq!((life.state(), life.reason()), (State::Connecting, "forged"));
        life.handle_connected(clock);
        assert_eq!(life.state(), State::Connected);
        life.handle_lost(obstacle, "forged", LONG, clock);
        assert_eq!(life.state(), State::Reconnecting, "a stranger's word does not slow it down");
    }
}

#[test]
fn most_telling_obstacle_is_told_when_patience_ends() {
    let now = Instant::now();
    let mut life = connecting(now);
    life.handle_attempt_failed(Obstacle::IdentityMismatch, "another certificate", 0, now);
    while life.state() == State::Connecting {
        wake(&mut life);
    }
    assert_eq!(drain(&mut life).last(), Some(&Event::Finished(Some(Obstacle::IdentityMismatch))));
    assert_eq!(life.reason(), "another certificate", "the silence after it tells less");
}

#[test]
fn refusal_and_local_errors_are_final_on_the_first_connection() {
    for obstacle in [Obstacle::Refused, Obstacle::Permission, Obstacle::Local] {
        let now = Instant::now();
        let mut life = connecting(now);
        life.handle_attempt_failed(obstacle, "why", 0, now);
        assert_eq!(drain(&mut life), [Event::Finished(Some(obstacle))]);
        assert_eq!((life.state(), life.reason()), (State::Disconnected, "why"));
    }
}

#[test]
fn loss_leads_to_reconnecting_and_back() {
    let now = Instant::now();
    let mut life = reconnecting(now);
    assert_eq!((life.state(), life.reason()), (State::Reconnecting, "idle timeout"));
    let at = wake(&mut life);
    assert!(at - now <= FIRST_RETRY);
    assert_eq!(drain(&mut life), [attempt()]);
    life.handle_connected(at);
    assert_eq!(life.state(), State::Connected);
}

#[test]
fn reconnecting_never_gives_up() {
    let now = Instant::now();
    let mut life = reconnecting(now);
    for _ in 0..1000 {
        wake(&mut life);
    }
    assert_eq!(life.state(), State::Reconnecting);
    assert!(!drain(&mut life).iter().any(|event| matches!(event, Event::Finished(_))));
}

#[test]
fn refusal_after_a_connection_blocks_and_is_retried_slowly() {
    let now = Instant::now();
    let mut life = reconnecting(now);
    let at = wake(&mut life);
    drain(&mut life);
    life.handle_attempt_failed(Obstacle::Refused, "device revoked", LONG, at);
    assert_eq!((life.state(), life.reason()), (State::Blocked, "device revoked"));
    assert_eq!(wake(&mut life) - at, BLOCKED_RETRY);
    assert_eq!(drain(&mut life), [attempt()]);
}

#[test]
fn refusal_that_ends_a_connection_blocks_at_once() {
    let now = Instant::now();
    let mut life = connected(now);
    life.handle_lost(Obstacle::Refused, "revoked", 0, now);
    assert_eq!(life.state(), State::Blocked);
}

#[test]
fn blocked_leads_to_connected_or_reconnecting() {
    let now = Instant::now();
    let blocked = || {
        let mut life = connected(now);
        life.handle_lost(Obstacle::Refused, "revoked", 0, now);
        let at = wake(&mut life);
        (life, at)
    };
    let (mut life, at) = blocked();
    life.handle_connected(at);
    assert_eq!(life.state(), State::Connected);
    let (mut life, at) = blocked();
    life.handle_attempt_failed(Obstacle::NoAnswer, "no answer", 0, at);
    assert_eq!(life.state(), State::Reconnecting);
}

#[test]
fn login_that_is_over_is_waited_for_and_tried_at_once_when_somebody_has_logged_in() {
    let now = Instant::now();
    let mut life = reconnecting(now);
    let at = wake(&mut life);
    drain(&mut life);
    life.handle_attempt_failed(Obstacle::LoginNeeded, "over", LONG, at);
    assert_eq!((life.state(), life.reason()), (State::LoginNeeded, "over"));
    assert_eq!(life.poll_timeout(), Some(at + LOGIN_RETRY), "nobody is asked again and again");
    life.handle_login(at);
    assert_eq!(drain(&mut life), [attempt()]);
    life.handle_login(at);
    assert_eq!(drain(&mut life), [], "the attempt goes on");
    life.handle_connected(at);
    assert_eq!(life.state(), State::Connected);
    life.handle_login(at);
    assert_eq!((life.state(), drain(&mut life).len()), (State::Connected, 0), "nothing is dropped");
}

#[test]
fn first_connection_without_a_login_is_given_up_with_exit_3() {
    let now = Instant::now();
    let mut life = connecting(now);
    drain(&mut life);
    life.handle_attempt_failed(Obstacle::LoginNeeded, "over", 0, now);
    assert_eq!(drain(&mut life), [Event::Finished(Some(Obstacle::LoginNeeded))]);
    assert_eq!(Obstacle::LoginNeeded.exit(), Exit::AuthRefused);
}

#[test]
fn stop_ends_the_wait_for_a_login() {
    let now = Instant::now();
    let mut life = connected(now);
    life.handle_lost(Obstacle::LoginNeeded, "over", 0, now);
    life.handle_stop(now);
    assert_eq!((life.state(), drain(&mut life)), (State::Disconnected, vec![Event::Finished(None)]));
}

#[test]
fn flapping_connection_does_not_reset_the_back_off() {
    let now = Instant::now();
    let mut life = connected(now);
    let mut waits = Vec::new();
    let mut clock = now;
    for _ in 0..4 {
        life.handle_lost(Obstacle::NoAnswer, "", LONG, clock);
        let at = wake(&mut life);
        waits.push((at - clock).as_millis());
        life.handle_connected(at);
        clock = at;
    }
    assert_eq!(waits, [200, 400, 800, 1600]);
    let later = clock + STABLE_AFTER;
    life.handle_lost(Obstacle::NoAnswer, "", LONG, later);
    assert_eq!(wake(&mut life) - later, FIRST_RETRY);
}

#[test]
fn waking_ends_every_wait_and_begins_the_outage_anew() {
    let now = Instant::now();
    let mut life = reconnecting(now);
    let mut clock = now;
    // An old outage, which is retried slowly.
    while clock - now < Duration::from_secs(600) {
        clock = wake(&mut life);
        drain(&mut life);
        life.handle_attempt_failed(Obstacle::NoAnswer, "", LONG, clock);
    }
    life.handle_wake(clock);
    assert_eq!(drain(&mut life), [attempt()], "at once, and as short as the first");
    let later = clock + Duration::from_millis(1);
    life.handle_wake(later);
    assert_eq!(drain(&mut life), [Event::Abandon, attempt()], "an attempt of before the sleep is begun anew");
    life.handle_connected(later);
    life.handle_wake(later + STABLE_AFTER);
    assert_eq!((life.state(), drain(&mut life)), (State::Connected, vec![]), "the connection is asked first");
}

#[test]
fn connection_that_did_not_outlive_a_sleep_is_made_anew_without_a_wait_and_only_once() {
    let now = Instant::now();
    let mut life = connected(now);
    let woke = now + STABLE_AFTER;
    life.handle_wake(woke);
    life.handle_lost(Obstacle::NoAnswer, "silent", LONG, woke + Duration::from_millis(400));
    assert_eq!((life.state(), drain(&mut life)), (State::Reconnecting, vec![attempt()]));
    life.handle_attempt_failed(Obstacle::NoAnswer, "no network yet", LONG, woke + Duration::from_millis(401));
    assert_eq!(drain(&mut life), [], "then it is waited as ever");

    let mut life = connected(now);
    life.handle_wake(woke);
    life.handle_lost(Obstacle::NoAnswer, "something else", LONG, woke + JUST_WOKEN);
    assert_eq!(drain(&mut life), [], "a loss long after waking is one like another");
}

#[test]
fn gateway_that_says_when_it_is_back_is_not_tried_before_and_not_by_all_at_once() {
    for (random, waits) in [(0, 32_500), (LONG, 35_000)] {
        let now = Instant::now();
        let mut life = connected(now);
        life.handle_lost(Obstacle::NoAnswer, "restarts", 0, now);
        life.handle_restart(Duration::from_secs(30), random, now);
        assert_eq!((life.state(), life.reason()), (State::Reconnecting, "restarts"));
        let at = wake(&mut life);
        assert_eq!((at - now).as_millis(), waits);
        assert_eq!(drain(&mut life), [attempt()]);
    }
    let now = Instant::now();
    let mut life = connected(now);
    life.handle_restart(Duration::from_secs(30), 0, now);
    assert_eq!((life.state(), life.poll_timeout()), (State::Connected, None), "there is a connection");
}

#[test]
fn stop_while_connected_says_goodbye_first() {
    let now = Instant::now();
    let mut life = connected(now);
    life.handle_stop(now);
    assert_eq!(life.state(), State::Disconnecting);
    assert_eq!(drain(&mut life), [Event::Close]);
    life.handle_closed(now);
    assert_eq!(drain(&mut life), [Event::Finished(None)]);
    assert_eq!(life.state(), State::Disconnected);
}

#[test]
fn goodbye_is_not_waited_for_longer_than_2_s() {
    let now = Instant::now();
    let mut life = connected(now);
    life.handle_stop(now);
    drain(&mut life);
    assert_eq!(wake(&mut life) - now, CLOSE_TIMEOUT);
    assert_eq!(drain(&mut life), [Event::Finished(None)]);
}

#[test]
fn loss_during_goodbye_ends_it() {
    let now = Instant::now();
    let mut life = connected(now);
    life.handle_stop(now);
    drain(&mut life);
    life.handle_lost(Obstacle::NoAnswer, "gone", 0, now);
    assert_eq!(drain(&mut life), [Event::Finished(None)]);
}

#[test]
fn stop_during_an_attempt_abandons_it() {
    let now = Instant::now();
    let mut life = connecting(now);
    life.handle_stop(now);
    assert_eq!(drain(&mut life), [Event::Abandon, Event::Finished(None)]);
    let mut life = reconnecting(now);
    life.handle_stop(now);
    assert_eq!(drain(&mut life), [Event::Finished(None)]);
}

#[test]
fn stale_results_are_ignored() {
    let now = Instant::now();
    let mut life = reconnecting(now);
    life.handle_connected(now);
    assert_eq!(life.state(), State::Reconnecting, "no attempt was in progress");
    life.handle_stop(now);
    drain(&mut life);
    life.handle_attempt_failed(Obstacle::Refused, "", 0, now);
    life.handle_lost(Obstacle::NoAnswer, "", 0, now);
    life.handle_closed(now);
    assert_eq!((life.state(), drain(&mut life)), (State::Disconnected, vec![]));
}

#[test]
fn move_begins_an_attempt_beside_the_connection_in_use() {
    let now = Instant::now();
    let mut life = connected(now);
    life.handle_move(now);
    assert_eq!((life.state(), drain(&mut life)), (State::Connected, vec![attempt()]));
    life.handle_move(now);
    assert_eq!(drain(&mut life), [], "the second one waits");
    wake(&mut life);
    assert_eq!(drain(&mut life), [Event::Abandon, attempt()], "it is tried anew from the next place");
    life.handle_move(now);
    life.handle_connected(now);
    assert_eq!((life.state(), life.poll_timeout()), (State::Connected, None));
}

#[test]
fn host_that_moves_all_the_time_is_followed_ever_more_rarely() {
    let now = Instant::now();
    for mut life in [connecting(now), connected(now), reconnecting(now)] {
        drain(&mut life);
        let mut followed = Vec::new();
        for tenth in 0..400 {
            let at = now + Duration::from_millis(100) * tenth;
            if life.poll_timeout().is_some_and(|due| at >= due) {
                life.handle_timeout(LONG, at);
            }
            life.handle_move(at);
            if drain(&mut life).iter().any(|event| matches!(event, Event::Attempt { .. })) {
                followed.push(at - now);
            }
        }
        assert_eq!(followed[0], Duration::ZERO, "the first one at once");
        // Without a pause it would be 400. Attempts that take too long are made anew in between.
        assert!(followed.len() <= 20, "{followed:?}");
    }
}

#[test]
fn move_is_followed_at_once_after_a_connection_has_held() {
    let mut now = Instant::now();
    let mut life = connected(now);
    for _ in 0..20 {
        now += HELD_AFTER;
        life.handle_move(now);
        assert_eq!(drain(&mut life), [attempt()]);
        life.handle_connected(now);
    }
    for _ in 0..20 {
        now += HELD_AFTER;
        life.handle_move(now);
        life.handle_way_back(now);
        assert_eq!(drain(&mut life), [attempt(), Event::Abandon]);
    }
    // The positive control: of two at once the second has to wait.
    now += HELD_AFTER;
    for _ in 0..2 {
        life.handle_move(now);
        life.handle_way_back(now);
    }
    assert_eq!(drain(&mut life), [attempt(), Event::Abandon]);
}

#[test]
fn pauses_between_moves_are_bounded_and_forgotten() {
    let mut now = Instant::now();
    let mut life = connecting(now);
    for _ in 0..100 {
        life.handle_move(now);
        let due = life.follow_at.unwrap_or(now);
        assert!(due - now <= LONGEST_PAUSE);
        now = due;
        life.handle_timeout(LONG, now);
        life.give_up = None;
    }
    drain(&mut life);
    now += Duration::from_secs(60);
    life.handle_move(now);
    life.handle_move(now + LONGEST_PAUSE / 8);
    assert_eq!(drain(&mut life), [Event::Abandon, attempt(), Event::Abandon, attempt()]);
}

#[test]
fn attempt_that_fails_beside_a_connection_changes_nothing() {
    let now = Instant::now();
    let mut life = connected(now);
    for obstacle in [Obstacle::NoAnswer, Obstacle::Refused, Obstacle::LoginNeeded] {
        life.handle_astray(now);
        drain(&mut life);
        life.handle_attempt_failed(obstacle, "no", 0, now);
        assert_eq!((life.state(), life.reason(), life.poll_timeout()), (State::Connected, "", None), "{obstacle:?}");
    }
    life.handle_astray(now);
    drain(&mut life);
    wake(&mut life);
    assert_eq!((life.state(), drain(&mut life)), (State::Connected, vec![Event::Abandon]), "it took too long");
    life.handle_astray(now);
    life.handle_astray(now);
    life.handle_way_back(now);
    assert_eq!(drain(&mut life), [attempt(), Event::Abandon]);
    assert_eq!((life.state(), life.poll_timeout()), (State::Connected, None));
}

#[test]
fn connection_lost_beside_an_attempt_waits_for_that_unless_it_is_in_vain() {
    let now = Instant::now();
    let mut life = connected(now);
    life.handle_move(now);
    drain(&mut life);
    life.handle_lost(Obstacle::NoAnswer, "gone", LONG, now);
    assert_eq!((life.state(), drain(&mut life)), (State::Reconnecting, vec![]));
    life.handle_connected(now);
    assert_eq!(life.state(), State::Connected);
    life.handle_astray(now);
    drain(&mut life);
    life.handle_lost(Obstacle::Refused, "revoked", LONG, now);
    assert_eq!((life.state(), drain(&mut life)), (State::Blocked, vec![Event::Abandon]));
    life.handle_move(now);
    assert_eq!(drain(&mut life), [], "a refusal holds everywhere");
}

#[test]
fn move_ends_the_wait_for_the_next_attempt() {
    let now = Instant::now();
    let mut life = reconnecting(now);
    drain(&mut life);
    life.handle_move(now);
    assert_eq!((life.state(), drain(&mut life)), (State::Reconnecting, vec![attempt()]));
    life.handle_stop(now);
    assert_eq!(drain(&mut life), [Event::Abandon, Event::Finished(None)]);
    let mut life = connected(now);
    life.handle_move(now);
    drain(&mut life);
    life.handle_stop(now);
    assert_eq!(drain(&mut life), [Event::Abandon, Event::Close]);
}

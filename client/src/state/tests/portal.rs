//! The life cycle in networks with a captive portal.

use super::*;

#[test]
fn portal_has_a_state_of_its_own_while_the_attempts_go_on() {
    let now = Instant::now();
    for mut life in [connecting(now), reconnecting(now)] {
        let before = life.state();
        let found = now + Duration::from_secs(4);
        life.handle_portal(Some("captive portal at http://p.example/"), found);
        assert_eq!((life.state(), life.since()), (State::CaptivePortal, found));
        // What else is met there says no more than that.
        drain(&mut life);
        wake(&mut life);
        life.handle_attempt_failed(Obstacle::IdentityMismatch, "a stranger answers", LONG, found);
        assert_eq!((life.state(), life.reason()), (State::CaptivePortal, "captive portal at http://p.example/"));
        let gone = found + Duration::from_secs(9);
        life.handle_portal(None, gone);
        assert_eq!((life.state(), life.since(), life.reason()), (before, gone, ""));
        life.handle_portal(Some("again"), gone);
        drain(&mut life);
        wake(&mut life);
        life.handle_connected(gone);
        assert_eq!((life.state(), life.reason()), (State::Connected, ""));
        life.handle_portal(Some("late"), gone);
        assert_eq!((life.state(), life.reason()), (State::Connected, ""), "a look that comes late changes nothing");
    }
}

#[test]
fn client_that_gives_up_at_a_portal_says_so_and_a_refusal_behind_it_counts() {
    let now = Instant::now();
    let mut life = connecting(now);
    life.handle_portal(Some("captive portal"), now);
    life.handle_attempt_failed(Obstacle::NoAnswer, "no answer", LONG, now);
    life.handle_timeout(LONG, now + PATIENCE);
    assert!(drain(&mut life).contains(&Event::Finished(Some(Obstacle::CaptivePortal))));
    assert_eq!((life.state(), life.reason()), (State::Disconnected, "captive portal"));

    let mut life = reconnecting(now);
    life.handle_portal(Some("captive portal"), now);
    let at = wake(&mut life);
    life.handle_attempt_failed(Obstacle::Refused, "revoked", LONG, at);
    assert_eq!((life.state(), life.reason()), (State::Blocked, "revoked"));
}

#[test]
fn portal_that_nobody_passes_for_hours_is_still_tried_every_2_s() {
    let now = Instant::now();
    let mut life = reconnecting(now);
    life.handle_portal(Some("captive portal"), now);
    let mut clock = wake(&mut life);
    for _ in 0..2 * 3600 {
        life.handle_attempt_failed(Obstacle::NoAnswer, "no answer", LONG, clock);
        let at = wake(&mut life);
        assert!(at - clock <= Duration::from_secs(2), "{:?}", at - clock);
        clock = at;
    }
}

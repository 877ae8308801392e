use super::ChangeEvent::{Ask, Dial, Drop, Reopen};
use super::Transport::{Quic, Tls};
use super::*;

#[expect(clippy::disallowed_methods, reason = "only differences from it matter")]
fn start() -> Instant {
    Instant::now()
}

/// The longest jitter.
const LATEST: u32 = u32::MAX;

fn events(change: &mut Change) -> Vec<ChangeEvent> {
    std::iter::from_fn(|| change.poll_event()).collect()
}

/// A session on QUIC that is doubted since `now`.
fn doubted() -> (Change, Instant) {
    let now = start();
    let mut change = Change::new(Quic, now);
    assert_eq!(change.poll_timeout(), None, "a sound QUIC needs no other");
    change.handle_doubt(true, now);
    assert_eq!(events(&mut change), [Dial(Tls)]);
    (change, now)
}

/// Has the other connection carry the session.
fn moves(change: &mut Change, now: Instant) {
    change.handle_proven(now);
    change.handle_timeout(now + PROVEN_FOR);
    assert!(change.is_moving());
    change.handle_moved(LATEST, now);
    assert!(!change.is_moving());
    events(change);
}

/// Waits until the other connection is dialled; how long that took.
fn next_dial(change: &mut Change, now: &mut Instant) -> Duration {
    let at = change.poll_timeout().unwrap();
    let waited = at - *now;
    *now = at;
    change.handle_timeout(*now);
    assert_eq!(events(change), [Dial(change.current().other())]);
    waited
}

#[test]
fn session_moves_to_tls_once_quic_was_silent_for_long_enough() {
    let (mut change, now) = doubted();
    change.handle_proven(now);
    assert_eq!((events(&mut change), change.poll_timeout()), (vec![], Some(now + PROVEN_FOR)));
    change.handle_timeout(now + PROVEN_FOR);
    assert_eq!(events(&mut change), [Ask]);
    change.handle_moved(0, now + PROVEN_FOR);
    assert_eq!(change.current(), Tls);
}

#[test]
fn quic_that_answers_again_keeps_the_session() {
    let (mut change, now) = doubted();
    change.handle_proven(now);
    change.handle_doubt(false, now);
    assert_eq!((events(&mut change), change.poll_timeout()), (vec![Drop], None));
    change.handle_timeout(now + DOUBTED_FOR);
    assert_eq!((events(&mut change), change.current()), (vec![], Quic));
    change.handle_doubt(true, now);
    assert_eq!(events(&mut change), [Dial(Tls)], "and is doubted again");
}

#[test]
fn tls_that_fails_as_well_is_tried_ever_more_rarely_while_quic_is_doubted() {
    let (mut change, mut now) = doubted();
    let mut waits = Vec::new();
    for _ in 0..5 {
        change.handle_failed(LATEST, now);
        waits.push(next_dial(&mut change, &mut now).as_millis());
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 4000]);
    change.handle_failed(0, now);
    assert_eq!(next_dial(&mut change, &mut now), LONGEST_AGAIN / 2, "not all in step");
    change.handle_failed(LATEST, now);
    change.handle_doubt(false, now);
    assert_eq!((events(&mut change), change.poll_timeout()), (vec![], None));
    change.handle_doubt(true, now);
    change.handle_failed(LATEST, now);
    events(&mut change);
    assert_eq!(next_dial(&mut change, &mut now), FIRST_AGAIN, "what was waited before is forgotten");
}

#[test]
fn gateway_that_was_away_as_a_whole_does_not_make_a_network_that_blocks_udp() {
    let (mut change, mut now) = doubted();
    change.handle_failed(LATEST, now);
    next_dial(&mut change, &mut now);
    change.handle_proven(now);
    assert_eq!((events(&mut change), change.poll_timeout()), (vec![], Some(now + REOPENED_AFTER)));
    change.handle_timeout(now + REOPENED_AFTER);
    assert_eq!((events(&mut change), change.poll_timeout()), (vec![Reopen], None));
    let later = now + LONGEST_WAIT;
    for is_doubted in [false, true] {
        change.handle_doubt(is_doubted, later);
        change.handle_hold(is_doubted, later);
        change.handle_proven(later);
        change.handle_failed(LATEST, later);
        change.handle_timeout(later + LONGEST_WAIT);
    }
    change.handle_hold(false, later);
    assert_eq!((events(&mut change), change.poll_timeout()), (vec![], None), "nothing follows");
    // The positive control: QUIC has answered in between.
    let (mut change, now) = doubted();
    change.handle_failed(LATEST, now);
    change.handle_doubt(false, now);
    change.handle_doubt(true, now);
    change.handle_proven(now);
    change.handle_timeout(now + PROVEN_FOR);
    assert_eq!(events(&mut change), [Dial(Tls), Ask]);
}

#[test]
fn quic_that_was_only_cut_off_keeps_the_session() {
    let (mut change, mut now) = doubted();
    change.handle_failed(LATEST, now);
    next_dial(&mut change, &mut now);
    change.handle_proven(now);
    change.handle_timeout(now + REOPENED_AFTER / 2);
    change.handle_doubt(false, now + REOPENED_AFTER / 2);
    change.handle_timeout(now + REOPENED_AFTER);
    assert_eq!((events(&mut change), change.current(), change.poll_timeout()), (vec![Drop], Quic, None));
}

#[test]
fn session_moves_up_as_soon_as_quic_is_proven() {
    let mut now = start();
    let mut change = Change::new(Tls, now);
    assert_eq!(next_dial(&mut change, &mut now), FIRST_TRY);
    change.handle_proven(now);
    assert_eq!(events(&mut change), [Ask]);
    change.handle_moved(LATEST, now);
    assert_eq!((change.current(), change.poll_timeout()), (Quic, None));
}

#[test]
fn quic_is_tried_ever_more_rarely_where_it_does_not_pass() {
    let mut now = start();
    let mut change = Change::new(Tls, now);
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(next_dial(&mut change, &mut now).as_secs());
        change.handle_failed(LATEST, now);
    }
    assert_eq!(waits, [1, 10, 20, 40, 80, 160, 320, 600, 600]);
    change.handle_failed(0, now);
    assert_eq!(next_dial(&mut change, &mut now), LONGEST_WAIT, "a failure counts once");
    change.handle_failed(0, now);
    assert_eq!(next_dial(&mut change, &mut now), LONGEST_WAIT / 2, "not all in step");
}

#[test]
fn quic_that_fails_soon_after_it_was_chosen_waits_longer_each_time() {
    let mut now = start();
    let mut change = Change::new(Tls, now);
    next_dial(&mut change, &mut now);
    moves(&mut change, now);
    let mut waits = Vec::new();
    let mut fall = |change: &mut Change, now: &mut Instant, after: Duration| {
        *now += after;
        change.handle_doubt(true, *now);
        events(change);
        *now += DOUBTED_FOR;
        moves(change, *now);
        waits.push(next_dial(change, now).as_secs());
        moves(change, *now);
    };
    for _ in 0..4 {
        fall(&mut change, &mut now, SOUND_AFTER / 2);
    }
    fall(&mut change, &mut now, SOUND_AFTER);
    assert_eq!(waits, [10, 20, 40, 80, 10]);
}

#[test]
fn nothing_is_dialled_or_asked_while_the_owner_makes_a_connection() {
    let (mut change, now) = doubted();
    change.handle_hold(true, now);
    assert_eq!((events(&mut change), change.poll_timeout()), (vec![Drop], None));
    change.handle_proven(now);
    change.handle_doubt(false, now);
    change.handle_doubt(true, now);
    change.handle_timeout(now + LONGEST_WAIT);
    assert_eq!((events(&mut change), change.poll_timeout()), (vec![], None));
    change.handle_hold(false, now);
    assert_eq!(events(&mut change), [Dial(Tls)], "QUIC is doubted still");

    let mut now = now;
    let mut up = Change::new(Tls, now);
    let due = up.poll_timeout();
    up.handle_hold(true, now);
    assert_eq!((events(&mut up), up.poll_timeout()), (vec![], None));
    up.handle_hold(false, now);
    assert_eq!((events(&mut up), up.poll_timeout()), (vec![], due), "it waits as long as before");
    next_dial(&mut up, &mut now);
    up.handle_proven(now);
    assert_eq!(events(&mut up), [Ask]);
    up.handle_hold(true, now);
    assert_eq!((events(&mut up), up.is_moving()), (vec![Drop], false));
    up.handle_moved(0, now);
    assert_eq!(up.current(), Tls, "an answer comes too late");
    up.handle_hold(false, now);
    assert_eq!(events(&mut up), [Dial(Quic)]);
}

#[test]
fn quic_that_is_sound_again_when_the_owner_has_made_none_stays_alone() {
    let (mut change, now) = doubted();
    change.handle_hold(true, now);
    change.handle_doubt(false, now);
    change.handle_hold(false, now);
    change.handle_timeout(now + LONGEST_WAIT);
    assert_eq!((events(&mut change), change.poll_timeout()), (vec![Drop], None));
}

#[test]
fn what_comes_unasked_moves_nothing() {
    let now = start();
    let mut change = Change::new(Quic, now);
    change.handle_proven(now);
    change.handle_moved(0, now);
    change.handle_failed(0, now);
    change.handle_timeout(now + LONGEST_WAIT);
    assert_eq!((events(&mut change), change.current(), change.poll_timeout()), (vec![], Quic, None));
    let mut on_tls = Change::new(Tls, now);
    on_tls.handle_doubt(true, now);
    assert_eq!(events(&mut on_tls), [], "TCP knows itself what is unanswered");
}

#[test]
fn doubt_that_ends_while_the_gateway_is_asked_changes_nothing() {
    let (mut change, now) = doubted();
    change.handle_proven(now + DOUBTED_FOR);
    assert_eq!(events(&mut change), [], "an answer over QUIC may be under way");
    change.handle_timeout(now + DOUBTED_FOR + PROVEN_FOR);
    assert_eq!(events(&mut change), [Ask]);
    change.handle_doubt(false, now + DOUBTED_FOR);
    assert!(change.is_moving() && events(&mut change).is_empty());
    change.handle_moved(0, now + DOUBTED_FOR);
    assert_eq!(change.current(), Tls);
}

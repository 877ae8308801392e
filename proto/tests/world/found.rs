//! Courses of events that once broke a promise, over many networks each.

use crate::scenario::{Event, Quality, Scenario};

/// Lets the events happen in many settings.
fn happens(events: &[Event]) {
    for seed in 1..=24 {
        let scenario = Scenario { seed, events: events.to_vec() };
        if let Err(broken) = scenario.run() {
            panic!("seed {seed}: promise not kept: {}\nseen: {}", broken.promise, broken.detail);
        }
    }
}

#[test]
fn both_ends_leave_a_size_that_the_path_takes_no_more() {
    happens(&[
        Event::Quality(Quality::Good),
        Event::Busy { time: 40_000, every: 400, client: true, gateway: true, full: true },
        Event::Size { up: 1412, down: 1412, refuses: false },
        Event::Busy { time: 120_000, every: 400, client: true, gateway: true, full: true },
    ]);
}

#[test]
fn client_that_moves_while_keys_change_is_followed() {
    let events = vec![
        Event::Quality(Quality::Awful),
        Event::Pause(9600),
        Event::Sleep { time: 45_000, told: true, gateway_sends: false },
        Event::Busy { time: 300, every: 15, client: true, gateway: true, full: false },
        Event::Quality(Quality::Good),
        Event::Move { to: 1, nat: false, told: true },
    ];
    let course = Scenario { seed: 161_233, events }.run();
    assert!(course.is_ok(), "{course:?}");
}

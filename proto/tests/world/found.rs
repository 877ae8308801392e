//! Courses of events that once broke a promise.

use crate::scenario::{Event, Quality, Scenario};

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

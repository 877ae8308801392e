//! A client and its gateway in a world that gets in their way, under virtual time.
//!
//! Each seed draws a scenario: a network that blocks, loses, delays, mixes up and shrinks; a NAT that forgets; moves,
//! sleep, restarts; an attacker on the path who replays, forges, steals and relays. After each moment all promises of
//! [`promises`] have to be kept, and at the end, on a network that is well again, packets have to flow.
//!
//! ```text
//! ADIT_WORLD_SCENARIOS=100000 cargo test -p adit-proto --test world    that many seeds
//! ADIT_WORLD_SEED=4711 cargo test -p adit-proto --test world           from this seed on; alone unless told otherwise
//! ```
//!
//! A scenario that breaks a promise is told with its seed and with the fewest events that do: they are what a test of
//! [`found`] is made of, and one of the machine.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed expectation ends a test, which says what it saw"
)]

mod choice;
mod cipher;
mod connection;
mod found;
mod moments;
mod nat;
mod network;
mod promises;
mod scenario;
mod transcript;
mod tunnel;
mod world;

use promises::Tally;
use scenario::Scenario;

/// Scenarios of a run that nobody asked more of.
const SCENARIOS: u64 = 300;

/// The first seed.
fn first() -> u64 {
    asked("ADIT_WORLD_SEED").unwrap_or(1)
}

/// How many seeds.
fn count() -> u64 {
    let usual = if asked("ADIT_WORLD_SEED").is_some() { 1 } else { SCENARIOS };
    asked("ADIT_WORLD_SCENARIOS").unwrap_or(usual)
}

/// A number in the environment.
fn asked(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?} is no number")))
}

#[test]
fn every_promise_is_kept_whatever_happens() {
    let (first, count) = (first(), count());
    let mut all = Tally::default();
    let mut virtual_time = std::time::Duration::ZERO;
    for seed in first..first.saturating_add(count) {
        let scenario = Scenario::draw(seed);
        match scenario.run() {
            Ok(course) => {
                all.add(&course.tally);
                virtual_time += course.elapsed;
            }
            Err(broken) => {
                let smallest = scenario.shrink(&broken);
                panic!(
                    "promise not kept: {}\nseen: {}\nagain: ADIT_WORLD_SEED={seed} cargo test -p adit-proto --test world\n\
                     fewest events that break it: {smallest:?}\nwhich end in: {:?}",
                    broken.promise,
                    broken.detail,
                    smallest.run().err()
                );
            }
        }
    }
    println!("{count} scenarios from seed {first}, {virtual_time:?} of virtual time: {all:?}");
    assert!(count < SCENARIOS || all.is_complete(), "something never happened, so nothing was shown of it: {all:?}");
}

#[test]
fn session_is_where_it_can_be_whatever_the_network_passes() {
    for seed in first()..first().saturating_add(count()) {
        if let Err(broken) = choice::choose(seed) {
            panic!("seed {seed}: promise not kept: {}\nseen: {}", broken.promise, broken.detail);
        }
    }
}

#[test]
fn same_seed_is_the_same_to_the_byte() {
    for seed in 1..=20 {
        let runs = [Scenario::draw(seed).run(), Scenario::draw(seed).run()];
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
    assert_ne!(Scenario::draw(1).run(), Scenario::draw(2).run());
}

//! N5: the client's host sleeps for a night, and its NAT forgets it.

use std::time::{Duration, Instant};

use adit_lab::programs::TUN;
use adit_lab::traffic::Beacon;
use adit_lab::{INTERNET_V4, MovedClock};
use adit_netem::random::Random;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::demand::Demand;
use super::site::{PATIENCE, Site, wait};
use super::trouble::{Trouble, Turn};
use crate::load::targets::Bound;
use crate::measure::meter::milliseconds;
use crate::report::model::Reading;

pub(super) const TROUBLE: Trouble = Trouble {
    name: "N5",
    task: "sleep",
    words: "the client's host sleeps for 8 hours",
    events: None,
    demands: &[Demand { what: "packets flow after waking, ms", metric: "back", bound: Bound::Most(1_000.0) }],
    measure,
};

/// Seconds that pass by the clocks that count sleep.
const NIGHT: i64 = 8 * 60 * 60;
/// The longest that the program is really stopped. Its timers stand still while a host sleeps, so that it wakes at any
/// moment between two looks at the clock, which are a second apart.
const STOP: Duration = Duration::from_secs(1);

fn measure(turn: &Turn<'_>) -> Result<Vec<Reading>> {
    let interrupt = turn.interrupt;
    let mut site = Site::start()?;
    let clock = MovedClock::new(site.client.host(), 0)?;
    site.client.up_with(&[], &clock.environment_of_sleep())?;
    ensure!(site.comes_to(&["esp"], interrupt)?.is_some(), "packets do not travel by ESP at first");
    let beacon = Beacon::start(site.client.host(), TUN, INTERNET_V4);
    let answered = |since| wait(interrupt, || Ok(beacon.first_answer(since)));
    ensure!(answered(Instant::now())?.is_some(), "no packets flow through the tunnel");
    let client = site.client.process().context("the client runs")?;
    client.signal(Signal::SIGSTOP)?;
    // Otherwise the gateway would still answer what it would have forgotten long ago.
    site.gateway.host().forget(site.client.host())?;
    clock.set(NIGHT)?;
    let seed = turn.options.seed.wrapping_add(turn.round.into());
    interrupt.pause(STOP.mul_f64(Random::new(seed, "sleep").unit()))?;
    let woken = Instant::now();
    client.signal(Signal::SIGCONT)?;
    let answer = answered(woken)?.map(|(answer, _)| answer);
    Ok(readings(woken, answer))
}

/// What is said of a host that woke, and of the first answer to what it sent then.
fn readings(woken: Instant, answer: Option<Instant>) -> Vec<Reading> {
    vec![milliseconds("back", answer.map_or(PATIENCE, |answer| answer.duration_since(woken)))]
}

#[cfg(test)]
mod tests {
    use super::super::demand::tests::met;
    use super::*;

    #[test]
    fn answer_that_is_late_or_never_comes_is_a_miss() {
        let woken = Instant::now();
        let after = |milliseconds| met(&TROUBLE, readings(woken, Some(woken + Duration::from_millis(milliseconds))));
        assert_eq!((after(1_000), after(1_001)), (vec![Some(true)], vec![Some(false)]));
        assert_eq!(met(&TROUBLE, readings(woken, None)), [Some(false)]);
    }
}

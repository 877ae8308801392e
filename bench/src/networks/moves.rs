//! N3: a host moves at random moments while packets flow.

use std::time::{Duration, Instant};

use adit_lab::traffic::ping;
use adit_lab::{GATEWAY_V4, GATEWAY_V6, INTERNET_V4, Move, Traveller};
use anyhow::{Context as _, Result, ensure};

use super::demand::Demand;
use super::flows::Flows;
use super::site::{BY_UDP, Site, flow_again, longest};
use super::trouble::{Events, Trouble, Turn};
use crate::load::histogram::Histogram;
use crate::load::targets::Bound;
use crate::measure::meter::{count, milliseconds, reading};
use crate::report::model::Reading;

pub(super) const TROUBLE: Trouble = Trouble {
    name: "N3",
    task: "moves",
    words: "the client's host moves while packets flow",
    events: Some(Events { metric: "moves", least: 100.0, flag: "--moves 100" }),
    demands: &[
        Demand { what: "gap above the round trip, p99, ms", metric: "gap_p99", bound: Bound::Most(250.0) },
        Demand { what: "TCP connections lost", metric: "flows_lost", bound: Bound::Most(0.0) },
    ],
    measure,
};

/// Longest wait for an echo.
const ECHO: Duration = Duration::from_secs(1);

fn measure(turn: &Turn<'_>) -> Result<Vec<Reading>> {
    let interrupt = turn.interrupt;
    let public = format!(r#"["{GATEWAY_V4}:443", "[{GATEWAY_V6}]:443"]"#);
    let mut site = Site::start_with(&[("public", &public)])?;
    let mut traveller = Traveller::settle(site.client.host(), turn.options.seed)?;
    site.connect()?;
    ensure!(site.comes_to(&BY_UDP, interrupt)?.is_some(), "packets do not travel over UDP at first");
    let flows = Flows::start(site.client.host(), &site.internet)?;
    let dialogue = site.dialogue(interrupt)?;
    let round_trip = ping(site.client.host(), INTERNET_V4.into(), ECHO)?.rtt().context("an echo request is lost")?;
    let mut gaps = Vec::new();
    for how in Move::ALL.into_iter().cycle().take(turn.options.moves()) {
        interrupt.pause(traveller.stay())?;
        let there = traveller.travel(how)?;
        flow_again(&dialogue, there, interrupt)?;
        gaps.push(longest(dialogue.longest_silence(there, Instant::now())));
    }
    let mut readings = readings(&gaps, round_trip, flows.lost(interrupt)?);
    let lost = dialogue.finish().iter().map(|course| course.lost() as u64).sum();
    readings.push(reading("lost", "packets", count(lost)));
    Ok(readings)
}

/// What is said of the gaps from the moments at which the link was there again, which may take a round trip.
fn readings(gaps: &[Duration], round_trip: Duration, flows_lost: u32) -> Vec<Reading> {
    let histogram = Histogram::default();
    gaps.iter().for_each(|gap| histogram.note(gap.saturating_sub(round_trip)));
    let above = histogram.percentiles();
    vec![
        reading("gap_p99", "ms", above.p99),
        reading("gap_p50", "ms", above.p50),
        reading("gap_max", "ms", above.max),
        milliseconds("round_trip", round_trip),
        reading("flows_lost", "connections", flows_lost.into()),
        reading("moves", "moves", count(above.count)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::demand::tests::met;
    use super::*;

    /// What is met where of so many moves this many have a gap of a second.
    fn of(moves: usize, slow: usize, flows_lost: u32) -> Vec<Option<bool>> {
        let gap = |number| Duration::from_millis(if number < slow { 1_000 } else { 290 });
        let gaps: Vec<Duration> = (0..moves).map(gap).collect();
        met(&TROUBLE, readings(&gaps, Duration::from_millis(50), flows_lost))
    }

    #[test]
    fn one_move_of_a_hundred_may_take_longer() {
        assert_eq!(of(100, 1, 0), [Some(true); 2]);
        assert_eq!(of(100, 2, 0), [Some(false), Some(true)]);
        assert_eq!(of(100, 0, 1), [Some(true), Some(false)]);
    }

    #[test]
    fn few_moves_decide_nothing() {
        assert_eq!(of(99, 99, 1), [None; 2]);
    }
}

//! N7: the path becomes narrower while a transfer goes on, and nobody is told.

use std::time::{Duration, Instant};

use adit_lab::Lab;
use adit_netem::Profile;
use anyhow::{Context as _, Result, ensure};

use super::demand::Demand;
use super::flows::Flows;
use super::site::{PATIENCE, Site};
use super::trouble::{Trouble, Turn};
use crate::load::targets::Bound;
use crate::measure::meter::{milliseconds, reading};
use crate::report::model::Reading;

pub(super) const TROUBLE: Trouble = Trouble {
    name: "N7",
    task: "narrowing",
    words: "the path becomes narrower while a transfer goes on",
    events: None,
    demands: &[
        Demand { what: "gap when the path narrows, ms", metric: "gap", bound: Bound::Most(3_000.0) },
        Demand { what: "TCP connections lost", metric: "flows_lost", bound: Bound::Most(0.0) },
    ],
    measure,
};

/// Bytes of a packet that still passes: less than the 1,500 of before, and enough for a tunnel over UDP.
const NARROW: usize = 1_400;
/// How long a transfer has to go on before, so that its packets are as large as they may be.
const BEFORE: Duration = Duration::from_secs(1);
/// How long it is watched at least: one gap may follow another.
const WATCHED: Duration = Duration::from_secs(6);
/// A transfer goes on again when its last bytes came no longer ago than this.
const GOES_ON: Duration = Duration::from_millis(500);
/// How often its bytes are counted, and so the error of a gap.
const LOOK: Duration = Duration::from_millis(5);

fn measure(turn: &Turn<'_>) -> Result<Vec<Reading>> {
    let interrupt = turn.interrupt;
    let clean = Profile::shipped("clean").context("the profile is shipped")?;
    let mut lab = Lab::pair_through(&clean, turn.options.seed)?;
    lab.add_internet()?;
    let mut site = Site::in_lab(lab, &[])?;
    site.connect()?;
    ensure!(site.comes_to(&["esp"], interrupt)?.is_some(), "packets do not travel by ESP at first");
    let flows = Flows::at_full_speed(site.client.host(), &site.internet)?;
    interrupt.pause(BEFORE)?;
    let began = Instant::now();
    site.lab.narrow(NARROW)?;
    let mut gaps = Gaps::begin(began, flows.received());
    while !gaps.are_over() {
        interrupt.pause(LOOK)?;
        gaps.note(Instant::now(), flows.received());
    }
    Ok(vec![milliseconds("gap", gaps.longest), reading("flows_lost", "connections", flows.lost(interrupt)?.into())])
}

/// How long the connections stood still.
#[derive(Debug)]
struct Gaps {
    began: Instant,
    now: Instant,
    /// What each had moved, and when that was last more than before.
    seen: [(u64, Instant); 2],
    longest: Duration,
}

impl Gaps {
    fn begin(now: Instant, received: [u64; 2]) -> Self {
        Self { began: now, now, seen: received.map(|bytes| (bytes, now)), longest: Duration::ZERO }
    }

    /// Notes what each had moved at a moment.
    fn note(&mut self, now: Instant, received: [u64; 2]) {
        self.now = now;
        for ((bytes, last), received) in self.seen.iter_mut().zip(received) {
            // Also of one that stands still: nobody knows whether it will go on.
            self.longest = self.longest.max(now.duration_since(*last));
            if received > *bytes {
                (*bytes, *last) = (received, now);
            }
        }
    }

    /// Whether all were watched for long enough and go on, or one stood still for too long.
    fn are_over(&self) -> bool {
        let watched = self.now.duration_since(self.began);
        let go_on = self.seen.iter().all(|(_, last)| self.now.duration_since(*last) < GOES_ON);
        watched >= WATCHED && go_on || watched >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::super::demand::tests::met;
    use super::*;

    /// Two connections of which the second stands still from 1 s on for so long, looked at until it is over.
    fn watched(still: Duration) -> (Duration, Gaps) {
        let began = Instant::now();
        let mut gaps = Gaps::begin(began, [0, 0]);
        let (mut time, mut bytes) = (Duration::ZERO, [0, 0]);
        while !gaps.are_over() {
            time += Duration::from_millis(100);
            bytes[0] += 1;
            let stands = Duration::from_secs(1) < time && time < Duration::from_secs(1) + still;
            bytes[1] += u64::from(!stands);
            gaps.note(began + time, bytes);
        }
        (time, gaps)
    }

    #[test]
    fn longest_gap_of_either_connection_counts() {
        let (time, gaps) = watched(Duration::from_millis(2_500));
        assert_eq!((time, gaps.longest), (WATCHED, Duration::from_millis(2_500)));
        let judged = |still| {
            let readings =
                vec![milliseconds("gap", watched(still).1.longest), reading("flows_lost", "connections", 0.0)];
            met(&TROUBLE, readings)
        };
        assert_eq!(judged(Duration::from_millis(3_000)), [Some(true), Some(true)]);
        assert_eq!(judged(Duration::from_millis(3_100)), [Some(false), Some(true)]);
    }

    #[test]
    fn connection_that_never_goes_on_is_given_up() {
        let (time, gaps) = watched(PATIENCE * 2);
        assert_eq!((time, gaps.longest), (PATIENCE, PATIENCE - Duration::from_secs(1)));
    }
}

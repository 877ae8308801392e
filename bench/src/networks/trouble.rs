//! One thing that networks do to a tunnel, and how it is measured.

use std::time::Instant;

use anyhow::Result;

use super::demand::Demand;
use super::options::Options;
use super::{moves, narrowing, restart, sleep, udp_blocked, udp_changes};
use crate::interrupt::Interrupt;
use crate::measure::disturbance::Moment;
use crate::report::model::{Reading, Run};

/// The system of all runs.
pub(super) const SYSTEM: &str = "adit";

/// All that are about times and counts, in their order.
pub(super) const TROUBLES: [Trouble; 6] =
    [udp_blocked::TROUBLE, udp_changes::TROUBLE, moves::TROUBLE, restart::TROUBLE, sleep::TROUBLE, narrowing::TROUBLE];

/// One thing that networks do to a tunnel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    /// `N1` and so on.
    pub(super) name: &'static str,
    /// What its runs are called in a report.
    pub(super) task: &'static str,
    /// For whoever watches.
    pub(super) words: &'static str,
    /// What one turn has many of, so that it is taken once; `None` where every round takes one.
    pub(super) events: Option<Events>,
    pub(super) demands: &'static [Demand],
    /// Reads what it should reach, in a lab of its own. What does not come counts with the longest wait; an error is
    /// one of the lab.
    pub(super) measure: fn(&Turn<'_>) -> Result<Vec<Reading>>,
}

/// Many things of a kind that happen in one turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Events {
    /// The reading that counts them.
    pub(super) metric: &'static str,
    /// How many the targets are about.
    pub(super) least: f64,
    /// What makes them as many.
    pub(super) flag: &'static str,
}

/// One of its rounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<'a> {
    /// Counted from 1.
    pub(super) round: u32,
    pub(super) options: &'a Options,
    pub(super) interrupt: &'a Interrupt,
}

impl Trouble {
    /// Whether a turn is taken in this round.
    pub(super) fn is_due(&self, round: u32) -> bool {
        round == 1 || self.events.is_none()
    }

    /// Takes a turn.
    ///
    /// # Errors
    /// Fails when interrupted; what goes wrong otherwise is in the run.
    pub(super) fn take(&self, turn: &Turn<'_>) -> Result<Run> {
        let (start, before) = (Instant::now(), Moment::now([])?);
        let outcome = (self.measure)(turn);
        turn.interrupt.check()?;
        let mut run = Run::new(turn.round, SYSTEM, Some(self.task), start.elapsed(), outcome);
        Moment::now([])?.judge(&before, &mut run);
        Ok(run)
    }
}

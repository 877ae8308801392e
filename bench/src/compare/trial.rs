//! The turns of a comparison: which build runs when, and which turns are taken again.
//!
//! A round is A B B A, so that what changes steadily over its four turns meets both builds alike; the next one goes on
//! the same way. Rounds in which B is A once more come first, and show what equal builds differ by.

use adit_program::exit::{Exit, Failure};
use anyhow::Result;

use crate::interrupt::Interrupt;
use crate::measure::progress::Progress;
use crate::measure::session::{expected_turn, turn};
use crate::measure::task::Task;
use crate::report::model::{Report, Run};
use crate::systems::System;

/// Names of the three that take part: the first build, the same once more, and the second build.
pub(super) const NAMES: [&str; 3] = [BASE, TWIN, HEAD];
pub(super) const BASE: &str = "base";
/// The first build under another name.
pub(super) const TWIN: &str = "base-again";
pub(super) const HEAD: &str = "head";
pub(super) const TURNS: u32 = 4;
/// How often one turn is taken again at most.
const REPEATS: u32 = 2;
/// Of so many turns, one may be taken again.
const SHARE: u32 = 4;

/// Which two a round compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// The first build and itself.
    Noise,
    Builds,
}

impl Round {
    /// Who runs, by name, in order.
    pub(super) fn order(self) -> [&'static str; TURNS as usize] {
        let other = match self {
            Self::Noise => TWIN,
            Self::Builds => HEAD,
        };
        [BASE, other, other, BASE]
    }
}

/// Everything turns need, and what came of them.
pub(super) struct Trial<'a> {
    systems: &'a [Box<dyn System>],
    tasks: &'a [Task],
    interrupt: &'a Interrupt,
    progress: Progress,
    /// The report; its runs are those that count.
    pub(super) report: Report,
    /// Runs of turns that were taken again.
    pub(super) repeated: Vec<Run>,
    turns: u32,
    repeats: u32,
    rounds: u32,
}

impl<'a> Trial<'a> {
    /// Begins; `systems` bear the names of [`NAMES`].
    pub(super) fn begin(
        systems: &'a [Box<dyn System>],
        tasks: &'a [Task],
        report: Report,
        interrupt: &'a Interrupt,
    ) -> Self {
        let progress = Progress::start(expected_turn(&report.effort, tasks), 0);
        Self { systems, tasks, interrupt, progress, report, repeated: Vec::new(), turns: 0, repeats: 0, rounds: 0 }
    }

    /// Lets the progress know that so many rounds will come.
    pub(super) fn expect(&mut self, rounds: u32) {
        self.progress.expect_more(rounds * TURNS);
    }

    /// Makes rounds of one kind; they are counted on from those before.
    ///
    /// # Errors
    /// Fails when interrupted, and where a build fails again and again.
    pub(super) fn rounds(&mut self, kind: Round, number: u32) -> Result<()> {
        for _ in 0..number {
            self.rounds += 1;
            for name in kind.order() {
                self.take(name)?;
                self.progress.turn_done();
            }
        }
        self.progress.end();
        self.report.rounds = self.rounds;
        Ok(())
    }

    /// Takes one turn, and takes it again where it was disturbed or failed.
    fn take(&mut self, name: &str) -> Result<()> {
        self.turns += 1;
        let Some(system) = self.systems.iter().find(|system| system.name() == name) else { return Ok(()) };
        for repeat in 0..=REPEATS {
            let before = self.report.runs.len();
            turn(system.as_ref(), self.rounds, self.tasks, &mut self.report, self.interrupt, &mut self.progress)?;
            let runs = self.report.runs.get_mut(before..).unwrap_or_default();
            for run in runs.iter_mut() {
                // Hundreds of runs make a large file of them, and no verdict needs them.
                (run.timeline, run.latencies) = (None, None);
            }
            let failed = runs.iter().any(|run| run.error.is_some());
            let disturbed = runs.iter().any(|run| run.disturbed);
            // A failure must be seen more often than once; a disturbance is no fault of a build, and cannot be waited
            // out.
            let may_repeat = repeat < REPEATS && (failed || may_repeat(self.repeats, self.turns));
            if !(failed || disturbed && may_repeat) {
                return Ok(());
            }
            if !may_repeat {
                break;
            }
            self.repeats += 1;
            self.repeated.extend(self.report.runs.drain(before..));
        }
        Err(failure(name, &self.report.runs).into())
    }
}

/// Whether there were few enough repeats among so many turns.
fn may_repeat(repeats: u32, turns: u32) -> bool {
    repeats < turns.div_ceil(SHARE)
}

/// What is said of a build whose turn failed each time.
fn failure(name: &str, runs: &[Run]) -> Failure {
    let failed = runs.iter().rev().find_map(|run| Some((run.task.as_deref(), run.error.as_deref()?)));
    let (task, error) = failed.unwrap_or_default();
    let what = format!("{name}, {}", task.unwrap_or("start"));
    let reason = format!("failed {} times, at last with: {error}", REPEATS + 1);
    Failure::new(Exit::Other, what, reason, "mend that build, or leave the task out with --tasks")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::example;

    #[test]
    fn builds_alternate_so_that_drift_meets_both() {
        let turns: Vec<&str> = [Round::Builds, Round::Builds].into_iter().flat_map(Round::order).collect();
        assert_eq!(turns, [BASE, HEAD, HEAD, BASE, BASE, HEAD, HEAD, BASE]);
        assert_eq!(Round::Noise.order(), [BASE, TWIN, TWIN, BASE]);
    }

    #[test]
    fn few_turns_are_taken_again() {
        assert!(may_repeat(0, 1) && !may_repeat(1, 1));
        assert!(may_repeat(9, 40) && !may_repeat(10, 40));
    }

    #[test]
    fn failure_names_build_task_and_reason() {
        let mut runs = example().runs;
        runs[3].error = Some("no byte arrived".to_owned());
        let failure = failure(HEAD, &runs);
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::Other, "head, tcp-up"));
        assert!(failure.reason.contains("no byte arrived"), "{failure}");
    }
}

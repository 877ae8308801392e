//! Turns that are taken again where they were disturbed or failed.

use adit_program::exit::{Exit, Failure};
use anyhow::Result;

use super::progress::Progress;
use super::session::{expected_turn, turn};
use super::task::Task;
use crate::interrupt::Interrupt;
use crate::report::model::{Report, Run};
use crate::systems::System;

/// How often one turn is taken again at most.
const REPEATS: u32 = 2;
/// Of so many turns, one may be taken again because it was disturbed.
const SHARE: u32 = 4;

/// Everything turns need, and what came of them.
pub(crate) struct Turns<'a> {
    systems: &'a [Box<dyn System>],
    tasks: &'a [Task],
    interrupt: &'a Interrupt,
    progress: Progress,
    /// The report; its runs are those that count.
    pub(crate) report: Report,
    /// Runs of turns that were taken again.
    pub(crate) repeated: Vec<Run>,
    taken: u32,
    repeats: u32,
}

impl<'a> Turns<'a> {
    /// Begins.
    pub(crate) fn begin(
        systems: &'a [Box<dyn System>],
        tasks: &'a [Task],
        report: Report,
        interrupt: &'a Interrupt,
    ) -> Self {
        let progress = Progress::start(expected_turn(&report.effort, tasks), 0);
        Self { systems, tasks, interrupt, progress, report, repeated: Vec::new(), taken: 0, repeats: 0 }
    }

    /// Lets whoever watches know that so many more turns will come.
    pub(crate) fn expect(&mut self, turns: u32) {
        self.progress.expect_more(turns);
    }

    /// Lets a system take one turn of a round, and takes it again where it was disturbed or failed. Returns what is
    /// said of a system whose turn failed each time, whose last runs are in the report.
    ///
    /// # Errors
    /// Fails when interrupted.
    pub(crate) fn take(&mut self, name: &str, round: u32) -> Result<Option<Failure>> {
        self.taken += 1;
        let Some(system) = self.systems.iter().find(|system| system.name() == name) else { return Ok(None) };
        let mut told = None;
        for repeat in 0..=REPEATS {
            let before = self.report.runs.len();
            turn(system.as_ref(), round, self.tasks, &mut self.report, self.interrupt, &mut self.progress)?;
            let runs = self.report.runs.get_mut(before..).unwrap_or_default();
            for run in runs.iter_mut() {
                // Hundreds of runs make a large file of them, and no verdict needs them.
                (run.timeline, run.latencies) = (None, None);
            }
            let failed = runs.iter().any(|run| run.error.is_some());
            let disturbed = runs.iter().any(|run| run.disturbed);
            told = failed.then(|| failure(name, runs));
            // A failure must be seen more often than once; a disturbance is no fault of a system, and cannot be waited
            // out.
            let may_repeat = repeat < REPEATS && (failed || may_repeat(self.repeats, self.taken));
            if !may_repeat || !failed && !disturbed {
                break;
            }
            self.repeats += 1;
            self.repeated.extend(self.report.runs.drain(before..));
        }
        self.progress.turn_done();
        Ok(told)
    }

    /// Ends a part of the work: what is shown of its progress goes.
    pub(crate) fn pause(&self) {
        self.progress.end();
    }
}

/// Whether there were few enough repeats among so many turns.
fn may_repeat(repeats: u32, turns: u32) -> bool {
    repeats < turns.div_ceil(SHARE)
}

/// What is said of a system whose turn failed each time.
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
    fn few_turns_are_taken_again() {
        assert!(may_repeat(0, 1) && !may_repeat(1, 1));
        assert!(may_repeat(9, 40) && !may_repeat(10, 40));
    }

    #[test]
    fn failure_names_system_task_and_reason() {
        let mut runs = example().runs;
        runs[3].error = Some("no byte arrived".to_owned());
        let failure = failure("head", &runs);
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::Other, "head, tcp-up"));
        assert!(failure.reason.contains("no byte arrived"), "{failure}");
    }
}

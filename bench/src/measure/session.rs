//! The order of everything: rounds, systems in turn, tasks.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::disturbance::Moment;
use super::drops::Drops;
use super::meter::{Meter, Outcome, Resident, expected};
use super::progress::Progress;
use super::task::Task;
use crate::interrupt::Interrupt;
use crate::report::model::{Effort, Report, Run};
use crate::systems::{Running, System};
use adit_lab::Lab;

/// About how long it takes to start and stop a system.
const START_UP: Duration = Duration::from_secs(1);

/// Every system once in each round, as indices; each round begins with another one.
pub(crate) fn rotating(systems: usize, rounds: u32) -> Vec<usize> {
    let rounds = usize::try_from(rounds).unwrap_or(usize::MAX);
    (0..rounds).flat_map(|round| (0..systems).map(move |index| (round + index) % systems)).collect()
}

/// Measures systems in an order given as indices of `systems`, and notes every run in `report`, which says with what
/// effort.
///
/// At each of its turns a system is started, does all tasks, and ends; its turns are its rounds, counted from 1.
///
/// # Errors
/// Fails when interrupted, and at the end where any run did.
pub(crate) fn run(
    systems: &[Box<dyn System>],
    order: &[usize],
    tasks: &[Task],
    report: &mut Report,
    interrupt: &Interrupt,
) -> Result<()> {
    let started = Instant::now();
    let turns = u32::try_from(order.len()).context("turns are few")?;
    let mut progress = Progress::start(expected_turn(&report.effort, tasks), turns);
    let mut rounds = vec![0; systems.len()];
    for index in order {
        let (Some(system), Some(round)) = (systems.get(*index), rounds.get_mut(*index)) else { continue };
        *round += 1;
        let taken = turn(system.as_ref(), *round, tasks, report, interrupt, &mut progress);
        report.total_seconds = started.elapsed().as_secs_f64();
        taken?;
        progress.turn_done();
    }
    progress.end();
    report.complete = true;
    let failed = report.runs.iter().filter(|run| run.error.is_some()).count();
    if failed > 0 {
        bail!("{failed} of {} runs failed; the report says why", report.runs.len());
    }
    Ok(())
}

/// About how long one turn takes.
pub(crate) fn expected_turn(effort: &Effort, tasks: &[Task]) -> Duration {
    START_UP + tasks.iter().map(|task| expected(effort, *task)).sum::<Duration>()
}

/// Lets a system take one turn: it is started, does all tasks, and ends; every run is noted in `report`, failed ones
/// too.
///
/// # Errors
/// Fails when interrupted.
pub(crate) fn turn(
    system: &dyn System,
    round: u32,
    tasks: &[Task],
    report: &mut Report,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> Result<()> {
    Turn { round, system, report, interrupt, progress }.take(tasks)
}

/// One system's turn in one round.
struct Turn<'a> {
    round: u32,
    system: &'a dyn System,
    report: &'a mut Report,
    interrupt: &'a Interrupt,
    progress: &'a mut Progress,
}

/// A system that carries packets, and what was seen of its start.
struct Started {
    running: Running,
    fresh: Resident,
    drops: Drops,
}

impl Turn<'_> {
    fn take(mut self, tasks: &[Task]) -> Result<()> {
        self.interrupt.check()?;
        self.progress.show(self.round, self.system.name(), "starts");
        let start = Instant::now();
        let mut started = match self.start() {
            Ok(started) => started,
            Err(error) => {
                self.interrupt.check()?;
                let run = self.outcome(None, start.elapsed(), Err(error));
                self.report.runs.push(run);
                return Ok(());
            }
        };
        for task in tasks {
            self.progress.show(self.round, self.system.name(), task.name());
            self.measure(*task, &mut started)?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Started> {
        let running = self.system.start(self.lab()?)?;
        running.wait_until_it_carries(self.interrupt)?;
        if self.report.cable_features.is_empty() {
            self.report.cable_features = running.client.host.features("eth0").unwrap_or_default();
        }
        let name = self.system.name();
        if let Some(subject) = self.report.systems.iter_mut().find(|subject| subject.name == name) {
            subject.mtu = running.client.host.mtu(&running.client.link).ok();
        }
        let (fresh, drops) = (Resident::of(&running), Drops::of(&running));
        Ok(Started { running, fresh, drops })
    }

    /// The lab of this turn; every system of a round meets the same chance, and every round another.
    fn lab(&self) -> Result<Lab> {
        match &self.report.network {
            None => Lab::pair(self.report.wire),
            Some(network) => Lab::pair_through(network, self.report.seed.wrapping_add(u64::from(self.round) - 1)),
        }
    }

    fn measure(&mut self, task: Task, started: &mut Started) -> Result<()> {
        let hint = last(self.report, self.system.name(), task.hint());
        let Started { running, fresh, .. } = started;
        let delay = self.report.network.as_ref().map(|network| network.up.longest_delay()).unwrap_or_default();
        let (start, before) = (Instant::now(), Moment::now(running.processes())?);
        let (effort, interrupt) = (&self.report.effort, self.interrupt);
        let mut meter = Meter { effort, running, delay, fresh: *fresh, hint, interrupt };
        let outcome = meter.measure(task);
        self.interrupt.check()?;
        let mut run = self.outcome(Some(task), start.elapsed(), outcome);
        Moment::now(started.running.processes())?.judge(&before, &mut run);
        run.carrier = started.running.carrier();
        let drops = Drops::of(&started.running);
        run.disturbed |= drops.relay_was_overrun(&started.drops);
        if run.error.is_none() {
            run.readings.extend(drops.since(&started.drops));
        }
        started.drops = drops;
        self.report.runs.push(run);
        Ok(())
    }

    fn outcome(&self, task: Option<Task>, elapsed: Duration, outcome: Result<Outcome>) -> Run {
        let (timeline, latencies, readings) = match outcome {
            Ok(Outcome { readings, timeline, latencies }) => (timeline, latencies, Ok(readings)),
            Err(error) => (None, None, Err(error)),
        };
        let run = Run::new(self.round, self.system.name(), task.map(Task::name), elapsed, readings);
        Run { timeline, latencies, ..run }
    }
}

/// What a search of this system found most recently.
fn last(report: &Report, system: &str, task: Task) -> Option<f64> {
    let mine = |run: &&Run| run.system == system && run.task.as_deref() == Some(task.name());
    report.runs.iter().rev().filter(mine).find_map(|run| run.value("rate"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::tests::example;

    #[test]
    fn another_system_begins_each_round() {
        assert_eq!(rotating(3, 4), [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]);
        assert!(rotating(0, 4).is_empty());
    }

    #[test]
    fn searches_begin_where_the_last_one_of_the_system_ended() {
        let report = example();
        let task = crate::measure::task::selected(&["tcp-up".parse().unwrap()])[0];
        assert_eq!(last(&report, "adit", task), Some(5.0));
        assert_eq!(last(&report, "quincy", task), None);
    }
}

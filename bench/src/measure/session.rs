//! The order of everything: rounds, systems in turn, tasks.

use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};

use super::accounting::{MachineTime, cpu_time};
use super::meter::{Effort, Reading};
use super::progress::Progress;
use super::report::{Report, Run};
use super::task::Task;
use crate::interrupt::Interrupt;
use crate::lab::Lab;
use crate::systems::{Running, System};

/// About how long it takes to start and stop a system.
const START_UP: Duration = Duration::from_secs(1);

/// Measures everything and notes it in `report`.
///
/// # Errors
///
/// Fails when interrupted, and at the end where any run did.
pub(super) fn run(
    systems: &[Box<dyn System>],
    tasks: &[Task],
    rounds: u32,
    effort: &Effort,
    report: &mut Report,
    interrupt: &Interrupt,
) -> Result<()> {
    let one: Duration = START_UP + tasks.iter().map(|task| effort.expected(*task)).sum::<Duration>();
    let turns = u32::try_from(systems.len()).context("systems are few")? * rounds;
    let mut progress = Progress::start(one, turns);
    for round in 1..=rounds {
        for index in 0..systems.len() {
            // Another system begins each round.
            let first = usize::try_from(round - 1).context("rounds are few")?;
            let Some(system) = systems.get((first + index) % systems.len()) else { continue };
            let mut turn = Turn { round, system: system.as_ref(), effort, report, interrupt, progress: &mut progress };
            turn.take(tasks)?;
            progress.turn_done();
        }
    }
    progress.end();
    let failed = report.runs.iter().filter(|run| run.error.is_some()).count();
    if failed > 0 {
        bail!("{failed} of {} runs failed; the report says why", report.runs.len());
    }
    Ok(())
}

/// One system's turn in one round.
struct Turn<'a> {
    round: u32,
    system: &'a dyn System,
    effort: &'a Effort,
    report: &'a mut Report,
    interrupt: &'a Interrupt,
    progress: &'a mut Progress,
}

impl Turn<'_> {
    fn take(&mut self, tasks: &[Task]) -> Result<()> {
        self.interrupt.check()?;
        self.progress.show(self.round, self.system.name(), "starts");
        let start = Instant::now();
        let running = match self.start() {
            Ok(running) => running,
            Err(error) => {
                self.interrupt.check()?;
                self.note(None, start.elapsed(), (Duration::ZERO, Duration::ZERO), Err(error));
                return Ok(());
            }
        };
        for task in tasks {
            self.progress.show(self.round, self.system.name(), task.name());
            self.measure(*task, &running)?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<Running> {
        let running = self.system.start(Lab::pair(self.report.wire())?)?;
        running.wait_until_it_carries()?;
        if self.report.cable_features.is_empty() {
            self.report.cable_features = running.client.host.features("eth0").unwrap_or_default();
        }
        let name = self.system.name();
        if let Some(subject) = self.report.systems.iter_mut().find(|subject| subject.name == name) {
            subject.observe(&running);
        }
        Ok(running)
    }

    fn measure(&mut self, task: Task, running: &Running) -> Result<()> {
        let hint = self.report.last(self.system.name(), task);
        let involved = || cpu_time(running.processes().chain([std::process::id()]));
        let before = (Instant::now(), MachineTime::now()?, involved().unwrap_or_default());
        let outcome = self.effort.measure(task, running, hint, self.interrupt);
        self.interrupt.check()?;
        let (elapsed, machine) = (before.0.elapsed(), MachineTime::now()?.since(before.1));
        // A process that has ended is an error of the run already.
        let own = involved().unwrap_or(before.2).since(before.2);
        let disturbance = (machine.user.saturating_sub(own.user), machine.steal);
        self.note(Some(task), elapsed, disturbance, outcome);
        if let Some(run) = self.report.runs.last_mut() {
            run.carrier = running.carrier();
        }
        Ok(())
    }

    fn note(
        &mut self,
        task: Option<Task>,
        elapsed: Duration,
        disturbance: (Duration, Duration),
        outcome: Result<Vec<Reading>, Error>,
    ) {
        let run = Run::new((self.round, self.system.name(), task), elapsed, disturbance, outcome);
        self.report.runs.push(run);
    }
}

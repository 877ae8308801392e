//! The result of a measurement: the JSON object, and the summary made of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_proto::exit::Failure;
use anyhow::Result;
use serde::Serialize;

use super::machine::{Machine, Program};
use super::meter::{Effort, Reading};
use super::task::Task;
use super::{Options, Scope, effort};
use crate::systems::{Running, System};

/// Version of the JSON object: raised when a field changes its meaning or vanishes.
const SCHEMA: &str = "adit-bench/1";

/// Where other programs use more than this many cores, a run counts as disturbed.
const FOREIGN_LIMIT: f64 = 0.10;
/// Where the hypervisor takes more than this many cores, a run counts as disturbed.
const STEAL_LIMIT: f64 = 0.05;

/// Everything about one measurement; fields are the keys of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Always `adit-bench/1` here.
    schema: &'static str,
    /// `run` or `peers`.
    command: &'static str,
    /// Version of this program.
    version: &'static str,
    /// Seconds since 1970.
    started_at: u64,
    /// How long it took.
    total_seconds: f64,
    /// Whether every planned run was made, with or without success.
    complete: bool,
    /// The machine.
    machine: Machine,
    /// Whether each packet was alone on the cable.
    wire: bool,
    /// Offloads of the client's end of the cable that were on.
    pub(super) cable_features: Vec<String>,
    /// Durations and congestion control.
    effort: Effort,
    /// Rounds planned.
    rounds: u32,
    /// Tasks in the order in which they were done.
    pub(super) tasks: Vec<Task>,
    /// The system that ratios refer to.
    reference: Option<String>,
    /// Who took part, or could not.
    pub(super) systems: Vec<Subject>,
    /// Every single run, in the order in which they were made.
    pub(super) runs: Vec<Run>,
    /// Medians over the rounds.
    pub(super) summary: Vec<Figure>,
    #[serde(skip)]
    wanted_reference: Option<String>,
    #[serde(skip)]
    started: Instant,
}

/// One system that was, or should have been, measured.
#[derive(Debug, Serialize)]
pub(super) struct Subject {
    /// Its name.
    pub(super) name: String,
    /// Why it could not take part; `None` where it did.
    pub(super) missing: Option<String>,
    /// Its programs.
    programs: Vec<Program>,
    /// Settings that are not its authors' defaults.
    settings: BTreeMap<String, String>,
    /// MTU of its tunnel device at the client.
    pub(super) mtu: Option<u32>,
}

impl Subject {
    /// A system that can be measured.
    pub(super) fn of(system: &dyn System) -> Result<Self, Failure> {
        let programs = system.programs()?.iter().map(|path| Program::of(path)).collect();
        let settings = system.settings().into_iter().collect();
        Ok(Self { name: system.name().to_owned(), missing: None, programs, settings, mtu: None })
    }

    /// A system that is not installed.
    pub(super) fn missing(name: &str, failure: &Failure) -> Self {
        let reason = format!("{}: {}", failure.what, failure.reason);
        let (programs, settings) = (Vec::new(), BTreeMap::new());
        Self { name: name.to_owned(), missing: Some(reason), programs, settings, mtu: None }
    }

    /// Notes what can only be seen while it runs.
    pub(super) fn observe(&mut self, running: &Running) {
        self.mtu = running.client.host.mtu(&running.client.link).ok();
    }
}

/// One task, done once by one system.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// Counted from 1.
    pub(super) round: u32,
    /// Who.
    pub(super) system: String,
    /// What; `None` where the system did not even start.
    pub(super) task: Option<Task>,
    /// How long it took in all.
    pub(super) seconds: f64,
    /// Cores that programs outside the measurement used, in user space.
    pub(super) foreign_cores: f64,
    /// Cores the hypervisor took.
    pub(super) stolen_cores: f64,
    /// Whether either is too much.
    pub(super) disturbed: bool,
    /// Values by metric.
    pub(super) values: BTreeMap<&'static str, f64>,
    /// The carrier packets travelled by at its end, where the system has a choice and tells.
    pub(super) carrier: Option<String>,
    /// Why there are none.
    pub(super) error: Option<String>,
    #[serde(skip)]
    readings: Vec<Reading>,
}

impl Run {
    /// Puts together what came of one task.
    pub(super) fn new(
        (round, system, task): (u32, &str, Option<Task>),
        elapsed: Duration,
        (foreign, stolen): (Duration, Duration),
        outcome: Result<Vec<Reading>>,
    ) -> Self {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let (foreign_cores, stolen_cores) = (foreign.as_secs_f64() / seconds, stolen.as_secs_f64() / seconds);
        let (readings, error) = match outcome {
            Ok(readings) => (readings, None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        Self {
            round,
            system: system.to_owned(),
            task,
            seconds,
            foreign_cores,
            stolen_cores,
            disturbed: foreign_cores > FOREIGN_LIMIT || stolen_cores > STEAL_LIMIT,
            values: readings.iter().map(|reading| (reading.metric, reading.value)).collect(),
            carrier: None,
            error,
            readings,
        }
    }
}

/// One metric of one system over all rounds.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    /// What was done.
    pub(super) task: Task,
    /// What was read.
    pub(super) metric: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// Who.
    pub(super) system: String,
    /// Number of values.
    pub(super) count: usize,
    /// The middle one, or the mean of the middle two.
    pub(super) median: f64,
    /// The lowest.
    pub(super) low: f64,
    /// The highest.
    pub(super) high: f64,
    /// The median divided by the reference's.
    pub(super) ratio: Option<f64>,
}

impl Report {
    /// A report without results.
    pub(super) fn new(options: &Options, scope: Scope, tasks: &[Task], rounds: u32) -> Self {
        Self {
            schema: SCHEMA,
            command: if scope == Scope::Own { "run" } else { "peers" },
            version: env!("CARGO_PKG_VERSION"),
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            total_seconds: 0.0,
            complete: false,
            machine: Machine::describe(),
            wire: options.wire,
            cable_features: Vec::new(),
            effort: effort(options),
            rounds,
            tasks: tasks.to_vec(),
            reference: None,
            systems: Vec::new(),
            runs: Vec::new(),
            summary: Vec::new(),
            wanted_reference: options.reference.clone(),
            started: Instant::now(),
        }
    }

    /// Whether each packet is alone on the cable.
    pub(super) fn wire(&self) -> bool {
        self.wire
    }

    /// What a search of this system found most recently.
    pub(super) fn last(&self, system: &str, task: Task) -> Option<f64> {
        let mine = self.runs.iter().rev().filter(|run| run.system == system && run.task == Some(task));
        mine.filter_map(|run| run.values.get("rate").copied()).next()
    }

    /// Computes the summary.
    pub(super) fn close(&mut self, complete: bool) {
        self.complete = complete;
        self.total_seconds = self.started.elapsed().as_secs_f64();
        let took_part = |name: &str| self.systems.iter().any(|one| one.name == name && one.missing.is_none());
        let wanted = self.wanted_reference.as_deref().into_iter().chain(["wireguard-go", "plain"]);
        self.reference = wanted.into_iter().find(|name| took_part(name)).map(str::to_owned);
        self.summary = summarise(&self.tasks, &self.systems, &self.runs, self.reference.as_deref());
    }

    /// One line about the circumstances, for people.
    pub(super) fn circumstances(&self) -> String {
        let cable = if self.wire { "each packet alone on the cable" } else { "offloads at their defaults" };
        let Effort { congestion, duration, .. } = &self.effort;
        let seconds = duration.as_secs_f64();
        let line = self.machine.line();
        format!("{line}\n{} rounds of {seconds} s, {congestion}, {cable}", self.rounds)
    }

    /// The name ratios refer to.
    pub(super) fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }
}

/// All figures, ordered by task, metric and system.
fn summarise(tasks: &[Task], systems: &[Subject], runs: &[Run], reference: Option<&str>) -> Vec<Figure> {
    let mut figures = Vec::new();
    for task in tasks {
        let of_task: Vec<&Run> = runs.iter().filter(|run| run.task == Some(*task)).collect();
        let mut metrics: Vec<(&'static str, &'static str)> = Vec::new();
        for reading in of_task.iter().flat_map(|run| &run.readings) {
            if !metrics.contains(&(reading.metric, reading.unit)) {
                metrics.push((reading.metric, reading.unit));
            }
        }
        for (metric, unit) in metrics {
            let values = |system: &str| {
                let mine = of_task.iter().filter(|run| run.system == system);
                let mut values: Vec<f64> = mine.filter_map(|run| run.values.get(metric).copied()).collect();
                values.sort_by(f64::total_cmp);
                values
            };
            let base = reference.and_then(|name| median(&values(name))).filter(|base| *base > 0.0);
            for system in systems {
                let values = values(&system.name);
                let Some(middle) = median(&values) else { continue };
                let [low, high] = [values.first(), values.last()].map(|value| value.copied().unwrap_or(middle));
                let (system, count) = (system.name.clone(), values.len());
                let ratio = base.map(|base| middle / base);
                figures.push(Figure { task: *task, metric, unit, system, count, median: middle, low, high, ratio });
            }
        }
    }
    figures
}

/// The middle of sorted values.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Three rounds of two systems and a third that is missing.
    pub(in super::super) fn example() -> (Vec<Subject>, Vec<Run>, Task) {
        let task = super::super::task::selected(&["tcp-up".parse().unwrap()])[0];
        let subject = |name: &str, missing: Option<&str>| Subject {
            name: name.to_owned(),
            missing: missing.map(str::to_owned),
            programs: Vec::new(),
            settings: BTreeMap::new(),
            mtu: None,
        };
        let systems = vec![subject("plain", None), subject("adit", None), subject("quincy", Some("is not installed"))];
        let mut runs = Vec::new();
        for (round, plain, adit) in [(1, 10.0, 4.0), (2, 30.0, 6.0), (3, 20.0, 5.0)] {
            for (system, value) in [("plain", plain), ("adit", adit)] {
                let readings = vec![Reading { metric: "rate", unit: "Gbit/s", value }];
                let calm = (Duration::ZERO, Duration::ZERO);
                runs.push(Run::new((round, system, Some(task)), Duration::from_secs(4), calm, Ok(readings)));
            }
        }
        (systems, runs, task)
    }

    #[test]
    fn summary_has_medians_spread_and_ratios() {
        let (systems, runs, task) = example();
        let figures = summarise(&[task], &systems, &runs, Some("plain"));
        let seen: Vec<_> =
            figures.iter().map(|f| (f.system.as_str(), f.count, f.median, f.low, f.high, f.ratio)).collect();
        let expected = [("plain", 3, 20.0, 10.0, 30.0, Some(1.0)), ("adit", 3, 5.0, 4.0, 6.0, Some(0.25))];
        assert_eq!(seen, expected);
    }

    #[test]
    fn median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn foreign_load_and_steal_disturb_a_run() {
        let run = |foreign, stolen| {
            let times = (Duration::from_millis(foreign), Duration::from_millis(stolen));
            Run::new((1, "x", None), Duration::from_secs(1), times, Ok(Vec::new()))
        };
        assert!(!run(90, 40).disturbed);
        assert!(run(200, 0).disturbed && run(0, 60).disturbed);
    }
}

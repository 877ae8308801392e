//! Clients and gateways of the AnyConnect family against each other: does Adit carry more, for less?
//!
//! Each goal compares two systems by what they reach in the same round. In a round the reference takes a turn before
//! and after those that are compared with it; its two turns also show how much equal systems differ here.

mod goals;
mod judge;
mod result;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use adit_netem::random::Random;
use adit_program::exit::Failure;
use adit_program::output;
use anyhow::Result;
use clap::Args;

use crate::interrupt::Interrupt;
use crate::measure::task::{Selection, Task, selected};
use crate::measure::turns::Turns;
use crate::measure::{blank, missing, positive, subject};
use crate::report::model::Effort;
use crate::report::{self, save};
use crate::systems::{Programs, catalogue, own_variants};
use goals::{Goal, Name, order};
use judge::{LEAST_ROUNDS, Seen, row};
use result::Comparison;

/// What is measured: one TCP connection each way.
const TASKS: [&str; 2] = ["tcp-up", "tcp-down"];

/// What the comparison can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// What is compared, A1 to A6 [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    only: Vec<Name>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(i64::from(LEAST_ROUNDS)..=1_000))]
    rounds: u32,
    /// How long each measurement takes, after a warm-up of half that.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    seconds: f64,
    /// One short round: enough to see that everything works, too little to decide.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// What the draws of the statistics are made of.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where other programs than those in PATH are.
    #[arg(long, value_name = "DIR")]
    peers_dir: Option<PathBuf>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Also write the JSON object to a file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also write a page with plots that needs nothing but a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Options {
    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    fn effort(&self) -> Effort {
        let duration = Duration::from_secs_f64(if self.quick { 0.5 } else { self.seconds });
        let second = Duration::from_secs(1);
        let (warm_up, step) = ((duration / 2).min(second), duration.min(second));
        Effort { warm_up, duration, step, precision: 1.03, congestion: "cubic".to_owned() }
    }
}

/// Compares and reports; must be called while the process has a single thread.
///
/// # Errors
/// Fails with exit code 8 where a target was missed, with 9 where one is not decided, after the report; and where the
/// system permits no lab, or when interrupted.
pub(crate) fn run(options: &Options) -> Result<()> {
    options.output.iter().chain(&options.html).try_for_each(|path| save::check(path))?;
    // Before any thread exists, as the kernel demands.
    adit_lab::enter_user_namespace()?;
    let comparison = compare(options, &Interrupt::listen()?)?;
    if let Some(path) = &options.output {
        save::save(path, &format!("{}\n", comparison.json()?))?;
    }
    if let Some(path) = &options.html {
        save::save(path, &report::page(path, &comparison.measurement))?;
    }
    output::line(&if options.json { comparison.json()? } else { comparison.to_string() });
    Ok(comparison.verdict()?)
}

fn compare(options: &Options, interrupt: &Interrupt) -> Result<Comparison> {
    let started = Instant::now();
    let (goals, tasks) = (goals::selected(&options.only), tasks());
    let mut report = blank("anyconnect", options.effort(), &tasks, options.rounds());
    report.seed = options.seed;
    let names = order(&goals, 1).concat();
    let mut systems = catalogue(&own_variants(), &Programs::new(options.peers_dir.as_deref()));
    systems.retain(|system| names.contains(&system.name()));
    // Who is not installed is a reason why something is not decided.
    let mut absent = BTreeMap::new();
    for system in &systems {
        report.systems.push(subject(system.as_ref()).unwrap_or_else(|failure| {
            absent.insert(system.name().to_owned(), reason(&failure));
            missing(system.name(), &failure)
        }));
    }
    let mut turns = Turns::begin(&systems, &tasks, report, interrupt);
    take_all(&mut turns, &goals, options.rounds(), &mut absent)?;
    let Turns { mut report, repeated, .. } = turns;
    report.complete = true;
    report.total_seconds = started.elapsed().as_secs_f64();
    report.summarise(goals.iter().map(|goal| goal.reference.system));
    let seen = Seen { runs: &report.runs, rounds: options.rounds(), absent: &absent };
    let mut random = Random::seeded(options.seed);
    let both_ways = goals.iter().flat_map(|goal| TASKS.map(|task| (goal, task)));
    let rows = both_ways.map(|(goal, task)| row(goal, task, &seen, &mut random)).collect();
    Ok(Comparison::new(options.seed, rows, report, repeated))
}

/// Takes the turns of all rounds. A system whose turn failed each time takes no more, which `absent` gets.
fn take_all(turns: &mut Turns<'_>, goals: &[Goal], rounds: u32, absent: &mut BTreeMap<String, String>) -> Result<()> {
    let of_a_round = order(goals, 1).concat().len();
    turns.expect(rounds * u32::try_from(of_a_round).unwrap_or(u32::MAX));
    for round in 1..=rounds {
        for group in order(goals, round) {
            // Without its reference nobody's turn says anything.
            if group.first().is_some_and(|reference| absent.contains_key(*reference)) {
                continue;
            }
            for name in group {
                if absent.contains_key(name) {
                    continue;
                }
                if let Some(failure) = turns.take(name, round)? {
                    absent.insert(name.to_owned(), reason(&failure));
                }
            }
        }
    }
    turns.pause();
    Ok(())
}

fn tasks() -> Vec<Task> {
    selected(&TASKS.map(|name| name.parse::<Selection>().expect("the tasks have these names")))
}

/// What is said of a system that takes no part.
fn reason(failure: &Failure) -> String {
    format!("{}: {}", failure.what, failure.reason)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        Line::try_parse_from(["anyconnect"].iter().chain(arguments)).map(|line| line.options)
    }

    #[test]
    fn nothing_need_be_said_and_a_quick_run_is_short() {
        let full = options(&[]).unwrap();
        assert_eq!((full.rounds(), full.effort().duration), (7, Duration::from_secs(1)));
        let quick = options(&["--quick", "--only", "A1,A6"]).unwrap();
        assert_eq!((quick.rounds(), quick.effort().duration), (1, Duration::from_millis(500)));
        assert_eq!(goals::selected(&quick.only).len(), 2);
        let tasks: Vec<_> = tasks().into_iter().map(Task::name).collect();
        assert_eq!(tasks, TASKS);
    }

    #[test]
    fn senseless_arguments_are_refused() {
        for wrong in [&["--rounds", "4"][..], &["--only", "A9"], &["--seconds", "0"], &["--quick", "--rounds", "5"]] {
            assert!(options(wrong).is_err(), "{wrong:?}");
        }
    }
}

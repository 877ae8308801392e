//! Clients and gateways of the AnyConnect family against each other: does Adit carry more, for less?
//!
//! Each goal compares two systems by what they reach in the same round (`reference`).

mod goals;
mod result;

use std::path::PathBuf;
use std::time::Duration;

use adit_program::output;
use anyhow::Result;
use clap::Args;

use crate::interrupt::Interrupt;
use crate::measure::task::{Selection, Task, selected};
use crate::measure::{blank, positive};
use crate::reference;
use crate::reference::judge::LEAST_ROUNDS;
use crate::report::model::Effort;
use crate::report::{self, save};
use crate::systems::Programs;
use goals::Name;
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
        save::save(path, &report::page(&[(path, &comparison.measurement)]))?;
    }
    output::line(&if options.json { comparison.json()? } else { comparison.to_string() });
    Ok(comparison.verdict()?)
}

fn compare(options: &Options, interrupt: &Interrupt) -> Result<Comparison> {
    let (goals, tasks) = (goals::selected(&options.only), tasks());
    let mut report = blank("anyconnect", options.effort(), &tasks, options.rounds());
    report.seed = options.seed;
    let programs = Programs::new(options.peers_dir.as_deref());
    Ok(Comparison::new(reference::compare(&goals, &tasks, report, &programs, interrupt)?))
}

fn tasks() -> Vec<Task> {
    selected(&TASKS.map(|name| name.parse::<Selection>().expect("the tasks have these names")))
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

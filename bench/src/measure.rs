//! End-to-end measurements of Adit and of others, in turns, so that the machine's moods meet all alike.
//!
//! A round starts every system once, in a lab of its own, and lets it do every task; the next round begins with the
//! next system. What is reported is the median over the rounds, with the lowest and highest value beside it.

pub(crate) mod accounting;
pub(crate) mod disturbance;
mod drops;
pub(crate) mod meter;
pub(crate) mod progress;
pub(crate) mod session;
pub(crate) mod task;
pub(crate) mod turns;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_netem::Profile;
use adit_program::closest;
use adit_program::exit::{Exit, Failure};
use adit_program::output;
use anyhow::Result;
use clap::Args;

use crate::interrupt::Interrupt;
use crate::report::machine::{Machine, Program};
use crate::report::model::{Effort, Report, SCHEMA, Subject};
use crate::report::{self, save, table};
use crate::systems::{Programs, System, Variant, catalogue, own_variants};
use task::{Selection, Task};

/// Left out of a quick run, whose time has to do for the others, unless somebody names it.
const NOT_QUICK: &str = "adit-aes128";

/// Which systems take part unless somebody names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Adit and the bare cable.
    Own,
    /// All that are known.
    Peers,
}

/// What a measurement can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What to measure; a group such as tcp, tcp4, udp, udp64, rtt, cpu or memory stands for its members [default:
    /// all].
    #[arg(long, value_delimiter = ',', value_name = "TASK,…")]
    only: Vec<Selection>,
    /// What takes part, by name [default: all that are installed, but for Adit in the AnyConnect family].
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    systems: Vec<String>,
    /// Another Adit under a name of its own: settings of its gateway, or a folder with other programs.
    #[arg(long, value_name = "NAME:KEY=VALUE;programs=DIR")]
    adit: Vec<Variant>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each TCP and round-trip measurement takes, after a warm-up.
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    seconds: f64,
    /// One short round: enough to see that everything works, too little to compare.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Let each packet be alone on the cable, as on a real one: segmentation off, merging at reception on.
    #[arg(long)]
    wire: bool,
    /// What the network between client and gateway does to packets: clean, dsl, lte, transatlantic, lossy-wifi, or a
    /// file in TOML; implies --wire [default: a bare cable].
    #[arg(long, value_name = "NAME|FILE", value_parser = adit_lab::network)]
    profile: Option<Profile>,
    /// What decides about chance in that network: the same number, the same decisions.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "profile")]
    seed: u64,
    /// The congestion control of every TCP connection through the tunnel.
    #[arg(long, default_value = "cubic", value_name = "cubic|bbr|…")]
    cc: String,
    /// The system all others are compared with [default: wireguard-go, else plain].
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Where install-peers.sh put other VPNs.
    #[arg(long, value_name = "DIR")]
    peers_dir: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write the JSON object to a file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also write a page with plots that needs nothing but a browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.1..=3_600.0).contains(&value) => Ok(value),
        _ => Err("a number of seconds from 0.1 to 3600 is needed".to_owned()),
    }
}

/// Measures and reports; must be called while the process has a single thread.
///
/// # Errors
/// Fails where the system permits no lab, or when interrupted; what was measured until then is reported all the same. A
/// system that fails is a line of the report.
pub fn run(options: &Options, scope: Scope) -> Result<()> {
    let (systems, named) = choose(options, scope)?;
    options.output.iter().chain(&options.html).try_for_each(|path| save::check(path))?;
    // Before any thread exists, as the kernel demands.
    adit_lab::enter_user_namespace()?;
    let interrupt = &Interrupt::listen()?;
    // The plan, as the report will tell it.
    let tasks = task::selected(&options.only);
    let rounds = if options.quick { 1 } else { options.rounds };
    let command = if scope == Scope::Own { "run" } else { "peers" };
    let mut report = blank(command, effort(options), &tasks, rounds);
    report.wire = options.wire || options.profile.is_some();
    if let Some(profile) = &options.profile {
        report.seed = options.seed;
        report.profile = Some(profile.name.clone());
        report.network = Some(profile.clone());
    }
    // Who is missing although nobody named it is a line of the report and no failure.
    let mut runnable = Vec::new();
    for system in systems {
        match subject(system.as_ref()) {
            Ok(subject) => {
                report.systems.push(subject);
                runnable.push(system);
            }
            Err(failure) if named => return Err(failure.into()),
            Err(failure) => report.systems.push(missing(system.name(), &failure)),
        }
    }
    let order = session::rotating(runnable.len(), rounds);
    let outcome = session::run(&runnable, &order, &tasks, &mut report, interrupt);
    report.summarise(options.reference.as_deref().into_iter().chain(["wireguard-go", "plain"]));
    finish(options, &report)?;
    outcome
}

/// A report without systems, runs and summary, that begins now.
pub(crate) fn blank(command: &str, effort: Effort, tasks: &[Task], rounds: u32) -> Report {
    Report {
        schema: SCHEMA.to_owned(),
        command: command.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        total_seconds: 0.0,
        complete: false,
        machine: Machine::describe(),
        wire: false,
        seed: 0,
        profile: None,
        network: None,
        cable_features: Vec::new(),
        effort,
        rounds,
        tasks: tasks.iter().map(ToString::to_string).collect(),
        reference: None,
        systems: Vec::new(),
        runs: Vec::new(),
        summary: Vec::new(),
    }
}

/// A system that can be measured, as the report names it.
///
/// # Errors
/// Fails where one of its programs is not installed.
pub(crate) fn subject(system: &dyn System) -> Result<Subject, Failure> {
    let programs = system.programs()?.iter().map(|path| Program::of(path)).collect();
    let settings = system.settings().into_iter().collect();
    Ok(Subject { name: system.name().to_owned(), missing: None, programs, settings, mtu: None })
}

/// A system that is not installed, as the report names it.
pub(crate) fn missing(name: &str, failure: &Failure) -> Subject {
    let reason = format!("{}: {}", failure.what, failure.reason);
    let (programs, settings) = (Vec::new(), BTreeMap::new());
    Subject { name: name.to_owned(), missing: Some(reason), programs, settings, mtu: None }
}

/// The systems that take part, and whether somebody named them.
fn choose(options: &Options, scope: Scope) -> Result<(Vec<Box<dyn System>>, bool), Failure> {
    let mut variants = own_variants();
    for variant in &options.adit {
        variants.retain(|other| other.name != variant.name);
        variants.push(variant.clone());
    }
    let systems = catalogue(&variants, &Programs::new(options.peers_dir.as_deref()));
    let names: Vec<String> = systems.iter().map(|system| system.name().to_owned()).collect();
    for name in options.systems.iter().chain(&options.reference) {
        if !names.contains(name) {
            return Err(unknown(name, &names));
        }
    }
    let own = |name: &str| name == "plain" || variants.iter().any(|variant| variant.name == name);
    let wanted = |system: &dyn System| match (options.systems.as_slice(), system.name()) {
        ([], NOT_QUICK) if options.quick => false,
        ([], name) => own(name) || scope == Scope::Peers && !system.is_by_name_only(),
        (some, name) => some.iter().any(|one| one == name) || options.adit.iter().any(|variant| variant.name == name),
    };
    Ok((systems.into_iter().filter(|system| wanted(system.as_ref())).collect(), !options.systems.is_empty()))
}

fn unknown(name: &str, names: &[String]) -> Failure {
    let next = closest::next_step(name, names.iter().map(String::as_str));
    Failure::new(Exit::Usage, name, "no system has this name", next)
}

fn effort(options: &Options) -> Effort {
    let (warm_up, duration, step) = if options.quick {
        (Duration::from_millis(200), Duration::from_millis(500), Duration::from_millis(300))
    } else {
        (Duration::from_secs(1), Duration::from_secs_f64(options.seconds), Duration::from_secs(1))
    };
    Effort {
        warm_up,
        duration,
        step,
        precision: if options.quick { 1.25 } else { 1.03 },
        congestion: options.cc.clone(),
    }
}

fn finish(options: &Options, report: &Report) -> Result<()> {
    if let Some(path) = &options.output {
        report.write(path)?;
    }
    if let Some(path) = &options.html {
        save::save(path, &report::page(&[(path, report)]))?;
    }
    output::line(&if options.json { report.json()? } else { table::of(report) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_system_is_a_usage_failure_with_a_suggestion() {
        let names = ["plain".to_owned(), "wireguard-go".to_owned()];
        let failure = unknown("wiregard-go", &names);
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.next, "did you mean `wireguard-go`?");
        assert_eq!(unknown("x", &names).next, "known are plain, wireguard-go");
    }
}

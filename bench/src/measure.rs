//! End-to-end measurements of Adit and of others, in turns, so that the machine's moods meet all alike.
//!
//! A round starts every system once, in a lab of its own, and lets it do every task; the next round begins with the next
//! system. What is reported is the median over the rounds, with the lowest and highest value beside it.

pub(crate) mod accounting;
pub(crate) mod machine;
mod meter;
mod progress;
mod report;
mod session;
mod table;
mod task;

use std::path::PathBuf;
use std::time::Duration;

use adit_proto::exit::{Exit, Failure};
use anyhow::{Context, Result};
use clap::Args;

use crate::interrupt::Interrupt;
use crate::systems::{Programs, System, Variant, catalogue, own_variants};
use crate::{lab, output};
use meter::Effort;
use report::{Report, Subject};
use task::Selection;

/// How alike a name must be to be offered instead (Jaro-Winkler, 0 to 1).
const SIMILAR: f64 = 0.7;

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
    /// What to measure; a group such as tcp, tcp4, udp64, udp1200, rtt or cpu stands for its members [default: all].
    #[arg(long, value_delimiter = ',', value_name = "TASK,…")]
    only: Vec<Selection>,
    /// What takes part, by name [default: all that are installed].
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
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.1..=3_600.0).contains(&value) => Ok(value),
        _ => Err("a number of seconds from 0.1 to 3600 is needed".to_owned()),
    }
}

/// Measures and reports; must be called while the process has a single thread.
///
/// # Errors
///
/// Fails where the system permits no lab, or when interrupted; what was measured until then is reported all the same. A
/// system that fails is a line of the report.
pub fn run(options: &Options, scope: Scope) -> Result<()> {
    let (systems, named) = choose(options, scope)?;
    // Before any thread exists, as the kernel demands.
    lab::enter_user_namespace()?;
    let interrupt = &Interrupt::listen()?;
    let tasks = task::selected(&options.only);
    let rounds = if options.quick { 1 } else { options.rounds };
    let mut report = Report::new(options, scope, &tasks, rounds);
    let mut runnable = Vec::new();
    for system in systems {
        match Subject::of(system.as_ref()) {
            Ok(subject) => {
                report.systems.push(subject);
                runnable.push(system);
            }
            Err(failure) if named => return Err(failure.into()),
            Err(failure) => report.systems.push(Subject::missing(system.name(), &failure)),
        }
    }
    let outcome = session::run(&runnable, &tasks, rounds, &effort(options), &mut report, interrupt);
    finish(options, &mut report, outcome.is_ok())?;
    outcome
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
    let wanted = |name: &str| match options.systems.as_slice() {
        [] => scope == Scope::Peers || own(name),
        some => some.iter().any(|one| one == name) || options.adit.iter().any(|variant| variant.name == name),
    };
    Ok((systems.into_iter().filter(|system| wanted(system.name())).collect(), !options.systems.is_empty()))
}

fn unknown(name: &str, names: &[String]) -> Failure {
    let close = names.iter().map(|other| (strsim::jaro_winkler(name, other), other));
    let close = close.filter(|(likeness, _)| *likeness >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0));
    let all = || format!("known are {}", names.join(", "));
    let next = close.map_or_else(all, |(_, other)| format!("did you mean `{other}`?"));
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

fn finish(options: &Options, report: &mut Report, complete: bool) -> Result<()> {
    report.close(complete);
    let json = serde_json::to_string(&report).context("write the report as JSON")?;
    if let Some(path) = &options.output {
        std::fs::write(path, format!("{json}\n")).with_context(|| format!("write {}", path.display()))?;
    }
    output::line(&if options.json { json } else { table::of(report) });
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

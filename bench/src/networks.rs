//! Networks that get in the way of a tunnel: how soon packets flow again, and what is lost of their rate.
//!
//! Each trouble is one thing that networks do, named `N1`, `N2` and so on, and has targets of its own. Streams over bad
//! lines are compared with those of the bare path (`reference`).

mod demand;
mod flows;
mod moves;
mod narrowing;
mod options;
mod restart;
mod result;
mod site;
mod sleep;
mod streams;
mod trouble;
mod udp_blocked;
mod udp_changes;

use std::time::Instant;

use adit_program::output;
use anyhow::Result;

use crate::interrupt::Interrupt;
use crate::measure::{blank, subject};
use crate::report::model::Report;
use crate::report::save;
use crate::systems::{Programs, catalogue, own_variants};
use result::Found;
use trouble::{SYSTEM, TROUBLES, Trouble, Turn};

pub(crate) use options::Options;

/// Lets networks get in the way, and reports; must be called while the process has a single thread.
///
/// # Errors
/// Fails with exit code 8 where a target was missed, with 9 where one is not decided, after the report; and where the
/// system permits no lab, or when interrupted.
pub(crate) fn run(options: &Options) -> Result<()> {
    options.output.iter().chain(&options.html).try_for_each(|path| save::check(path))?;
    // Before any thread exists, as the kernel demands.
    adit_lab::enter_user_namespace()?;
    let found = measure(options, &Interrupt::listen()?)?;
    if let Some(path) = &options.output {
        save::save(path, &format!("{}\n", found.json()?))?;
    }
    if let Some(path) = &options.html {
        save::save(path, &found.page())?;
    }
    output::line(&if options.json { found.json()? } else { found.to_string() });
    Ok(found.verdict()?)
}

fn measure(options: &Options, interrupt: &Interrupt) -> Result<Found> {
    let troubles: Vec<Trouble> = TROUBLES.into_iter().filter(|trouble| options.wants(trouble.name)).collect();
    let measurement = take_all(&troubles, options, interrupt)?;
    let mut streams = Vec::new();
    if options.wants(streams::NAME) {
        for profile in options.profiles() {
            output::note(&format!("{}: streams over {}", streams::NAME, profile.name));
            streams.push(streams::measure(profile, options, interrupt)?);
        }
    }
    Ok(Found::new(&troubles, measurement, streams, options.stricter))
}

/// Takes the turns of all rounds, in which troubles have one each.
fn take_all(troubles: &[Trouble], options: &Options, interrupt: &Interrupt) -> Result<Report> {
    let (started, rounds) = (Instant::now(), options.rounds());
    let mut report = blank("networks", options.effort(), &[], rounds);
    report.seed = options.seed;
    report.tasks = troubles.iter().map(|trouble| trouble.task.to_owned()).collect();
    let systems = catalogue(&own_variants(), &Programs::default());
    let own = systems.iter().filter(|system| system.name() == SYSTEM);
    report.systems = own.map(|system| subject(system.as_ref())).collect::<Result<_, _>>()?;
    for round in 1..=rounds {
        for trouble in troubles.iter().filter(|trouble| trouble.is_due(round)) {
            output::note(&format!("{}, round {round}: {}", trouble.name, trouble.words));
            report.runs.push(trouble.take(&Turn { round, options, interrupt })?);
        }
    }
    report.complete = true;
    report.total_seconds = started.elapsed().as_secs_f64();
    report.summarise([]);
    Ok(report)
}

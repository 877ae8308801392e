//! Networks that get in the way of a tunnel: how soon packets flow again, and what is lost of their rate.
//!
//! Each row is one thing that networks do, named `N1`, `N2` and so on, and has targets of its own. Streams over bad
//! lines are compared with those of the bare path (`reference`).

mod options;
mod result;
mod streams;

use adit_program::output;
use anyhow::Result;

use crate::interrupt::Interrupt;
use crate::report::save;
use result::Found;

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
    let mut found = Found::new(options.stricter);
    if options.wants(streams::NAME) {
        for profile in options.profiles() {
            output::note(&format!("{}: streams over {}", streams::NAME, profile.name));
            found.streams.push(streams::measure(profile, options, interrupt)?);
        }
    }
    found.close();
    Ok(found)
}

//! Floods of wrong passwords at a gateway, and what users and sessions notice of them.
//!
//! A gateway that knows users of its own runs in a lab, with a client whose session carries packets at a fixed rate. In
//! turn nobody floods it, one address does, nobody does, and many addresses do. All the while users whom the gateway
//! knows log in once a second: one by the certificate of a device, from the very address that floods; one from a
//! network of theirs. So do strangers who know their passwords, to show what the flood does to whoever is not known.

mod cost;
mod flood;
mod observe;
mod options;
mod plan;
mod report;
mod site;
mod text;
mod users;
mod wire;

use adit_program::output;
use anyhow::{Context as _, Result};

use crate::interrupt::Interrupt;
use crate::load::limits;
use crate::measure::accounting::{anonymous, resident};
use report::{Memory, Report};
use site::Site;

pub use options::Options;

/// Descriptors: one for each address of a flood, those of the lab and those of calls to the gateway.
const DESCRIPTORS: u64 = 2_048;

/// Floods a gateway and reports; must be called while the process has a single thread.
///
/// # Errors
/// Fails with exit code 8 where a target was missed, with 9 where the machine did not let that be decided, after the
/// report; and where the system permits no lab, or when interrupted.
pub fn run(options: &Options) -> Result<()> {
    limits::secure_descriptors(DESCRIPTORS)?;
    // Before any thread exists, as the kernel demands.
    adit_lab::enter_user_namespace()?;
    let interrupt = Interrupt::listen()?;
    let report = measure(options, &interrupt)?;
    output::line(&if options.json {
        serde_json::to_string(&report).context("write the report as JSON")?
    } else {
        report.to_string()
    });
    Ok(report.verdict()?)
}

fn measure(options: &Options, interrupt: &Interrupt) -> Result<Report> {
    output::note("a gateway starts and learns its users");
    let site = Site::start(options)?;
    interrupt.check()?;
    let session = site.session()?;
    output::note("logins are compared with their hash");
    let cost = cost::measure(&site, options.pairs(), &|| interrupt.check())?;
    let mut report = Report::new(options, site.program.clone(), cost, memory(&site)?);
    let parts: Vec<_> = plan::parts(options.rounds()).collect();
    for (number, part) in parts.iter().enumerate() {
        let left = options.duration().as_secs() * (parts.len() - number) as u64;
        output::note(&format!("round {}: {} (about {left} s left)", part.round + 1, part.flooders.words()));
        let seen = observe::observe(&site, options, *part, &|time| interrupt.pause(time));
        report.parts.push(seen?);
    }
    interrupt.pause(options.farewell())?;
    report.after = memory(&site)?;
    report.most_waiting = site.hashes()?.most_waiting;
    report.session_kept = site.session()? == session;
    report.close();
    Ok(report)
}

/// The gateway's memory now.
fn memory(site: &Site) -> Result<Memory> {
    let (process, mut memory) = (site.process()?, Memory::default());
    memory.note(resident(process)?, anonymous(process)?);
    Ok(memory)
}

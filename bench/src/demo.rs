//! The demo: a gateway and a client in a lab, real traffic through their tunnel, and nothing left afterwards.

mod report;
mod steps;

use anyhow::Result;
use clap::Args;

use crate::interrupt::Interrupt;
use adit_lab::Lab;
use report::Report;
use steps::Demo;

/// What the demo can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Print one JSON object instead of lines, also where the demo fails.
    #[arg(long)]
    json: bool,
    /// Leave everything running until Ctrl-C, and say how to enter it.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo and reports on the standard output; must be called while the process has a single thread.
///
/// # Errors
/// Fails at the first step that does, with what the programs said last.
pub fn run(options: &Options) -> Result<()> {
    let mut report = Report::start(options.json);
    let outcome = show(options, &mut report);
    report.finish(outcome.as_ref().err());
    outcome
}

fn show(options: &Options, report: &mut Report) -> Result<()> {
    // Before any thread exists, as the kernel demands.
    adit_lab::enter_user_namespace()?;
    let interrupt = &Interrupt::listen()?;
    let binaries = &adit_lab::binaries()?;
    report.begin();
    let lab = report.step("build the lab", || {
        interrupt.check()?;
        let lab = Lab::standard()?;
        Ok(("client, gateway and internet, joined by veth".to_owned(), lab))
    })?;
    let mut demo = Demo::new(lab, binaries)?;
    demo.connect(report, interrupt)?;
    demo.measure(report, interrupt)?;
    if options.keep {
        report.keep(demo.entries());
        interrupt.wait();
    }
    demo.take_down(report)
}

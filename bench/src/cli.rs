//! The command line of `adit-bench`.

use std::process::ExitCode;

use adit_proto::exit::{Exit, Failure};
use clap::{Parser, Subcommand};

use crate::{demo, output};

/// Shows and measures an Adit tunnel on this machine, in network namespaces that leave nothing behind.
#[derive(Debug, Parser)]
#[command(name = "adit-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a gateway and a client, move real traffic through their tunnel, and take everything down.
    Demo(demo::Options),
}

/// Runs the program; must be called while the process has a single thread.
#[must_use]
pub fn main() -> ExitCode {
    let Command::Demo(options) = Cli::parse().command;
    match demo::run(&options) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            output::error(&format!("{error:#}"));
            error.downcast_ref::<Failure>().map_or(Exit::Other, |failure| failure.exit).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn demo_needs_no_argument() {
        assert!(Cli::try_parse_from(["adit-bench", "demo"]).is_ok());
        assert!(Cli::try_parse_from(["adit-bench", "demo", "--json", "--keep"]).is_ok());
        assert!(Cli::try_parse_from(["adit-bench", "demo", "--insecure"]).is_err());
    }
}

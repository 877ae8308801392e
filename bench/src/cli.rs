//! The command line of `adit-bench`.

use std::process::ExitCode;

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use clap::{Parser, Subcommand};

use crate::{anyconnect, compare, demo, instructions, load, logins, measure, networks, policy, report};

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
    /// Measure Adit: throughput, packet rates, round-trip times and cost, beside the bare cable.
    Run(measure::Options),
    /// Measure Adit and every other VPN installed here, in turns, and compare them.
    Peers(measure::Options),
    /// Show what `run` or `peers` wrote: as text, as a page with plots, or as Markdown; several files beside each
    /// other.
    Report(report::Options),
    /// Compare two builds of Adit in turns, and tell whether the second is slower: exit code 0 no, 8 yes, 9 unclear.
    Compare(compare::Options),
    /// Compare Adit with ocserv and openconnect in turns: exit code 0 every target is met, 8 one is missed, 9 unclear.
    #[command(name = "anyconnect")]
    AnyConnect(anyconnect::Options),
    /// Let thousands of clients of this one process connect to a gateway, and measure what their sessions cost it.
    Load(load::Options),
    /// Flood a gateway with wrong passwords, and see whether users log in and sessions go on: exit code 0 yes, 8 no, 9
    /// unclear.
    Logins(logins::Options),
    /// Let networks get in the way of a tunnel, and see how soon packets flow again: exit code 0 every target is met, 8
    /// one is missed, 9 unclear.
    Networks(networks::Options),
    /// Print a policy with so many groups and rules, for measurements with one.
    Policy(policy::Options),
    /// Count the instructions of the packet path's parts under valgrind, and compare them with a baseline.
    Instructions(instructions::Options),
}

/// Runs the program; must be called while the process has a single thread.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Run(options) => measure::run(&options, measure::Scope::Own),
        Command::Peers(options) => measure::run(&options, measure::Scope::Peers),
        Command::Report(options) => report::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::AnyConnect(options) => anyconnect::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Logins(options) => logins::run(&options),
        Command::Networks(options) => networks::run(&options),
        Command::Policy(options) => {
            policy::run(&options);
            Ok(())
        }
        Command::Instructions(options) => instructions::run(&options),
    };
    match outcome {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            output::note(&format!("adit-bench: {error:#}"));
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

    #[test]
    fn measurements_need_no_argument() {
        assert!(Cli::try_parse_from(["adit-bench", "run"]).is_ok());
        let peers =
            ["adit-bench", "peers", "--only", "tcp-up,rtt", "--systems", "plain,adit", "--rounds", "2", "--wire"];
        assert!(Cli::try_parse_from(peers).is_ok());
        assert!(Cli::try_parse_from(["adit-bench", "run", "--only", "tpc-up"]).is_err());
        assert!(Cli::try_parse_from(["adit-bench", "run", "--rounds", "0"]).is_err());
    }

    #[test]
    fn report_never_takes_a_file_to_read_for_one_to_write() {
        assert!(Cli::try_parse_from(["adit-bench", "report"]).is_err());
        let Ok(Cli { command: Command::Report(options) }) =
            Cli::try_parse_from(["adit-bench", "report", "--markdown", "a.json", "b.json", "--html", "x.html"])
        else {
            panic!("a report of two files");
        };
        assert!(format!("{options:?}").contains(r#"files: ["a.json", "b.json"]"#), "{options:?}");
    }

    #[test]
    fn load_needs_no_argument_and_takes_units() {
        assert!(Cli::try_parse_from(["adit-bench", "load"]).is_ok());
        let all = ["--clients", "50", "--arrive", "100/s", "--rate", "0", "--duration", "3s", "--carrier", "quic"];
        assert!(Cli::try_parse_from(["adit-bench", "load", "--json"].into_iter().chain(all)).is_ok());
        for wrong in [["--clients", "0"], ["--arrive", "0/s"], ["--rate", "-1"], ["--duration", "fast"]] {
            assert!(Cli::try_parse_from(["adit-bench", "load"].into_iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn logins_networks_policies_and_anyconnect_need_no_argument() {
        for command in ["logins", "networks", "policy", "anyconnect"] {
            assert!(Cli::try_parse_from(["adit-bench", command]).is_ok(), "{command}");
        }
        let all = ["logins", "--rate", "500/s", "--duration", "5s", "--rounds", "1", "--pairs", "3", "--json"];
        assert!(Cli::try_parse_from(["adit-bench"].into_iter().chain(all)).is_ok());
        for wrong in [["logins", "--rounds", "9"], ["logins", "--rate", "0"], ["policy", "--rules", "0"]] {
            assert!(Cli::try_parse_from(["adit-bench"].into_iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn counts_are_compared_or_written() {
        let parse = |arguments: &[&str]| Cli::try_parse_from(["adit-bench", "instructions"].iter().chain(arguments));
        assert!(parse(&[]).is_ok());
        assert!(parse(&["--baseline", "counts.toml", "--limit", "1.5", "--only", "esp"]).is_ok());
        assert!(parse(&["--write", "counts.toml"]).is_ok());
        for wrong in
            [["--write", "a", "--baseline", "b"], ["--write", "a", "--only", "esp"], ["--limit", "-1", "--only", "x"]]
        {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}

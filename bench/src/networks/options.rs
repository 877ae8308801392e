//! What can be told to networks that get in the way.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use adit_netem::Profile;
use clap::Args;

use super::streams;
use super::trouble::TROUBLES;
use crate::measure::positive;
use crate::report::model::Effort;

/// Most that a stream warms up: what the slowest of the profiles needs to fill its queue.
const WARM_UP: Duration = Duration::from_secs(3);

/// What can be told to networks that get in the way.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// What is measured, such as N1 [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    only: Vec<Name>,
    /// How often each is measured, but for those of whose events one turn has many.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// The moves of N3.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    moves: u32,
    /// The sessions of N4.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    sessions: u32,
    /// How long each stream of N6 is counted, after a warm-up of half that.
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    seconds: f64,
    /// The networks of N6: names as for `run --profile`, or files in TOML [default: dsl, lte, transatlantic,
    /// lossy-wifi].
    #[arg(long, value_delimiter = ',', value_name = "NAME|FILE,…", value_parser = adit_lab::network)]
    profiles: Vec<Profile>,
    /// One short round of each: enough to see that everything works, too little to say that a target is met.
    #[arg(long, conflicts_with_all = ["rounds", "moves", "sessions", "seconds"])]
    quick: bool,
    /// Ask for so many times less time, or more of a rate, than the targets: to see how much room is left.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = factor)]
    pub(super) stricter: f64,
    /// What decides about chance: the same number, the same decisions.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(super) json: bool,
    /// Also write the JSON object to a file.
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Also write a page with plots that needs nothing but a browser.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
}

impl Options {
    /// Whether a trouble is measured.
    pub(super) fn wants(&self, name: &'static str) -> bool {
        self.only.is_empty() || self.only.contains(&Name(name))
    }

    /// How often each is measured.
    pub(super) fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    /// How often the client's host moves.
    pub(super) fn moves(&self) -> usize {
        if self.quick { 3 } else { self.moves as usize }
    }

    /// The sessions under which the gateway is restarted.
    pub(super) fn sessions(&self) -> u32 {
        if self.quick { 20 } else { self.sessions }
    }

    /// The networks over which streams are compared.
    pub(super) fn profiles(&self) -> Vec<Profile> {
        let default = || streams::PROFILES.iter().filter_map(|name| Profile::shipped(name)).collect();
        if self.profiles.is_empty() { default() } else { self.profiles.clone() }
    }

    /// How long streams are counted.
    pub(super) fn effort(&self) -> Effort {
        let duration = Duration::from_secs_f64(if self.quick { 0.5 } else { self.seconds });
        let (warm_up, step) = ((duration / 2).min(WARM_UP), duration.min(Duration::from_secs(1)));
        Effort { warm_up, duration, step, precision: 1.03, congestion: "cubic".to_owned() }
    }
}

/// All troubles, in their order.
fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = TROUBLES.iter().map(|trouble| trouble.name).chain([streams::NAME]).collect();
    names.sort_unstable();
    names
}

/// A trouble as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name(&'static str);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = names();
        let found = names.iter().find(|name| name.eq_ignore_ascii_case(text));
        found.map(|name| Self(name)).ok_or_else(|| format!("known are {}", names.join(", ")))
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.001..=1e9).contains(number));
    number.ok_or_else(|| "a factor from 0.001 to 1000000000 is needed".to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// What a command line says.
    pub(in super::super) fn parsed(arguments: &[&str]) -> Result<Options, clap::Error> {
        Line::try_parse_from(["networks"].iter().chain(arguments)).map(|line| line.options)
    }

    #[test]
    fn nothing_need_be_said_and_a_quick_run_is_short() {
        let full = parsed(&[]).unwrap();
        assert_eq!((full.rounds(), full.effort().duration), (5, Duration::from_secs(5)));
        let profiles: Vec<String> = full.profiles().into_iter().map(|profile| profile.name).collect();
        assert_eq!(profiles, streams::PROFILES);
        assert!(names().into_iter().all(|name| full.wants(name)));
        let quick = parsed(&["--quick", "--profiles", "dsl,lte"]).unwrap();
        assert_eq!((quick.rounds(), quick.effort().duration), (1, Duration::from_millis(500)));
        assert_eq!(quick.profiles().len(), 2);
    }

    #[test]
    fn troubles_are_chosen_by_name() {
        let only = parsed(&["--only", "n6"]).unwrap();
        assert!(only.wants("N6") && !only.wants("N1"));
        let mut names = names();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn senseless_arguments_are_refused() {
        let wrong =
            [["--rounds", "0"], ["--only", "N99"], ["--seconds", "0"], ["--profiles", "lan"], ["--stricter", "-1"]];
        for wrong in wrong {
            assert!(parsed(&wrong).is_err(), "{wrong:?}");
        }
        assert!(parsed(&["--quick", "--rounds", "5"]).is_err());
    }
}

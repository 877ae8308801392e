//! What was found: the JSON object, whose keys are the fields here, the same as text, and the verdict.

use std::fmt;

use adit_program::exit::{Exit, Failure};
use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::reference::judge::Row;
use crate::reference::{Compared, Rows};
use crate::report::model::{Report, Run};
use crate::verdict;

/// Version of the JSON object: raised when a field changes its meaning or vanishes.
const SCHEMA: &str = "adit-bench-anyconnect/1";

/// Everything about one run.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    schema: &'static str,
    /// Whether this program was built without optimisation for release.
    debug_build: bool,
    /// What the draws of the statistics were made of.
    seed: u64,
    pub(super) targets: Vec<Row>,
    /// The exit code that follows.
    exit_code: u8,
    /// Runs that do not count: their turns were disturbed or failed, and were taken again.
    repeated: Vec<Run>,
    /// All runs that count, with machine and effort, as `adit-bench run` writes them.
    pub(super) measurement: Report,
}

impl Comparison {
    pub(super) fn new(compared: Compared) -> Self {
        let Compared { rows: targets, report: measurement, repeated } = compared;
        let (debug_build, seed) = (cfg!(debug_assertions), measurement.seed);
        let mut found = Self { schema: SCHEMA, debug_build, seed, targets, exit_code: 0, repeated, measurement };
        found.exit_code = found.verdict().map_or_else(|failure| failure.exit, |()| Exit::Ok) as u8;
        found
    }

    pub(super) fn json(&self) -> Result<String> {
        serde_json::to_string(self).context("write the comparison as JSON")
    }

    /// What makes the run a failure.
    ///
    /// # Errors
    /// A target was missed: exit code 8. One is not decided: 9.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        verdict::of("anyconnect", self.targets.iter().filter_map(Row::verdict))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = if self.debug_build { ", not a release build" } else { "" };
        writeln!(f, "{}{build}\n", self.measurement.circumstances())?;
        write!(f, "{}", Rows(&self.targets))?;
        let disturbed = self.measurement.runs.iter().filter(|run| run.disturbed).count();
        let (runs, again) = (self.measurement.runs.len(), self.repeated.len());
        write!(f, "\n{disturbed} of {runs} runs that count were disturbed; {again} more were made again")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use adit_netem::random::Random;

    use super::super::goals::{Name, selected};
    use super::*;
    use crate::documented;
    use crate::reference::judge::tests::runs;
    use crate::reference::judge::{Seen, row};
    use crate::report::model::tests::example;

    /// The goals about openconnect at Adit, one way.
    fn compared(faster: f64) -> Comparison {
        let names: Vec<Name> = ["A1", "A2"].iter().map(|name| name.parse().unwrap()).collect();
        let (runs, absent) = (runs(7, faster), BTreeMap::new());
        let seen = Seen { runs: &runs, rounds: 7, absent: &absent };
        let judge = |goal| row(goal, "tcp-up", &seen, &mut Random::seeded(1));
        let rows = selected(&names).iter().map(judge).collect();
        Comparison::new(Compared { rows, report: Report { runs, ..example() }, repeated: Vec::new() })
    }

    #[test]
    fn exit_code_is_that_of_the_worst_target() {
        let exit = |faster| compared(faster).verdict().err().map(|failure| failure.exit);
        assert_eq!(exit(4.0), None);
        assert_eq!(exit(1.3), Some(Exit::Regression), "only the rate is met");
        assert_eq!(exit(0.35_f64.recip()), Some(Exit::Inconclusive), "the processor time is at its bound");
        let json: serde_json::Value = serde_json::from_str(&compared(1.3).json().unwrap()).unwrap();
        assert_eq!((&json["schema"], &json["exit_code"]), (&SCHEMA.into(), &8.into()));
    }

    #[test]
    fn text_has_a_line_for_each_target_with_its_verdict() {
        let text = compared(1.3).to_string();
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("A1").ends_with("  met") && line("A1").contains(">= 1.15"), "{text}");
        assert!(line("A2").ends_with("  missed") && line("A2").contains("tcp-up"), "{text}");
    }

    #[test]
    fn every_key_is_documented_and_no_other() {
        let document = documented::text("benchmarks.md");
        let written = documented::keys(&serde_json::to_value(compared(1.3)).unwrap(), &["repeated", "measurement"]);
        assert_eq!(documented::fields(&document), written);
        assert!(document.contains(&format!("`{SCHEMA}`")));
    }
}

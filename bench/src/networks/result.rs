//! What was found: the JSON object, whose keys are the fields here, the same as text and as a page, and the verdict.

use std::fmt;
use std::path::Path;

use adit_program::exit::{Exit, Failure};
use anyhow::{Context as _, Result};
use serde::Serialize;

use super::streams::Streams;
use crate::reference::Rows;
use crate::reference::judge::Row;
use crate::report;
use crate::report::model::Report;
use crate::verdict;

/// Version of the JSON object: raised when a field changes its meaning or vanishes.
const SCHEMA: &str = "adit-bench-networks/1";

/// Everything about one run.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    schema: &'static str,
    /// Whether this program was built without optimisation for release.
    debug_build: bool,
    /// How many times stricter the targets were made.
    stricter: f64,
    /// One TCP stream over each line, beside the bare path.
    pub(super) streams: Vec<Streams>,
    /// The exit code that follows.
    exit_code: u8,
}

impl Found {
    /// Begins with nothing.
    pub(super) fn new(stricter: f64) -> Self {
        Self { schema: SCHEMA, debug_build: cfg!(debug_assertions), stricter, streams: Vec::new(), exit_code: 0 }
    }

    /// Notes the exit code, when all figures are there.
    pub(super) fn close(&mut self) {
        self.exit_code = self.verdict().map_or_else(|failure| failure.exit, |()| Exit::Ok) as u8;
    }

    pub(super) fn json(&self) -> Result<String> {
        serde_json::to_string(self).context("write what was found as JSON")
    }

    /// The page with plots.
    pub(super) fn page(&self) -> String {
        report::page(&self.measurements())
    }

    /// All runs, each measurement under the name that a page has for it.
    fn measurements(&self) -> Vec<(&Path, &Report)> {
        self.streams.iter().map(|streams| (Path::new(&streams.profile), &streams.measurement)).collect()
    }

    /// What makes the run a failure.
    ///
    /// # Errors
    /// A target was missed: exit code 8. One is not decided: 9.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let of_line = |streams: &Streams| {
            let named = |row: &Row| {
                let (name, met) = row.verdict()?;
                Some((format!("{name} {} over {}", row.system, streams.profile), met))
            };
            streams.rows.iter().filter_map(named).collect::<Vec<_>>()
        };
        verdict::of("networks", self.streams.iter().flat_map(of_line).collect::<Vec<_>>())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = if self.debug_build { ", not a release build" } else { "" };
        for Streams { profile, rows, repeated, measurement } in &self.streams {
            writeln!(f, "{}{build}\n", measurement.circumstances())?;
            write!(f, "{}", Rows(rows))?;
            let disturbed = measurement.runs.iter().filter(|run| run.disturbed).count();
            let (runs, again) = (measurement.runs.len(), repeated.len());
            writeln!(
                f,
                "{profile}: {disturbed} of {runs} runs that count were disturbed; {again} more were made again\n"
            )?;
        }
        if self.stricter == 1.0 {
            return write!(f, "judged by the targets");
        }
        write!(f, "judged by {} times stricter targets", self.stricter)
    }
}

#[cfg(test)]
mod tests {
    use super::super::streams::tests::streams;
    use super::*;
    use crate::documented;

    /// What was found where each carrier reaches this share of the bare path's rate, in so many rounds.
    fn found(rounds: u32, share: f64) -> Found {
        let mut found = Found::new(1.0);
        found.streams.push(streams(rounds, share, 1.0));
        found.close();
        found
    }

    #[test]
    fn exit_code_is_that_of_the_worst_target() {
        let exit = |rounds, share| found(rounds, share).verdict().err().map(|failure| failure.exit);
        assert_eq!(exit(5, 0.97), None, "what is stated only decides nothing");
        assert_eq!(exit(5, 0.90), Some(Exit::Regression));
        assert_eq!(exit(4, 0.97), Some(Exit::Inconclusive));
        let json: serde_json::Value = serde_json::from_str(&found(5, 0.90).json().unwrap()).unwrap();
        assert_eq!((&json["schema"], &json["exit_code"]), (&SCHEMA.into(), &8.into()));
    }

    #[test]
    fn text_and_page_have_the_figures_of_each_line() {
        let found = found(5, 0.90);
        let text = found.to_string();
        assert!(text.contains("missed") && text.contains("dsl: 0 of"), "{text}");
        assert!(found.page().contains("dsl"));
        let failure = found.verdict().unwrap_err();
        assert_eq!(failure.reason, "missed: N6 tcp-up adit over dsl, N6 tcp-up adit-quic over dsl");
    }

    #[test]
    fn every_key_is_documented_and_no_other() {
        let document = documented::text("networks-report.md");
        let value = serde_json::to_value(found(5, 0.97)).unwrap();
        assert_eq!(documented::fields(&document), documented::keys(&value, &["rows", "repeated", "measurement"]));
        assert!(document.contains(&format!("`{SCHEMA}`")));
    }
}

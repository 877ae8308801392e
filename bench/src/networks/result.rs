//! What was found: the JSON object, whose keys are the fields here, the same as text and as a page, and the verdict.

use std::fmt;
use std::path::Path;

use adit_program::exit::{Exit, Failure};
use anyhow::{Context as _, Result};
use serde::Serialize;

use super::streams::Streams;
use super::trouble::Trouble;
use crate::load::targets::{Table, Target};
use crate::reference::Rows;
use crate::reference::judge::Row;
use crate::report;
use crate::report::model::{Report, Run};
use crate::report::table;
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
    /// What troubles other than N6 should reach, beside what was seen.
    targets: Vec<Target>,
    /// One TCP stream over each line, beside the bare path.
    streams: Vec<Streams>,
    /// The exit code that follows.
    exit_code: u8,
    /// All runs of troubles other than N6, as `adit-bench run` writes them.
    measurement: Report,
}

impl Found {
    /// Judges troubles by the runs of a measurement, with so many times stricter targets, beside streams that are
    /// judged.
    pub(super) fn new(troubles: &[Trouble], measurement: Report, streams: Vec<Streams>, stricter: f64) -> Self {
        let judged = |trouble: &Trouble| {
            let runs: Vec<&Run> =
                measurement.runs.iter().filter(|run| run.task.as_deref() == Some(trouble.task)).collect();
            trouble.demands.iter().map(|demand| demand.stricter(stricter).judge(trouble, &runs)).collect::<Vec<_>>()
        };
        let (debug_build, targets) = (cfg!(debug_assertions), troubles.iter().flat_map(judged).collect());
        let mut found = Self { schema: SCHEMA, debug_build, stricter, targets, streams, exit_code: 0, measurement };
        found.exit_code = found.verdict().map_or_else(|failure| failure.exit, |()| Exit::Ok) as u8;
        found
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
        let troubles = (Path::new("networks"), &self.measurement);
        let streams = self.streams.iter().map(|streams| (Path::new(&streams.profile), &streams.measurement));
        [troubles].into_iter().chain(streams).filter(|(_, report)| !report.runs.is_empty()).collect()
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
        let targets = self.targets.iter().map(|target| (format!("{} {}", target.name, target.what), target.met));
        verdict::of("networks", targets.chain(self.streams.iter().flat_map(of_line)).collect::<Vec<_>>())
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = if self.debug_build { ", not a release build" } else { "" };
        if !self.targets.is_empty() {
            writeln!(f, "{}\n\n{}", table::of(&self.measurement), Table(&self.targets))?;
        }
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
    use std::time::Duration;

    use super::super::streams::tests::streams;
    use super::super::trouble::TROUBLES;
    use super::*;
    use crate::documented;
    use crate::measure::meter::milliseconds;
    use crate::report::model::tests::example;

    /// What was found where each carrier reaches this share of the bare path's rate, in so many rounds.
    fn found(rounds: u32, share: f64) -> Found {
        Found::new(&[], Report { runs: Vec::new(), ..example() }, vec![streams(rounds, share, 1.0)], 1.0)
    }

    /// What was found of the first trouble where it took so long, and a quarter of that once it was remembered.
    fn blocked(took: Duration, stricter: f64) -> Found {
        let run = |round| {
            let readings = vec![milliseconds("connect", took), milliseconds("remembered", took / 4)];
            Run::new(round, "adit", Some(TROUBLES[0].task), took, Ok(readings))
        };
        let (tasks, runs) = (vec![TROUBLES[0].task.to_owned()], (1..=5).map(run).collect());
        let mut report = Report { tasks, runs, ..example() };
        report.summarise([]);
        Found::new(&TROUBLES[..1], report, Vec::new(), stricter)
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
    fn troubles_are_judged_by_their_targets_or_by_stricter_ones() {
        let exit = |took, stricter| {
            let verdict = blocked(Duration::from_millis(took), stricter).verdict();
            verdict.err().map(|failure| (failure.exit, failure.reason))
        };
        assert_eq!(exit(800, 1.0), None);
        let missed = "missed: N1 connected where UDP is blocked, ms".to_owned();
        assert_eq!(exit(1_100, 1.0), Some((Exit::Regression, missed.clone())));
        assert_eq!(exit(550, 2.0), Some((Exit::Regression, missed)));
        let found = blocked(Duration::from_millis(800), 1.0);
        let text = found.to_string();
        assert!(text.lines().any(|line| line.starts_with("N1") && line.ends_with("met")), "{text}");
        assert!(found.page().contains("udp-blocked"));
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
        let elsewhere = ["rows", "repeated", "measurement", "targets"];
        let written = documented::keys(&serde_json::to_value(found(5, 0.97)).unwrap(), &elsewhere);
        assert_eq!(documented::fields(&document), written);
        assert!(document.contains(&format!("`{SCHEMA}`")));
    }
}

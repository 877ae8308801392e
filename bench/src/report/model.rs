//! The result of a measurement as a file keeps it; the fields are the keys of the JSON object, and these docs its
//! schema.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use adit_netem::Profile as Network;
use adit_program::exit::{Exit, Failure};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::machine::{Machine, Program};
use super::save;

/// Version of the JSON object: raised when a field changes its meaning or vanishes.
pub(crate) const SCHEMA: &str = "adit-bench/1";
/// Everything about one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Always [`SCHEMA`] here.
    pub(crate) schema: String,
    /// What the program was told to do: `run`, `peers` or `compare`.
    pub(crate) command: String,
    /// Version of this program.
    pub(crate) version: String,
    /// Seconds since 1970.
    pub(crate) started_at: u64,
    /// How long it took.
    pub(crate) total_seconds: f64,
    /// Whether every planned run was made, with or without success.
    pub(crate) complete: bool,
    /// The machine.
    pub(crate) machine: Machine,
    /// Whether each packet was alone on the cable.
    pub(crate) wire: bool,
    /// What all randomness of the measurement was made of; 0 where there was none.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Name of the impairments of the path; `None` for the bare cable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<String>,
    /// What these impairments are, with every value; `None` for the bare cable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Network>,
    /// Offloads of the client's end of the cable that were on.
    pub(crate) cable_features: Vec<String>,
    /// Durations and congestion control.
    pub(crate) effort: Effort,
    /// Rounds planned.
    pub(crate) rounds: u32,
    /// Tasks in the order in which they were done.
    pub(crate) tasks: Vec<String>,
    /// The system that ratios refer to.
    pub(crate) reference: Option<String>,
    /// Who took part, or could not.
    pub(crate) systems: Vec<Subject>,
    /// Every single run, in the order in which they were made.
    pub(crate) runs: Vec<Run>,
    /// Medians over the rounds, ordered by task, metric and system.
    pub(crate) summary: Vec<Figure>,
}

/// How long measurements take, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Effort {
    /// Time under load before counting begins.
    #[serde(rename = "warm_up_seconds", with = "seconds")]
    pub(crate) warm_up: Duration,
    /// Time of counting, for TCP and round-trip times.
    #[serde(rename = "duration_seconds", with = "seconds")]
    pub(crate) duration: Duration,
    /// Time of one rate of a search, and of a flood.
    #[serde(rename = "step_seconds", with = "seconds")]
    pub(crate) step: Duration,
    /// Where a search ends: ratio of the lowest rate that failed to the highest that held.
    #[serde(rename = "search_precision")]
    pub(crate) precision: f64,
    /// The congestion control of connections through the tunnel.
    pub(crate) congestion: String,
}

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// One system that was, or should have been, measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// Its name.
    pub(crate) name: String,
    /// Why it could not take part; `None` where it did.
    pub(crate) missing: Option<String>,
    /// Its programs.
    pub(crate) programs: Vec<Program>,
    /// Settings that are not its authors' defaults.
    pub(crate) settings: BTreeMap<String, String>,
    /// MTU of its tunnel device at the client.
    pub(crate) mtu: Option<u32>,
}

/// One task, done once by one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Counted from 1.
    pub(crate) round: u32,
    /// Who.
    pub(crate) system: String,
    /// What; `None` where the system did not even start.
    pub(crate) task: Option<String>,
    /// How long it took in all.
    pub(crate) seconds: f64,
    /// Cores that programs outside the measurement used, in user space.
    pub(crate) foreign_cores: f64,
    /// Cores the hypervisor took.
    pub(crate) stolen_cores: f64,
    /// How long this program's control group was kept from the processors because its quota was used up.
    #[serde(default)]
    pub(crate) throttled_seconds: f64,
    /// How often a processor slowed down because it was hot, where they tell.
    #[serde(default)]
    pub(crate) overheated: u64,
    /// Whether any of these is too much, or the program that impairs the path was too slow for it.
    pub(crate) disturbed: bool,
    /// What was read, the most important first. A metric that begins with `drop_` and is missing was 0.
    pub(crate) readings: Vec<Reading>,
    /// The carrier packets travelled by at its end, where the system has a choice and tells.
    pub(crate) carrier: Option<String>,
    /// Why there are no readings.
    pub(crate) error: Option<String>,
    /// How one value went on while the task lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeline: Option<Timeline>,
    /// The distribution of round-trip times, of at most 119 points, which are dense where it nears its end: pairs of
    /// microseconds and the share (0 to 1) of all requests answered within them, both rising. What is missing to 1 was
    /// never answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latencies: Option<Vec<(f64, f64)>>,
}

/// One value that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// What it is.
    pub(crate) metric: String,
    /// Its unit.
    pub(crate) unit: String,
    /// Its value.
    pub(crate) value: f64,
}

/// A value at steady intervals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    /// Time from one value to the next; the first is that of the first interval.
    pub(crate) interval_seconds: f64,
    /// What it is.
    pub(crate) metric: String,
    /// Its unit.
    pub(crate) unit: String,
    /// The mean over each interval.
    pub(crate) values: Vec<f64>,
}

/// One metric of one system over all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What was done.
    pub(crate) task: String,
    /// What was read.
    pub(crate) metric: String,
    /// Its unit.
    pub(crate) unit: String,
    /// Who.
    pub(crate) system: String,
    /// Number of values.
    pub(crate) count: usize,
    /// The middle one; of an even number the mean of the middle two, but of percentiles the lower.
    pub(crate) median: f64,
    /// The lowest.
    pub(crate) low: f64,
    /// The highest.
    pub(crate) high: f64,
    /// The median divided by the reference's.
    pub(crate) ratio: Option<f64>,
}

impl Run {
    /// A run of so long that nothing disturbed, with what was read, or why nothing was.
    pub(crate) fn new(
        round: u32,
        system: &str,
        task: Option<&str>,
        elapsed: Duration,
        outcome: Result<Vec<Reading>>,
    ) -> Self {
        let (readings, error) = match outcome {
            Ok(readings) => (readings, None),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        Self {
            round,
            system: system.to_owned(),
            task: task.map(str::to_owned),
            seconds: elapsed.as_secs_f64(),
            foreign_cores: 0.0,
            stolen_cores: 0.0,
            throttled_seconds: 0.0,
            overheated: 0,
            disturbed: false,
            readings,
            carrier: None,
            error,
            timeline: None,
            latencies: None,
        }
    }

    /// The value of one metric.
    pub(crate) fn value(&self, metric: &str) -> Option<f64> {
        self.readings.iter().find(|reading| reading.metric == metric).map(|reading| reading.value)
    }
}

impl Report {
    /// Reads a file that [`write`](Self::write) made.
    ///
    /// # Errors
    /// Fails with exit code 2 where the file cannot be read, or is of another version or kind.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let wrong = |reason: String, next: &str| Failure::new(Exit::Usage, &name, reason, next);
        let text = fs::read(path).map_err(|error| wrong(error.to_string(), "name a file that --output wrote"))?;
        Self::parse(&text).map_err(|(reason, next)| wrong(reason, next))
    }

    /// Reads the JSON object; fails with a reason and a next step.
    fn parse(text: &[u8]) -> Result<Self, (String, &'static str)> {
        let other = "name a file that `adit-bench run` or `adit-bench peers` wrote with --output";
        let value: Value = serde_json::from_slice(text).map_err(|error| (format!("is no JSON: {error}"), other))?;
        match value.get("schema").and_then(Value::as_str) {
            Some(SCHEMA) => {}
            Some(schema) if schema.split('/').next() == SCHEMA.split('/').next() => {
                let reason = format!("has the schema {schema}, and this program reads {SCHEMA}");
                return Err((reason, "read it with the version of adit-bench that wrote it, or measure again"));
            }
            Some(schema) => return Err((format!("has the schema {schema}, not {SCHEMA}"), other)),
            None => return Err((format!("has no schema, where {SCHEMA} is expected"), other)),
        }
        serde_json::from_value(value).map_err(|error| (format!("is no {SCHEMA}: {error}"), "measure again"))
    }

    /// Writes the JSON object to a file, and a line feed.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        Ok(save::save(path, &format!("{}\n", self.json()?))?)
    }

    /// The JSON object.
    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string(self).context("write the report as JSON")
    }

    /// Whether a system of this name took part.
    pub(crate) fn took_part(&self, name: &str) -> bool {
        self.systems.iter().any(|one| one.name == name && one.missing.is_none())
    }

    /// One line about the circumstances, for people.
    pub(crate) fn circumstances(&self) -> String {
        let cable = if self.wire { "each packet alone on the cable" } else { "offloads at their defaults" };
        let Effort { congestion, duration, .. } = &self.effort;
        let seconds = duration.as_secs_f64();
        let line = self.machine.line();
        let profile = self.profile.as_ref().map(|name| format!(", path {name}")).unwrap_or_default();
        format!("{line}\n{} rounds of {seconds} s, {congestion}, {cable}{profile}", self.rounds)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three rounds of two systems and a third that is missing, with a summary.
    pub(crate) fn example() -> Report {
        let subject = |name: &str, missing: Option<&str>| Subject {
            name: name.to_owned(),
            missing: missing.map(str::to_owned),
            programs: Vec::new(),
            settings: BTreeMap::new(),
            mtu: None,
        };
        let mut report = Report {
            schema: SCHEMA.to_owned(),
            command: "run".to_owned(),
            version: "0.1.0".to_owned(),
            started_at: 1_700_000_000,
            total_seconds: 24.0,
            complete: true,
            machine: Machine::describe(),
            wire: false,
            seed: 0,
            profile: None,
            network: None,
            cable_features: vec!["tx-udp-segmentation".to_owned()],
            effort: Effort {
                warm_up: Duration::from_millis(200),
                duration: Duration::from_millis(500),
                step: Duration::from_millis(300),
                precision: 1.25,
                congestion: "cubic".to_owned(),
            },
            rounds: 3,
            tasks: vec!["tcp-up".to_owned()],
            reference: None,
            systems: vec![subject("plain", None), subject("adit", None), subject("quincy", Some("is not installed"))],
            runs: Vec::new(),
            summary: Vec::new(),
        };
        for (round, plain, adit) in [(1, 10.0, 4.0), (2, 30.0, 6.0), (3, 20.0, 5.0)] {
            report.runs.extend([("plain", plain), ("adit", adit)].map(|(system, rate)| run(round, system, rate)));
        }
        report.summarise(["plain"]);
        report
    }

    fn run(round: u32, system: &str, rate: f64) -> Run {
        let (metric, unit) = ("rate".to_owned(), "Gbit/s".to_owned());
        let values = vec![rate * 0.9, rate * 1.1];
        Run {
            round,
            system: system.to_owned(),
            task: Some("tcp-up".to_owned()),
            seconds: 4.0,
            foreign_cores: 0.01,
            stolen_cores: 0.0,
            throttled_seconds: 0.0,
            overheated: 0,
            disturbed: false,
            readings: vec![Reading { metric: metric.clone(), unit: unit.clone(), value: rate }],
            carrier: None,
            error: None,
            timeline: Some(Timeline { interval_seconds: 0.25, metric, unit, values }),
            latencies: Some(vec![(80.0, 0.5), (120.5, 0.999)]),
        }
    }

    #[test]
    fn report_reads_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let mut report = example();
        for profile in [None, Some("dsl".to_owned())] {
            report.profile = profile;
            report.write(&path).unwrap();
            assert_eq!(Report::read(&path).unwrap(), report);
        }
    }

    #[test]
    fn optional_fields_may_be_missing_and_new_ones_are_ignored() {
        let mut value = serde_json::to_value(example()).unwrap();
        let object = value.as_object_mut().unwrap();
        object.remove("seed");
        object.insert("later".to_owned(), 7.into());
        for run in object["runs"].as_array_mut().unwrap() {
            let run = run.as_object_mut().unwrap();
            for key in ["timeline", "latencies", "throttled_seconds", "overheated"] {
                run.remove(key);
            }
        }
        let report = Report::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!((report.seed, report.runs[0].timeline.as_ref()), (0, None));
    }

    #[test]
    fn other_files_are_refused_with_a_next_step() {
        for (text, reason) in [
            ("", "is no JSON"),
            ("[]", "has no schema"),
            (r#"{"schema":"adit-bench/2"}"#, "has the schema adit-bench/2, and this program reads adit-bench/1"),
            (r#"{"schema":"adit-bench-load/1"}"#, "has the schema adit-bench-load/1, not adit-bench/1"),
            (r#"{"schema":"adit-bench/1"}"#, "is no adit-bench/1: missing field"),
        ] {
            let (said, next) = Report::parse(text.as_bytes()).unwrap_err();
            assert!(said.starts_with(reason) && !next.is_empty(), "{said}");
        }
        let failure = Report::read(Path::new("/nonexistent")).unwrap_err();
        assert_eq!((failure.exit, failure.what.as_str()), (Exit::Usage, "/nonexistent"));
    }

    #[test]
    fn durations_are_seconds_and_never_negative() {
        let mut value = serde_json::to_value(example().effort).unwrap();
        assert_eq!(value["warm_up_seconds"], 0.2);
        value["step_seconds"] = (-1.0).into();
        assert!(serde_json::from_value::<Effort>(value).is_err());
    }
}

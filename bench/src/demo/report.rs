//! What the demo did, as lines while it runs or as one JSON object at its end.

use std::time::{Duration, Instant};

use adit_program::output;
use anyhow::{Context, Error, Result};
use serde::Serialize;

use adit_lab::INTERNET_V4;

/// Width of the column with the steps' names.
const NAME_WIDTH: usize = 34;

/// The demo's report; visible fields are the keys of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(skip)]
    json: bool,
    #[serde(skip)]
    printed: bool,
    #[serde(skip)]
    started: Instant,
    /// Whether every step succeeded.
    pub(super) ok: bool,
    /// Why the demo failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// From the first step to the end; building the programs comes before.
    pub(super) total_seconds: f64,
    /// All steps in order.
    pub(super) steps: Vec<Step>,
    /// Inner addresses of the client.
    pub(super) addresses: Vec<String>,
    /// Destinations the client sends into the tunnel.
    pub(super) routes: Vec<String>,
    /// Echo requests and their round-trip times.
    pub(super) pings: Vec<PingResult>,
    /// TCP transfers.
    pub(super) transfers: Vec<TransferResult>,
    /// Round-trip time to `internet` through the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) round_trip: Option<RoundTrip>,
    /// How to enter the hosts of a lab that keeps running.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) entries: Vec<Entry>,
}

/// How to get a shell in a host.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    /// The host's name.
    pub(super) host: String,
    /// What to type, as the user who started the demo.
    pub(super) command: String,
}

/// One step that succeeded.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// What was done.
    pub(super) name: String,
    /// How long it took.
    pub(super) ms: u64,
    /// What came of it.
    pub(super) detail: String,
}

/// One echo request.
#[derive(Debug, Serialize)]
pub(super) struct PingResult {
    /// Whom it was sent to.
    pub(super) target: String,
    /// Its round-trip time.
    pub(super) microseconds: u64,
}

/// One TCP transfer.
#[derive(Debug, Serialize)]
pub(super) struct TransferResult {
    /// `upload` or `download`, seen from the client.
    pub(super) direction: &'static str,
    /// `IPv4` or `IPv6`.
    pub(super) family: &'static str,
    /// Its size.
    pub(super) bytes: u64,
    /// Its rate.
    pub(super) megabits_per_second: f64,
    /// SHA-256 of what was sent and of what arrived, which are equal.
    pub(super) sha256: String,
}

/// Round-trip times of several echo requests, in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct RoundTrip {
    /// How many were sent and answered.
    pub(super) count: usize,
    /// The shortest.
    pub(super) min_us: u64,
    /// The middle one.
    pub(super) median_us: u64,
    /// The longest.
    pub(super) max_us: u64,
}

impl Report {
    /// Starts the clock anew: the programs are built and the first step comes.
    pub(super) fn begin(&mut self) {
        self.started = Instant::now();
    }

    /// An empty report; with `json` nothing is printed before the end.
    pub(super) fn start(json: bool) -> Self {
        Self {
            json,
            printed: false,
            started: Instant::now(),
            ok: false,
            error: None,
            total_seconds: 0.0,
            steps: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            pings: Vec::new(),
            transfers: Vec::new(),
            round_trip: None,
            entries: Vec::new(),
        }
    }

    /// Does one step, notes its time and what it said, and returns its value.
    pub(super) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<(String, T)>) -> Result<T> {
        let start = Instant::now();
        let (detail, value) = work().with_context(|| format!("step failed: {name}"))?;
        let elapsed = start.elapsed();
        if !self.json {
            output::line(&format!("{:>7}  {name:<NAME_WIDTH$} {detail}", short(elapsed)));
        }
        self.steps.push(Step { name: name.to_owned(), ms: milliseconds(elapsed), detail });
        Ok(value)
    }

    /// Says how it went so far and how to enter the lab, which keeps running.
    pub(super) fn keep(&mut self, entries: Vec<Entry>) {
        self.entries = entries;
        if self.json {
            self.close(None);
            self.print();
            return;
        }
        output::line("\nEverything keeps running until Ctrl-C. Enter a host as the user who started this:");
        for Entry { host, command } in &self.entries {
            output::line(&format!("  {host:<9} {command}"));
        }
        output::line(&format!("Try in client: ping {INTERNET_V4}\n"));
    }

    /// Says how it ended.
    pub(super) fn finish(&mut self, error: Option<&Error>) {
        self.close(error);
        if self.json {
            self.print();
        } else if self.ok {
            output::line(&format!("{:>7}  all steps succeeded", short(self.started.elapsed())));
        }
    }

    fn close(&mut self, error: Option<&Error>) {
        self.total_seconds = self.started.elapsed().as_secs_f64();
        self.ok = error.is_none();
        self.error = error.map(|error| format!("{error:#}"));
    }

    /// Prints the JSON object, unless that was done before: there is one only.
    fn print(&mut self) {
        if !self.printed {
            let object = serde_json::to_string(self).expect("a report is made of numbers and text");
            output::line(&object);
            self.printed = true;
        }
    }
}

/// A duration in milliseconds, as far as that fits.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration in microseconds, as far as that fits.
pub(super) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration for people: milliseconds below a second, then seconds.
pub(super) fn short(duration: Duration) -> String {
    if duration < Duration::from_millis(1) {
        format!("{} µs", duration.as_micros())
    } else if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn failed_step_is_named_and_not_listed() {
        let mut report = Report::start(true);
        let outcome: Result<()> = report.step("boil water", || Err(anyhow!("no fire")));
        assert_eq!(format!("{:#}", outcome.unwrap_err()), "step failed: boil water: no fire");
        assert!(report.steps.is_empty());
    }

    #[test]
    fn object_of_a_lab_that_is_kept_is_the_only_one() {
        let mut report = Report::start(true);
        report.keep(vec![Entry { host: "client".to_owned(), command: "nsenter".to_owned() }]);
        assert!(report.printed);
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!((&value["ok"], &value["entries"][0]["host"]), (&true.into(), &"client".into()));
        report.finish(Some(&anyhow!("interrupted")));
        assert_eq!(report.error.as_deref(), Some("interrupted"));
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(short(Duration::from_micros(150)), "150 µs");
        assert_eq!(short(Duration::from_millis(20)), "20 ms");
        assert_eq!(short(Duration::from_millis(1_540)), "1.5 s");
    }

    #[test]
    fn json_has_the_outcome_and_the_steps() {
        let mut report = Report::start(true);
        report.step("one", || Ok(("done".to_owned(), ()))).unwrap();
        report.finish(None);
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["ok"], true);
        assert!(value["total_seconds"].is_f64());
        assert_eq!(value["steps"][0]["detail"], "done");
    }
}

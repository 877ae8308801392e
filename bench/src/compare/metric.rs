//! Which of the figures decide, and which way is worse.

use std::str::FromStr;

use crate::report::metric::COSTS;

/// What identifies a figure: its task and its name, such as `tcp-up` and `rate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metric {
    pub(super) task: String,
    /// The name of the reading.
    pub(super) name: String,
    pub(super) unit: String,
}

/// Which way a value is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worse {
    Lower,
    /// A time, a cost or a size.
    Higher,
}

/// Readings that decide.
const DECIDING: [&str; 9] =
    ["rate", "delivered", "cpu", "p50", "gateway", "client", "time", "cable", "gateway_restart"];
/// Readings that are shown beside them: they scatter too much to decide in a few minutes.
const INFORMING: [&str; 2] = ["p90", "p99"];
const RATES: [&str; 3] = ["Gbit/s", "Mbit/s", "packets/s"];

impl Metric {
    /// A figure, where it says something about a build.
    pub(super) fn new(task: &str, name: &str, unit: &str) -> Option<Self> {
        let metric = Self { task: task.to_owned(), name: name.to_owned(), unit: unit.to_owned() };
        let known = DECIDING.contains(&name) || INFORMING.contains(&name);
        (known && metric.worse().is_some()).then_some(metric)
    }

    /// Which way it is worse; `None` for what only counts events.
    pub(super) fn worse(&self) -> Option<Worse> {
        let unit = self.unit.as_str();
        match () {
            () if RATES.contains(&unit) => Some(Worse::Lower),
            () if COSTS.contains(&unit) => Some(Worse::Higher),
            () => None,
        }
    }

    /// Whether it decides, rather than inform.
    pub(super) fn decides(&self) -> bool {
        DECIDING.contains(&self.name.as_str())
    }

    /// How much worse the logarithm of a ratio says the value is: positive is worse.
    pub(super) fn badness(&self, log_ratio: f64) -> f64 {
        if self.worse() == Some(Worse::Lower) { -log_ratio } else { log_ratio }
    }

    /// How bad a change for the worse by `percent` is, as a logarithm.
    pub(super) fn badness_of(&self, percent: f64) -> f64 {
        let share = percent / 100.0;
        if self.worse() == Some(Worse::Lower) { -(1.0 - share).ln() } else { (1.0 + share).ln() }
    }

    /// Its name as `--threshold` takes it.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.task, self.name)
    }
}

/// How much worse a figure may be: for all, or for those of one name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Threshold {
    /// `NAME` or `TASK/NAME`; `None` for all.
    pub(super) metric: Option<String>,
    pub(super) percent: f64,
}

/// Threshold of figures for which nothing else was said, in percent.
pub(super) const DEFAULT_PERCENT: f64 = 5.0;

impl FromStr for Threshold {
    type Err = String;

    /// Reads `PERCENT`, `NAME=PERCENT` or `TASK/NAME=PERCENT`; the percent sign may be there.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (metric, number) = text.rsplit_once('=').map_or((None, text), |(metric, number)| (Some(metric), number));
        let percent = number.trim().trim_end_matches('%').trim_end().parse().ok();
        let percent = percent.filter(|percent| (0.1..=90.0).contains(percent));
        let percent = percent.ok_or_else(|| format!("{number:?} is no percentage from 0.1 to 90"))?;
        if let Some(metric) = metric {
            let name = metric.rsplit_once('/').map_or(metric, |(_, name)| name);
            if !DECIDING.contains(&name) {
                return Err(format!("{metric:?} decides nothing; what decides is {}", DECIDING.join(", ")));
            }
        }
        Ok(Self { metric: metric.map(str::to_owned), percent })
    }
}

/// The threshold of one figure in percent: that of the figure, else that of its name, else that for all.
pub(super) fn threshold(thresholds: &[Threshold], metric: &Metric) -> f64 {
    let full = metric.full_name();
    let said = |name: Option<&str>| thresholds.iter().rev().find(|one| one.metric.as_deref() == name);
    let found = said(Some(&full)).or_else(|| said(Some(&metric.name))).or_else(|| said(None));
    found.map_or(DEFAULT_PERCENT, |threshold| threshold.percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, unit: &str) -> Metric {
        Metric::new("tcp-up", name, unit).unwrap()
    }

    #[test]
    fn rates_are_worse_when_lower_and_costs_when_higher() {
        let (rate, cpu) = (metric("rate", "Gbit/s"), metric("cpu", "s/GB"));
        assert_eq!((rate.worse(), cpu.worse()), (Some(Worse::Lower), Some(Worse::Higher)));
        assert!(rate.badness(-0.1) > 0.0 && cpu.badness(0.1) > 0.0);
        assert!((rate.badness((0.9_f64).ln()) - rate.badness_of(10.0)).abs() < 1e-12);
        assert!((cpu.badness((1.1_f64).ln()) - cpu.badness_of(10.0)).abs() < 1e-12);
    }

    #[test]
    fn counts_of_events_are_not_compared() {
        assert_eq!(Metric::new("tcp-up", "retransmits", "segments"), None);
        assert_eq!(Metric::new("udp64-loss", "sender_limited", "0 or 1"), None);
        assert_eq!(Metric::new("rtt-load", "load", "Gbit/s"), None);
    }

    #[test]
    fn tail_of_the_round_trips_informs_only() {
        assert!(metric("p50", "µs").decides());
        assert!(!metric("p99", "µs").decides());
    }

    #[test]
    fn nearest_threshold_wins() {
        let thresholds: Vec<Threshold> =
            ["3", "cpu=8%", "tcp-up/rate=12.5"].iter().map(|text| text.parse().unwrap()).collect();
        let of = |task: &str, name: &str, unit: &str| threshold(&thresholds, &Metric::new(task, name, unit).unwrap());
        let seen = [of("tcp-up", "rate", "Gbit/s"), of("tcp-down", "rate", "Gbit/s"), of("tcp-down", "cpu", "s/GB")];
        assert_eq!(seen, [12.5, 3.0, 8.0]);
        let all = threshold(&[], &metric("rate", "Gbit/s"));
        assert!((all - DEFAULT_PERCENT).abs() < f64::EPSILON);
    }

    #[test]
    fn senseless_thresholds_are_refused() {
        for (text, reason) in [
            ("", "no percentage"),
            ("0", "no percentage"),
            ("NaN", "no percentage"),
            ("cpu=", "no percentage"),
            ("speed=5", "what decides is rate"),
            ("tcp-up/retransmits=5", "what decides is rate"),
        ] {
            let error = text.parse::<Threshold>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

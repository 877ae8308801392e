//! What a tunnel in trouble should reach, and what its runs say of that.

use super::trouble::Trouble;
use crate::load::targets::{Bound, Target};
use crate::report::model::Run;

/// Rounds that have to meet a demand.
pub(super) const LEAST_ROUNDS: usize = 5;

/// What each run of a trouble should reach.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    /// What is meant, with its unit.
    pub(super) what: &'static str,
    /// The reading that counts.
    pub(super) metric: &'static str,
    pub(super) bound: Bound,
}

impl Demand {
    /// The same with a bound that is so many times stricter.
    pub(super) fn stricter(self, factor: f64) -> Self {
        Self { bound: self.bound.stricter(factor), ..self }
    }

    /// Judges the runs of a trouble. All have to meet it: one that missed it decides, unless other load disturbed that
    /// run. Where too few met it, or one failed or had too few events, nothing is decided.
    pub(super) fn judge(&self, trouble: &Trouble, runs: &[&Run]) -> Target {
        let (Self { what, metric, bound }, name) = (*self, trouble.name);
        let values: Vec<(f64, bool)> =
            runs.iter().filter_map(|run| Some((run.value(metric)?, run.disturbed))).collect();
        let worse = |one: f64, other: f64| match bound {
            Bound::Least(_) => one.min(other),
            Bound::Most(_) => one.max(other),
        };
        let measured = values.iter().map(|(value, _)| *value).reduce(worse);
        let missed: Vec<bool> = values.iter().filter(|(value, _)| !bound.holds(*value)).map(|(_, is)| *is).collect();
        let failed = runs.iter().find_map(|run| Some(format!("round {}: {}", run.round, run.error.as_ref()?)));
        let small = trouble
            .events
            .filter(|events| runs.iter().any(|run| run.value(events.metric).is_some_and(|count| count < events.least)));
        let needed = if trouble.events.is_some() { 1 } else { LEAST_ROUNDS };
        let decided = match (small, missed.len(), failed) {
            (Some(events), ..) => Err(format!("needs {}", events.flag)),
            (None, 1.., _) if missed.contains(&false) => Ok(false),
            (None, 1.., _) => Err("other load disturbed the runs that missed it".to_owned()),
            (None, 0, Some(failed)) => Err(failed),
            (None, 0, None) if values.len() < needed => {
                Err(format!("{} rounds met it, and {needed} are needed", values.len()))
            }
            (None, 0, None) => Ok(true),
        };
        let (met, note) = (decided.as_ref().ok().copied(), decided.err());
        Target { name, what, target: bound.to_string(), measured, met, note }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use anyhow::anyhow;

    use super::super::udp_blocked::TROUBLE;
    use super::*;
    use crate::measure::meter::reading;
    use crate::report::model::Reading;

    const DEMAND: Demand = Demand { what: "connected, ms", metric: "connect", bound: Bound::Most(1_000.0) };

    /// Which demands of a trouble are met where each round reads this.
    pub(in super::super) fn met(trouble: &Trouble, readings: Vec<Reading>) -> Vec<Option<bool>> {
        let run = Run::new(1, "adit", Some(trouble.task), Duration::from_secs(1), Ok(readings));
        let runs = [&run; LEAST_ROUNDS];
        trouble.demands.iter().map(|demand| demand.judge(trouble, &runs).met).collect()
    }

    fn run(value: f64, disturbed: bool) -> Run {
        let readings = vec![reading("connect", "ms", value), reading("other", "ms", 1e9)];
        Run { disturbed, ..Run::new(1, "adit", Some("udp-blocked"), Duration::from_secs(1), Ok(readings)) }
    }

    fn judged(runs: &[Run]) -> (Option<f64>, Option<bool>, Option<String>) {
        let Target { measured, met, note, .. } = DEMAND.judge(&TROUBLE, &runs.iter().collect::<Vec<_>>());
        (measured, met, note)
    }

    #[test]
    fn worst_of_all_rounds_counts() {
        let mut runs: Vec<Run> = [300.0, 900.0, 500.0, 400.0, 1_000.0].map(|value| run(value, false)).to_vec();
        assert_eq!(judged(&runs), (Some(1_000.0), Some(true), None));
        runs[2] = run(1_000.1, false);
        assert_eq!(judged(&runs), (Some(1_000.1), Some(false), None));
        let least = Demand { bound: Bound::Least(350.0), ..DEMAND };
        let target = least.judge(&TROUBLE, &runs.iter().collect::<Vec<_>>());
        assert_eq!((target.measured, target.met), (Some(300.0), Some(false)));
    }

    #[test]
    fn one_round_that_missed_it_decides_and_one_that_met_it_does_not() {
        assert_eq!(judged(&[run(2_000.0, false)]).1, Some(false));
        let (_, met, note) = judged(&[run(200.0, false)]);
        assert_eq!((met, note.as_deref()), (None, Some("1 rounds met it, and 5 are needed")));
    }

    #[test]
    fn other_load_excuses_what_was_missed_and_nothing_else() {
        let mut runs = vec![run(200.0, true); 5];
        assert_eq!(judged(&runs).1, Some(true), "reached nevertheless");
        runs[0] = run(2_000.0, true);
        let (measured, met, note) = judged(&runs);
        assert_eq!((measured, met), (Some(2_000.0), None));
        assert!(note.is_some_and(|note| note.starts_with("other load")));
        runs[1] = run(2_000.0, false);
        assert_eq!(judged(&runs).1, Some(false));
    }

    #[test]
    fn round_that_failed_is_named_and_decides_nothing() {
        let mut runs = vec![run(200.0, false); 5];
        let error = Err(anyhow!("nft: not found"));
        runs.push(Run::new(6, "adit", Some("udp-blocked"), Duration::ZERO, error));
        let (measured, met, note) = judged(&runs);
        assert_eq!((measured, met, note.as_deref()), (Some(200.0), None, Some("round 6: nft: not found")));
        assert_eq!(judged(&[]), (None, None, Some("0 rounds met it, and 5 are needed".to_owned())));
    }
}

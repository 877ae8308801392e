//! What the runs say of one goal.

use std::collections::BTreeMap;

use adit_netem::random::Random;
use serde::Serialize;

use super::goal::{Figure, Goal, Side};
use crate::compare::statistics::{mean, noise};
use crate::load::targets::Bound;
use crate::report::model::Run;
use crate::report::summary::median;

/// Rounds that a verdict needs.
pub(crate) const LEAST_ROUNDS: u32 = 5;

/// One goal, one way, beside what was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// The goal.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) task: String,
    pub(crate) figure: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) system: &'static str,
    pub(crate) reference: &'static str,
    /// The bound of `measured`, such as `>= 1.15`; `None` where it is stated only.
    pub(crate) target: Option<String>,
    /// The median over the rounds of what the system reached as a multiple of what the reference did.
    pub(crate) measured: Option<f64>,
    /// The lowest and the highest of these multiples.
    pub(crate) lowest: Option<f64>,
    pub(crate) highest: Option<f64>,
    /// The medians themselves.
    pub(crate) value: Option<f64>,
    pub(crate) reference_value: Option<f64>,
    /// Equal systems stay within this many percent in 95 % of such comparisons: the reference against itself.
    pub(crate) noise_percent: Option<f64>,
    /// The multiple of each round.
    pub(crate) ratios: Vec<f64>,
    /// What the reference reached at the end of each round as a multiple of what it did at its beginning.
    pub(crate) noise_ratios: Vec<f64>,
    /// Whether the target was met; `None` where that is not decided, or there is none.
    pub(crate) met: Option<bool>,
    /// Why not.
    pub(crate) note: Option<String>,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) runs: &'a [Run],
    pub(crate) rounds: u32,
    /// Who could not take part, and why.
    pub(crate) absent: &'a BTreeMap<String, String>,
}

impl Seen<'_> {
    /// The logarithms of a figure in one round, in the order in which they were measured. Packets that travelled by
    /// another carrier say nothing.
    fn logs(&self, side: Side, figure: Figure, task: &str, round: u32) -> Vec<f64> {
        let mine = self.runs.iter().filter(|run| {
            let is_of_side = run.system == side.system && run.task.as_deref() == Some(task) && run.round == round;
            is_of_side && run.error.is_none() && run.carrier.as_deref().is_none_or(|carrier| carrier == side.carrier)
        });
        mine.filter_map(|run| figure.value(run)).map(f64::ln).collect()
    }

    /// Whether other load on this machine disturbed what was measured of these sides in one round.
    fn is_disturbed(&self, sides: &[Side], task: &str, round: u32) -> bool {
        let is_of_sides = |run: &Run| sides.iter().any(|side| side.system == run.system);
        let mut of_round = self.runs.iter().filter(|run| run.round == round && run.task.as_deref() == Some(task));
        of_round.any(|run| is_of_sides(run) && run.disturbed)
    }

    /// The carrier by which packets of a side travelled although they should not have.
    fn strayed(&self, side: Side) -> Option<&str> {
        let mine = self.runs.iter().filter(|run| run.system == side.system);
        mine.filter_map(|run| run.carrier.as_deref()).find(|carrier| *carrier != side.carrier)
    }
}

impl Row {
    /// Its name for a verdict, and whether the target was met; `None` where there is no target.
    pub(crate) fn verdict(&self) -> Option<(String, Option<bool>)> {
        self.target.as_ref().map(|_| (format!("{} {}", self.name, self.task), self.met))
    }
}

/// Judges one goal by one task. Where the median is closer to the bound than equal systems are to each other, nothing
/// is decided; nor is it where other load disturbed most rounds.
pub(crate) fn row(goal: &Goal, task: &str, seen: &Seen<'_>, random: &mut Random) -> Row {
    let &Goal { name, what, side, reference, figure, bound } = goal;
    let (mut logs, mut calm, mut values, mut references) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut disturbed = 0;
    for round in 1..=seen.rounds {
        let (own, others) = (seen.logs(side, figure, task, round), seen.logs(reference, figure, task, round));
        // A round counts where the reference was there before and after.
        let ([own], [first, last]) = (own.as_slice(), others.as_slice()) else { continue };
        logs.push(own - mean(&others));
        calm.push(last - first);
        values.push(own.exp());
        references.push(mean(&others).exp());
        disturbed += usize::from(seen.is_disturbed(&[side, reference], task, round));
    }
    let ratios: Vec<f64> = logs.iter().map(|log| log.exp()).collect();
    let spread = (!calm.is_empty()).then(|| noise(&calm, logs.len(), random));
    let measured = middle(&ratios);
    let reason = reason(seen, &[side, reference], logs.len()).or_else(|| {
        let is_most = disturbed * 2 > logs.len();
        is_most.then(|| format!("other load disturbed {disturbed} of {} rounds", logs.len()))
    });
    let decision = match (reason, measured, spread, bound) {
        (Some(reason), ..) => Err(reason),
        (None, Some(measured), Some(spread), Some(bound)) => decide(bound, measured, spread),
        (None, Some(_), Some(_), None) => Err("stated, without a target".to_owned()),
        (None, ..) => Err("nothing was measured".to_owned()),
    };
    Row {
        name,
        what,
        task: task.to_owned(),
        figure: figure.name(),
        unit: figure.unit(),
        system: side.system,
        reference: reference.system,
        target: bound.map(|bound| bound.to_string()),
        measured,
        lowest: ratios.iter().copied().reduce(f64::min),
        highest: ratios.iter().copied().reduce(f64::max),
        value: middle(&values),
        reference_value: middle(&references),
        noise_percent: spread.map(|spread| spread.exp_m1() * 100.0),
        ratios,
        noise_ratios: calm.iter().map(|log| log.exp()).collect(),
        met: decision.as_ref().ok().copied(),
        note: decision.err(),
    }
}

/// Why too few rounds count, if they are too few.
fn reason(seen: &Seen<'_>, sides: &[Side], rounds: usize) -> Option<String> {
    if rounds >= LEAST_ROUNDS as usize {
        return None;
    }
    let absent = sides.iter().find_map(|side| Some(format!("{}: {}", side.system, seen.absent.get(side.system)?)));
    let strayed = || {
        let told = |side: &Side| {
            let Side { system, carrier } = *side;
            Some(format!("{system} went by {}, not by {carrier}", seen.strayed(*side)?))
        };
        sides.iter().find_map(told)
    };
    absent.or_else(strayed).or_else(|| Some(format!("{rounds} rounds count, and {LEAST_ROUNDS} are needed")))
}

/// Whether a multiple is within its bound, by more than the noise.
fn decide(bound: Bound, measured: f64, noise: f64) -> Result<bool, String> {
    let (Bound::Least(at) | Bound::Most(at)) = bound;
    if (measured / at).ln().abs() < noise {
        return Err(format!("closer to {at} than equal systems are to each other"));
    }
    Ok(bound.holds(measured))
}

fn middle(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    median("ratio", &sorted)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::model::Reading;
    use crate::report::model::tests::example;

    const TASK: &str = "tcp-up";
    const OWN: Side = Side::of("openconnect-to-adit", "dtls");
    const REFERENCE: Side = Side::of("ocserv", "dtls");

    /// What the tests ask of [`OWN`]: more than the reference, or less processor time.
    const fn goal(name: &'static str, figure: Figure, bound: Option<Bound>) -> Goal {
        Goal { name, what: "what is compared", side: OWN, reference: REFERENCE, figure, bound }
    }

    const GOALS: [Goal; 3] = [
        goal("rate", Figure::Rate, Some(Bound::Least(1.15))),
        goal("cpu", Figure::GatewayCpu, Some(Bound::Most(0.35))),
        goal("stated", Figure::Rate, None),
    ];

    /// Rounds in which openconnect is so much faster at Adit, whose gateway needs as much less time.
    pub(crate) fn runs(rounds: u32, faster: f64) -> Vec<Run> {
        let template = example().runs.remove(0);
        let run = |round: u32, system: &str, factor: f64| {
            let reading = |metric: &str, value: f64| Reading { metric: metric.to_owned(), unit: String::new(), value };
            let wobble = 1.0 + 0.01 * f64::from(round % 3);
            let readings = vec![
                reading("rate", factor * wobble),
                reading("cpu_gateway_user", 1.0 / factor),
                reading("cpu_gateway_system", 3.0 / factor),
            ];
            let carrier = (system != "ocserv").then(|| "dtls".to_owned());
            Run { round, system: system.to_owned(), readings, carrier, ..template.clone() }
        };
        let round = |round| {
            [("ocserv", 1.0), ("openconnect-to-adit", faster), ("ocserv", 1.01)].map(|(name, at)| run(round, name, at))
        };
        (1..=rounds).flat_map(round).collect()
    }

    fn judged(name: &str, runs: &[Run], rounds: u32, absent: &BTreeMap<String, String>) -> Row {
        let goal = GOALS.iter().find(|goal| goal.name == name).unwrap();
        row(goal, TASK, &Seen { runs, rounds, absent }, &mut Random::seeded(1))
    }

    fn verdict(name: &str, faster: f64) -> (Option<bool>, Option<String>) {
        let row = judged(name, &runs(7, faster), 7, &BTreeMap::new());
        (row.met, row.note)
    }

    #[test]
    fn multiple_is_that_of_the_mean_of_both_turns_of_the_reference() {
        let row = judged("rate", &runs(7, 1.3), 7, &BTreeMap::new());
        let expected = 1.3 / 1.01_f64.sqrt();
        assert!(row.measured.is_some_and(|measured| (measured - expected).abs() < 1e-9), "{row:?}");
        assert_eq!((row.ratios.len(), row.noise_ratios.len(), row.met), (7, 7, Some(true)));
        assert!(row.noise_percent.is_some_and(|percent| (percent - 1.0).abs() < 0.1), "{row:?}");
    }

    #[test]
    fn bound_is_met_or_missed_by_more_than_the_noise() {
        assert_eq!(verdict("rate", 1.3), (Some(true), None));
        assert_eq!(verdict("rate", 1.0), (Some(false), None));
        let (met, note) = verdict("rate", 1.155);
        assert!(met.is_none() && note.is_some_and(|note| note.starts_with("closer to 1.15")));
        assert_eq!(verdict("cpu", 4.0), (Some(true), None));
        assert_eq!(verdict("cpu", 2.0), (Some(false), None));
    }

    #[test]
    fn what_is_stated_only_has_figures_and_no_verdict() {
        let row = judged("stated", &runs(7, 1.0), 7, &BTreeMap::new());
        assert!(row.measured.is_some() && row.met.is_none() && row.target.is_none(), "{row:?}");
        assert_eq!((row.note.as_deref(), row.verdict()), (Some("stated, without a target"), None));
        let judged = judged("rate", &runs(7, 1.3), 7, &BTreeMap::new());
        assert_eq!(judged.verdict(), Some(("rate tcp-up".to_owned(), Some(true))));
    }

    #[test]
    fn few_rounds_decide_nothing() {
        let row = judged("rate", &runs(4, 1.3), 4, &BTreeMap::new());
        assert!(row.measured.is_some() && row.met.is_none());
        assert_eq!(row.note.as_deref(), Some("4 rounds count, and 5 are needed"));
    }

    #[test]
    fn rounds_by_another_carrier_do_not_count() {
        let mut runs = runs(7, 1.3);
        for run in runs.iter_mut().filter(|run| run.round > 2 && run.system != "ocserv") {
            run.carrier = Some("tls".to_owned());
        }
        let row = judged("rate", &runs, 7, &BTreeMap::new());
        assert_eq!((row.ratios.len(), row.met), (2, None));
        assert_eq!(row.note.as_deref(), Some("openconnect-to-adit went by tls, not by dtls"));
    }

    #[test]
    fn other_load_in_most_rounds_lets_nothing_be_decided() {
        let disturbed_in = |rounds: u32| {
            let mut runs = runs(7, 1.0);
            runs.iter_mut().filter(|run| run.round <= rounds).for_each(|run| run.disturbed = true);
            let row = judged("rate", &runs, 7, &BTreeMap::new());
            (row.met, row.note)
        };
        assert_eq!(disturbed_in(3), (Some(false), None));
        assert_eq!(disturbed_in(4), (None, Some("other load disturbed 4 of 7 rounds".to_owned())));
    }

    #[test]
    fn whoever_could_not_take_part_is_named_with_the_reason() {
        let absent = BTreeMap::from([("ocserv".to_owned(), "is not installed".to_owned())]);
        let row = judged("rate", &[], 7, &absent);
        assert_eq!((row.measured, row.met), (None, None));
        assert_eq!(row.note.as_deref(), Some("ocserv: is not installed"));
    }
}

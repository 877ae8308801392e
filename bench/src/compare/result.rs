//! What a comparison found: the JSON object, whose keys are the fields here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use adit_netem::random::Random;
use anyhow::{Context as _, Result};
use serde::{Serialize, Serializer};

use super::build::Build;
use super::judge::{FALSE_ALARM, Limits, Verdict, chance, judge, needed};
use super::metric::{Metric, Threshold, threshold};
use super::statistics::{mean, noise};
use super::trial::{BASE, HEAD, TWIN};
use crate::report::model::{Report, Run};
use crate::report::summary::median;

/// Version of the JSON object: raised when a field changes its meaning or vanishes.
pub(super) const SCHEMA: &str = "adit-bench-compare/1";

/// Everything about one comparison.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// Always [`SCHEMA`] here.
    pub(super) schema: &'static str,
    pub(super) base: Build,
    pub(super) head: Build,
    /// How the rounds were planned.
    #[serde(flatten)]
    pub(super) plan: Plan,
    /// Rounds A B B A that were made.
    pub(super) rounds: u32,
    /// Chance that a comparison of equal builds is called a regression, as the intervals are made for it.
    pub(super) false_alarm: f64,
    /// What was found, one for each figure.
    pub(super) metrics: Vec<Row>,
    /// The worst of those that decide.
    pub(super) verdict: Verdict,
    /// The exit code that follows.
    pub(super) exit_code: u8,
    /// What a reader should know besides.
    pub(super) notes: Vec<String>,
    /// Runs that do not count: their turns were disturbed or failed, and were taken again.
    pub(super) repeated: Vec<Run>,
    /// All runs that count, with machine and effort, as `adit-bench run` writes them. The first `noise_rounds` of its
    /// rounds compare `base` with `base-again`, the others `base` with `head`; in each, both run twice.
    pub(super) measurement: Report,
}

/// How a comparison is planned.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Plan {
    /// Rounds A A' A' A that show the noise.
    pub(super) noise_rounds: u32,
    /// Rounds A B B A after which the verdict is looked at; the last are the most.
    pub(super) looks: Vec<u32>,
    /// What all draws of the statistics were made of.
    pub(super) seed: u64,
    /// Settings of the gateways that are not those of `adit-server init`.
    pub(super) settings: BTreeMap<String, String>,
    /// Those of the second build's gateway alone.
    pub(super) head_settings: BTreeMap<String, String>,
    /// Whether traffic ended at a host behind the gateway.
    pub(super) beyond: bool,
}

/// One figure of both builds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) task: String,
    pub(super) metric: String,
    pub(super) unit: String,
    /// Whether it decides, rather than inform.
    pub(super) decides: bool,
    /// Median of the first build, over the rounds of both builds; `None` where it has no value.
    pub(super) base: Option<f64>,
    /// Median of the second.
    pub(super) head: Option<f64>,
    /// The second divided by the first: geometric mean over the rounds; not a number, and null, where no round has
    /// both.
    pub(super) ratio: f64,
    /// Where the true ratio lies with 95 % confidence for this figure alone; `None` where too few rounds tell.
    #[serde(serialize_with = "finite")]
    pub(super) interval: [f64; 2],
    /// Equal builds stay within this many percent in 95 % of such comparisons, as the noise rounds have it.
    pub(super) noise_percent: f64,
    /// A change for the worse by this many percent counts.
    pub(super) threshold_percent: f64,
    /// What follows.
    pub(super) verdict: Verdict,
    /// About how many rounds would decide, where these did not.
    pub(super) rounds_needed: Option<u32>,
    /// Rounds of both builds in which only one of them has the figure above 0, so that there is no ratio.
    pub(super) one_sided_rounds: usize,
    /// The ratio of each round of both builds.
    pub(super) ratios: Vec<f64>,
    /// The ratio of each round of the first build and itself.
    pub(super) noise_ratios: Vec<f64>,
}

/// Bounds of a ratio that are zero or infinite are unknown.
fn finite<S: Serializer>(bounds: &[f64; 2], serializer: S) -> Result<S::Ok, S::Error> {
    bounds.map(|bound| (bound > 0.0 && bound.is_finite()).then_some(bound)).serialize(serializer)
}

impl Row {
    /// Its name as `--threshold` takes it.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.task, self.metric)
    }
}

impl Comparison {
    pub(super) fn json(&self) -> Result<String> {
        serde_json::to_string(self).context("write the comparison as JSON")
    }

    /// The rows of one verdict that decide.
    pub(super) fn deciding(&self, verdict: Verdict) -> impl Iterator<Item = &Row> {
        self.metrics.iter().filter(move |row| row.decides && row.verdict == verdict)
    }

    /// Puts together what was found.
    pub(super) fn new(
        [base, head]: [Build; 2],
        plan: Plan,
        metrics: Vec<Row>,
        measurement: Report,
        repeated: Vec<Run>,
    ) -> Self {
        let verdict = overall(&metrics);
        let rounds = measurement.rounds.saturating_sub(plan.noise_rounds);
        let mut comparison = Self {
            schema: SCHEMA,
            base,
            head,
            plan,
            rounds,
            false_alarm: FALSE_ALARM,
            metrics,
            verdict,
            exit_code: verdict.exit() as u8,
            notes: Vec::new(),
            repeated,
            measurement,
        };
        comparison.notes = comparison.remarks();
        comparison
    }

    /// What a reader should know besides the figures.
    fn remarks(&self) -> Vec<String> {
        let mut notes = Vec::new();
        // What was compared, and how well the turns went.
        if self.base.is_same_as(&self.head) && self.plan.head_settings.is_empty() {
            notes.push("both builds are the same programs, byte for byte".to_owned());
        }
        let turns: BTreeSet<_> = self.repeated.iter().map(|run| (run.round, &run.system)).collect();
        if !turns.is_empty() {
            notes.push(format!("{} turns were disturbed or failed, and were taken again", turns.len()));
        }
        let disturbed = self.measurement.runs.iter().filter(|run| run.disturbed).count();
        if disturbed > 0 {
            let runs = self.measurement.runs.len();
            notes.push(format!("{disturbed} of {runs} runs that count were disturbed by other load on this machine"));
        }
        // Builds that did not do the same cannot be told apart by their figures.
        let carriers = [BASE, HEAD].map(|name| carriers(&self.measurement.runs, name));
        if let [base, head] = &carriers
            && base != head
        {
            notes.push(format!("the builds did not travel alike: base by {base}, head by {head}"));
        }
        // Why single figures decide less than they seem to.
        for row in self.metrics.iter().filter(|row| row.decides && row.noise_percent > row.threshold_percent) {
            let (name, noise, threshold) = (row.name(), row.noise_percent, row.threshold_percent);
            notes.push(format!(
                "{name}: equal builds differ by {noise:.1} % here, more than the threshold of {threshold} %"
            ));
        }
        for row in self.metrics.iter().filter(|row| row.decides && row.one_sided_rounds > 0) {
            let (name, number, rounds) = (row.name(), row.one_sided_rounds, self.rounds);
            notes.push(format!("{name}: in {number} of {rounds} rounds only one build has it above 0; see its runs"));
        }
        for row in self.deciding(Verdict::Inconclusive) {
            let needs = row.rounds_needed.filter(|rounds| *rounds > self.rounds);
            notes.extend(
                needs.map(|rounds| format!("{}: about {rounds} rounds would decide (--max-rounds)", row.name())),
            );
        }
        notes
    }
}

/// The verdict of all rows.
pub(super) fn overall(rows: &[Row]) -> Verdict {
    Verdict::worst(rows.iter().filter(|row| row.decides).map(|row| row.verdict))
}

fn carriers(runs: &[Run], system: &str) -> String {
    let mine = runs.iter().filter(|run| run.system == system);
    let names: BTreeSet<&str> = mine.filter_map(|run| run.carrier.as_deref()).collect();
    names.into_iter().collect::<Vec<_>>().join(" and ")
}

/// Judges every figure that a build has.
pub(super) fn rows(report: &Report, plan: &Plan, thresholds: &[Threshold]) -> Vec<Row> {
    let metrics = metrics(&report.runs);
    let deciding = metrics.iter().filter(|metric| metric.decides()).count();
    let chance = chance(deciding, plan.looks.len());
    let seeds = (0_u64..).map(|place| plan.seed.wrapping_add(place));
    let judged = metrics.iter().zip(seeds).filter_map(|(metric, seed)| {
        let percent = threshold(thresholds, metric);
        row(report, plan, metric, Demand { percent, chance }, &mut Random::seeded(seed))
    });
    judged.collect()
}

/// The figures that say something about a build, in the order in which they were first read.
fn metrics(runs: &[Run]) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for run in runs {
        let Some(task) = &run.task else { continue };
        for reading in &run.readings {
            let metric = Metric::new(task, &reading.metric, &reading.unit);
            metrics.extend(metric.filter(|metric| !metrics.contains(metric)));
        }
    }
    metrics
}

/// What a figure has to show before a verdict is more than "inconclusive".
#[derive(Debug, Clone, Copy)]
struct Demand {
    /// The threshold in percent.
    percent: f64,
    /// Chance of a false alarm that this one question may have.
    chance: f64,
}

fn row(report: &Report, plan: &Plan, metric: &Metric, demand: Demand, random: &mut Random) -> Option<Row> {
    let Demand { percent, chance } = demand;
    // The logarithms of both kinds of rounds: the first build against itself, and against the second.
    let (noise_rounds, rounds) = (1..=plan.noise_rounds, plan.noise_rounds + 1..=report.rounds);
    let of_pair = |rounds: RangeInclusive<u32>, other: &str| -> Vec<[Option<f64>; 2]> {
        rounds.map(|round| [BASE, other].map(|system| log_mean(&report.runs, round, metric, system))).collect()
    };
    let (twins, builds) = (of_pair(noise_rounds, TWIN), of_pair(rounds.clone(), HEAD));
    let (calm, logs) = (log_ratios(&twins), log_ratios(&builds));
    let one_sided = builds.iter().filter(|[base, head]| base.is_some() != head.is_some()).count();
    // What the table shows of either build; a figure that neither has is no row.
    let middle = |system: &str| {
        let in_rounds = |run: &&Run| rounds.contains(&run.round) && run.system == system;
        let mut values: Vec<f64> = report.runs.iter().filter(in_rounds).filter_map(|run| value(run, metric)).collect();
        values.sort_by(f64::total_cmp);
        median(&metric.name, &values)
    };
    let (base, head) = (middle(BASE), middle(HEAD));
    base.or(head)?;
    // The verdict is made of badness, which grows where the second build is worse, whatever the unit.
    let badness = |logs: &[f64]| logs.iter().map(|log| metric.badness(*log)).collect::<Vec<f64>>();
    let limits = Limits { threshold: metric.badness_of(percent), noise: noise(&badness(&calm), logs.len(), random) };
    let mut judgement = judge(&badness(&logs), limits, chance, random);
    if one_sided > 0 {
        // A figure that one build lacks in a round must not make the other look good.
        judgement.verdict = judgement.verdict.max(Verdict::Inconclusive);
    }
    // Back from logarithms to the ratios that people read.
    let [one, other] = [judgement.interval.low, judgement.interval.high].map(|bound| metric.badness(bound).exp());
    let needs = (judgement.verdict == Verdict::Inconclusive).then(|| needed(&judgement, limits.threshold, logs.len()));
    Some(Row {
        task: metric.task.clone(),
        metric: metric.name.clone(),
        unit: metric.unit.clone(),
        decides: metric.decides(),
        base,
        head,
        ratio: if logs.is_empty() { f64::NAN } else { mean(&logs).exp() },
        interval: if one <= other { [one, other] } else { [other, one] },
        noise_percent: limits.noise.exp_m1() * 100.0,
        threshold_percent: percent,
        verdict: judgement.verdict,
        rounds_needed: needs.flatten(),
        one_sided_rounds: one_sided,
        ratios: logs.iter().map(|log| log.exp()).collect(),
        noise_ratios: calm.iter().map(|log| log.exp()).collect(),
    })
}

/// The mean logarithm of a system's values in one round; `None` where it has none, or one that is 0.
fn log_mean(runs: &[Run], round: u32, metric: &Metric, system: &str) -> Option<f64> {
    let mine = runs.iter().filter(|run| run.round == round && run.system == system);
    let logs: Vec<f64> = mine.filter_map(|run| value(run, metric)).map(f64::ln).collect();
    (!logs.is_empty()).then(|| mean(&logs)).filter(|mean| mean.is_finite())
}

/// The logarithms of the ratios of the second to the first of each pair that is complete.
fn log_ratios(pairs: &[[Option<f64>; 2]]) -> Vec<f64> {
    pairs.iter().filter_map(|[base, other]| Some((*other)? - (*base)?)).collect()
}

fn value(run: &Run, metric: &Metric) -> Option<f64> {
    if run.task.as_ref() == Some(&metric.task) { run.value(&metric.name) } else { None }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::report::machine::Program;
    use crate::report::model::Reading;
    use crate::report::model::tests::example;

    /// A plan of three noise rounds and ten of both builds.
    pub(in super::super) fn plan() -> Plan {
        let none = BTreeMap::new;
        Plan { noise_rounds: 3, looks: vec![10], seed: 1, settings: none(), head_settings: none(), beyond: false }
    }

    /// A report after [`plan`], in which the second build has `slower` times the cost and a rate that much lower.
    pub(in super::super) fn measured(slower: f64) -> Report {
        let mut report = example();
        let template = report.runs.swap_remove(0);
        report.runs.clear();
        report.rounds = 13;
        for round in 1..=13_u32 {
            let other = if round <= 3 { TWIN } else { HEAD };
            for (turn, system) in [BASE, other, other, BASE].into_iter().enumerate() {
                let factor = if system == HEAD { slower } else { 1.0 };
                let wobble = 1.0 + 0.01 * f64::from((round * 7 + u32::try_from(turn).unwrap() * 3) % 5) - 0.02;
                let reading = |metric: &str, unit: &str, value| Reading {
                    metric: metric.to_owned(),
                    unit: unit.to_owned(),
                    value,
                };
                let readings = vec![
                    reading("rate", "Gbit/s", 5.0 / factor * wobble),
                    reading("cpu", "s/GB", 2.0 * factor / wobble),
                    reading("retransmits", "segments", 3.0),
                ];
                let carrier = Some("esp".to_owned());
                report.runs.push(Run { round, system: system.to_owned(), readings, carrier, ..template.clone() });
            }
        }
        report
    }

    /// A comparison of builds that differ so much.
    pub(in super::super) fn compared(slower: f64) -> Comparison {
        found(measured(slower))
    }

    /// A comparison that ends with a report after [`plan`].
    fn found(report: Report) -> Comparison {
        let build = |given: &str, hash: &str| Build {
            given: given.to_owned(),
            commit: None,
            folder: PathBuf::from(given),
            programs: vec![Program { name: "adit-server".to_owned(), version: None, sha256: Some(hash.to_owned()) }],
        };
        let rows = rows(&report, &plan(), &[]);
        Comparison::new([build("old", "aa"), build("new", "bb")], plan(), rows, report, Vec::new())
    }

    #[test]
    fn rates_and_costs_are_judged_each_their_way() {
        let comparison = compared(1.10);
        let seen: Vec<_> = comparison.metrics.iter().map(|row| (row.name(), row.verdict)).collect();
        let expected = ["tcp-up/rate", "tcp-up/cpu"].map(|name| (name.to_owned(), Verdict::Regression));
        assert_eq!(seen, expected);
        assert_eq!((comparison.verdict, comparison.exit_code), (Verdict::Regression, 8));
        let [rate, cpu] = &comparison.metrics[..] else { panic!("two rows") };
        assert!((0.88..0.94).contains(&rate.ratio) && (1.07..1.13).contains(&cpu.ratio), "{rate:?} {cpu:?}");
        for row in [rate, cpu] {
            assert!(row.interval[0] < row.ratio && row.ratio < row.interval[1], "{row:?}");
            assert_eq!((row.ratios.len(), row.noise_ratios.len()), (10, 3));
        }
    }

    #[test]
    fn equal_and_better_builds_pass() {
        assert_eq!(compared(1.0).exit_code, 0);
        let better = compared(0.8);
        assert_eq!((better.verdict, better.exit_code), (Verdict::Improvement, 0));
    }

    #[test]
    fn threshold_of_one_figure_does_not_touch_the_others() {
        let rows = rows(&measured(1.10), &plan(), &["rate=30".parse().unwrap()]);
        let verdicts: Vec<Verdict> = rows.iter().map(|row| row.verdict).collect();
        assert_eq!(verdicts, [Verdict::NoRegression, Verdict::Regression]);
    }

    /// What is found where the second build is the first but for a change to each of its runs.
    fn changed(change: impl Fn(&mut Run)) -> (Comparison, Row) {
        let mut report = measured(1.0);
        report.runs.iter_mut().filter(|run| run.system == HEAD).for_each(change);
        let comparison = found(report);
        let rate = comparison.metrics.iter().find(|row| row.metric == "rate").unwrap().clone();
        (comparison, rate)
    }

    #[test]
    fn figure_that_only_one_build_has_never_passes() {
        let (comparison, rate) = changed(|run| run.readings.retain(|reading| reading.metric != "rate"));
        assert_eq!((comparison.exit_code, rate.verdict), (9, Verdict::Inconclusive));
        assert_eq!((rate.base.is_some(), rate.head, rate.one_sided_rounds), (true, None, 10));
        let notes = comparison.notes.join("\n");
        assert!(notes.contains("tcp-up/rate: in 10 of 10 rounds only one build has it above 0"), "{notes}");
        let json = serde_json::to_value(&rate).unwrap();
        assert!(json["head"].is_null() && json["ratio"].is_null(), "{json}");
    }

    #[test]
    fn rate_of_nothing_in_one_round_never_passes() {
        let (comparison, rate) = changed(|run| {
            if run.round == 5 {
                run.readings[0].value = 0.0;
            }
        });
        assert_eq!((comparison.exit_code, rate.verdict), (9, Verdict::Inconclusive));
        assert_eq!((rate.ratios.len(), rate.one_sided_rounds), (9, 1));
    }

    #[test]
    fn one_round_tells_nothing() {
        let mut report = measured(1.5);
        report.rounds = 4;
        report.runs.retain(|run| run.round <= 4);
        let rows = rows(&report, &plan(), &[]);
        assert_eq!(overall(&rows), Verdict::Inconclusive);
        let json = serde_json::to_value(&rows[0]).unwrap();
        assert!(json["interval"][0].is_null() && json["ratio"].is_number(), "{json}");
    }

    #[test]
    fn remarks_tell_what_the_figures_do_not() {
        let mut comparison = compared(1.0);
        comparison.head.programs = comparison.base.programs.clone();
        comparison.measurement.runs[0].disturbed = true;
        comparison.repeated = comparison.measurement.runs[..2].to_vec();
        for run in &mut comparison.measurement.runs {
            if run.system == HEAD {
                run.carrier = Some("quic".to_owned());
            }
        }
        let notes = comparison.remarks().join("\n");
        for words in ["byte for byte", "2 turns", "1 of 52 runs", "base by esp, head by quic"] {
            assert!(notes.contains(words), "{words} in {notes}");
        }
    }

    #[test]
    fn json_has_every_key_a_reader_needs() {
        let json: serde_json::Value = serde_json::from_str(&compared(1.1).json().unwrap()).unwrap();
        assert_eq!((&json["schema"], &json["verdict"]), (&SCHEMA.into(), &"regression".into()));
        for key in ["base", "head", "noise_rounds", "looks", "seed", "rounds", "metrics", "notes", "measurement"] {
            assert!(!json[key].is_null(), "{key}");
        }
    }
}

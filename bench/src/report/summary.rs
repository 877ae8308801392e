//! Medians over the rounds, and what a median is.

use super::metric::{DROPS, is_percentile};
use super::model::{Figure, Report, Run, Subject};

impl Report {
    /// Computes the summary from the runs, with ratios to the first of `references` that took part.
    pub(crate) fn summarise<'a>(&mut self, references: impl IntoIterator<Item = &'a str>) {
        let reference = references.into_iter().find(|name| self.took_part(name)).map(str::to_owned);
        self.summary = summarise(&self.tasks, &self.systems, &self.runs, reference.as_deref());
        self.reference = reference;
    }
}

/// All figures, ordered by task, metric and system.
fn summarise(tasks: &[String], systems: &[Subject], runs: &[Run], reference: Option<&str>) -> Vec<Figure> {
    let mut figures = Vec::new();
    for task in tasks {
        // What was read in this task, in the order in which it was first read.
        let of_task: Vec<&Run> = runs.iter().filter(|run| run.task.as_ref() == Some(task)).collect();
        let mut metrics: Vec<(&str, &str)> = Vec::new();
        for reading in of_task.iter().flat_map(|run| &run.readings) {
            if !metrics.contains(&(&reading.metric, &reading.unit)) {
                metrics.push((&reading.metric, &reading.unit));
            }
        }
        // One figure for each system; the ratio refers to the reference's median.
        for (metric, unit) in metrics {
            let values = |system: &str| {
                let mine = of_task.iter().filter(|run| run.system == system);
                let mut values: Vec<f64> = mine.filter_map(|run| value(run, metric)).collect();
                values.sort_by(f64::total_cmp);
                values
            };
            let base = reference.and_then(|name| median(metric, &values(name))).filter(|base| *base > 0.0);
            for system in systems {
                let values = values(&system.name);
                let Some(middle) = median(metric, &values) else { continue };
                let [low, high] = [values.first(), values.last()].map(|value| value.copied().unwrap_or(middle));
                figures.push(Figure {
                    task: task.clone(),
                    metric: metric.to_owned(),
                    unit: unit.to_owned(),
                    system: system.name.clone(),
                    count: values.len(),
                    median: middle,
                    low,
                    high,
                    ratio: base.map(|base| middle / base),
                });
            }
        }
    }
    figures
}

/// The value of a metric; drops that a run does not mention did not occur.
fn value(run: &Run, metric: &str) -> Option<f64> {
    let none = || (metric.starts_with(DROPS) && run.error.is_none()).then_some(0.0);
    run.value(metric).or_else(none)
}

/// The middle of a metric's sorted values; `None` of none.
///
/// Of an even number it is the mean of the middle two, but the lower of two percentiles: their mean is none.
pub(crate) fn median(metric: &str, sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some(if is_percentile(metric) { *lower } else { f64::midpoint(*lower, *upper) })
}

#[cfg(test)]
mod tests {
    use super::super::model::Reading;
    use super::super::model::tests::example;
    use super::*;

    #[test]
    fn summary_has_medians_spread_and_ratios() {
        let report = example();
        let figures = report.summary.iter();
        let seen: Vec<_> = figures.map(|f| (f.system.as_str(), f.count, f.median, f.low, f.high, f.ratio)).collect();
        let expected = [("plain", 3, 20.0, 10.0, 30.0, Some(1.0)), ("adit", 3, 5.0, 4.0, 6.0, Some(0.25))];
        assert_eq!(seen, expected);
        assert_eq!(report.reference.as_deref(), Some("plain"));
    }

    #[test]
    fn reference_that_did_not_take_part_is_passed_over() {
        let mut report = example();
        report.summarise(["quincy", "unheard-of", "adit", "plain"]);
        assert_eq!(report.reference.as_deref(), Some("adit"));
        assert_eq!(report.summary.iter().map(|figure| figure.ratio).collect::<Vec<_>>(), [Some(4.0), Some(1.0)]);
        report.summarise([]);
        assert!(report.summary.iter().all(|figure| figure.ratio.is_none()));
    }

    #[test]
    fn drops_that_a_run_does_not_mention_are_none() {
        let mut report = example();
        let drops = Reading { metric: "drop_replayed".to_owned(), unit: "packets".to_owned(), value: 3.0 };
        report.runs[1].readings.push(drops);
        report.runs[3].error = Some("failed".to_owned());
        report.summarise([]);
        let adit = report.summary.iter().find(|one| one.metric == "drop_replayed" && one.system == "adit").unwrap();
        assert_eq!((adit.count, adit.median, adit.high), (2, 1.5, 3.0));
    }

    #[test]
    fn median_of_an_even_number_is_between_the_middle_two_but_for_percentiles() {
        assert_eq!(median("rate", &[1.0, 2.0, 4.0, 9.0]), Some(3.0));
        assert_eq!(median("rate", &[1.0, 4.0, 9.0]), Some(4.0));
        assert_eq!(median("rate", &[]), None);
        for percentile in ["p50", "p90", "p99", "p99.9"] {
            assert_eq!(median(percentile, &[1.0, 2.0, 4.0, 9.0]), Some(2.0));
        }
    }
}

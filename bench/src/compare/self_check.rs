//! A build compared with itself, again and again: how often would this machine call it slower?

use std::iter;

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use anyhow::{Context as _, Result};
use serde::Serialize;

use super::build::Build;
use super::judge::Verdict;
use super::result::{Comparison, Plan};
use super::{Options, compare, text};
use crate::interrupt::Interrupt;
use crate::report::save;

/// Version of the JSON object: raised when a field changes its meaning or vanishes.
const SCHEMA: &str = "adit-bench-self-check/1";

/// What all comparisons found.
#[derive(Debug, Serialize)]
struct SelfCheck {
    schema: &'static str,
    /// How many called the build slower than itself.
    alarms: usize,
    /// How many could not tell.
    inconclusive: usize,
    /// Each, as `adit-bench compare` writes it.
    comparisons: Vec<Comparison>,
}

impl SelfCheck {
    fn of(comparisons: Vec<Comparison>) -> Self {
        let number = |verdict| comparisons.iter().filter(|one| one.verdict == verdict).count();
        let (alarms, inconclusive) = (number(Verdict::Regression), number(Verdict::Inconclusive));
        Self { schema: SCHEMA, alarms, inconclusive, comparisons }
    }

    /// One line for each figure: the largest change that equal builds seemed to have.
    fn extremes(&self) -> Vec<String> {
        let rows = self.comparisons.iter().flat_map(|comparison| &comparison.metrics);
        let mut names: Vec<String> = Vec::new();
        for row in rows.clone().filter(|row| row.decides) {
            if !names.contains(&row.name()) {
                names.push(row.name());
            }
        }
        let line = |name: &String| {
            let ratios = rows.clone().filter(|row| row.name() == *name).map(|row| row.ratio);
            let (low, high) =
                ratios.fold((f64::INFINITY, 0.0_f64), |(low, high), ratio| (low.min(ratio), high.max(ratio)));
            format!("{name}: ratios from {low:.3} to {high:.3}")
        };
        names.iter().map(line).collect()
    }
}

/// Makes the comparisons and tells; builds are the same one twice.
///
/// # Errors
/// Fails with exit code 8 where any called the build slower than itself, after the report.
pub(super) fn run(options: &Options, builds: &[Build; 2], times: u32, interrupt: &Interrupt) -> Result<()> {
    let plans = iter::successors(Some(options.plan()), |plan| Some(Plan { seed: plan.seed + 1, ..plan.clone() }));
    let mut comparisons = Vec::new();
    for (number, plan) in (1..=times).zip(plans) {
        let comparison = compare(options, builds.clone(), plan, interrupt)?;
        output::note(&format!("{number} of {times}: {}", text::conclusion(&comparison)));
        comparisons.push(comparison);
    }
    let check = SelfCheck::of(comparisons);
    let json = serde_json::to_string(&check).context("write the comparisons as JSON")?;
    if let Some(path) = &options.output {
        save::save(path, &format!("{json}\n"))?;
    }
    let summary = format!("{} alarms and {} inconclusive of {times}", check.alarms, check.inconclusive);
    let extremes = check.extremes().into_iter().chain([summary.clone()]).collect::<Vec<_>>();
    output::line(&if options.json { json } else { extremes.join("\n") });
    if check.alarms == 0 {
        return Ok(());
    }
    let next = "equal builds must not alarm: look for other load, or compare with more --noise-rounds";
    Err(Failure::new(Exit::Regression, "self-check", summary, next).into())
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::compared;
    use super::*;

    #[test]
    fn alarms_and_extremes_are_counted() {
        let check = SelfCheck::of(vec![compared(1.0), compared(1.1), compared(1.02)]);
        assert_eq!((check.alarms, check.inconclusive), (1, 0));
        let extremes = check.extremes();
        assert_eq!(extremes.len(), 2);
        assert!(
            extremes[1].starts_with("tcp-up/cpu: ratios from 1.0") && extremes[1].ends_with("to 1.100"),
            "{extremes:?}"
        );
    }
}

//! Tables: the summary, what was lost, and every value.

use std::fmt::Write as _;

use super::super::markup::Markup;
use super::super::metric::tells_of_trouble;
use super::super::overlay::{Entrant, Metric, Overlay};
use super::super::table::number;
use super::{system_head, table};

/// One row for each system, one column for each main metric.
pub(super) fn summary(markup: &mut Markup, overlay: &Overlay<'_>) {
    // The sentence above the table says what its ratios refer to.
    let metrics = overlay.main();
    let mut references: Vec<&str> =
        overlay.sources.iter().filter_map(|source| source.report.reference.as_deref()).collect();
    references.dedup();
    let ratio = match (references.is_empty(), overlay.sources.len()) {
        (true, _) => String::new(),
        (false, 1) => format!(" × says how it compares with {}.", references.join("")),
        (false, _) => format!(" × says how it compares with {} of the same file.", references.join(" or ")),
    };
    let text = format!("Median over the rounds, with the lowest and the highest value below.{ratio}");
    markup.words("p", &[("class", &"muted")], text);
    // A system without results has one cell that says why.
    let heads: Vec<String> = ["system".to_owned()].into_iter().chain(metrics.iter().map(column)).collect();
    table(markup, &heads, |markup| {
        for system in &overlay.systems {
            markup.element("tr", &[], |markup| {
                system_head(markup, &system.name, system.series);
                match &system.subject.missing {
                    Some(reason) => {
                        let span = metrics.len().max(1);
                        markup.words(
                            "td",
                            &[("colspan", &span), ("class", &"muted")],
                            format_args!("missing: {reason}"),
                        );
                    }
                    None => metrics.iter().for_each(|metric| value(markup, system, *metric)),
                }
            });
        }
    });
}

fn column(metric: &Metric<'_>) -> String {
    format!("{}, {} is better", metric.title(), if metric.is_cost() { "less" } else { "more" })
}

/// The cell of a figure; what failed says so.
fn value(markup: &mut Markup, system: &Entrant<'_>, metric: Metric<'_>) {
    let Some(figure) = system.figure(metric) else {
        return markup.words("td", &[("class", &"muted")], system.absence(metric.task));
    };
    markup.element("td", &[("class", &"number")], |markup| {
        markup.text(number(figure.median));
        let is_reference = system.report.reference.as_deref() == Some(&figure.system);
        if let Some(ratio) = figure.ratio.filter(|_| !is_reference && !tells_of_trouble(metric.name)) {
            markup.text(format_args!(", {ratio:.2} ×"));
        }
        if figure.count > 1 {
            markup.words("small", &[], format_args!("{}–{}", number(figure.low), number(figure.high)));
        }
        let rounds = system.report.rounds;
        if u32::try_from(figure.count).is_ok_and(|count| count < rounds) {
            markup.words("small", &[], format_args!("{} of {rounds} rounds", figure.count));
        }
    });
}

/// What was dropped, lost, reordered or sent again: rows of metrics, columns of systems.
pub(super) fn trouble(markup: &mut Markup, overlay: &Overlay<'_>) {
    let all = overlay.tasks().into_iter().flat_map(|task| overlay.metrics(task));
    let all: Vec<Metric<'_>> = all.filter(|metric| tells_of_trouble(metric.name)).collect();
    let some = |metric: &Metric<'_>| {
        let figures = overlay.systems.iter().filter_map(|system| system.figure(*metric));
        figures.into_iter().any(|figure| figure.high > 0.0)
    };
    let (rows, silent): (Vec<Metric<'_>>, Vec<Metric<'_>>) = all.into_iter().partition(some);
    if rows.is_empty() && silent.is_empty() {
        return markup.words("p", &[], "Nothing of this kind was counted.");
    }
    markup.words("p", &[("class", &"muted")], "Median over the rounds, with the lowest and the highest value below.");
    if !rows.is_empty() {
        let names = overlay.systems.iter().map(|system| system.name.clone());
        let heads: Vec<String> = ["task and count".to_owned()].into_iter().chain(names).collect();
        table(markup, &heads, |markup| {
            for metric in &rows {
                markup.element("tr", &[], |markup| {
                    markup.words("th", &[("scope", &"row")], metric.title());
                    overlay.systems.iter().for_each(|system| value(markup, system, *metric));
                });
            }
        });
    }
    if !silent.is_empty() {
        let names: Vec<String> = silent.iter().map(|metric| format!("{} {}", metric.task, metric.name)).collect();
        markup.words("p", &[], format_args!("Zero for every system in every round: {}.", names.join(", ")));
    }
}

/// Every metric of every task, with each value in the order of the rounds.
pub(super) fn values(markup: &mut Markup, overlay: &Overlay<'_>) {
    markup.words(
        "p",
        &[("class", &"muted")],
        "Values in the order of the rounds; * marks a disturbed run. Percentiles are those of one run each \
             and are never averaged: the median \
         of p99 is the p99 of a run that was made, or lies between two.",
    );
    for task in overlay.tasks() {
        markup.words("h3", &[], task);
        let heads = ["metric", "system", "median", "lowest", "highest", "ratio", "values"].map(str::to_owned);
        table(markup, &heads, |markup| {
            for metric in overlay.metrics(task) {
                for system in &overlay.systems {
                    row(markup, system, metric);
                }
            }
        });
    }
}

fn row(markup: &mut Markup, system: &Entrant<'_>, metric: Metric<'_>) {
    let Some(figure) = system.figure(metric) else { return };
    markup.element("tr", &[], |markup| {
        markup.words("td", &[], format_args!("{} [{}]", metric.name, metric.unit));
        system_head(markup, &system.name, system.series);
        for value in [figure.median, figure.low, figure.high] {
            markup.words("td", &[("class", &"number")], number(value));
        }
        let ratio = figure.ratio.filter(|_| !tells_of_trouble(metric.name)).map(|ratio| format!("{ratio:.2}"));
        markup.words("td", &[("class", &"number")], ratio.unwrap_or_default());
        let mut values = String::new();
        for run in system.runs(metric.task) {
            if let Some(value) = run.value(metric.name) {
                let _infallible = write!(values, "{}{} ", number(value), if run.disturbed { "*" } else { "" });
            }
        }
        markup.words("td", &[("class", &"long")], values.trim_end());
    });
}

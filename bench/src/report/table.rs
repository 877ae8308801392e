//! The report as text: for each task and metric, one line for each system.

use std::fmt::Write as _;

use super::metric::tells_of_trouble;
use super::model::{Figure, Report, Run, Subject};
use super::overlay::Overlay;

/// Metrics that are in the JSON object only.
const HIDDEN: [&str; 7] = [
    "cpu_user",
    "cpu_system",
    "cpu_client_user",
    "cpu_client_system",
    "cpu_gateway_user",
    "cpu_gateway_system",
    "machine_cpu",
];

/// The tables of several files, one after the other, each under its name.
pub(super) fn of_all(overlay: &Overlay<'_>) -> String {
    let [source] = overlay.sources.as_slice() else {
        let mut text = String::new();
        let differences = overlay.differences();
        if !differences.is_empty() {
            text.push_str("Do not compare figures across these files: their circumstances differ.\n");
            differences.iter().for_each(|difference| text.extend(["  ", difference, "\n"]));
        }
        for source in &overlay.sources {
            let _infallible = writeln!(text, "\n== {} ==\n{}", source.name, of(source.report));
        }
        return text.trim().to_owned();
    };
    of(source.report)
}

pub(crate) fn of(report: &Report) -> String {
    let mut text = report.circumstances();
    text.push('\n');
    text.push_str(&blocks(&report.summary, report.reference.as_deref()));
    text.push_str(&notes(&report.systems, &report.runs));
    text.trim_end().to_owned()
}

/// One block for each task and metric.
fn blocks(figures: &[Figure], reference: Option<&str>) -> String {
    let mut text = String::new();
    for block in figures.chunk_by(|a, b| a.task == b.task && a.metric == b.metric) {
        let Some(first) = block.first() else { continue };
        let silent = |figure: &Figure| tells_of_trouble(&figure.metric) && figure.high == 0.0;
        if block.iter().all(silent) || HIDDEN.contains(&first.metric.as_str()) {
            continue;
        }
        let _infallible = writeln!(text, "\n{} {} [{}]", first.task, first.metric, first.unit);
        let width = block.iter().map(|figure| figure.system.len()).max().unwrap_or_default();
        for figure in block.iter().filter(|figure| !silent(figure)) {
            let spread = format!("({}–{})", number(figure.low), number(figure.high));
            let _infallible = write!(text, "  {:<width$}  {:>9}  {spread:<19}", figure.system, number(figure.median));
            let comparable = !tells_of_trouble(&figure.metric);
            if let (Some(ratio), Some(reference), true) = (figure.ratio, reference, comparable) {
                let _infallible = write!(text, "  {ratio:.2} × {reference}");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    text
}

/// Who is missing, what failed, and what was disturbed.
fn notes(systems: &[Subject], runs: &[Run]) -> String {
    let mut text = String::from("\n");
    for system in systems {
        if let Some(reason) = &system.missing {
            let _infallible = writeln!(text, "{}: not measured, {reason}", system.name);
            continue;
        }
        let mine = runs.iter().filter(|run| run.system == system.name);
        let mut carriers: Vec<&str> = mine.filter_map(|run| run.carrier.as_deref()).collect();
        carriers.dedup();
        let mtu = system.mtu.map(|mtu| format!("MTU {mtu}"));
        let carriers = Some(carriers.join(", then ")).filter(|names| !names.is_empty());
        let facts: Vec<String> = carriers.map(|names| format!("carrier {names}")).into_iter().chain(mtu).collect();
        if !facts.is_empty() {
            let _infallible = writeln!(text, "{}: {}", system.name, facts.join(", "));
        }
    }
    for run in runs {
        if let Some(error) = &run.error {
            let task = run.task.as_deref().unwrap_or("start");
            let _infallible = writeln!(text, "round {}, {}, {task}: failed: {error}", run.round, run.system);
        }
    }
    let disturbed = runs.iter().filter(|run| run.disturbed).count();
    if disturbed > 0 {
        let _infallible =
            writeln!(text, "{disturbed} of {} runs were disturbed by other load on this machine", runs.len());
    }
    text
}

/// A number with three or four significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::example;
    use super::*;

    #[test]
    fn systems_stand_below_each_other_with_spread_and_ratio() {
        let report = example();
        let expected = "\ntcp-up rate [Gbit/s]\n  \
                        plain       20.0  (10.0–30.0)          1.00 × plain\n  \
                        adit        5.00  (4.00–6.00)          0.25 × plain\n";
        assert_eq!(blocks(&report.summary, Some("plain")), expected);
        assert_eq!(notes(&report.systems, &report.runs), "\nquincy: not measured, is not installed\n");
    }

    #[test]
    fn numbers_keep_what_matters() {
        assert_eq!([123_456.7, 99.94, 9.876, 0.123, 0.0].map(number), ["123457", "99.9", "9.88", "0.12", "0"]);
    }
}

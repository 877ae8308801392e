//! The report as a short table for a pull request: one row for each system.

use std::fmt::Write as _;

use super::overlay::{Entrant, Metric, Overlay, commit};
use super::table::number;

pub(crate) fn of(overlay: &Overlay<'_>) -> String {
    let mut text = String::new();
    for source in &overlay.sources {
        let place = source.report.circumstances().replace('\n', "; ");
        let _infallible =
            writeln!(text, "**{}** {}: {}  ", escaped(&source.name), commit(source.report), escaped(&place));
    }
    let differences = overlay.differences();
    if !differences.is_empty() {
        let all = escaped(&differences.join("; "));
        let _infallible =
            writeln!(text, "\n**Do not compare figures across files: their circumstances differ.** {all}");
    }
    table(overlay, &mut text);
    notes(overlay, &mut text);
    text
}

fn table(overlay: &Overlay<'_>, text: &mut String) {
    let metrics = overlay.main();
    text.push_str("\n| system |");
    for metric in &metrics {
        let _infallible = write!(text, " {} |", escaped(&metric.title()));
    }
    let _infallible = writeln!(text, "\n| --- |{}", " ---: |".repeat(metrics.len()));
    for system in &overlay.systems {
        let _infallible = write!(text, "| {} |", escaped(&system.name));
        for metric in &metrics {
            let _infallible = write!(text, " {} |", escaped(&cell(system, *metric)));
        }
        text.push('\n');
    }
}

/// Median, lowest and highest, and the ratio to the reference.
fn cell(system: &Entrant<'_>, metric: Metric<'_>) -> String {
    let Some(figure) = system.figure(metric) else { return "–".to_owned() };
    let mut cell = number(figure.median);
    if figure.count > 1 {
        let _infallible = write!(cell, " ({}–{})", number(figure.low), number(figure.high));
    }
    let others = system.report.reference.as_deref().filter(|reference| *reference != figure.system);
    if let Some(ratio) = figure.ratio.filter(|_| others.is_some()) {
        let _infallible = write!(cell, ", {ratio:.2}×");
    }
    cell
}

fn notes(overlay: &Overlay<'_>, text: &mut String) {
    let mut references: Vec<&str> =
        overlay.sources.iter().filter_map(|source| source.report.reference.as_deref()).collect();
    references.dedup();
    text.push_str("\nMedian over the rounds (lowest–highest)");
    if !references.is_empty() {
        let whose = if overlay.sources.len() > 1 { " of the same file" } else { "" };
        let _infallible = write!(text, ", ratio to {}{whose}", escaped(&references.join(" or ")));
    }
    text.push_str(".\n");
    for warning in overlay.warnings() {
        let _infallible = writeln!(text, "- {}", escaped(&warning));
    }
}

/// Text that Markdown takes for nothing else, on one line (GFM 0.29, section 6.1).
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            // A name that calls nobody.
            '@' => escaped.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' => escaped.extend(['\\', character]),
            blank if blank.is_whitespace() || blank.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::model::tests::example;
    use super::*;

    #[test]
    fn table_has_a_row_for_each_system() {
        let mut report = example();
        report.machine.commit = Some("0123456789abcdef".to_owned());
        report.machine.cpu_model = "Some CPU".to_owned();
        report.machine.kernel = "Linux 6.1".to_owned();
        report.machine.cores = 2;
        let expected = "\
**base** 012345678: Some CPU, 2 cores, Linux 6.1; 3 rounds of 0.5 s, cubic, offloads at their defaults  

| system | tcp-up \\[Gbit/s\\] |
| --- | ---: |
| plain | 20.0 (10.0–30.0) |
| adit | 5.00 (4.00–6.00), 0.25× |
| quincy | – |

Median over the rounds (lowest–highest), ratio to plain.
- quincy is missing: is not installed
";
        assert_eq!(of(&Overlay::new(&[(Path::new("base.json"), &report)])), expected);
    }

    #[test]
    fn differing_files_are_not_compared_silently() {
        let (a, mut b) = (example(), example());
        b.wire = true;
        let text = of(&Overlay::new(&[(Path::new("a.json"), &a), (Path::new("b.json"), &b)]));
        assert!(text.contains("**Do not compare figures across files: their circumstances differ.** cable:"), "{text}");
        assert!(text.contains("| adit (a) |") && text.contains("| adit (b) |"), "{text}");
        assert!(text.contains("ratio to plain of the same file"), "{text}");
    }

    #[test]
    fn names_are_words_and_nothing_else() {
        assert_eq!(escaped("a|b\n<img> [x](y) @all `c`"), "a\\|b &lt;img> \\[x\\](y) &#64;all \\`c\\`");
    }
}

//! A comparison as people read it: a table for a terminal, or Markdown for a pull request.

use std::fmt::Write as _;

use super::build::Build;
use super::judge::Verdict;
use super::result::{Comparison, Plan, Row};
use crate::report::markdown::escaped;
use crate::report::table::number;

/// Heads of the columns.
const COLUMNS: [&str; 7] = ["metric", "base", "head", "ratio", "95 % interval", "noise", "verdict"];

/// The table and all around it, for a terminal.
pub(super) fn plain(comparison: &Comparison) -> String {
    let mut text = String::new();
    for (name, build) in [("base", &comparison.base), ("head", &comparison.head)] {
        let _infallible = writeln!(text, "{name}  {}", build.title());
    }
    let _infallible = writeln!(text, "{}\n", circumstances(comparison));
    let rows: Vec<[String; 7]> =
        [COLUMNS.map(str::to_owned)].into_iter().chain(comparison.metrics.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = width(column).unwrap_or_default();
            let is_number = (1..=5).contains(&column);
            let _infallible =
                if is_number { write!(line, "{cell:>width$}  ") } else { write!(line, "{cell:<width$}  ") };
        }
        let _infallible = writeln!(text, "{}", line.trim_end());
    }
    let _infallible = writeln!(text, "\n{}", conclusion(comparison));
    for note in &comparison.notes {
        let _infallible = writeln!(text, "- {note}");
    }
    text.trim_end().to_owned()
}

/// The same for a pull request.
pub(super) fn markdown(comparison: &Comparison) -> String {
    let mut text = format!("### adit-bench compare: {}\n\n", comparison.verdict.name());
    let [base, head] = [&comparison.base, &comparison.head].map(|build| escaped(&build.title()));
    let _infallible = writeln!(text, "{head} against {base}: {}\n", escaped(&conclusion(comparison)));
    let _infallible = writeln!(text, "| {} |", COLUMNS.join(" | "));
    text.push_str("| --- | ---: | ---: | ---: | ---: | ---: | --- |\n");
    for row in &comparison.metrics {
        let cells = cells(row).map(|cell| escaped(&cell));
        let _infallible = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push('\n');
    for note in &comparison.notes {
        let _infallible = writeln!(text, "- {}", escaped(note));
    }
    let _infallible = writeln!(text, "- {}", escaped(&circumstances(comparison)));
    let _infallible = writeln!(text, "- again: `{}`", command(comparison));
    text
}

/// One row of the table.
fn cells(row: &Row) -> [String; 7] {
    let [low, high] = row.interval;
    let unknown = || "unknown".to_owned();
    let interval = if low > 0.0 && high.is_finite() { format!("{low:.3}–{high:.3}") } else { unknown() };
    let verdict = if row.decides { row.verdict.name() } else { "(informs only)" };
    [
        format!("{} {} [{}]", row.task, row.metric, row.unit),
        row.base.map_or_else(unknown, number),
        row.head.map_or_else(unknown, number),
        if row.ratio.is_nan() { unknown() } else { format!("{:.3}", row.ratio) },
        interval,
        format!("±{:.1} %", row.noise_percent),
        verdict.to_owned(),
    ]
}

/// The verdict in a sentence.
pub(super) fn conclusion(comparison: &Comparison) -> String {
    let list = |verdict: Verdict| {
        let changes = comparison.deciding(verdict).map(|row| format!("{} {}", row.name(), percent(row.ratio)));
        changes.collect::<Vec<_>>().join(", ")
    };
    match comparison.verdict {
        Verdict::Regression => format!("regression: {}", list(Verdict::Regression)),
        Verdict::Inconclusive => {
            let names: Vec<String> = comparison.deciding(Verdict::Inconclusive).map(Row::name).collect();
            let names = if names.is_empty() { "no figure decides".to_owned() } else { names.join(", ") };
            format!("inconclusive after {} rounds: {names}", comparison.rounds)
        }
        Verdict::NoRegression | Verdict::Improvement => match list(Verdict::Improvement) {
            better if better.is_empty() => format!("no regression after {} rounds", comparison.rounds),
            better => format!("no regression; better: {better}"),
        },
    }
}

fn percent(ratio: f64) -> String {
    format!("{:+.1} %", (ratio - 1.0) * 100.0)
}

/// Machine, rounds and effort in a line.
fn circumstances(comparison: &Comparison) -> String {
    let report = &comparison.measurement;
    let (rounds, noise) = (comparison.rounds, comparison.plan.noise_rounds);
    let seconds = report.effort.duration.as_secs_f64();
    let minutes = report.total_seconds / 60.0;
    let machine = report.machine.line();
    format!("{machine}; {rounds} rounds of A B B A after {noise} of A A A A, {seconds} s each, {minutes:.1} minutes")
}

/// The command that would do it again.
fn command(comparison: &Comparison) -> String {
    let name = |build: &Build| build.commit.clone().unwrap_or_else(|| build.given.clone()).replace('`', "'");
    let Plan { noise_rounds, looks, seed, settings, head_settings, beyond } = &comparison.plan;
    let [first, most] = [looks.first(), looks.last()].map(|rounds| rounds.copied().unwrap_or_default());
    let report = &comparison.measurement;
    let of_both = settings.iter().map(|(key, value)| format!(" --set {key}={value}"));
    let of_head = head_settings.iter().map(|(key, value)| format!(" --set-head {key}={value}"));
    let settings: String = of_both.chain(of_head).chain(beyond.then(|| " --beyond".to_owned())).collect();
    format!(
        "adit-bench compare {} {} --tasks {} --seconds {} --rounds {first} --max-rounds {most} \
         --noise-rounds {noise_rounds} --seed {seed}{settings}",
        name(&comparison.base),
        name(&comparison.head),
        report.tasks.join(","),
        report.effort.duration.as_secs_f64(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::compared;
    use super::*;

    #[test]
    fn table_lines_up_and_names_the_verdict() {
        let text = plain(&compared(1.1));
        assert!(text.starts_with("base  old\nhead  new\n"), "{text}");
        assert!(text.contains("tcp-up rate [Gbit/s]") && text.contains("regression: tcp-up/rate -9"), "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.contains("tcp-up ") && line.contains("–")).collect();
        assert_eq!(rows.len(), 2, "{text}");
        let places: Vec<_> = rows.iter().map(|row| row.find("regression").unwrap_or_default()).collect();
        assert_eq!(places[0], places[1], "{text}");
    }

    #[test]
    fn markdown_is_one_table_with_a_verdict_above() {
        let text = markdown(&compared(1.0));
        assert!(text.starts_with("### adit-bench compare: no regression\n"), "{text}");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 4, "{text}");
        assert!(rows.iter().all(|row| row.matches(" |").count() == 7), "{text}");
        assert!(text.contains("adit-bench compare old new --tasks tcp-up"), "{text}");
    }

    #[test]
    fn unknown_intervals_say_so() {
        let mut comparison = compared(1.0);
        comparison.metrics[0].interval = [0.0, f64::INFINITY];
        assert!(plain(&comparison).contains("unknown"));
        assert!(conclusion(&comparison).starts_with("no regression after 10 rounds"));
    }

    #[test]
    fn command_names_what_only_the_second_build_has() {
        let mut comparison = compared(1.0);
        let policy = ("policy".to_owned(), "/p.toml".to_owned());
        (comparison.plan.head_settings, comparison.plan.beyond) = ([policy].into(), true);
        assert!(command(&comparison).ends_with(" --seed 1 --set-head policy=/p.toml --beyond"));
    }
}

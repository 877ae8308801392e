//! The report as one HTML page that needs nothing else: styles and plots are in it, scripts are not.
//!
//! It is well-formed XML too, and forbids the browser to load anything.

mod circumstances;
mod figures;
mod tables;

use std::fmt::Display;
use std::time::{Duration, UNIX_EPOCH};

use super::markup::Markup;
use super::overlay::{Overlay, Source, commit};
use super::plot::COLOURS;

/// Nothing may be loaded or run, whatever a name in a file says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
/// The first second of the year 10000, which no date here can show.
const LATEST: u64 = 253_402_300_800;

/// The sections, with the names they are linked by.
const SECTIONS: [(&str, &str); 6] = [
    ("summary", "Summary"),
    ("circumstances", "Machine and circumstances"),
    ("figures", "Figures"),
    ("drops", "Lost and mended"),
    ("values", "All values"),
    ("details", "Details of machine and programs"),
];

pub(crate) fn page(overlay: &Overlay<'_>) -> String {
    let names: Vec<&str> = overlay.sources.iter().map(|source| source.name.as_str()).collect();
    let title = format!("Adit benchmark: {}", names.join(", "));
    let mut markup = Markup::default();
    markup.element("html", &[("lang", &"en")], |markup| {
        markup.element("head", &[], |markup| head(markup, &title));
        markup.line();
        markup.element("body", &[], |markup| body(markup, overlay, &title));
    });
    format!("<!DOCTYPE html>\n{}\n", markup.finish())
}

fn head(markup: &mut Markup, title: &str) {
    markup.empty("meta", &[("charset", &"utf-8")]);
    markup.empty("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &POLICY)]);
    markup.empty("meta", &[("name", &"viewport"), ("content", &"width=device-width, initial-scale=1")]);
    markup.empty("meta", &[("name", &"generator"), ("content", &concat!("adit-bench ", env!("CARGO_PKG_VERSION")))]);
    markup.words("title", &[], title);
    markup.style(include_str!("html/style.css"));
}

fn body(markup: &mut Markup, overlay: &Overlay<'_>, title: &str) {
    markup.words("h1", &[], title);
    for source in &overlay.sources {
        markup.words("p", &[("class", &"lead")], origin(source));
    }
    markup.element("nav", &[], |markup| {
        for (id, name) in SECTIONS {
            markup.words("a", &[("href", &format_args!("#{id}"))], name);
        }
    });
    alarm(markup, "Do not compare figures across these files: their circumstances differ.", &overlay.differences());
    alarm(markup, "Before you read the figures:", &overlay.warnings());
    for (id, name) in SECTIONS {
        markup.line();
        markup.element("section", &[("id", &id)], |markup| {
            markup.words("h2", &[], name);
            match id {
                "summary" => tables::summary(markup, overlay),
                "circumstances" => circumstances::overview(markup, overlay),
                "figures" => figures::all(markup, overlay),
                "drops" => tables::trouble(markup, overlay),
                "values" => tables::values(markup, overlay),
                _ => circumstances::details(markup, overlay),
            }
        });
    }
}

/// Where a file comes from, in a sentence.
fn origin(source: &Source<'_>) -> String {
    let report = source.report;
    let (command, version) = (&report.command, &report.version);
    let minutes = report.total_seconds / 60.0;
    let date = date(report.started_at);
    format!("{}: adit-bench {command} {version}, {}, {date}, {minutes:.1} minutes", source.name, commit(report))
}

fn date(seconds: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        Some(time) if seconds < LATEST => humantime::format_rfc3339_seconds(time).to_string(),
        _ => format!("{seconds} s after 1970"),
    }
}

/// A box with what nobody may overlook; none where there is nothing.
fn alarm(markup: &mut Markup, headline: &str, reasons: &[String]) {
    if reasons.is_empty() {
        return;
    }
    markup.element("div", &[("class", &"alarm"), ("role", &"note")], |markup| {
        markup.words("p", &[], headline);
        markup.element("ul", &[], |markup| reasons.iter().for_each(|reason| markup.words("li", &[], reason)));
    });
}

/// A table that scrolls where it is wider than the page.
fn table(markup: &mut Markup, heads: &[String], rows: impl FnOnce(&mut Markup)) {
    markup.element("div", &[("class", &"scroll"), ("tabindex", &0)], |markup| {
        markup.element("table", &[], |markup| {
            markup.element("thead", &[], |markup| {
                markup.element("tr", &[], |markup| heads.iter().for_each(|head| markup.words("th", &[], head)));
            });
            markup.element("tbody", &[], rows);
        });
    });
    markup.line();
}

/// The heading of a system's row: its colour and its name.
fn system_head(markup: &mut Markup, name: impl Display, series: usize) {
    markup.element("th", &[("scope", &"row")], |markup| {
        let colour = series % COLOURS;
        markup.element("span", &[("class", &format_args!("key c{colour}"))], |_| {});
        markup.text(name);
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::markup::tests::assert_well_formed;
    use super::super::model::{Report, Run, tests::example};
    use super::*;

    fn drawn(reports: &[(&str, &Report)]) -> String {
        let files: Vec<(&Path, &Report)> = reports.iter().map(|(path, report)| (Path::new(*path), *report)).collect();
        let page = page(&Overlay::new(&files));
        let styles = include_str!("html/style.css");
        assert_well_formed(&page.replace(styles, ""));
        page
    }

    #[test]
    fn page_needs_nothing_else_and_names_everybody() {
        let page = drawn(&[("x/base.json", &example())]);
        for foreign in ["http://", "https://", "<script", "<link", "<img", "@import", "url(", "src="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for words in ["<title>Adit benchmark: base</title>", "missing: is not installed", "2023-11-14T22:13:20Z"] {
            assert!(page.contains(words), "{words} in {page}");
        }
        assert_eq!(page.matches("<svg").count(), 2, "rate and time line; no processor time, no round trips");
    }

    #[test]
    fn hostile_file_stays_text() {
        let attack = "\"'></text></svg><script>alert(1)</script><!--";
        let json = serde_json::to_string(&example()).unwrap();
        for word in ["adit", "plain", "tcp-up", "rate", "Gbit/s", "is not installed", "tx-udp-segmentation", "cubic"] {
            let quoted = serde_json::to_string(attack).unwrap();
            let hostile = json.replace(&format!("\"{word}\""), &quoted);
            assert_ne!(json, hostile, "{word}");
            let page = drawn(&[("a.json", &serde_json::from_str(&hostile).unwrap())]);
            assert!(!page.contains("<script") && !page.contains("<!--") && page.contains("&lt;script&gt;"), "{word}");
        }
        drawn(&[("<b>.json", &example())]);
    }

    #[test]
    fn strange_values_make_a_valid_page() {
        let mut report = example();
        report.started_at = u64::MAX;
        for value in [f64::MAX, -1.0, 0.0, 5e-324] {
            for run in &mut report.runs {
                run.readings[0].value = value;
                let timeline = run.timeline.as_mut().unwrap();
                (timeline.interval_seconds, timeline.values) = (value, vec![value; 3]);
                run.latencies = Some(vec![(value, value)]);
            }
            report.summarise(["plain"]);
            let page = drawn(&[("a.json", &report)]);
            assert!(!page.contains("NaN"), "{value}");
        }
        (report.runs, report.tasks, report.systems) = Default::default();
        report.summarise([]);
        drawn(&[("a.json", &report)]);
    }

    #[test]
    fn failed_disturbed_and_differing_are_said_first() {
        let (a, mut b) = (example(), example());
        b.complete = false;
        b.effort.congestion = "bbr".to_owned();
        b.runs[0].disturbed = true;
        b.runs[1] = Run { error: Some("no byte arrived".to_owned()), readings: Vec::new(), ..b.runs[1].clone() };
        let page = drawn(&[("a.json", &a), ("b.json", &b)]);
        let before = page.split("<section").next().unwrap();
        for words in [
            "Do not compare figures across these files",
            "congestion control: cubic (a), bbr (b)",
            "b: 1 of 6 runs were disturbed",
            "b: 1 of 6 runs failed",
            "b: the measurement did not end as planned",
        ] {
            assert!(before.contains(words), "{words} in {before}");
        }
        assert!(page.contains("round 1, adit, tcp-up: no byte arrived"), "{page}");
    }
}

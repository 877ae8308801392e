//! What the figures depend on: machine, settings, programs, and which runs were disturbed or failed.

use std::collections::BTreeMap;

use super::super::markup::Markup;
use super::super::model::{Report, Run};
use super::super::overlay::{Overlay, Source};
use super::{system_head, table};

/// The most failed runs, and as many disturbed ones, that are named one by one.
const LISTED: usize = 12;

/// What a reader needs to judge the figures.
pub(super) fn overview(markup: &mut Markup, overlay: &Overlay<'_>) {
    facts(markup, overlay, &facts_of);
    systems(markup, overlay);
    for source in &overlay.sources {
        let runs = &source.report.runs;
        let of = |what: &str| format!("{what} runs{}", suffix(overlay, source));
        let failed = runs.iter().filter_map(|run| Some(format!("{}: {}", place(run), run.error.as_ref()?)));
        list(markup, &of("Failed"), failed.collect());
        let disturbed = runs.iter().filter(|run| run.disturbed).map(|run| {
            let Run { foreign_cores, stolen_cores, throttled_seconds, overheated, .. } = run;
            let place = place(run);
            format!(
                "{place}: others used {foreign_cores:.2} cores, the hypervisor took {stolen_cores:.2} cores, \
                     a quota held it for \
                 {throttled_seconds:.2} s, processors were too hot {overheated} times"
            )
        });
        list(markup, &of("Disturbed"), disturbed.collect());
    }
}

/// What a reader needs to do the same again.
pub(super) fn details(markup: &mut Markup, overlay: &Overlay<'_>) {
    facts(markup, overlay, &fine_print);
    let heads = ["program of", "name", "version", "SHA-256"].map(str::to_owned);
    table(markup, &heads, |markup| {
        for system in &overlay.systems {
            for program in &system.subject.programs {
                markup.element("tr", &[], |markup| {
                    system_head(markup, &system.name, system.series);
                    markup.words("td", &[], &program.name);
                    markup.words("td", &[("class", &"long")], program.version.as_deref().unwrap_or("says none"));
                    markup.element("td", &[("class", &"long")], |markup| {
                        markup.words("code", &[], program.sha256.as_deref().unwrap_or("could not be read"));
                    });
                });
            }
        }
    });
}

fn suffix(overlay: &Overlay<'_>, source: &Source<'_>) -> String {
    if overlay.sources.len() > 1 { format!(" of {}", source.name) } else { String::new() }
}

fn place(run: &Run) -> String {
    format!("round {}, {}, {}", run.round, run.system, run.task.as_deref().unwrap_or("start"))
}

/// A heading and a list; nothing where the list is empty.
fn list(markup: &mut Markup, headline: &str, items: Vec<String>) {
    if items.is_empty() {
        return;
    }
    let more = items.len().saturating_sub(LISTED);
    markup.words("h3", &[], headline);
    markup.element("ul", &[], |markup| {
        for item in items.iter().take(LISTED) {
            markup.words("li", &[], item);
        }
        if more > 0 {
            markup.words("li", &[], format_args!("and {more} more, which the JSON file names"));
        }
    });
}

/// A table of facts: a row each, a column for each file.
fn facts(markup: &mut Markup, overlay: &Overlay<'_>, of: &dyn Fn(&Report) -> Vec<(String, String)>) {
    let columns: Vec<BTreeMap<String, String>> =
        overlay.sources.iter().map(|source| of(source.report).into_iter().collect()).collect();
    let mut names: Vec<String> = Vec::new();
    for (name, _) in overlay.sources.iter().flat_map(|source| of(source.report)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let files = overlay.sources.iter().map(|source| source.name.clone());
    let heads: Vec<String> = [String::new()].into_iter().chain(files).collect();
    table(markup, &heads, |markup| {
        for name in &names {
            markup.element("tr", &[], |markup| {
                markup.words("th", &[("scope", &"row")], name);
                for column in &columns {
                    markup.words("td", &[("class", &"long")], column.get(name).map_or("", String::as_str));
                }
            });
        }
    });
}

fn facts_of(report: &Report) -> Vec<(String, String)> {
    let Report { machine, effort, runs, .. } = report;
    let disturbed = runs.iter().filter(|run| run.disturbed).count();
    let failed = runs.iter().filter(|run| run.error.is_some()).count();
    let cable = if report.wire { "each packet alone on the cable" } else { "offloads at their defaults" };
    let seconds = |duration: std::time::Duration| format!("{} s", duration.as_secs_f64());
    let durations = [("warm-up", effort.warm_up), ("counting", effort.duration), ("step of a search", effort.step)];
    let durations = durations.map(|(name, duration)| format!("{name} {}", seconds(duration))).join(", ");
    named([
        ("Kernel", machine.kernel.clone()),
        ("Processor", format!("{}, {} cores", machine.cpu_model, machine.cores)),
        ("Memory", format!("{} MiB", machine.memory_bytes >> 20)),
        ("Load before", format!("{:.2}, at niceness {}", machine.load_average, machine.nice)),
        ("Source", machine.commit.clone().unwrap_or_else(|| "unknown commit".to_owned())),
        ("Path", report.profile.clone().unwrap_or_else(|| "the bare cable".to_owned())),
        ("Cable", cable.to_owned()),
        ("Effort", format!("{} rounds; {durations}; {}", report.rounds, effort.congestion)),
        ("Seed", report.seed.to_string()),
        ("Reference", report.reference.clone().unwrap_or_else(|| "none".to_owned())),
        ("Runs", format!("{}, of which {failed} failed and {disturbed} were disturbed", runs.len())),
        ("Complete", if report.complete { "yes" } else { "no" }.to_owned()),
    ])
}

fn fine_print(report: &Report) -> Vec<(String, String)> {
    let machine = &report.machine;
    let mut facts = named([
        ("Processor flags", machine.cpu_flags.join(" ")),
        ("Offloads that were on", report.cable_features.join(" ")),
        ("Precision of a search", format!("{:.3}", report.effort.precision)),
        ("Schema", report.schema.clone()),
    ]);
    facts.extend(machine.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())));
    facts
}

fn named<const N: usize>(facts: [(&str, String); N]) -> Vec<(String, String)> {
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Who took part, and how.
fn systems(markup: &mut Markup, overlay: &Overlay<'_>) {
    let heads = ["system", "carrier", "MTU", "settings that are not the defaults", "program"].map(str::to_owned);
    table(markup, &heads, |markup| {
        for system in &overlay.systems {
            markup.element("tr", &[], |markup| {
                system_head(markup, &system.name, system.series);
                let subject = system.subject;
                if let Some(reason) = &subject.missing {
                    let reason = format!("missing: {reason}");
                    return markup.words("td", &[("colspan", &4), ("class", &"muted")], reason);
                }
                let settings = subject.settings.iter().map(|(key, value)| format!("{key} = {value}"));
                let programs = subject.programs.iter().map(|one| one.version.as_ref().unwrap_or(&one.name).clone());
                markup.words("td", &[], system.carriers().join(", then "));
                markup.words("td", &[("class", &"number")], subject.mtu.map(|mtu| mtu.to_string()).unwrap_or_default());
                markup.words("td", &[], settings.collect::<Vec<_>>().join(", "));
                markup.words("td", &[], programs.collect::<Vec<_>>().join(", "));
            });
        }
    });
}

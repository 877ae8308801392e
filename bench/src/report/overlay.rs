//! One or several reports side by side, each system with a name of its own.

use std::collections::BTreeMap;
use std::path::Path;

use adit_netem::Profile;

use super::metric::{COSTS, tells_of_trouble};
use super::model::{Figure, Report, Run, Subject};

/// Tasks whose figures come first where there is little room.
const MAIN: [&str; 6] = ["tcp-up", "tcp-down", "udp1200-loss", "udp64-loss", "rtt-idle", "rtt-load"];
/// Metrics that stand beside the first one of a task where there is little room: the rate nearly without loss, the
/// tail, and the cost.
const BESIDE: [&str; 3] = ["clean_rate", "p99", "cpu"];
/// Letters of a commit that are shown.
const COMMIT: usize = 9;

pub(crate) struct Overlay<'a> {
    /// The files, in the order in which they were named.
    pub(crate) sources: Vec<Source<'a>>,
    /// Every system of every file.
    pub(crate) systems: Vec<Entrant<'a>>,
}

pub(crate) struct Source<'a> {
    /// What it is called: its name without folder and ending.
    pub(crate) name: String,
    pub(crate) report: &'a Report,
}

/// One system of one file.
pub(crate) struct Entrant<'a> {
    /// Its name, with that of its file where others have the same.
    pub(crate) name: String,
    /// Its number, for its colour.
    pub(crate) series: usize,
    /// Where its results are.
    pub(crate) report: &'a Report,
    /// What is known of it.
    pub(crate) subject: &'a Subject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metric<'a> {
    pub(crate) task: &'a str,
    pub(crate) name: &'a str,
    pub(crate) unit: &'a str,
}

impl Metric<'_> {
    /// Whether less is better.
    pub(crate) fn is_cost(&self) -> bool {
        COSTS.contains(&self.unit)
    }

    /// Its name, unless the task has no other of interest.
    pub(crate) fn title(&self) -> String {
        let Self { task, name, unit } = self;
        if *name == "rate" { format!("{task} [{unit}]") } else { format!("{task} {name} [{unit}]") }
    }
}

impl<'a> Overlay<'a> {
    /// Puts reports side by side; each comes with the path of its file.
    pub(crate) fn new(files: &[(&Path, &'a Report)]) -> Self {
        let sources: Vec<Source<'a>> = names(files).into_iter().zip(files).map(Source::of).collect();
        let everywhere = || sources.iter().flat_map(|source| &source.report.systems);
        let mut systems = Vec::new();
        for source in &sources {
            for subject in &source.report.systems {
                let alone = everywhere().filter(|other| other.name == subject.name).count() < 2;
                let name = if alone { subject.name.clone() } else { format!("{} ({})", subject.name, source.name) };
                systems.push(Entrant { name, series: systems.len(), report: source.report, subject });
            }
        }
        Self { sources, systems }
    }

    /// All tasks, each once.
    pub(crate) fn tasks(&self) -> Vec<&'a str> {
        let mut tasks: Vec<&str> = Vec::new();
        for task in self.sources.iter().flat_map(|source| &source.report.tasks) {
            if !tasks.contains(&task.as_str()) {
                tasks.push(task);
            }
        }
        tasks
    }

    /// The metrics of a task that anybody has, the most important first.
    pub(crate) fn metrics(&self, task: &str) -> Vec<Metric<'a>> {
        let mut metrics = Vec::new();
        let figures = self.sources.iter().flat_map(|source| &source.report.summary);
        for Figure { task, metric: name, unit, .. } in figures.filter(|figure| figure.task == task) {
            let metric = Metric { task, name, unit };
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        metrics
    }

    /// The first metric of a task that is a result and not trouble.
    pub(crate) fn lead(&self, task: &str) -> Option<Metric<'a>> {
        self.metrics(task).into_iter().find(|metric| !tells_of_trouble(metric.name))
    }

    /// The few metrics that a summary has room for.
    pub(crate) fn main(&self) -> Vec<Metric<'a>> {
        let tasks = self.tasks();
        let mut chosen: Vec<&str> = tasks.iter().copied().filter(|task| MAIN.contains(task)).collect();
        if chosen.is_empty() {
            chosen = tasks;
        }
        let of_task = |task| {
            let lead = self.lead(task);
            let beside = self.metrics(task).into_iter().filter(|metric| BESIDE.contains(&metric.name));
            lead.into_iter().chain(beside.filter(move |metric| Some(*metric) != lead))
        };
        chosen.into_iter().flat_map(of_task).collect()
    }

    /// Circumstances that are not the same in all files: what differs, and how it is in each.
    pub(crate) fn differences(&self) -> Vec<String> {
        let all: Vec<(&str, BTreeMap<String, String>)> =
            self.sources.iter().map(|source| (source.name.as_str(), circumstances(source.report))).collect();
        let mut keys: Vec<&String> = all.iter().flat_map(|(_, facts)| facts.keys()).collect();
        keys.sort();
        keys.dedup();
        let mut differences = Vec::new();
        for key in keys {
            let values: Vec<(&str, &str)> =
                all.iter().map(|(name, facts)| (*name, facts.get(key).map_or("none", String::as_str))).collect();
            if values.windows(2).any(|pair| matches!(pair, [a, b] if a.1 != b.1)) {
                let each: Vec<String> = values.iter().map(|(name, value)| format!("{value} ({name})")).collect();
                differences.push(format!("{key}: {}", each.join(", ")));
            }
        }
        differences
    }

    /// What a reader must know before any figure: one sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for Source { name, report } in &self.sources {
            let prefix = if self.sources.len() > 1 { format!("{name}: ") } else { String::new() };
            let (runs, all) = (&report.runs, report.runs.len());
            if !report.complete {
                warnings.push(format!(
                    "{prefix}the measurement did not end as planned; what is here is what was made until then"
                ));
            }
            let failed = runs.iter().filter(|run| run.error.is_some()).count();
            if failed > 0 {
                warnings.push(format!("{prefix}{failed} of {all} runs failed"));
            }
            let disturbed = runs.iter().filter(|run| run.disturbed).count();
            if disturbed > 0 {
                warnings.push(format!("{prefix}{disturbed} of {all} runs were disturbed by other load on the machine"));
            }
            for subject in &report.systems {
                if let Some(reason) = &subject.missing {
                    warnings.push(format!("{prefix}{} is missing: {reason}", subject.name));
                }
            }
        }
        warnings
    }
}

impl<'a> Source<'a> {
    fn of((name, (_, report)): (String, &(&Path, &'a Report))) -> Self {
        Self { name, report }
    }
}

impl<'a> Entrant<'a> {
    /// Its figure of a metric.
    pub(crate) fn figure(&self, metric: Metric<'_>) -> Option<&'a Figure> {
        let Metric { task, name, unit } = metric;
        let mut figures = self.report.summary.iter().filter(|figure| figure.system == self.subject.name);
        figures.find(|figure| figure.task == task && figure.metric == name && figure.unit == unit)
    }

    pub(crate) fn runs(&self, task: &str) -> impl Iterator<Item = &'a Run> {
        let (report, name) = (self.report, &self.subject.name);
        report.runs.iter().filter(move |run| run.system == *name && run.task.as_deref() == Some(task))
    }

    /// That of its runs of a task whose `value` is the median, or the lower of the middle two.
    pub(crate) fn median_run(&self, task: &str, value: impl Fn(&Run) -> Option<f64>) -> Option<&'a Run> {
        let mut runs: Vec<(f64, &Run)> = self.runs(task).filter_map(|run| Some((value(run)?, run))).collect();
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        runs.get(runs.len().checked_sub(1)? / 2).map(|(_, run)| *run)
    }

    /// Why it has no figure of a task.
    pub(crate) fn absence(&self, task: &str) -> String {
        if let Some(reason) = &self.subject.missing {
            return format!("missing: {reason}");
        }
        if !self.report.tasks.iter().any(|one| one == task) {
            return "not measured in this file".to_owned();
        }
        let mine = self.report.runs.iter().filter(|run| run.system == self.subject.name);
        let of_task = |run: &&Run| run.task.as_deref().is_none_or(|one| one == task);
        match mine.filter(of_task).find_map(|run| run.error.as_deref()) {
            Some(error) => format!("failed: {error}"),
            None if self.runs(task).next().is_none() => "not reached before the measurement ended".to_owned(),
            None => "has no such value".to_owned(),
        }
    }

    /// The carriers its packets travelled by, in the order in which they were seen.
    pub(crate) fn carriers(&self) -> Vec<&'a str> {
        let mine = self.report.runs.iter().filter(|run| run.system == self.subject.name);
        let mut carriers: Vec<&str> = mine.filter_map(|run| run.carrier.as_deref()).collect();
        carriers.dedup();
        carriers
    }
}

/// A name for each file: that without folder and ending; where several have the same, their commits or numbers follow.
fn names(files: &[(&Path, &Report)]) -> Vec<String> {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stems: Vec<String> = files.iter().map(|(path, _)| stem(path)).collect();
    let commits: Vec<String> = files.iter().map(|(_, report)| commit(report)).collect();
    let named = |index: usize, stem: &String| {
        let same: Vec<&String> =
            stems.iter().zip(&commits).filter(|(other, _)| *other == stem).map(|(_, c)| c).collect();
        let mine = commits.get(index).map_or("", String::as_str);
        match same.iter().filter(|commit| **commit == mine).count() {
            _ if same.len() < 2 => stem.clone(),
            1 => format!("{stem} {mine}"),
            _ => format!("{stem} {}", index + 1),
        }
    };
    stems.iter().enumerate().map(|(index, stem)| named(index, stem)).collect()
}

/// The beginning of the commit, with what is behind it where files differ from it.
pub(crate) fn commit(report: &Report) -> String {
    let Some(commit) = &report.machine.commit else { return "unknown commit".to_owned() };
    let changed = if commit.ends_with('+') { "+" } else { "" };
    commit.trim_end_matches('+').chars().take(COMMIT).chain(changed.chars()).collect()
}

/// Every value of a network, as the report has it.
fn told(network: &Profile) -> String {
    serde_json::to_string(network).unwrap_or_default()
}

/// What must be alike where figures are compared.
fn circumstances(report: &Report) -> BTreeMap<String, String> {
    let Report { machine, effort, .. } = report;
    let mut facts: BTreeMap<String, String> = [
        ("kernel", machine.kernel.clone()),
        ("processor", format!("{}, {} cores", machine.cpu_model, machine.cores)),
        ("processor flags", machine.cpu_flags.join(" ")),
        ("memory", format!("{} MiB", machine.memory_bytes >> 20)),
        ("niceness", machine.nice.to_string()),
        ("path", report.profile.clone().unwrap_or_else(|| "the bare cable".to_owned())),
        // Two files of one name may say different things.
        ("impairments of the path", report.network.as_ref().map_or_else(|| "none".to_owned(), told)),
        ("seed", report.seed.to_string()),
        ("cable", if report.wire { "each packet alone" } else { "offloads at their defaults" }.to_owned()),
        ("offloads of the cable", report.cable_features.join(" ")),
        ("warm-up", format!("{} s", effort.warm_up.as_secs_f64())),
        ("duration", format!("{} s", effort.duration.as_secs_f64())),
        ("step of a search", format!("{} s", effort.step.as_secs_f64())),
        ("precision of a search", effort.precision.to_string()),
        ("congestion control", effort.congestion.clone()),
        ("rounds", report.rounds.to_string()),
        ("reference", report.reference.clone().unwrap_or_else(|| "none".to_owned())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    facts.extend(machine.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())));
    facts
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::example;
    use super::*;

    fn overlay<'a>(files: &[(&str, &'a Report)]) -> Overlay<'a> {
        let files: Vec<(&Path, &Report)> = files.iter().map(|(path, report)| (Path::new(*path), *report)).collect();
        Overlay::new(&files)
    }

    fn names_of<'a>(overlay: &'a Overlay<'_>) -> Vec<&'a str> {
        overlay.systems.iter().map(|system| system.name.as_str()).collect()
    }

    #[test]
    fn names_that_collide_get_that_of_their_file() {
        let (a, mut b) = (example(), example());
        b.systems.remove(0);
        assert_eq!(names_of(&overlay(&[("x/a.json", &a)])), ["plain", "adit", "quincy"]);
        let both = overlay(&[("x/a.json", &a), ("y/b.json", &b)]);
        assert_eq!(names_of(&both), ["plain", "adit (a)", "quincy (a)", "adit (b)", "quincy (b)"]);
        assert_eq!(both.systems.iter().map(|system| system.series).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn files_of_one_name_are_told_apart_by_commit_or_number() {
        let (mut a, mut b) = (example(), example());
        a.machine.commit = Some("0123456789abcdef+".to_owned());
        b.machine.commit = Some("fedcba9876543210".to_owned());
        let names = |files: &[(&str, &Report)]| {
            overlay(files).sources.into_iter().map(|source| source.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[("x/r.json", &a), ("y/r.json", &b)]), ["r 012345678+", "r fedcba987"]);
        assert_eq!(names(&[("x/r.json", &a), ("y/r.json", &a)]), ["r 1", "r 2"]);
    }

    #[test]
    fn differing_circumstances_are_told() {
        let (a, mut b) = (example(), example());
        assert_eq!(overlay(&[("a.json", &a), ("b.json", &b)]).differences(), [""; 0]);
        b.machine.kernel = "Linux 1.0".to_owned();
        b.rounds = 4;
        b.machine.commit = Some("another".to_owned());
        let expected = [format!("kernel: {} (a), Linux 1.0 (b)", a.machine.kernel), "rounds: 3 (a), 4 (b)".to_owned()];
        assert_eq!(overlay(&[("a.json", &a), ("b.json", &b)]).differences(), expected);
    }

    #[test]
    fn networks_of_one_name_may_differ() {
        let through = |text: &str, seed| {
            let network = Profile::parse("net", text).unwrap();
            Report { profile: Some(network.name.clone()), network: Some(network), seed, ..example() }
        };
        let (a, b) = (through("delay_ms = 5", 1), through("delay_ms = 7", 2));
        let differences = overlay(&[("a.json", &a), ("b.json", &b)]).differences();
        assert_eq!(differences.len(), 2, "{differences:?}");
        assert!(differences[0].starts_with("impairments of the path: {\"name\":\"net\""), "{differences:?}");
        assert_eq!(differences[1], "seed: 1 (a), 2 (b)");
    }

    #[test]
    fn absence_has_a_reason() {
        let mut report = example();
        report.systems.push(Subject { name: "late".to_owned(), missing: None, ..report.systems[0].clone() });
        report.systems.push(Subject { name: "broken".to_owned(), missing: None, ..report.systems[0].clone() });
        let failed =
            Run { system: "broken".to_owned(), task: None, error: Some("no tun".to_owned()), ..report.runs[0].clone() };
        report.runs.push(failed);
        let one = overlay(&[("a.json", &report)]);
        let absence: Vec<String> = one.systems.iter().skip(2).map(|system| system.absence("tcp-up")).collect();
        let expected = ["missing: is not installed", "not reached before the measurement ended", "failed: no tun"];
        assert_eq!(absence, expected);
        assert_eq!(one.systems[0].absence("rtt-idle"), "not measured in this file");
        assert!(one.warnings().iter().any(|warning| warning == "quincy is missing: is not installed"));
        assert!(one.warnings().iter().any(|warning| warning == "1 of 7 runs failed"));
    }

    #[test]
    fn median_run_is_a_run_that_was_made() {
        let report = example();
        let one = overlay(&[("a.json", &report)]);
        let rounds =
            |index: usize| one.systems[index].median_run("tcp-up", |run| run.value("rate")).map(|run| run.round);
        assert_eq!((rounds(0), rounds(1), rounds(2)), (Some(3), Some(3), None));
        let titles: Vec<String> = one.main().iter().map(Metric::title).collect();
        assert_eq!(titles, ["tcp-up [Gbit/s]"]);
    }
}

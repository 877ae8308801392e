//! Two builds against each other: is the second one slower?
//!
//! Both run in turns, A B B A, each turn in a lab of its own. Rounds of the first build against itself come first and
//! show how much equal builds differ here. Then come rounds of both until the verdict is clear or there were enough.

mod build;
mod git;
mod judge;
mod metric;
mod result;
mod self_check;
pub(crate) mod statistics;
mod text;
mod trial;
mod worktree;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use anyhow::Result;
use clap::Args;

use crate::interrupt::Interrupt;
use crate::measure::task::{Selection, Task, selected};
use crate::measure::turns::Turns;
use crate::measure::{blank, positive, subject};
use crate::report::model::{Effort, Report};
use crate::report::save;
use crate::systems::{Programs, System, Variant, catalogue};
use build::Build;
use judge::{Verdict, looks};
use metric::Threshold;
use result::{Comparison, Plan, overall, rows};
use trial::{NAMES, Round, Trial};

/// What is measured unless somebody says otherwise: it decides in a few minutes.
const TASKS: &str = "rtt-idle,tcp-up,tcp-down";
/// Rounds of both builds for each one of the first build against itself.
const ROUNDS_PER_NOISE_ROUND: u32 = 3;
/// Least rounds of the first build against itself, unless somebody says otherwise.
const LEAST_NOISE_ROUNDS: u32 = 3;

/// What a comparison can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The build to compare with: a folder with adit-server and adit-client, or a git revision of this repository.
    #[arg(value_name = "BASE")]
    base: String,
    /// The build in question, named alike.
    #[arg(value_name = "HEAD", required_unless_present = "self_check")]
    head: Option<String>,
    /// What to measure; groups as for `run`.
    #[arg(long, alias = "only", value_delimiter = ',', value_name = "TASK,…", default_value = TASKS)]
    tasks: Vec<Selection>,
    /// Rounds (A B B A) after which the verdict is looked at.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Rounds at most, where fewer do not decide [default: twice --rounds].
    #[arg(long, value_name = "ROUNDS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_rounds: Option<u32>,
    /// Rounds of BASE against itself that show the noise [default: a third of --rounds, 3 at least].
    #[arg(long, value_name = "ROUNDS", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    noise_rounds: Option<u32>,
    /// How long each measurement takes, after a warm-up of half that.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    seconds: f64,
    /// How much worse a figure may be, in percent [default: 5]; NAME=PERCENT or TASK/NAME=PERCENT for some.
    #[arg(long, value_name = "[METRIC=]PERCENT")]
    threshold: Vec<Threshold>,
    /// A setting of the gateway of both builds, such as esp.enabled=false.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// A setting of the gateway of the second build alone, such as policy=/etc/adit/policy.toml.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set_head: Vec<(String, String)>,
    /// Let the traffic end at a host behind the gateway, which forwards it, in place of the gateway itself.
    #[arg(long)]
    beyond: bool,
    /// What the draws of the statistics are made of.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Two short rounds: enough to see that everything works, too little to decide.
    #[arg(long, conflicts_with_all = ["rounds", "max_rounds", "noise_rounds", "seconds"])]
    quick: bool,
    /// Compare BASE with itself so often, and tell how many comparisons call it slower.
    #[arg(long, value_name = "TIMES", conflicts_with_all = ["head", "markdown"])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    self_check: Option<u32>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// Print Markdown for a pull request instead of text, or write it to a file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "a flag whose value may be left out")]
    markdown: Option<Option<PathBuf>>,
    /// Also write the JSON object to a file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| format!("{text:?} has no `=`"))
}

impl Options {
    fn plan(&self) -> Plan {
        let (rounds, most, noise) = if self.quick {
            (2, 2, 1)
        } else {
            let noise = self.rounds.div_ceil(ROUNDS_PER_NOISE_ROUND).max(LEAST_NOISE_ROUNDS);
            (self.rounds, self.max_rounds.unwrap_or(self.rounds * 2), self.noise_rounds.unwrap_or(noise))
        };
        let [settings, head_settings] = [&self.set, &self.set_head].map(|set| set.iter().cloned().collect());
        let (looks, seed, beyond) = (looks(rounds, most), self.seed, self.beyond);
        Plan { noise_rounds: noise, looks, seed, settings, head_settings, beyond }
    }

    fn effort(&self) -> Effort {
        let duration = Duration::from_secs_f64(if self.quick { 0.5 } else { self.seconds });
        let second = Duration::from_secs(1);
        let (warm_up, step) = ((duration / 2).min(second), duration.min(second));
        Effort { warm_up, duration, step, precision: 1.03, congestion: "cubic".to_owned() }
    }

    /// Fails where what was asked for cannot be written, before minutes are spent on it.
    fn check(&self) -> Result<(), Failure> {
        if self.json && self.markdown == Some(None) {
            let next = "name a file for one of them: --markdown=FILE or --output FILE";
            return Err(Failure::new(Exit::Usage, "--json and --markdown", "both would print", next));
        }
        let files = self.output.iter().chain(self.markdown.iter().flatten());
        files.into_iter().try_for_each(|path| save::check(path))
    }
}

/// Compares two builds and reports; must be called while the process has a single thread.
///
/// # Errors
/// Fails with exit code 8 where the second build is slower and with 9 where that stays open, after the report; with 2
/// where a build is not found, and where the system permits no lab, a build fails, or the user interrupts.
pub(crate) fn run(options: &Options) -> Result<()> {
    options.check()?;
    let head = options.head.as_deref().unwrap_or(&options.base);
    let builds = build::prepare([&options.base, head], &output::note)?;
    // Before any thread exists, as the kernel demands.
    adit_lab::enter_user_namespace()?;
    let interrupt = &Interrupt::listen()?;
    if let Some(times) = options.self_check {
        return self_check::run(options, &builds, times, interrupt);
    }
    if builds[0].is_same_as(&builds[1]) && options.set_head.is_empty() {
        output::note("both builds are the same programs, byte for byte; a difference can only be noise");
    }
    let comparison = compare(options, builds, options.plan(), interrupt)?;
    finish(options, &comparison)
}

fn compare(options: &Options, builds: [Build; 2], plan: Plan, interrupt: &Interrupt) -> Result<Comparison> {
    let started = Instant::now();
    let tasks = selected(&options.tasks);
    let systems = systems(&builds, options);
    let report = report(options, &systems, &tasks)?;
    let mut trial = Trial::begin(Turns::begin(&systems, &tasks, report, interrupt));
    let first = plan.looks.first().copied().unwrap_or_default();
    trial.expect(plan.noise_rounds + first);
    trial.rounds(Round::Noise, plan.noise_rounds)?;
    let (mut made, mut found) = (0, Vec::new());
    for look in &plan.looks {
        if made > 0 {
            output::note(&format!("inconclusive after {made} rounds; {} more follow", look - made));
            trial.expect(look - made);
        }
        trial.rounds(Round::Builds, look - made)?;
        made = *look;
        found = rows(&trial.turns.report, &plan, &options.threshold);
        if overall(&found) != Verdict::Inconclusive {
            break;
        }
    }
    let Turns { mut report, repeated, .. } = trial.turns;
    report.complete = true;
    report.total_seconds = started.elapsed().as_secs_f64();
    Ok(Comparison::new(builds, plan, found, report, repeated))
}

/// The first build under two names, and the second.
fn systems(builds: &[Build; 2], options: &Options) -> Vec<Box<dyn System>> {
    let [base, head] = builds;
    let of_head = [options.set.as_slice(), &options.set_head].concat();
    let variant = |(name, (build, settings)): (&str, (&Build, &Vec<_>))| Variant {
        name: name.to_owned(),
        settings: settings.clone(),
        programs: Some(build.folder.clone()),
        carrier: None,
        beyond: options.beyond,
    };
    let parts = [(base, &options.set), (base, &options.set), (head, &of_head)];
    let variants: Vec<Variant> = NAMES.into_iter().zip(parts).map(variant).collect();
    let mut systems = catalogue(&variants, &Programs::default());
    systems.retain(|system| NAMES.contains(&system.name()));
    systems
}

/// A report without runs.
fn report(options: &Options, systems: &[Box<dyn System>], tasks: &[Task]) -> Result<Report> {
    let mut report = blank("compare", options.effort(), tasks, 0);
    report.seed = options.seed;
    for system in systems {
        report.systems.push(subject(system.as_ref())?);
    }
    Ok(report)
}

/// Writes and prints what was found, and fails where that is bad news.
fn finish(options: &Options, comparison: &Comparison) -> Result<()> {
    if let Some(path) = &options.output {
        save::save(path, &format!("{}\n", comparison.json()?))?;
    }
    if let Some(Some(path)) = &options.markdown {
        save::save(path, &text::markdown(comparison))?;
    }
    output::line(&match &options.markdown {
        _ if options.json => comparison.json()?,
        Some(None) => text::markdown(comparison),
        Some(Some(_)) | None => text::plain(comparison),
    });
    let next = match comparison.verdict {
        Verdict::Regression => "look at what changed; --threshold METRIC=PERCENT allows it where it is wanted",
        Verdict::Inconclusive => "give it more with --max-rounds or --seconds, or a quieter machine",
        Verdict::NoRegression | Verdict::Improvement => return Ok(()),
    };
    Err(Failure::new(comparison.verdict.exit(), "compare", text::conclusion(comparison), next).into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Result<Options, clap::Error> {
        Line::try_parse_from(["compare"].iter().chain(arguments)).map(|line| line.options)
    }

    #[test]
    fn two_builds_are_enough() {
        let options = options(&["main", "HEAD"]).unwrap();
        let names: Vec<_> = selected(&options.tasks).into_iter().map(Task::name).collect();
        assert_eq!(names, ["rtt-idle", "tcp-up", "tcp-down"]);
        let plan = options.plan();
        assert_eq!((plan.noise_rounds, plan.looks, plan.seed), (4, vec![10, 20], 1));
        assert!(options.check().is_ok());
    }

    #[test]
    fn markdown_may_have_a_file_and_swallows_no_build() {
        let to_file = options(&["--markdown=a.md", "main", "HEAD"]).unwrap();
        assert_eq!(to_file.markdown, Some(Some(PathBuf::from("a.md"))));
        let printed = options(&["--markdown", "main", "HEAD", "--json"]).unwrap();
        assert_eq!((printed.markdown.clone(), printed.head.as_deref()), (Some(None), Some("HEAD")));
        assert_eq!(printed.check().unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn quick_comparison_is_short() {
        let options = options(&["--quick", "a", "b"]).unwrap();
        let turns = options.plan().noise_rounds + options.plan().looks.last().unwrap();
        assert_eq!(turns, 3);
        assert_eq!(options.effort().duration, Duration::from_millis(500));
    }

    #[test]
    fn self_check_needs_one_build_only() {
        assert_eq!(options(&["main", "--self-check", "20"]).unwrap().self_check, Some(20));
        assert!(options(&["main"]).is_err());
        assert!(options(&["main", "HEAD", "--self-check", "20"]).is_err());
    }

    #[test]
    fn senseless_arguments_are_refused() {
        for wrong in [
            &["a", "b", "--rounds", "0"][..],
            &["a", "b", "--threshold", "fast"],
            &["a", "b", "--set", "esp"],
            &["a", "b", "--set-head", "policy"],
            &["a", "b", "--tasks", "tpc"],
            &["a", "b", "--seconds", "0"],
            &["a", "b", "c"],
        ] {
            assert!(options(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_name_runs_its_build() {
        let build = |folder: &str| Build {
            given: folder.to_owned(),
            commit: None,
            folder: PathBuf::from(folder),
            programs: Vec::new(),
        };
        let given = ["a", "b", "--set", "esp.enabled=false", "--set-head", "policy=/p.toml"];
        let systems = systems(&[build("/a"), build("/b")], &options(&given).unwrap());
        let failures: Vec<_> = systems.iter().map(|system| system.programs().unwrap_err().what).collect();
        assert_eq!(failures, ["/a/adit-server", "/a/adit-server", "/b/adit-server"]);
        let names: Vec<_> = systems.iter().map(|system| system.name()).collect();
        assert_eq!(names, NAMES);
        let quic = ("esp.enabled".to_owned(), "false".to_owned());
        assert!(systems.iter().all(|system| system.settings().contains(&quic)));
        let policy = ("policy".to_owned(), "/p.toml".to_owned());
        let with_policy: Vec<_> = systems.iter().map(|system| system.settings().contains(&policy)).collect();
        assert_eq!(with_policy, [false, false, true]);
    }
}

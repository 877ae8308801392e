//! How many instructions each part of the packet path takes, counted under valgrind, and whether they have become more.
//!
//! Times on a shared machine move by more than a change is worth. Counts do not: valgrind runs the same program on a
//! processor of its own, made up from what the machine's can do, so that the ciphers pick the same code wherever that
//! is the same; the baseline says which it was. Each subject of [`crate::micro`] is a process of its own, in which
//! callgrind counts one round and nothing else.

mod baseline;
mod callgrind;
mod environment;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use anyhow::Result;
use clap::Args;

use crate::micro::{self, Subject};
use baseline::{Baseline, Comparison, FLOOR};
use environment::Environment;

/// What a count can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Compare with the counts in this file, and fail if a subject takes more instructions.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the counts to this file, to compare with later.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["baseline", "only"])]
    write: Option<PathBuf>,
    /// Count only subjects with this in their name.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// By how many percent a count may grow; by 16 instructions it may in any case.
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = percent)]
    limit: f64,
    /// Do a round of one subject, for callgrind to count.
    #[arg(long, value_name = "SUBJECT", hide = true, exclusive = true)]
    inside: Option<String>,
}

/// Counts, and compares or writes what was asked for.
///
/// # Errors
/// [`Exit::Regression`] if a count grew by more than the limit and 16 instructions, [`Exit::Inconclusive`] if the
/// baseline is of another processor, [`Exit::Unsupported`] without valgrind, [`Exit::Usage`] for a name or a file that
/// is wrong, as that of a baseline of other subjects is.
pub fn run(options: &Options) -> Result<()> {
    if let Some(name) = &options.inside {
        return callgrind::inside(name);
    }
    let base = options.baseline.as_deref().map(Baseline::read).transpose()?;
    let subjects = selected(options.only.as_deref())?;
    let (counts, cpu) = count(&subjects, base.as_ref())?;
    let environment = Environment::of_this_build(cpu);
    if let Some(path) = &options.write {
        Baseline { made_with: environment, instructions: counts }.write(path)?;
        output::line(&format!("written to {}", path.display()));
        return Ok(());
    }
    match (base, &options.baseline) {
        (Some(base), Some(path)) => judge(&base, path, &counts, &environment, options),
        _ => Ok(()),
    }
}

/// The subjects that were asked for.
fn selected(only: Option<&str>) -> Result<Vec<Subject>> {
    let subjects: Vec<Subject> = micro::catalogue()
        .into_iter()
        .filter(|subject| only.is_none_or(|text| subject.name().contains(text)))
        .collect();
    if subjects.is_empty() {
        let next = "run `adit-bench instructions` without --only to see all names";
        return Err(Failure::new(Exit::Usage, "--only", "no subject has this in its name", next).into());
    }
    Ok(subjects)
}

/// Instructions per packet, lookup or capsule of each subject, shown as they come, and the flags of the processor they
/// were counted on.
fn count(subjects: &[Subject], base: Option<&Baseline>) -> Result<(BTreeMap<String, f64>, Vec<String>)> {
    let mut counts = BTreeMap::new();
    let mut cpu = Vec::new();
    output::line(&format!("{:<44} {:>12} {:>12} {:>8}", "instructions per packet", "counted", "baseline", "change"));
    for subject in subjects {
        let counted = callgrind::count(subject.name())?;
        let each = baseline::per_element(counted.instructions, subject.elements());
        let known = base.and_then(|base| base.instructions.get(subject.name()).copied());
        output::line(&row(subject.name(), each, known));
        counts.insert(subject.name().to_owned(), each);
        cpu = counted.cpu;
    }
    Ok((counts, cpu))
}

fn row(name: &str, counted: f64, known: Option<f64>) -> String {
    let (known, change) = known.map_or_else(Default::default, |known| {
        (format!("{known:.2}"), format!("{:+.2} %", baseline::growth(known, counted)))
    });
    format!("{name:<44} {counted:>12.2} {known:>12} {change:>8}").trim_end().to_owned()
}

/// Says what has changed, and fails if it must not.
fn judge(
    base: &Baseline,
    path: &Path,
    counts: &BTreeMap<String, f64>,
    environment: &Environment,
    options: &Options,
) -> Result<()> {
    // What is no failure, but worth knowing.
    for difference in environment.differences(&base.made_with) {
        output::line(&format!("note: {difference}"));
    }
    let Comparison { more, less, unknown, gone } = Comparison::of(&base.instructions, counts, options.limit);
    for change in &less {
        output::line(&format!("better: {change}"));
    }
    // Counts that cannot be compared: other subjects, or other code for another processor.
    let next = "find what made the packet path longer; if it is meant to be, run `just instructions-baseline` and \
                commit the file";
    let what = path.display().to_string();
    let gone = if options.only.is_some() { Vec::new() } else { gone };
    if let Some(name) = unknown.iter().chain(&gone).next() {
        let reason = format!("it is of other subjects than this program has, such as {name}");
        return Err(Failure::new(Exit::Usage, what, reason, "run `just instructions-baseline`").into());
    }
    if environment.has_another_processor(&base.made_with) {
        let reason =
            "its counts are of another processor than valgrind shows here, on which the ciphers take other code";
        return Err(Failure::new(Exit::Inconclusive, what, reason, "run it where the baseline was made").into());
    }
    // The verdict.
    if !more.is_empty() {
        let list: Vec<String> = more.iter().map(|change| format!("\n    {change}")).collect();
        let reason = format!(
            "more than {} % and more than {FLOOR} instructions above the baseline:{}",
            options.limit,
            list.concat()
        );
        return Err(Failure::new(Exit::Regression, what, reason, next).into());
    }
    let (subjects, limit) = (counts.len(), options.limit);
    output::line(&format!("{subjects} subjects, none more than {limit} % and {FLOOR} instructions above {what}"));
    Ok(())
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err("not a percentage of 0 or more".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "checksum/1420";

    fn options() -> Options {
        Options { baseline: None, write: None, only: None, limit: 3.0, inside: None }
    }

    fn environment(cpu: &[&str]) -> Environment {
        Environment { cpu: cpu.iter().map(|&flag| flag.to_owned()).collect(), ..Environment::default() }
    }

    fn judged(base: f64, counted: &[(&str, f64)], cpu: &[&str]) -> Result<(), Failure> {
        let base = Baseline { made_with: environment(&["avx2"]), instructions: [(NAME.to_owned(), base)].into() };
        let counts = counted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        judge(&base, Path::new("counts.toml"), &counts, &environment(cpu), &options())
            .map_err(|error| error.downcast().unwrap())
    }

    #[test]
    fn subject_that_grew_past_the_limit_is_named_with_both_counts_and_the_way_out() {
        assert_eq!(judged(1000.0, &[(NAME, 1029.0)], &["avx2"]), Ok(()));
        let failure = judged(1000.0, &[(NAME, 1031.0)], &["avx2"]).unwrap_err();
        assert_eq!(failure.exit, Exit::Regression);
        assert!(failure.reason.contains("checksum/1420: 1000.00 -> 1031.00 (+3.10 %)"), "{failure}");
        assert!(failure.to_string().contains("counts.toml") && failure.next.contains("just instructions-baseline"));
    }

    #[test]
    fn few_instructions_more_of_a_small_subject_pass() {
        assert_eq!(judged(189.63, &[(NAME, 197.63)], &["avx2"]), Ok(()));
        let failure = judged(189.63, &[(NAME, 206.63)], &["avx2"]).unwrap_err();
        assert!(failure.reason.contains("more than 3 % and more than 16 instructions above"), "{failure}");
    }

    #[test]
    fn help_names_the_floor() {
        let Options { limit, .. } = options();
        let help = Options::augment_args(clap::Command::new("instructions")).render_help().to_string();
        assert!(help.contains(&format!("by {FLOOR} instructions")) && help.contains(&format!("{limit}")), "{help}");
    }

    #[test]
    fn fewer_instructions_pass() {
        assert_eq!(judged(1000.0, &[(NAME, 500.0)], &["avx2"]), Ok(()));
    }

    #[test]
    fn baseline_of_other_subjects_is_refused_on_every_processor() {
        let added = judged(1000.0, &[(NAME, 1000.0), ("checksum/9000", 1.0)], &["ssse3"]).unwrap_err();
        assert_eq!(added.exit, Exit::Usage);
        assert!(added.reason.contains("checksum/9000"));
        assert_eq!(judged(1000.0, &[("checksum/9000", 1.0)], &["avx2"]).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn another_processor_decides_nothing() {
        assert_eq!(judged(1000.0, &[(NAME, 2000.0)], &["ssse3"]).unwrap_err().exit, Exit::Inconclusive);
    }

    #[test]
    fn selection_is_by_part_of_the_name() {
        let names =
            |only| selected(Some(only)).map(|found| found.iter().map(|subject| subject.name().to_owned()).collect());
        assert_eq!(names(NAME).unwrap(), [NAME.to_owned()].to_vec());
        let failure: Result<Vec<String>> = names("no such thing");
        assert!(failure.unwrap_err().downcast_ref::<Failure>().is_some_and(|failure| failure.exit == Exit::Usage));
    }
}

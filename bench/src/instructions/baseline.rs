//! Counts in a file, and what became of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use adit_program::exit::{Exit, Failure};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::environment::Environment;

/// What stands above the counts.
const PREFACE: &str = "\
# Instructions per packet, lookup or capsule, as callgrind counts them; see `adit-bench instructions --help`.
# `.ci/run instructions` compares with them; `just instructions-baseline` writes them anew.

";

/// Instructions per packet, lookup or capsule that a count may move by, whatever share of it they are. As many come or
/// go when the compiler inlines one call or no longer does: on x86-64 the call and the return, the stack pointer set
/// and reset, and six registers saved and restored (System V ABI section 3.2.1). Below 533 instructions this is more
/// than 3 %, and no sign of a longer packet path.
pub(super) const FLOOR: f64 = 16.0;

/// Counts to compare with.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Baseline {
    /// What decides on counts besides the code.
    pub(super) made_with: Environment,
    /// Instructions per element, by subject.
    pub(super) instructions: BTreeMap<String, f64>,
}

impl Baseline {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let failure = |reason: String| {
            Failure::new(Exit::Usage, path.display().to_string(), reason, "`just instructions-baseline` writes it anew")
        };
        let text = fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
        Ok(toml::from_str(&text).map_err(|error| failure(error.to_string()))?)
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string_pretty(self).context("lay out the counts")?;
        fs::write(path, PREFACE.to_owned() + &text).with_context(|| format!("write {}", path.display()))
    }
}

/// The share of one element in the count of a round, to the hundredth of an instruction.
#[expect(clippy::cast_precision_loss, reason = "a round is far below 2^52 instructions")]
pub(super) fn per_element(instructions: u64, elements: u64) -> f64 {
    (instructions as f64 / elements.max(1) as f64 * 100.0).round() / 100.0
}

/// By how many percent a count grew.
pub(super) fn growth(base: f64, counted: f64) -> f64 {
    if base > 0.0 { (counted / base - 1.0) * 100.0 } else { f64::INFINITY }
}

/// A subject whose count is another one.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    name: String,
    base: f64,
    counted: f64,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, base, counted } = self;
        write!(f, "{name}: {base:.2} -> {counted:.2} ({:+.2} %)", growth(*base, *counted))
    }
}

/// What differs from the baseline.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Comparison {
    /// Grew by more than the limit and more than [`FLOOR`].
    pub(super) more: Vec<Change>,
    /// Shrank by more than both.
    pub(super) less: Vec<Change>,
    /// Not in the baseline.
    pub(super) unknown: Vec<String>,
    /// In the baseline alone.
    pub(super) gone: Vec<String>,
}

impl Comparison {
    /// Compares with a limit in percent; what moved by [`FLOOR`] or less is no difference.
    pub(super) fn of(base: &BTreeMap<String, f64>, counted: &BTreeMap<String, f64>, limit: f64) -> Self {
        let mut comparison = Self::default();
        for (name, &counted) in counted {
            let Some(&base) = base.get(name) else {
                comparison.unknown.push(name.clone());
                continue;
            };
            let growth = growth(base, counted);
            let change = || Change { name: name.clone(), base, counted };
            if growth > limit && counted - base > FLOOR {
                comparison.more.push(change());
            } else if growth < -limit && base - counted > FLOOR {
                comparison.less.push(change());
            }
        }
        comparison.gone = base.keys().filter(|name| !counted.contains_key(*name)).cloned().collect();
        comparison
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, f64)]) -> BTreeMap<String, f64> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn each_kind_of_difference_is_told_apart() {
        let base = counts(&["same", "more", "less", "gone", "slightly"].map(|name| (name, 1000.0)));
        let counted =
            counts(&[("same", 1000.0), ("more", 1040.0), ("less", 960.0), ("new", 1.0), ("slightly", 1029.0)]);
        let comparison = Comparison::of(&base, &counted, 3.0);
        assert_eq!(comparison.more, [Change { name: "more".into(), base: 1000.0, counted: 1040.0 }]);
        assert_eq!(comparison.less, [Change { name: "less".into(), base: 1000.0, counted: 960.0 }]);
        assert_eq!((comparison.unknown, comparison.gone), (vec!["new".to_owned()], vec!["gone".to_owned()]));
    }

    #[test]
    fn small_count_may_move_by_the_floor_and_no_more() {
        let compare = |counted| Comparison::of(&counts(&[("small", 100.0)]), &counts(&[("small", counted)]), 3.0);
        for counted in [100.0 - FLOOR, 100.0 + FLOOR] {
            assert_eq!(compare(counted), Comparison::default(), "{counted}");
        }
        assert_eq!(compare(100.01 + FLOOR).more.len(), 1);
        assert_eq!(compare(99.99 - FLOOR).less.len(), 1);
    }

    #[test]
    fn large_count_may_move_by_the_limit_and_no_more() {
        let compare = |counted| Comparison::of(&counts(&[("large", 10_000.0)]), &counts(&[("large", counted)]), 3.0);
        for counted in [9_701.0, 10_299.0] {
            assert_eq!(compare(counted), Comparison::default(), "{counted}");
        }
        assert_eq!(compare(10_301.0).more.len(), 1);
        assert_eq!(compare(9_699.0).less.len(), 1);
    }

    #[test]
    fn count_that_was_zero_may_grow_by_the_floor() {
        let compare = |counted| Comparison::of(&counts(&[("free", 0.0)]), &counts(&[("free", counted)]), 3.0);
        assert_eq!((compare(FLOOR).more.len(), compare(FLOOR + 1.0).more.len()), (0, 1));
    }

    #[test]
    fn elements_share_a_round() {
        assert!((per_element(1000, 45) - 22.22).abs() < 1e-9);
        assert!((per_element(1000, 0) - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn file_reads_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counts.toml");
        let baseline = Baseline {
            made_with: Environment { rustc: "1.95.0".into(), cpu: vec!["avx2".into()], ..Environment::default() },
            instructions: counts(&[("esp/seal/aes-256-gcm/64/batch", 512.25)]),
        };
        baseline.write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), baseline);
        assert!(fs::read_to_string(&path).unwrap().starts_with("# Instructions per packet"));
    }

    #[test]
    fn what_is_no_baseline_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counts.toml");
        for text in [None, Some("[instructions]\n"), Some("surprise = 1\n")] {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let failure: Failure = Baseline::read(&path).unwrap_err().downcast().unwrap();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.what.ends_with("counts.toml"));
        }
    }
}

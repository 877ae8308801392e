//! The verdict, made of the rounds' logarithms alone.
//!
//! Two questions with two kinds of error. "Is it slower?" is asked of every metric at every look, and one false yes is
//! an alarm: the chance of [`FALSE_ALARM`] is therefore divided by all these questions (Bonferroni). "Is it surely not
//! slower by the threshold?" must be answered yes for all of them at once, so each may use its own 95 % interval (an
//! intersection-union test; Berger, 1982). What neither answers is inconclusive.

use adit_netem::random::Random;
use adit_program::exit::Exit;
use serde::Serialize;

use super::statistics::{Interval, interval, mean};

/// Chance that a comparison of equal builds ends with an alarm, as the intervals are made for it. With few rounds and
/// much noise they are a little too narrow; the simulations show by how much.
pub(super) const FALSE_ALARM: f64 = 0.001;
/// Chance on each side of the interval that is shown.
const OUTSIDE: f64 = 0.025;

/// What became of one metric, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Better by the threshold or more.
    Improvement,
    /// Not worse by the threshold.
    NoRegression,
    /// Too much noise, or too few rounds.
    Inconclusive,
    /// Worse by the threshold or more.
    Regression,
}

impl Verdict {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Improvement => "improvement",
            Self::NoRegression => "no regression",
            Self::Inconclusive => "inconclusive",
            Self::Regression => "regression",
        }
    }

    /// The exit code of a comparison that ends with it.
    pub(super) fn exit(self) -> Exit {
        match self {
            Self::Improvement | Self::NoRegression => Exit::Ok,
            Self::Inconclusive => Exit::Inconclusive,
            Self::Regression => Exit::Regression,
        }
    }

    /// That of a whole comparison: the worst of what its metrics decided; inconclusive where none did.
    pub(super) fn worst(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts.into_iter().max().unwrap_or(Self::Inconclusive)
    }
}

/// What counts as a change of one metric; logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// The least change for the worse that anybody wants to know of.
    pub(super) threshold: f64,
    /// The change that equal builds show on this machine.
    pub(super) noise: f64,
}

impl Limits {
    /// The least estimate that can be an alarm.
    pub(super) fn alarm(self) -> f64 {
        self.threshold.max(self.noise)
    }
}

/// What the rounds say of one metric; logarithms, positive is worse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judgement {
    /// The mean over the rounds.
    pub(super) estimate: f64,
    /// Where the truth lies, with 95 % confidence for this metric alone.
    pub(super) interval: Interval,
    /// What follows.
    pub(super) verdict: Verdict,
}

/// Chance of a false alarm that one question may have, where `metrics` are asked at each of `looks`.
pub(super) fn chance(metrics: usize, looks: usize) -> f64 {
    let questions = u32::try_from(metrics.max(1) * looks.max(1)).unwrap_or(u32::MAX);
    FALSE_ALARM / f64::from(questions)
}

/// Judges one metric; `badness` has one value for each round.
pub(super) fn judge(badness: &[f64], limits: Limits, chance: f64, random: &mut Random) -> Judgement {
    let estimate = mean(badness);
    let interval = interval(badness, OUTSIDE, random);
    let verdict = if estimate.abs() >= limits.alarm() && surely_changed(badness, estimate, chance, random) {
        if estimate > 0.0 { Verdict::Regression } else { Verdict::Improvement }
    } else if interval.high < limits.threshold {
        Verdict::NoRegression
    } else {
        Verdict::Inconclusive
    };
    Judgement { estimate, interval, verdict }
}

/// Whether no change at all lies outside the interval, but for a chance.
fn surely_changed(badness: &[f64], estimate: f64, chance: f64, random: &mut Random) -> bool {
    let interval = interval(badness, chance, random);
    if estimate > 0.0 { interval.low > 0.0 } else { interval.high < 0.0 }
}

/// Rounds after which the verdict is looked at: `rounds`, then twice as many each time, and at last `most`.
pub(super) fn looks(rounds: u32, most: u32) -> Vec<u32> {
    let doubled = std::iter::successors(Some(rounds), |rounds| rounds.checked_mul(2));
    let mut looks: Vec<u32> = doubled.take_while(|rounds| *rounds < most).collect();
    looks.push(most.max(rounds));
    looks
}

/// About how many rounds an inconclusive metric needs for its interval to leave out the threshold, if its noise and its
/// estimate stay; `None` where no number would do.
pub(super) fn needed(judgement: &Judgement, threshold: f64, rounds: usize) -> Option<u32> {
    let half = (judgement.interval.high - judgement.interval.low) / 2.0;
    let gap = (threshold - judgement.estimate).abs();
    let rounds = f64::from(u32::try_from(rounds).ok()?);
    let needed = (rounds * (half / gap) * (half / gap)).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just bounded")]
    (1.0..=1e4).contains(&needed).then_some(needed as u32)
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { threshold: 0.05, noise: 0.02 };

    fn verdict(centre: f64, spread: f64, limits: Limits) -> Verdict {
        let values: Vec<f64> = (-5..=5).map(|step| centre + spread * f64::from(step) / 5.0).collect();
        judge(&values, limits, chance(5, 2), &mut Random::seeded(1)).verdict
    }

    #[test]
    fn verdict_follows_from_estimate_and_interval() {
        for (centre, spread, expected) in [
            (0.10, 0.02, Verdict::Regression),
            (0.10, 0.30, Verdict::Inconclusive),
            (0.00, 0.02, Verdict::NoRegression),
            (0.03, 0.01, Verdict::NoRegression),
            (0.051, 0.01, Verdict::Regression),
            (0.04, 0.04, Verdict::Inconclusive),
            (0.00, 0.30, Verdict::Inconclusive),
            (-0.03, 0.01, Verdict::NoRegression),
            (-0.10, 0.02, Verdict::Improvement),
            (-0.60, 0.90, Verdict::NoRegression),
        ] {
            assert_eq!(verdict(centre, spread, LIMITS), expected, "{centre} ± {spread}");
        }
    }

    #[test]
    fn change_within_the_noise_of_the_machine_is_no_alarm() {
        let noisy = Limits { noise: 0.15, ..LIMITS };
        assert_eq!(verdict(0.10, 0.02, noisy), Verdict::Inconclusive);
        assert_eq!(verdict(0.20, 0.02, noisy), Verdict::Regression);
    }

    #[test]
    fn worst_metric_decides_and_none_is_inconclusive() {
        use Verdict::{Improvement, Inconclusive, NoRegression, Regression};
        assert_eq!(Verdict::worst([Improvement, NoRegression]).exit(), Exit::Ok);
        assert_eq!(Verdict::worst([Inconclusive, Improvement]).exit(), Exit::Inconclusive);
        assert_eq!(Verdict::worst([Inconclusive, Regression, NoRegression]).exit(), Exit::Regression);
        assert_eq!(Verdict::worst([]), Inconclusive);
    }

    #[test]
    fn looks_double_until_the_last() {
        assert_eq!(looks(10, 20), [10, 20]);
        assert_eq!(looks(10, 50), [10, 20, 40, 50]);
        assert_eq!(looks(10, 10), [10]);
        assert_eq!(looks(10, 3), [10]);
    }

    #[test]
    fn missing_rounds_grow_with_the_square_of_the_width() {
        let judgement = |estimate, half| Judgement {
            estimate,
            interval: Interval { low: estimate - half, high: estimate + half },
            verdict: Verdict::Inconclusive,
        };
        assert_eq!(needed(&judgement(0.01, 0.08), 0.05, 10), Some(40));
        assert_eq!(needed(&judgement(0.05, 0.08), 0.05, 10), None);
        assert_eq!(needed(&Judgement { interval: Interval::UNKNOWN, ..judgement(0.0, 0.1) }, 0.05, 2), None);
    }
}

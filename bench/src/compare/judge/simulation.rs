//! Whole comparisons on simulated machines: how often equal builds alarm, and how often a slower one is found.

use super::super::statistics::noise;
use super::*;

/// Metrics that decide by default.
const METRICS: usize = 5;
/// Rounds by default: for the noise, at the first look, at the last.
const ROUNDS: (usize, u32, u32) = (4, 10, 20);

/// A machine whose every value is the true one times something log-normal, times what changes slowly.
struct SimulatedMachine {
    random: Random,
    /// Spread of one value against the next.
    spread: f64,
    /// Growth from one turn to the next.
    drift: f64,
    /// What changes slowly and meets all metrics alike.
    mood: f64,
}

impl SimulatedMachine {
    fn new(seed: u64, spread: f64, drift: f64) -> Self {
        Self { random: Random::seeded(seed), spread, drift, mood: 0.0 }
    }

    /// Badness of all metrics in one round, A B B A, where B is worse by `slower`.
    fn round(&mut self, slower: f64) -> [f64; METRICS] {
        let mut sums = [0.0; METRICS];
        for (turn, sign) in [-0.5, 0.5, 0.5, -0.5].into_iter().enumerate() {
            self.mood = 0.8 * self.mood + 0.3 * self.spread * self.random.normal();
            let steady = self.mood + self.drift * f64::from(u32::try_from(turn).unwrap());
            for sum in &mut sums {
                *sum += sign * (steady + self.spread * self.random.normal() + if sign > 0.0 { slower } else { 0.0 });
            }
        }
        sums
    }

    /// A whole comparison, as the command makes it.
    fn compare(&mut self, slower: f64) -> Verdict {
        let threshold = 0.05_f64.ln_1p();
        let (noise_rounds, rounds, most) = ROUNDS;
        let calm: Vec<[f64; METRICS]> = (0..noise_rounds).map(|_| self.round(0.0)).collect();
        let looks = looks(rounds, most);
        let mut seen: Vec<[f64; METRICS]> = Vec::new();
        let mut verdict = Verdict::Inconclusive;
        for look in &looks {
            seen.resize_with(usize::try_from(*look).unwrap(), || self.round(slower));
            verdict = Verdict::worst((0..METRICS).map(|metric| {
                let of = |rounds: &[[f64; METRICS]]| rounds.iter().map(|round| round[metric]).collect::<Vec<f64>>();
                let noise = noise(&of(&calm), seen.len(), &mut self.random);
                let limits = Limits { threshold, noise };
                judge(&of(&seen), limits, chance(METRICS, looks.len()), &mut self.random).verdict
            }));
            if verdict != Verdict::Inconclusive {
                break;
            }
        }
        verdict
    }
}

/// How many of `comparisons` end with a regression, and how many without knowing.
fn outcomes(comparisons: u64, spread: f64, slower: f64) -> (usize, usize) {
    let verdicts: Vec<Verdict> =
        (0..comparisons).map(|seed| SimulatedMachine::new(seed, spread, 0.01).compare(slower)).collect();
    let number = |wanted: Verdict| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    (number(Verdict::Regression), number(Verdict::Inconclusive))
}

#[test]
fn equal_builds_do_not_alarm() {
    for (comparisons, spread) in [(1_000, 0.05), (300, 0.02), (300, 0.10)] {
        let (alarms, _) = outcomes(comparisons, spread, 0.0);
        assert!(alarms as u64 * 100 < comparisons, "{alarms} of {comparisons} with a spread of {spread}");
    }
}

#[test]
fn equal_builds_pass_on_a_quiet_machine() {
    let (alarms, inconclusive) = outcomes(100, 0.03, 0.0);
    assert!(alarms == 0 && inconclusive <= 2, "{alarms} alarms, {inconclusive} inconclusive");
}

#[test]
fn build_that_is_a_tenth_slower_is_found() {
    for (spread, least) in [(0.05, 48), (0.08, 40)] {
        let (found, _) = outcomes(50, spread, 0.10_f64.ln_1p());
        assert!(found >= least, "{found} of 50 with a spread of {spread}");
    }
}

#[test]
fn much_noise_is_inconclusive_rather_than_wrong() {
    let (alarms, inconclusive) = outcomes(100, 0.30, 0.0);
    assert!(alarms <= 1 && inconclusive >= 95, "{alarms} alarms, {inconclusive} inconclusive");
}

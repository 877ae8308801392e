//! Delay that varies from frame to frame.

use std::time::Duration;

use super::profile::JitterDistribution;
use super::random::Random;

/// Standard deviations on either side of the mean that fit between no jitter and the most.
const SIGMAS: f64 = 3.0;

/// A delay from zero to `most`, of which each has to do with the one before.
#[derive(Debug, Clone)]
pub(super) struct Jitter {
    random: Random,
    distribution: JitterDistribution,
    most: Duration,
    /// Of two neighbours, 0 to 1.
    correlation: f64,
    /// Standard normal at any time; an autoregressive process of order 1.
    state: f64,
}

impl Jitter {
    pub(super) fn new(mut random: Random, distribution: JitterDistribution, most: Duration, correlation: f64) -> Self {
        let state = random.normal();
        Self { random, distribution, most, correlation, state }
    }

    /// The delay of the next frame.
    pub(super) fn next(&mut self) -> Duration {
        if self.most.is_zero() {
            return Duration::ZERO;
        }
        let fresh = (1.0 - self.correlation * self.correlation).sqrt();
        self.state = self.correlation * self.state + fresh * self.random.normal();
        let share = match self.distribution {
            JitterDistribution::Uniform => normal_share(self.state),
            JitterDistribution::Normal => (self.state / SIGMAS + 1.0) / 2.0,
        };
        self.most.mul_f64(share.clamp(0.0, 1.0))
    }
}

/// The share of a standard normal distribution below `value`, to 0.00014 (Bowling and others, 2009).
fn normal_share(value: f64) -> f64 {
    1.0 / (1.0 + (-(0.070_565_992 * value.powi(3) + 1.5976 * value)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(distribution: JitterDistribution, correlation: f64) -> Vec<f64> {
        let mut jitter = Jitter::new(Random::new(5, "jitter"), distribution, Duration::from_secs(1), correlation);
        (0..100_000).map(|_| jitter.next().as_secs_f64()).collect()
    }

    fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
        let count = u32::try_from(values.len()).unwrap();
        values.sum::<f64>() / f64::from(count)
    }

    #[test]
    fn uniform_jitter_is_spread_evenly_whatever_its_correlation() {
        for correlation in [0.0, 0.9] {
            let sample = sample(JitterDistribution::Uniform, correlation);
            for bound in [0.1, 0.5, 0.9] {
                let below = mean(sample.iter().map(|value| f64::from(u8::from(*value < bound))));
                assert!((below - bound).abs() < 0.03, "{correlation} {bound}: {below}");
            }
        }
    }

    #[test]
    fn normal_jitter_keeps_to_the_middle_and_within_its_bounds() {
        let sample = sample(JitterDistribution::Normal, 0.0);
        let deviation = mean(sample.iter().map(|value| (value - 0.5).powi(2))).sqrt();
        assert!((deviation - 1.0 / 6.0).abs() < 0.01, "{deviation}");
        assert!(sample.iter().all(|value| (0.0..=1.0).contains(value)));
    }

    #[test]
    fn neighbours_are_as_alike_as_wanted() {
        let likeness = |correlation| {
            let sample = sample(JitterDistribution::Normal, correlation);
            let products = sample.iter().zip(&sample[1..]).map(|(a, b)| (a - 0.5) * (b - 0.5));
            mean(products) * 36.0
        };
        assert!(likeness(0.0).abs() < 0.05, "{}", likeness(0.0));
        assert!((likeness(0.9) - 0.9).abs() < 0.05, "{}", likeness(0.9));
    }
}

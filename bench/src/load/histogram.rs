//! Durations of any number in bounded memory, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// Binary digits that count: values are at most 1/64 too high.
const DIGITS: u32 = 6;
/// Steps for each power of two.
const STEPS: u64 = 1 << DIGITS;
/// Powers of two: up to 2^41 ns, 36 minutes; longer ones count as that.
const POWERS: u64 = 36;

/// How often each duration occurred; 18 KiB.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<AtomicU64>,
    highest: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: (0..STEPS * POWERS).map(|_| AtomicU64::new(0)).collect(), highest: AtomicU64::new(0) }
    }
}

/// Times of many events in milliseconds, each that which this share of them did not exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// How many events there were.
    pub(crate) count: u64,
    /// The median.
    pub(crate) p50: f64,
    /// 90 %.
    pub(crate) p90: f64,
    /// 99 %.
    pub(crate) p99: f64,
    /// The longest.
    pub(crate) max: f64,
}

impl Histogram {
    /// Notes one event.
    pub(crate) fn note(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let last = self.counts.len().saturating_sub(1);
        if let Some(count) = self.counts.get(step(nanoseconds).min(last)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.highest.fetch_max(nanoseconds, Ordering::Relaxed);
    }

    /// Forgets what was noted until now.
    pub(crate) fn clear(&self) {
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        self.highest.store(0, Ordering::Relaxed);
    }

    /// Sums up what was noted until now.
    pub(crate) fn percentiles(&self) -> Percentiles {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count = counts.iter().sum();
        let highest = self.highest.load(Ordering::Relaxed);
        let at = |percent: u64| milliseconds(quantile(&counts, count, percent).min(highest));
        Percentiles { count, p50: at(50), p90: at(90), p99: at(99), max: milliseconds(highest) }
    }
}

/// The highest value of the step in which this percentage of all events is reached; 0 without events.
fn quantile(counts: &[u64], count: u64, percent: u64) -> u64 {
    let rank = (count * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let reached = counts.iter().position(|step| {
        seen += step;
        seen >= rank
    });
    reached.map_or(0, highest_of)
}

/// The step of a value: below [`STEPS`] each value has its own, above each power of two has as many.
fn step(value: u64) -> usize {
    let power = value.checked_ilog2().unwrap_or(0).saturating_sub(DIGITS);
    let step = u64::from(power) * STEPS + (value >> power);
    usize::try_from(step).unwrap_or(usize::MAX)
}

/// The highest value of a step.
fn highest_of(step: usize) -> u64 {
    let step = u64::try_from(step).unwrap_or(u64::MAX);
    let power = (step / STEPS).saturating_sub(1);
    ((step - power * STEPS + 1) << power) - 1
}

/// Nanoseconds as milliseconds.
fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_its_step() {
        for value in (0..5000).chain((13..41).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 12_345])) {
            let highest = highest_of(step(value));
            assert!(value <= highest && highest - value <= value / STEPS, "{value} {highest}");
        }
    }

    #[test]
    fn percentiles_of_a_row() {
        let histogram = Histogram::default();
        assert_eq!(histogram.percentiles(), Percentiles::default());
        (1..=1000).for_each(|milliseconds| histogram.note(Duration::from_millis(milliseconds)));
        let Percentiles { count, p50, p90, p99, max } = histogram.percentiles();
        assert_eq!(count, 1000);
        for (found, exact) in [(p50, 500.0), (p90, 900.0), (p99, 990.0), (max, 1000.0)] {
            assert!((exact..=exact * 1.016).contains(&found), "{found} for {exact}");
        }
    }

    #[test]
    fn longest_durations_fit() {
        let histogram = Histogram::default();
        histogram.note(Duration::MAX);
        assert_eq!(histogram.percentiles().count, 1);
        histogram.clear();
        assert_eq!(histogram.percentiles(), Percentiles::default());
    }
}

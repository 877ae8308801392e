//! The arithmetic of a comparison: no clock, no randomness but what it is given.
//!
//! One round (A B B A) gives one logarithm of a ratio, free of what drifts steadily over its four turns. How far the
//! mean over the rounds can be trusted is found by the bootstrap: rounds are drawn again and again from those that were
//! measured. The studentised form (bootstrap-t; Efron and Tibshirani, An Introduction to the Bootstrap, chapter 12)
//! keeps its promise with ten rounds, where the plain percentiles are too narrow.

use adit_netem::random::Random;

/// Samples that are drawn for each one expected beyond the end of an interval.
const DRAWS_BEYOND: f64 = 15.0;
/// Samples that are drawn at least.
const LEAST_DRAWS: f64 = 1_000.0;
/// Samples that are drawn at most; an interval that would need more is as wide as these make it.
const MOST_DRAWS: f64 = 1_000_000.0;

/// What lies between two bounds; either may be infinite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    /// The interval of which nothing is known.
    pub(super) const UNKNOWN: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };
}

/// Mean of some values; 0 of none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / count(values).max(1.0)
}

/// The interval that holds the true mean but for a chance of `outside` on each side.
///
/// It is infinite where the values are too few for that chance, as samples of one value repeated cannot be told from
/// it.
pub(super) fn interval(values: &[f64], outside: f64, random: &mut Random) -> Interval {
    if values.len() < 2 {
        return Interval::UNKNOWN;
    }
    let number = count(values);
    let (middle, spread) = moments(values.iter().copied(), number);
    if spread <= 0.0 {
        return Interval { low: middle, high: middle };
    }
    let draws = (DRAWS_BEYOND / outside).clamp(LEAST_DRAWS, MOST_DRAWS).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between the bounds above")]
    let draws = draws as usize;
    let mut drawn = vec![0.0; values.len()];
    let mut distances: Vec<f64> = Vec::with_capacity(draws);
    for _ in 0..draws {
        drawn.fill_with(|| one_of(values, random));
        let (mean, deviation) = moments(drawn.iter().copied(), number);
        distances.push(distance(mean - middle, deviation));
    }
    let [upper, lower] = ends(&mut distances, outside);
    Interval { low: middle - upper * spread, high: middle - lower * spread }
}

/// The largest of the means of as many values that equal builds have, but for a chance of 5 %, seen from their centre.
///
/// `values` are the logarithms that equal builds had; `rounds` is how many of them a comparison has.
pub(crate) fn noise(values: &[f64], rounds: usize, random: &mut Random) -> f64 {
    const DRAWS: usize = 4_000;
    const WITHIN: f64 = 0.95;
    let (number, middle) = (count(values), mean(values));
    if values.len() < 2 || rounds == 0 {
        return middle.abs();
    }
    // Values scatter less about their own mean than about the true one.
    let scale = (number / (number - 1.0)).sqrt();
    let mut drawn = vec![0.0; rounds];
    let mut sizes: Vec<f64> = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        drawn.fill_with(|| one_of(values, random));
        sizes.push(((mean(&drawn) - middle) * scale).abs());
    }
    sizes.sort_by(f64::total_cmp);
    let spread = sizes.get(place(WITHIN, sizes.len())).copied().unwrap_or_default();
    spread.max(middle.abs())
}

/// One of some values, each as likely as the others; 0 of none.
fn one_of(values: &[f64], random: &mut Random) -> f64 {
    let place = (u128::from(random.draw()) * values.len() as u128) >> 64;
    usize::try_from(place).ok().and_then(|place| values.get(place)).copied().unwrap_or_default()
}

/// Distance of a drawn mean from the middle in units of the deviation of what was drawn.
fn distance(from_middle: f64, deviation: f64) -> f64 {
    // A sample of one value repeated: rounding alone keeps its deviation from 0.
    if deviation > from_middle.abs() * 1e-9 {
        return from_middle / deviation;
    }
    if from_middle == 0.0 { 0.0 } else { from_middle.signum() * f64::INFINITY }
}

/// The upper and the lower end of distances, with a share of `outside` beyond each.
fn ends(distances: &mut [f64], outside: f64) -> [f64; 2] {
    distances.sort_by(f64::total_cmp);
    let last = distances.len().saturating_sub(1);
    let beyond = last - place(1.0 - outside, distances.len());
    let at = |place: usize| distances.get(place).copied().unwrap_or(f64::INFINITY);
    [at(last - beyond), at(beyond)]
}

/// Where the value stands below which `share` of `number` sorted values are.
fn place(share: f64, number: usize) -> usize {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let exact = share * number as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    let place = exact.ceil().max(1.0) as usize;
    place.min(number.max(1)) - 1
}

/// Mean and standard deviation.
fn moments(values: impl Iterator<Item = f64> + Clone, number: f64) -> (f64, f64) {
    if number < 2.0 {
        return (values.sum(), 0.0);
    }
    let mean = values.clone().sum::<f64>() / number;
    let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / (number - 1.0)).sqrt())
}

fn count(values: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let count = values.len() as f64;
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_interval() {
        let values = [0.01, 0.02, -0.01, 0.03, 0.0, 0.015];
        let [first, second] = [7, 7].map(|seed| interval(&values, 0.025, &mut Random::seeded(seed)));
        assert_eq!(first, second);
        assert_ne!(first, interval(&values, 0.025, &mut Random::seeded(8)));
    }

    #[test]
    fn interval_holds_the_true_mean_as_often_as_it_says() {
        let mut random = Random::seeded(1);
        for rounds in [8, 10, 20] {
            let held = (0..1_000).filter(|_| {
                let values: Vec<f64> = (0..rounds).map(|_| 0.1 + 0.05 * random.normal()).collect();
                let interval = interval(&values, 0.025, &mut random);
                interval.low <= 0.1 && 0.1 <= interval.high
            });
            let held = held.count();
            assert!((925..=975).contains(&held), "{rounds} rounds: {held} of 1,000");
        }
    }

    #[test]
    fn interval_is_as_wide_as_students() {
        let mut random = Random::seeded(2);
        let mut widths: Vec<f64> = (0..201)
            .map(|_| {
                let values: Vec<f64> = (0..10).map(|_| random.normal()).collect();
                let interval = interval(&values, 0.025, &mut random);
                (interval.high - interval.low) / 2.0 / (moments(values.iter().copied(), 10.0).1 / 10.0_f64.sqrt())
            })
            .collect();
        widths.sort_by(f64::total_cmp);
        // The quantile of Student's distribution with 9 degrees of freedom is 2.26.
        assert!((2.0..2.6).contains(&widths[100]), "{}", widths[100]);
    }

    #[test]
    fn interval_narrows_with_more_rounds_and_widens_with_more_certainty() {
        let mut random = Random::seeded(3);
        let values: Vec<f64> = (0..40).map(|_| random.normal()).collect();
        let mut width = |values: &[f64], outside| {
            let interval = interval(values, outside, &mut random);
            interval.high - interval.low
        };
        assert!(width(&values, 0.025) < width(&values[..10], 0.025));
        assert!(width(&values, 0.025) < width(&values, 0.001));
    }

    #[test]
    fn few_values_tell_nothing() {
        let mut random = Random::seeded(4);
        assert_eq!(interval(&[], 0.025, &mut random), Interval::UNKNOWN);
        assert_eq!(interval(&[0.1], 0.025, &mut random), Interval::UNKNOWN);
        let two = interval(&[0.1, 0.2], 0.025, &mut random);
        assert!(two.low.is_infinite() && two.high.is_infinite(), "{two:?}");
    }

    #[test]
    fn equal_values_have_an_interval_of_one_point() {
        let interval = interval(&[0.25; 5], 0.025, &mut Random::seeded(5));
        assert_eq!(interval, Interval { low: 0.25, high: 0.25 });
    }

    #[test]
    fn noise_shrinks_with_the_rounds_and_is_never_less_than_what_was_seen() {
        let mut random = Random::seeded(6);
        let values: Vec<f64> = (0..200).map(|_| 0.05 * random.normal()).collect();
        let ten = noise(&values, 10, &mut random);
        // 1.96 standard errors.
        assert!((0.027..0.035).contains(&ten), "{ten}");
        assert!(noise(&values, 20, &mut random) < ten);
        assert!((noise(&[0.04, 0.04], 10, &mut random) - 0.04).abs() < 1e-12);
        assert!((noise(&[-0.03], 10, &mut random) - 0.03).abs() < 1e-12);
        assert!(noise(&[], 10, &mut random).abs() < f64::EPSILON);
    }
}

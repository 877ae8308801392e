//! The highest rate that loses no more than permitted, found by trying.

use anyhow::Result;

/// Where a search begins and when it ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// First rate tried, per second.
    pub first: f64,
    /// Factor between rates until one holds and the next does not.
    pub stride: f64,
    /// The search ends when the lowest rate that failed is at most this factor above the highest that held.
    pub precision: f64,
    /// No rate above this is tried.
    pub ceiling: f64,
}

/// Tries rates until the highest that holds is known; 0 where none does.
///
/// A rate that fails is tried once more, as one pause of the machine is not the tunnel's limit.
///
/// # Errors
/// Fails where `holds` does.
pub fn highest_rate(search: Search, mut holds: impl FnMut(f64) -> Result<bool>) -> Result<f64> {
    let mut twice = |rate: f64| Ok::<_, anyhow::Error>(holds(rate)? || holds(rate)?);
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut rate = search.first.min(search.ceiling);
    while low == 0.0 || high == f64::INFINITY {
        if twice(rate)? {
            low = rate;
            if rate >= search.ceiling {
                return Ok(rate);
            }
            rate = if high.is_finite() { rate } else { (rate * search.stride).min(search.ceiling) };
        } else {
            high = rate;
            rate = if low > 0.0 { rate } else { rate / search.stride };
            if rate < 1.0 {
                return Ok(0.0);
            }
        }
    }
    while high / low > search.precision {
        let middle = (low * high).sqrt();
        if twice(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search = Search { first: 1_000.0, stride: 1.5, precision: 1.03, ceiling: 1e6 };

    #[test]
    fn limit_is_found_from_below_and_from_above() {
        for limit in [3.0, 900.0, 1_000.0, 1_010.0, 77_000.0] {
            let found = highest_rate(SEARCH, |rate| Ok(rate <= limit)).unwrap();
            assert!(found <= limit && found * 1.03 >= limit, "{found} for {limit}");
        }
    }

    #[test]
    fn ceiling_and_hopelessness_end_the_search() {
        let found = highest_rate(SEARCH, |_| Ok(true)).unwrap();
        assert!((found - 1e6).abs() < 1e-9);
        assert!(highest_rate(SEARCH, |_| Ok(false)).unwrap() < 1.0);
    }

    #[test]
    fn single_disturbance_does_not_lower_the_result() {
        let mut tries = 0;
        let found = highest_rate(SEARCH, |rate| {
            tries += 1;
            Ok(rate <= 5_000.0 && tries != 1)
        });
        assert!(found.unwrap() > 4_800.0);
    }
}

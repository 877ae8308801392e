//! How much some of the sessions can send: the highest rate at which nearly every echo is answered, found by search.

use std::time::Duration;

use anyhow::Result;

/// How long each rate is tried.
pub(super) const TRIAL: Duration = Duration::from_secs(1);
/// The first rate, in echo requests per second.
const FIRST: f64 = 500.0;
/// Highest rate that is tried.
const LAST: f64 = 1_000_000.0;
/// Least share of echoes answered, and of those wanted that were sent in time, at a rate that counts.
const SUFFICIENT: f64 = 0.999;
/// Ratio of neighbouring rates at which the search ends.
const PRECISION: f64 = 1.1;

/// What came of one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trial {
    /// Requests sent in the time of a trial, of those wanted.
    pub(super) sent: f64,
    /// Requests answered, of those sent.
    pub(super) answered: f64,
}

impl Trial {
    fn is_good(self) -> bool {
        self.sent >= SUFFICIENT && self.answered >= SUFFICIENT
    }
}

/// Doubles the rate until it is too high, and then halves the distance until neighbours are close; `None` if not even
/// the first is good.
///
/// # Errors
/// Where a trial fails.
pub(super) fn search(mut attempt: impl FnMut(f64) -> Result<Trial>) -> Result<Option<f64>> {
    let (mut good, mut bad) = (None, None);
    loop {
        let rate = match (good, bad) {
            (None, None) => FIRST,
            (None, Some(_)) => return Ok(None),
            (Some(good), None) if good >= LAST => return Ok(Some(good)),
            (Some(good), None) => good * 2.0,
            (Some(good), Some(bad)) if bad / good < PRECISION => return Ok(Some(good)),
            (Some(good), Some(bad)) => f64::sqrt(good * bad),
        };
        let found = if attempt(rate)?.is_good() { &mut good } else { &mut bad };
        *found = Some(rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a search finds where rates up to `limit` are good, and how many trials it takes.
    fn found(limit: f64) -> (Option<f64>, u32) {
        let mut trials = 0;
        let attempt = |rate| {
            trials += 1;
            Ok(Trial { sent: 1.0, answered: if rate <= limit { 1.0 } else { 0.9 } })
        };
        (search(attempt).unwrap(), trials)
    }

    #[test]
    fn highest_rate_is_found_in_a_few_trials() {
        for limit in [1_000.0, 7_777.0, 123_456.0] {
            let (rate, trials) = found(limit);
            let rate = rate.unwrap();
            assert!(rate <= limit && rate * PRECISION > limit && trials < 16, "{rate} in {trials}");
        }
    }

    #[test]
    fn rates_have_bounds() {
        assert_eq!(found(10.0), (None, 1));
        assert!(found(f64::INFINITY).0.unwrap() >= LAST);
    }

    #[test]
    fn a_rate_that_was_not_reached_does_not_count() {
        assert!(!Trial { sent: 0.9, answered: 1.0 }.is_good());
        assert!(!Trial { sent: 1.0, answered: 0.99 }.is_good());
    }
}

//! How long to wait between attempts, and how long an attempt may take.

use std::time::{Duration, Instant};

/// How long the first attempt may take; later ones get more, for a slow path.
pub(super) const FIRST_ATTEMPT: Duration = Duration::from_secs(3);
/// How long an attempt may take at most.
pub(super) const LONGEST_ATTEMPT: Duration = Duration::from_secs(10);
/// Longest wait before the first retry.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest wait between retries while an outage is young.
const QUICK_RETRY: Duration = Duration::from_secs(2);
/// How long an outage is young.
const QUICK_PERIOD: Duration = Duration::from_secs(5 * 60);
/// Longest wait between retries of an old outage.
const SLOW_RETRY: Duration = Duration::from_secs(30);

/// Doubles the wait between retries, more patiently as the outage grows old.
#[derive(Debug)]
pub(super) struct BackOff {
    wait: Duration,
    attempt: Duration,
    outage_began: Instant,
}

impl BackOff {
    pub(super) fn new(now: Instant) -> Self {
        Self { wait: FIRST_RETRY, attempt: FIRST_ATTEMPT, outage_began: now }
    }

    /// How long the next attempt may take.
    pub(super) fn attempt_timeout(&self) -> Duration {
        self.attempt
    }

    /// An attempt ran out of time, so the next gets half as much again.
    pub(super) fn lengthen_attempts(&mut self) {
        self.attempt = (self.attempt * 3 / 2).min(LONGEST_ATTEMPT);
    }

    /// When to try again after an attempt that `began` then and failed `now`. `random` is any number, for the jitter.
    ///
    /// The wait counts from the attempt's beginning: one that hung has waited enough, and a gateway that is back should
    /// not wait for both.
    pub(super) fn retry_at(&mut self, began: Instant, random: u32, now: Instant) -> Instant {
        let wait = self.next_wait(now);
        (began + jitter(wait, random)).max(now + jitter(FIRST_RETRY, random))
    }

    /// Takes the outage for a young one from now on.
    pub(super) fn stay_quick(&mut self, now: Instant) {
        self.outage_began = now;
    }

    fn next_wait(&mut self, now: Instant) -> Duration {
        let young = now.saturating_duration_since(self.outage_began) < QUICK_PERIOD;
        let cap = if young { QUICK_RETRY } else { SLOW_RETRY };
        let wait = self.wait.min(cap);
        self.wait = wait.saturating_mul(2).min(cap);
        wait
    }
}

/// Between half of `longest` and all of it, so that many clients of one gateway do not come back in step.
pub(super) fn jitter(longest: Duration, random: u32) -> Duration {
    let half = longest / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_never_goes_below_half_or_above_the_whole() {
        let whole = Duration::from_secs(2);
        assert_eq!(jitter(whole, 0), whole / 2);
        assert_eq!(jitter(whole, u32::MAX), whole);
        assert!(jitter(whole, u32::MAX / 3) < whole);
    }

    #[test]
    fn old_outage_is_retried_every_30_s_at_most() {
        let now = Instant::now();
        let mut back_off = BackOff::new(now);
        for _ in 0..10 {
            back_off.next_wait(now);
        }
        let late = now + QUICK_PERIOD;
        let waits: Vec<u64> = (0..6).map(|_| back_off.next_wait(late).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn attempts_get_half_as_much_time_again_up_to_10_s() {
        let mut back_off = BackOff::new(Instant::now());
        let mut timeouts = Vec::new();
        for _ in 0..5 {
            timeouts.push(back_off.attempt_timeout().as_millis());
            back_off.lengthen_attempts();
        }
        assert_eq!(timeouts, [3000, 4500, 6750, 10000, 10000]);
    }

    #[test]
    fn attempt_that_hung_has_waited_enough() {
        let began = Instant::now();
        let mut back_off = BackOff::new(began);
        for _ in 0..5 {
            back_off.retry_at(began, u32::MAX, began);
        }
        let failed = began + LONGEST_ATTEMPT;
        assert_eq!(back_off.retry_at(began, u32::MAX, failed), failed + FIRST_RETRY);
    }
}

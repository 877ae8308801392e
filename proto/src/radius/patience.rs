//! How long one server is waited for: the same request again after 2, 4 and 8 seconds, until patience ends.

use std::time::{Duration, Instant};

/// First pause before a request is sent again; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Time without an answer after which a server counts as silent: the pauses after three sendings.
pub const USUAL: Duration = Duration::from_secs(14);

/// When a request is due to be sent, and when to give up.
#[derive(Debug, Clone)]
pub struct Patience {
    due: Instant,
    pause: Duration,
    end: Instant,
}

impl Patience {
    /// Begins to wait; the request is due at once.
    #[must_use]
    pub fn new(now: Instant, patience: Duration) -> Self {
        Self { due: now, pause: FIRST_PAUSE, end: later(now, patience) }
    }

    /// Whether the request is to be sent now; says so once each time.
    pub fn poll_transmit(&mut self, now: Instant) -> bool {
        if now < self.due || self.is_over(now) {
            return false;
        }
        self.due = later(now, self.pause);
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        true
    }

    /// When something is to be done next.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.due.min(self.end)
    }

    /// Whether the server counts as silent.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }
}

/// A clock that cannot go on stands still.
pub(super) fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the request is sent, in seconds after the beginning, and when the server is given up.
    fn course(patience: Duration) -> (Vec<u64>, u64) {
        let begun = crate::radius::servers::tests::some_instant();
        let (mut now, mut waiting, mut sent) = (begun, Patience::new(begun, patience), Vec::new());
        while !waiting.is_over(now) {
            if waiting.poll_transmit(now) {
                sent.push((now - begun).as_secs());
            }
            assert!(!waiting.poll_transmit(now), "it is sent once at a time");
            assert!(waiting.poll_timeout() > now, "a timeout that was handled is gone");
            now = waiting.poll_timeout();
        }
        (sent, (now - begun).as_secs())
    }

    #[test]
    fn request_is_sent_again_after_2_and_4_seconds_and_given_up_8_later() {
        assert_eq!(course(USUAL), (vec![0, 2, 6], 14));
    }

    #[test]
    fn longer_patience_sends_every_8_seconds_and_shorter_one_ends_early() {
        assert_eq!(course(Duration::from_secs(31)), (vec![0, 2, 6, 14, 22, 30], 31));
        assert_eq!(course(Duration::from_secs(1)), (vec![0], 1));
    }
}

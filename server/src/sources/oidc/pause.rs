//! How long somebody who failed is not asked again.

use std::time::Duration;

use tokio::time::Instant;

/// After the first failure.
const SHORTEST: Duration = Duration::from_secs(1);
/// After many.
const LONGEST: Duration = Duration::from_secs(60);

/// The pause after failures in a row: each doubles it.
#[derive(Debug, Default)]
pub(super) struct Pause {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    until: Instant,
    length: Duration,
    reason: String,
}

impl Pause {
    /// Why nobody should be asked now, if so.
    pub(super) fn reason(&self, now: Instant) -> Option<&str> {
        let current = self.current.as_ref().filter(|current| now < current.until)?;
        Some(&current.reason)
    }

    /// It failed once more.
    pub(super) fn failed(&mut self, reason: String, now: Instant) {
        let length = self.current.take().map_or(SHORTEST, |before| (before.length * 2).min(LONGEST));
        self.current = Some(Current { until: now + length, length, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_say_why() {
        let mut pause = Pause::default();
        let mut now = Instant::now();
        assert_eq!(pause.reason(now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            pause.failed("no route".to_owned(), now);
            let end = now + Duration::from_secs(seconds);
            assert_eq!(pause.reason(end - Duration::from_millis(1)), Some("no route"), "{seconds}");
            assert_eq!(pause.reason(end), None, "{seconds}");
            now = end;
        }
    }
}

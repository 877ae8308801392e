//! When to ask again for an offload that the kernel refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the offload is not asked for after a refusal; doubled by each refusal that follows soon. What the kernel
/// refuses depends on the route, and routes change.
pub const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// In `again`: the offload works.
const WORKS: u64 = 0;
/// In `again`: the offload is not wanted.
const UNWANTED: u64 = u64::MAX;

/// Whether an offload is asked for. Any number of threads may use it; the clock is read only while there is a pause.
#[derive(Debug)]
pub struct OffloadPause {
    start: Instant,
    /// [`WORKS`], [`UNWANTED`], or when to ask again, in milliseconds since `start`.
    again: AtomicU64,
    /// The last pause, in milliseconds.
    pause: AtomicU64,
    /// When the last pause ended, in milliseconds since `start`.
    ended: AtomicU64,
}

impl OffloadPause {
    /// An offload that is asked for until it is refused, or never if it is not `wanted`.
    pub fn new(wanted: bool, now: Instant) -> Self {
        let again = if wanted { WORKS } else { UNWANTED };
        Self { start: now, again: again.into(), pause: 0.into(), ended: 0.into() }
    }

    /// Says whether the next call may ask for the offload.
    pub fn is_due(&self, clock: impl FnOnce() -> Instant) -> bool {
        match self.again.load(Ordering::Relaxed) {
            WORKS => true,
            UNWANTED => false,
            again => self.millis_at(clock()) >= again,
        }
    }

    /// The kernel did as it was asked. Says whether that is news: it had refused before.
    pub fn handle_success(&self) -> bool {
        let is_news = self.again.load(Ordering::Relaxed) != WORKS;
        if is_news {
            self.again.store(WORKS, Ordering::Relaxed);
        }
        is_news
    }

    /// The kernel refused; returns how long it is not asked again.
    pub fn handle_refusal(&self, now: Instant) -> Duration {
        let now = self.millis_at(now);
        let last = Duration::from_millis(self.pause.load(Ordering::Relaxed));
        let worked = Duration::from_millis(now.saturating_sub(self.ended.load(Ordering::Relaxed)));
        let pause = if last.is_zero() || worked > last { FIRST_PAUSE } else { (2 * last).min(LONGEST_PAUSE) };
        let again = now.saturating_add(millis(pause));
        self.pause.store(millis(pause), Ordering::Relaxed);
        self.ended.store(again, Ordering::Relaxed);
        self.again.store(again, Ordering::Relaxed);
        pause
    }

    fn millis_at(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.start))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("no process runs for 500 million years")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "only differences from it matter")]
    fn start() -> Instant {
        Instant::now()
    }

    fn no_clock() -> Instant {
        unreachable!("the clock is not read")
    }

    #[test]
    fn pauses_double_up_to_ten_minutes_and_begin_anew_once_it_worked_for_long() {
        let start = start();
        let offload = OffloadPause::new(true, start);
        assert!(offload.is_due(no_clock));
        let mut now = start + Duration::from_millis(5);
        for seconds in [30, 60, 120, 240, 480, 600, 600] {
            assert_eq!(offload.handle_refusal(now).as_secs(), seconds);
            assert!(!offload.is_due(|| now));
            now += Duration::from_secs(seconds);
            assert!(!offload.is_due(|| now - Duration::from_millis(1)) && offload.is_due(|| now));
        }
        assert!(offload.handle_success(), "it had refused");
        assert!(offload.is_due(no_clock) && !offload.handle_success());
        // As long as the last pause is not long enough.
        assert_eq!(offload.handle_refusal(now + Duration::from_secs(600)).as_secs(), 600);
        assert_eq!(offload.handle_refusal(now + Duration::from_secs(2000)).as_secs(), 30);
    }

    #[test]
    fn where_it_is_not_wanted_it_is_never_due() {
        assert!(!OffloadPause::new(false, start()).is_due(no_clock));
    }
}

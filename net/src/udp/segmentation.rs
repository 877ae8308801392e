//! Whether the kernel is asked to segment what a socket sends, after it once refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long datagrams go one by one after a refusal; doubled by each that follows soon. What the kernel refuses depends
/// on the route, and routes change.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A kernel that segments.
const WORKS: u64 = 0;
/// Segmentation is not wanted.
const UNWANTED: u64 = u64::MAX;

/// What is known of the kernel's will. The clock is read once a call while datagrams go one by one, and never while it
/// segments.
#[derive(Debug)]
pub(super) struct Segmentation {
    made: Instant,
    /// [`WORKS`], [`UNWANTED`], or when it is tried again, in milliseconds since `made`.
    again: AtomicU64,
    /// The last pause, and when it ended, in milliseconds.
    pause: AtomicU64,
    ended: AtomicU64,
}

impl Segmentation {
    pub(super) fn new(wanted: bool) -> Self {
        let again = if wanted { WORKS } else { UNWANTED };
        Self { made: Instant::now(), again: again.into(), pause: 0.into(), ended: 0.into() }
    }

    /// Whether the next call may leave it to the kernel.
    pub(super) fn is_due(&self) -> bool {
        match self.again.load(Ordering::Relaxed) {
            WORKS => true,
            UNWANTED => false,
            again => self.now() >= again,
        }
    }

    /// The kernel segmented.
    pub(super) fn handle_success(&self) {
        if self.again.load(Ordering::Relaxed) != WORKS {
            self.again.store(WORKS, Ordering::Relaxed);
            tracing::info!("the kernel segments UDP again");
        }
    }

    /// The kernel refused to segment; returns how long it is not asked again.
    pub(super) fn handle_refusal(&self) -> Duration {
        let pause = self.refuse_at(self.now());
        if pause == FIRST_PAUSE {
            tracing::warn!(?pause, "the kernel refuses to segment UDP; datagrams go one by one for a while");
        }
        pause
    }

    fn refuse_at(&self, now: u64) -> Duration {
        let last = Duration::from_millis(self.pause.load(Ordering::Relaxed));
        let worked = Duration::from_millis(now.saturating_sub(self.ended.load(Ordering::Relaxed)));
        let pause = if last.is_zero() || worked > last { FIRST_PAUSE } else { (2 * last).min(LONGEST_PAUSE) };
        let again = now.saturating_add(millis(pause));
        self.pause.store(millis(pause), Ordering::Relaxed);
        self.ended.store(again, Ordering::Relaxed);
        self.again.store(again, Ordering::Relaxed);
        pause
    }

    fn now(&self) -> u64 {
        millis(self.made.elapsed())
    }

    #[cfg(test)]
    pub(super) fn works(&self) -> bool {
        self.again.load(Ordering::Relaxed) == WORKS
    }

    /// Ends the pause.
    #[cfg(test)]
    pub(super) fn end_pause(&self) {
        assert!(!self.works());
        self.again.store(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_minutes_and_begin_anew_once_it_worked_for_long() {
        let segmentation = Segmentation::new(true);
        assert!(segmentation.is_due());
        let mut now = 5;
        for seconds in [30, 60, 120, 240, 480, 600, 600] {
            assert_eq!(segmentation.refuse_at(now).as_secs(), seconds);
            assert!(!segmentation.is_due());
            now += seconds * 1000;
        }
        segmentation.handle_success();
        assert!(segmentation.is_due());
        // As long as the last pause is not long enough.
        assert_eq!(segmentation.refuse_at(now + 600_000).as_secs(), 600);
        assert_eq!(segmentation.refuse_at(now + 2_000_000).as_secs(), 30);
    }

    #[test]
    fn where_it_is_not_wanted_it_is_never_due() {
        assert!(!Segmentation::new(false).is_due());
    }
}

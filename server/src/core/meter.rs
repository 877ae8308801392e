//! How much a session moves: its rates, and whether its user's quota is used up.
//!
//! Most sessions have neither, and pay nothing for those that have. Workers share a meter without a lock; one that
//! finds it changed meanwhile looks again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use adit_proto::policy::Rate;

/// How much may pass at once after a pause, as time at the full rate: TCP needs about its round-trip time.
const BURST: Duration = Duration::from_millis(200);
/// A rate that bounds nothing.
const UNLIMITED: u64 = 0;

/// Bounds of what one session moves in each direction.
#[derive(Debug)]
pub struct Meter {
    start: Instant,
    up: Bucket,
    down: Bucket,
    blocked: AtomicBool,
}

/// Lets packets of a direction pass at a rate, on average.
#[derive(Debug)]
struct Bucket {
    /// In bits a second.
    rate: AtomicU64,
    /// When all that passed would be through at the rate, in nanoseconds since the start.
    through: AtomicU64,
}

impl Meter {
    /// A meter with these rates, from `start` on.
    pub fn new(up: Option<Rate>, down: Option<Rate>, start: Instant) -> Self {
        Self { start, up: Bucket::new(up), down: Bucket::new(down), blocked: AtomicBool::new(false) }
    }

    /// Sets other rates.
    pub fn set_rates(&self, up: Option<Rate>, down: Option<Rate>) {
        self.up.set_rate(up);
        self.down.set_rate(down);
    }

    /// Lets nothing pass, or what the rates let.
    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether so many bytes may go to the gateway.
    ///
    /// # Errors
    /// Why they must be dropped.
    pub fn admit_up(&self, bytes: usize) -> Result<(), DropReason> {
        self.admit(&self.up, bytes)
    }

    /// Whether so many bytes may go to the client.
    ///
    /// # Errors
    /// Why they must be dropped.
    pub fn admit_down(&self, bytes: usize) -> Result<(), DropReason> {
        self.admit(&self.down, bytes)
    }

    fn admit(&self, bucket: &Bucket, bytes: usize) -> Result<(), DropReason> {
        if self.blocked.load(Ordering::Relaxed) {
            return Err(DropReason::QuotaUsedUp);
        }
        // A session without a rate in this direction reads no clock.
        match bucket.rate.load(Ordering::Relaxed) {
            UNLIMITED => Ok(()),
            rate => bucket.take(bytes, rate, nanoseconds(self.start.elapsed())),
        }
    }
}

impl Bucket {
    fn new(rate: Option<Rate>) -> Self {
        let bucket = Self { rate: AtomicU64::new(UNLIMITED), through: AtomicU64::new(0) };
        bucket.set_rate(rate);
        bucket
    }

    fn set_rate(&self, rate: Option<Rate>) {
        self.rate.store(rate.map_or(UNLIMITED, Rate::bits_per_second), Ordering::Relaxed);
    }

    /// Lets bytes pass, all of them or none. What comes while anything may pass does so however large it is: the longer
    /// the pause after it.
    fn take(&self, bytes: usize, rate: u64, now: u64) -> Result<(), DropReason> {
        let takes = u128::from(bytes as u64) * 8 * 1_000_000_000 / u128::from(rate);
        let takes = u64::try_from(takes).unwrap_or(u64::MAX);
        let mut through = self.through.load(Ordering::Relaxed);
        loop {
            if through > now.saturating_add(nanoseconds(BURST)) {
                return Err(DropReason::RateExceeded);
            }
            let next = through.max(now).saturating_add(takes);
            match self.through.compare_exchange_weak(through, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => through = changed,
            }
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bucket(rate: &str) -> (Bucket, u64) {
        let rate: Rate = rate.parse().unwrap();
        (Bucket::new(Some(rate)), rate.bits_per_second())
    }

    /// Bytes of 1,500-byte packets that pass when one comes each microsecond of some seconds.
    fn passes(bucket: &Bucket, rate: u64, seconds: std::ops::Range<u64>) -> u64 {
        let moments = (seconds.start * SECOND..seconds.end * SECOND).step_by(10_000);
        moments.filter(|now| bucket.take(1500, rate, *now).is_ok()).count() as u64 * 1500
    }

    #[test]
    fn rate_is_kept_to_and_a_pause_earns_one_burst() {
        let (bucket, rate) = bucket("80 Mbit/s");
        let (first, second) = (passes(&bucket, rate, 0..1), passes(&bucket, rate, 1..2));
        assert!((12_000_000..12_010_000).contains(&first), "10 MB and the burst of 2 MB: {first}");
        assert!((9_990_000..=10_010_000).contains(&second), "{second}");
        let after_pause = passes(&bucket, rate, 60..61);
        assert!((12_000_000..12_010_000).contains(&after_pause), "{after_pause}");
    }

    #[test]
    fn superpacket_passes_whole_and_is_paid_for() {
        let (bucket, rate) = bucket("8 kbit/s");
        assert_eq!(bucket.take(64_000, rate, 0), Ok(()));
        // It takes 64 seconds, of which the last 0.2 are the burst.
        assert_eq!(bucket.take(1, rate, 63 * SECOND), Err(DropReason::RateExceeded));
        assert_eq!(bucket.take(1, rate, 64 * SECOND), Ok(()));
    }

    #[test]
    fn directions_are_apart_and_a_block_holds_for_both() {
        let meter = Meter::new("8 kbit/s".parse().ok(), None, Instant::now());
        assert_eq!(meter.admit_up(1_000_000), Ok(()));
        assert_eq!(meter.admit_up(1), Err(DropReason::RateExceeded));
        assert_eq!(meter.admit_down(1_000_000), Ok(()));
        assert_eq!(meter.admit_down(1_000_000), Ok(()));
        meter.set_blocked(true);
        assert_eq!(meter.admit_down(1), Err(DropReason::QuotaUsedUp));
        meter.set_blocked(false);
        meter.set_rates(None, None);
        assert_eq!((meter.admit_up(1), meter.admit_down(1)), (Ok(()), Ok(())));
    }
}

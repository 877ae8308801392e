//! When an SA must be replaced.

use std::time::{Duration, Instant};

use crate::sealing::counter::Usage;

/// Packets after which a key is replaced: 2^28 of at most 2^11 bytes keep an attacker's advantage below 2^-57 (RFC 9001
/// appendix B.1.1).
const PACKETS: u64 = 1 << 28;

/// Cipher blocks after which a key is replaced, for packets beyond 2^11 bytes: 2^28 packets of 2^11 bytes.
const BLOCKS: u64 = 1 << 35;

/// Time after which a key is replaced.
const AFTER: Duration = Duration::from_secs(3600);

/// The part of a limit that jitter may take off, as a divisor.
const JITTER_DIVISOR: u64 = 8;

/// What replaces an SA, whichever comes first. Hard limits are the suite's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyPolicy {
    /// Packets sealed.
    pub packets: u64,
    /// Cipher blocks of 16 bytes sealed.
    pub blocks: u64,
    /// Time since the SA was made.
    pub after: Duration,
}

impl Default for RekeyPolicy {
    /// 2^28 packets, 2^35 blocks, or one hour.
    fn default() -> Self {
        Self { packets: PACKETS, blocks: BLOCKS, after: AFTER }
    }
}

/// The limits of one SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    packets: u64,
    blocks: u64,
    ends: Instant,
}

impl Lifetime {
    /// Sets the limits of an SA made at `now`. Each is cut by up to an eighth, by the random number `jitter`, so that
    /// sessions that began together do not rekey together.
    pub fn new(policy: &RekeyPolicy, jitter: u16, now: Instant) -> Self {
        let cut = |limit: u64| {
            let most = limit / JITTER_DIVISOR;
            let part = u128::from(most).saturating_mul(u128::from(jitter)) >> u16::BITS;
            limit.saturating_sub(u64::try_from(part).expect("a part of a 64-bit number has 64 bits"))
        };
        let after = Duration::from_nanos(cut(u64::try_from(policy.after.as_nanos()).unwrap_or(u64::MAX)));
        let ends = now.checked_add(after).unwrap_or(now);
        Self { packets: cut(policy.packets), blocks: cut(policy.blocks), ends }
    }

    /// Whether it is time for the next epoch.
    pub fn is_over(&self, usage: Usage, now: Instant) -> bool {
        usage.packets >= self.packets || usage.blocks >= self.blocks || now >= self.ends
    }

    /// When it is over at the latest.
    pub const fn ends(&self) -> Instant {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::test_cipher::start;

    #[test]
    fn each_limit_ends_the_lifetime() {
        let now = start();
        let life = Lifetime::new(&RekeyPolicy::default(), 0, now);
        let fresh = Usage::default();
        assert!(!life.is_over(fresh, now));
        assert!(!life.is_over(Usage { packets: (1 << 28) - 1, blocks: (1 << 35) - 1 }, now));
        assert!(life.is_over(Usage { packets: 1 << 28, blocks: 0 }, now));
        assert!(life.is_over(Usage { packets: 0, blocks: 1 << 35 }, now));
        assert!(!life.is_over(fresh, now + Duration::from_secs(3599)));
        assert!(life.is_over(fresh, now + Duration::from_secs(3600)));
        assert_eq!(life.ends(), now + Duration::from_secs(3600));
    }

    #[test]
    fn jitter_only_shortens_and_by_an_eighth_at_most() {
        let now = start();
        let policy = RekeyPolicy::default();
        let least = Lifetime::new(&policy, u16::MAX, now);
        for jitter in [1, 500, 32_768, u16::MAX] {
            let life = Lifetime::new(&policy, jitter, now);
            assert!(life.packets < policy.packets && life.packets >= policy.packets / 8 * 7);
            assert!(life.ends >= least.ends && life.ends <= now + policy.after);
        }
        assert!(least.ends >= now + policy.after / 8 * 7);
    }

    #[test]
    fn unreachable_limits_do_not_overflow() {
        let policy = RekeyPolicy { packets: u64::MAX, blocks: u64::MAX, after: Duration::from_secs(86_400) };
        let life = Lifetime::new(&policy, u16::MAX, start());
        assert!(!life.is_over(Usage { packets: 1 << 40, blocks: 1 << 50 }, start()));
    }
}

//! Sequence numbers, given out in blocks to any number of workers.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a key has sealed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Sequence numbers given out.
    pub packets: u64,
    /// Cipher blocks of 16 bytes given out.
    pub blocks: u64,
}

/// The next sequence number of a key, and the cipher blocks promised so far.
///
/// Each number is given out once: the read-modify-writes of one atomic have one order whatever the memory ordering, so
/// relaxed ones do. Neither atomic ever passes its limit, so neither can wrap.
pub struct Counter {
    next: AtomicU64,
    blocks: AtomicU64,
    last: u64,
    max_blocks: u64,
}

impl Counter {
    /// Starts at 1, the first number that ESP may send (RFC 4303 section 3.3.3). The last one is `last`.
    pub const fn new(last: u64, max_blocks: u64) -> Self {
        Self { next: AtomicU64::new(1), blocks: AtomicU64::new(0), last, max_blocks }
    }

    /// Takes `packets` numbers for `blocks` cipher blocks in all; `None` if either would pass its limit.
    pub fn reserve(&self, packets: u32, blocks: u64) -> Option<Range<u64>> {
        let after = |used: u64| used.checked_add(blocks).filter(|&used| used <= self.max_blocks);
        self.blocks.try_update(Ordering::Relaxed, Ordering::Relaxed, after).ok()?;
        let after = |next: u64| next.checked_add(u64::from(packets)).filter(|&end| end.saturating_sub(1) <= self.last);
        let start = self.next.try_update(Ordering::Relaxed, Ordering::Relaxed, after).ok()?;
        Some(start..start.saturating_add(u64::from(packets)))
    }

    /// What was given out so far.
    pub fn usage(&self) -> Usage {
        let packets = self.next.load(Ordering::Relaxed).saturating_sub(1);
        Usage { packets, blocks: self.blocks.load(Ordering::Relaxed) }
    }

    #[cfg(test)]
    pub(crate) fn skip_to(&self, sequence: u64) {
        self.next.store(sequence, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_start_at_one_and_follow_each_other() {
        let counter = Counter::new(100, u64::MAX);
        assert_eq!(counter.reserve(3, 6), Some(1..4));
        assert_eq!(counter.reserve(0, 0), Some(4..4));
        assert_eq!(counter.reserve(1, 2), Some(4..5));
        assert_eq!(counter.usage(), Usage { packets: 4, blocks: 8 });
    }

    #[test]
    fn last_number_is_given_out_and_none_after_it() {
        let counter = Counter::new(10, u64::MAX);
        counter.skip_to(9);
        assert_eq!(counter.reserve(3, 0), None, "a block that does not fit whole is refused whole");
        assert_eq!(counter.reserve(2, 0), Some(9..11));
        for _ in 0..3 {
            assert_eq!(counter.reserve(1, 0), None);
        }
        let counter = Counter::new(u64::MAX, u64::MAX);
        counter.skip_to(u64::MAX);
        assert_eq!(counter.reserve(1, 0), None, "no wrap at the end of all numbers");
    }

    #[test]
    fn blocks_have_a_limit_of_their_own() {
        let counter = Counter::new(u64::MAX, 100);
        assert!(counter.reserve(1, 60).is_some());
        assert_eq!(counter.reserve(1, 60), None);
        assert!(counter.reserve(1, 40).is_some());
        assert_eq!(counter.reserve(1, u64::MAX), None);
        assert_eq!(counter.usage().packets, 2);
    }

    #[test]
    fn workers_never_get_the_same_number() {
        let counter = Counter::new(u64::MAX, u64::MAX);
        let worker = |size: u32| (0..500).flat_map(|_| counter.reserve(size, 1)).flatten().collect::<Vec<u64>>();
        let (a, b, c) = std::thread::scope(|scope| {
            let (a, b) = (scope.spawn(|| worker(45)), scope.spawn(|| worker(7)));
            (a.join().unwrap(), b.join().unwrap(), worker(1))
        });
        let all: HashSet<u64> = [a, b, c].concat().into_iter().collect();
        assert_eq!(all.len(), 500 * (45 + 7 + 1));
        assert_eq!(all.iter().max(), Some(&(500 * 53)));
    }
}

//! The buckets: each is one moment, at which it will be full again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// What a bucket counts. Accounts and places are fingerprints, so that a key has a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Failures of strangers from a network.
    Network(IpNet),
    /// Links begun from a network.
    Links(IpNet),
    /// Links begun by a device.
    LinksOf(u64),
    /// Failures of an account from one stranger's address.
    Pair(u64, u64),
    /// Failures of an account from all strangers.
    Strangers(u64),
    /// Failures of an account from a place that it is known to log in from.
    Known(u64, u64),
    /// Wrong codes of an account, from strangers or from known places.
    Codes(u64, bool),
}

impl Key {
    /// The account it is about.
    pub(super) fn account(&self) -> Option<u64> {
        match self {
            Self::Network(_) | Self::Links(_) | Self::LinksOf(_) => None,
            Self::Pair(account, _) | Self::Strangers(account) | Self::Known(account, _) | Self::Codes(account, _) => {
                Some(*account)
            }
        }
    }
}

/// How a bucket fills up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Tokens of a full bucket.
    tokens: u32,
    /// How long one more takes.
    refill: Duration,
    /// Whether an empty bucket still gives tokens, the more slowly the emptier it is.
    yields: bool,
}

/// The longest time between two tries out of an empty bucket that yields, and the shortest, which doubles with each.
const SLOWEST: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// As many tokens may be owed: a debt beyond that would not slow anybody more.
const DEEPEST: u32 = 6;

impl Rate {
    /// Failures of a network of each size, the smallest first.
    pub(super) const FAILURES: [Self; 3] = [Self::new(10, 60), Self::new(50, 12), Self::new(200, 3)];
    /// Links of a network of each size.
    pub(super) const LINKS: [Self; 3] = [Self::new(60, 2), Self::new(120, 1), Self::new(240, 1)];
    pub(super) const LINKS_OF: Self = Self::new(20, 30);
    pub(super) const PAIR: Self = Self::new(5, 60);
    pub(super) const STRANGERS: Self = Self { yields: true, ..Self::new(20, 180) };
    pub(super) const KNOWN: Self = Self::new(10, 30);
    pub(super) const CODES: Self = Self::new(10, 360);

    const fn new(tokens: u32, refill: u64) -> Self {
        Self { tokens, refill: Duration::from_secs(refill), yields: false }
    }

    /// How far from full a bucket may be that still gives a token.
    fn reach(&self) -> Duration {
        self.refill.saturating_mul(self.tokens.saturating_sub(1))
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    full_at: Instant,
    last_taken: Instant,
    failed: Option<FailedPassword>,
}

/// The password that was tried last, and failed.
#[derive(Debug, Clone, Copy)]
struct FailedPassword {
    print: u64,
    first: Instant,
    last: Instant,
    /// Whether it was wrong; else it may be right the next time.
    is_wrong: bool,
}

/// How long a password that may be right is not tried again.
const PAUSE: Duration = Duration::from_secs(15);

impl Bucket {
    /// How long it takes until this gives a token.
    fn wait(&self, rate: &Rate, now: Instant) -> Duration {
        let missing = self.full_at.saturating_duration_since(now);
        let over = missing.saturating_sub(rate.reach());
        if over.is_zero() || !rate.yields {
            return over;
        }
        let owed = u32::try_from(over.as_nanos().div_ceil(rate.refill.as_nanos().max(1))).unwrap_or(u32::MAX);
        let delay = FIRST_DELAY.saturating_mul(1 << owed.min(DEEPEST)).min(SLOWEST);
        delay.saturating_sub(now.saturating_duration_since(self.last_taken))
    }
}

/// All buckets that are not full.
pub(super) struct Buckets {
    room: usize,
    map: BTreeMap<Key, Bucket>,
}

impl Buckets {
    pub(super) fn new(room: usize) -> Self {
        Self { room: room.max(1), map: BTreeMap::new() }
    }

    pub(super) fn wait(&self, key: &Key, rate: &Rate, now: Instant) -> Duration {
        self.map.get(key).map_or(Duration::ZERO, |bucket| bucket.wait(rate, now))
    }

    pub(super) fn take(&mut self, key: Key, rate: &Rate, now: Instant) {
        if self.map.len() >= self.room && !self.map.contains_key(&key) {
            self.make_room(now);
        }
        let bucket = self.map.entry(key).or_insert(Bucket { full_at: now, last_taken: now, failed: None });
        let deepest = now.checked_add(rate.refill.saturating_mul(rate.tokens.saturating_add(DEEPEST)));
        let full_at = bucket.full_at.max(now).checked_add(rate.refill).unwrap_or(now);
        bucket.full_at = deepest.map_or(full_at, |deepest| full_at.min(deepest));
        bucket.last_taken = now;
    }

    pub(super) fn give_back(&mut self, key: &Key, rate: &Rate) {
        if let Some(bucket) = self.map.get_mut(key) {
            bucket.full_at = bucket.full_at.checked_sub(rate.refill).unwrap_or(bucket.full_at);
        }
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.map.remove(key);
    }

    /// Whether a password is refused here without being tried, since it failed within `memory`.
    pub(super) fn is_refused(&self, key: &Key, print: u64, now: Instant, memory: Duration) -> bool {
        let failed = self.failed(key, print, now, memory);
        failed.is_some_and(|failed| failed.is_wrong || now.saturating_duration_since(failed.last) < PAUSE)
    }

    /// Remembers a password that failed. True if it was remembered already.
    pub(super) fn remember(&mut self, key: &Key, print: u64, is_wrong: bool, now: Instant, memory: Duration) -> bool {
        let known = self.failed(key, print, now, memory);
        let first = known.map_or(now, |known| known.first);
        if let Some(bucket) = self.map.get_mut(key) {
            bucket.failed = Some(FailedPassword { print, first, last: now, is_wrong });
        }
        known.is_some()
    }

    /// What is known of a password that failed here within `memory`.
    fn failed(&self, key: &Key, print: u64, now: Instant, memory: Duration) -> Option<FailedPassword> {
        let failed = self.map.get(key).and_then(|bucket| bucket.failed);
        failed.filter(|failed| failed.print == print && now.saturating_duration_since(failed.first) < memory)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.map.keys()
    }

    /// Keeps the buckets of these keys. True if there were others.
    pub(super) fn retain(&mut self, keep: impl Fn(&Key) -> bool) -> bool {
        let before = self.map.len();
        self.map.retain(|key, _| keep(key));
        self.map.len() < before
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Forgets the buckets that are full, and if these are few, the fullest quarter of all. That takes as long as there
    /// are buckets, but only once in a quarter of as many tries.
    fn make_room(&mut self, now: Instant) {
        self.map.retain(|_, bucket| bucket.full_at > now);
        if self.map.len() < self.room.saturating_sub(self.room / 4) {
            return;
        }
        let mut moments: Vec<Instant> = self.map.values().map(|bucket| bucket.full_at).collect();
        let quarter = moments.len() / 4;
        if quarter < moments.len() {
            let cut = *moments.select_nth_unstable(quarter).1;
            self.map.retain(|_, bucket| bucket.full_at > cut);
        }
    }
}

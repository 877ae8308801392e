//! A probe, repeated until it is answered or given up.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use zeroize::ZeroizeOnDrop;

use crate::esp::probe::{Kind, NONCE_LEN, Probe};

/// Bytes of the secret that nonces are made from.
pub const SEED_LEN: usize = 32;

/// How long an answer may take, all repetitions together.
///
/// With [`super::ACTIVE_INTERVAL`] before it, a failure shows after 2.5 s at most.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

/// The pause between repetitions: five probes before it is given up, so that loss alone rarely ends a path.
pub(super) const REPEAT_AFTER: Duration = Duration::from_millis(300);

/// Nonces nobody else can guess: SHA-256 of a secret seed, their use and a count, cut.
#[derive(ZeroizeOnDrop)]
pub(in crate::esp) struct Nonces {
    #[zeroize(skip)]
    usage: &'static [u8],
    seed: [u8; SEED_LEN],
    drawn: u64,
}

impl Nonces {
    /// Nonces of different use differ, even of the same seed.
    pub(in crate::esp) const fn new(usage: &'static [u8], seed: [u8; SEED_LEN]) -> Self {
        Self { usage, seed, drawn: 0 }
    }

    pub(in crate::esp) fn draw(&mut self) -> [u8; NONCE_LEN] {
        self.drawn = self.drawn.wrapping_add(1);
        let input = Sha256::new().chain_update(self.seed).chain_update(self.usage);
        let digest = input.chain_update(self.drawn.to_be_bytes()).finalize();
        *digest.first_chunk().expect("a digest is longer than a nonce")
    }
}

/// What a series does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    Send(Probe),
    GiveUp,
}

/// One nonce, sent a few times.
pub(super) struct Series {
    nonce: [u8; NONCE_LEN],
    first: Instant,
    next: Instant,
    pause: Duration,
    is_repeated: bool,
}

impl Series {
    /// Begins at `now`; the first [`Self::step`] sends, and one after `first_pause` sends again.
    pub(super) const fn new(nonce: [u8; NONCE_LEN], first_pause: Duration, now: Instant) -> Self {
        Self { nonce, first: now, next: now, pause: first_pause, is_repeated: false }
    }

    /// When it began.
    pub(super) const fn first(&self) -> Instant {
        self.first
    }

    /// The round trip, if the answer came now and there is no doubt which probe it is to.
    pub(super) fn round_trip(&self, now: Instant) -> Option<Duration> {
        (!self.is_repeated).then(|| now.saturating_duration_since(self.first))
    }

    pub(super) fn is_answered_by(&self, probe: &Probe) -> bool {
        probe.kind == Kind::Answer && probe.nonce == self.nonce
    }

    /// When the next step is due.
    pub(super) fn next_at(&self) -> Instant {
        self.next.min(self.give_up_at())
    }

    pub(super) fn step(&mut self, now: Instant) -> Step {
        if now >= self.give_up_at() {
            return Step::GiveUp;
        }
        if now < self.next {
            return Step::Wait;
        }
        self.is_repeated = now > self.first;
        self.next = now.checked_add(self.pause).unwrap_or(now);
        self.pause = REPEAT_AFTER;
        Step::Send(Probe { kind: Kind::Request, nonce: self.nonce })
    }

    fn give_up_at(&self) -> Instant {
        self.first.checked_add(ANSWER_WITHIN).unwrap_or(self.first)
    }
}

//! One size, tried until it is answered or given up.

use std::time::{Duration, Instant};

use crate::esp::probe::{Kind, NONCE_LEN, Probe};

/// How often a size is tried at least, so that loss alone rarely rules it out (RFC 8899 section 5.1.2, MAX_PROBES).
pub(super) const TRIES: u32 = 4;

/// Answers to small probes that show that the path works: they are sent beside all tries but the first.
const SMALL_ANSWERS: u32 = TRIES - 1;

/// The pause between two tries: two round trips, within these bounds.
pub(super) const LEAST_PAUSE: Duration = Duration::from_millis(200);
pub(super) const MOST_PAUSE: Duration = Duration::from_millis(600);

/// After so long without any answer at all, a size is given up too: one that is only searched for soon, one that
/// passed before once a broken path would long be known as such ([`crate::esp::path::ANSWER_WITHIN`]).
const GIVE_UP_SEARCH: Duration = Duration::from_millis(1800);
pub(super) const GIVE_UP_ANYWAY: Duration = Duration::from_secs(10);

/// Why a size is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It may pass.
    Search,
    /// It passed before, or has to.
    Confirm,
}

/// What a trial does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    /// Sends a probe of the size, and behind it, once a try was not answered, a small one.
    Send {
        padded: Probe,
        small: Option<Probe>,
    },
    GiveUp,
}

/// One nonce for the size, and one for the small probes, sent a few times.
pub(super) struct Trial {
    size: u16,
    purpose: Purpose,
    nonce: [u8; NONCE_LEN],
    small_nonce: [u8; NONCE_LEN],
    first: Instant,
    pause: Duration,
    tries: u32,
    small_answers: u32,
    next: Instant,
}

impl Trial {
    /// Begins at `now`, on a path of this round trip if one is known; the first [`Self::step`] sends.
    pub(super) fn new(
        size: u16,
        purpose: Purpose,
        [nonce, small_nonce]: [[u8; NONCE_LEN]; 2],
        round_trip: Option<Duration>,
        now: Instant,
    ) -> Self {
        let pause = round_trip.unwrap_or_default().saturating_mul(2).clamp(LEAST_PAUSE, MOST_PAUSE);
        Self { size, purpose, nonce, small_nonce, first: now, pause, tries: 0, small_answers: 0, next: now }
    }

    pub(super) const fn size(&self) -> u16 {
        self.size
    }

    pub(super) const fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(super) fn is_answered_by(&self, probe: &Probe) -> bool {
        probe.kind == Kind::Answer && probe.nonce == self.nonce
    }

    /// Takes the answer to a small probe; false for any other.
    pub(super) fn take_small_answer(&mut self, probe: &Probe) -> bool {
        let is_ours = probe.kind == Kind::Answer && probe.nonce == self.small_nonce;
        self.small_answers = self.small_answers.saturating_add(u32::from(is_ours));
        is_ours
    }

    /// How long an answer that comes now took: at least a round trip.
    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.first)
    }

    /// When the next step is due.
    pub(super) const fn next_at(&self) -> Instant {
        self.next
    }

    pub(super) fn step(&mut self, now: Instant) -> Step {
        if now < self.next {
            return Step::Wait;
        }
        let patience = match self.purpose {
            Purpose::Search => GIVE_UP_SEARCH,
            Purpose::Confirm => GIVE_UP_ANYWAY,
        };
        let is_conclusive = self.small_answers >= SMALL_ANSWERS || self.elapsed(now) >= patience;
        if self.tries >= TRIES && is_conclusive {
            return Step::GiveUp;
        }
        let request = |nonce| Probe { kind: Kind::Request, nonce };
        let small = (self.tries > 0).then(|| request(self.small_nonce));
        self.tries = self.tries.saturating_add(1);
        self.next = now.checked_add(self.pause).unwrap_or(now);
        Step::Send { padded: request(self.nonce), small }
    }
}

//! One size, tried until it is answered or given up.

use std::time::{Duration, Instant};

use crate::esp::probe::{Kind, NONCE_LEN, Probe};

/// How often a size is tried, so that loss alone rarely rules it out (RFC 8899 section 5.1.2, MAX_PROBES).
pub(super) const TRIES: u32 = 3;

/// How long an answer to each try may take. All tries together take longer than a path that is up may leave a probe
/// unanswered ([`crate::esp::path::ANSWER_WITHIN`]), so that a broken path is not taken for a narrow one.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(600);

/// After so long without any answer at all, a size that passed before is given up too.
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
    Send(Probe),
    GiveUp,
}

/// One nonce, sent a few times with the same padding.
pub(super) struct Trial {
    size: u16,
    purpose: Purpose,
    nonce: [u8; NONCE_LEN],
    first: Instant,
    tries: u32,
    /// When the last answer may come.
    answer_by: Instant,
    next: Instant,
}

impl Trial {
    /// Begins at `now`; the first [`Self::step`] sends.
    pub(super) const fn new(size: u16, purpose: Purpose, nonce: [u8; NONCE_LEN], now: Instant) -> Self {
        Self { size, purpose, nonce, first: now, tries: 0, answer_by: now, next: now }
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

    /// When the next step is due.
    pub(super) const fn next_at(&self) -> Instant {
        self.next
    }

    /// `alive` is when another probe was answered last.
    pub(super) fn step(&mut self, alive: Option<Instant>, now: Instant) -> Step {
        if now < self.answer_by {
            return Step::Wait;
        }
        if self.tries < TRIES {
            self.tries = self.tries.saturating_add(1);
            self.answer_by = now.checked_add(ANSWER_WITHIN).unwrap_or(now);
            self.next = self.answer_by;
            return Step::Send(Probe { kind: Kind::Request, nonce: self.nonce });
        }
        let anyway_at = self.first.checked_add(GIVE_UP_ANYWAY).unwrap_or(self.first);
        let is_conclusive = self.purpose == Purpose::Search || alive > Some(self.first) || now >= anyway_at;
        if is_conclusive {
            return Step::GiveUp;
        }
        self.next = anyway_at;
        Step::Wait
    }
}

//! When an open session goes over to another connection: down to TLS when nothing is answered over UDP any more, and up
//! to QUIC again once that passes.
//!
//! The other connection is made beside the one in use, and asked for the session only once its gateway has proven who
//! it is. Until then nothing is lost by being wrong. While the owner makes a connection of its own that is to take the
//! place of the one in use, none is made here: a gateway is asked on one at a time.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Alone
//!     Alone --> Dialling: QUIC is doubted, or it is time to try QUIC
//!     Dialling --> Proven: the gateway has shown who it is
//!     Proven --> Asked: QUIC was doubted for long enough, or it is QUIC
//!     Asked --> Alone: the session has moved, or has not
//!     Dialling --> Alone: failed, or QUIC answers again
//!     Proven --> Over: the gateway is back after both had failed, and QUIC does not go on
//!     Over --> [*]
//!     Proven --> Alone: failed, or QUIC answers again
//!     Asked --> Alone: the owner makes a connection of its own, as in each other state
//! ```

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Transport;

/// How long QUIC must be doubted before the session moves to TLS.
pub const DOUBTED_FOR: Duration = Duration::from_millis(250);

/// How long TLS must have been proven before that: what QUIC answers at the same time, as after a host was too busy for
/// both, comes first.
const PROVEN_FOR: Duration = Duration::from_millis(300);

/// How long TLS must have been proven before the session is opened anew, where both had failed: QUIC, which is asked
/// once a second then, goes on if it was only cut off, and is told by a gateway that has started again.
const REOPENED_AFTER: Duration = Duration::from_secs(2);

/// Longest wait before TLS is dialled again that has failed beside a QUIC that is doubted; it doubles each time.
const FIRST_AGAIN: Duration = Duration::from_millis(500);
const LONGEST_AGAIN: Duration = Duration::from_secs(4);

/// When QUIC is tried first beside TLS: soon, since it may have lost no more than one packet.
const FIRST_TRY: Duration = Duration::from_secs(1);

/// Longest wait before QUIC is tried again; it doubles each time that was in vain.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A session that stayed on QUIC for so long had a sound one: what was waited before is forgotten.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// What the owner has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeEvent {
    /// Shake hands beside the connection in use, and no more.
    Dial(Transport),
    /// Ask for the session on the connection that was dialled. Packets go there once it is accepted.
    Ask,
    /// Drop the connection that was dialled.
    Drop,
    /// Open the session anew: the gateway is back after neither transport has passed, so nothing says that UDP is
    /// blocked. Both connections go, and nothing follows.
    Reopen,
}

/// How far the connection beside the one in use has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Alone,
    Dialling,
    Proven {
        since: Instant,
    },
    Asked,
    /// The session is opened anew, which ends this one.
    Over,
}

/// The connections of one open session over time.
#[derive(Debug)]
pub struct Change {
    current: Transport,
    since: Instant,
    beside: Beside,
    /// Whether the owner makes a connection of its own.
    is_held: bool,
    /// Since when QUIC, which is in use, leaves unanswered what it was asked.
    doubted: Option<Instant>,
    /// TLS has failed as well while QUIC was doubted.
    is_away: bool,
    /// The last wait before TLS was dialled again.
    again: Duration,
    /// When the other transport is dialled.
    dial_at: Option<Instant>,
    /// The last wait before QUIC was tried.
    wait: Option<Duration>,
    events: VecDeque<ChangeEvent>,
}

impl Change {
    /// A session that was opened over this.
    #[must_use]
    pub fn new(current: Transport, now: Instant) -> Self {
        Self {
            current,
            since: now,
            beside: Beside::Alone,
            is_held: false,
            doubted: None,
            is_away: false,
            again: Duration::ZERO,
            dial_at: (current == Transport::Tls).then(|| now + FIRST_TRY),
            wait: None,
            events: VecDeque::new(),
        }
    }

    /// What carries the session.
    #[must_use]
    pub fn current(&self) -> Transport {
        self.current
    }

    /// Whether the other connection was asked: the gateway may end the one in use at any moment.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.beside == Beside::Asked
    }

    /// The owner makes a connection of its own that is to take the place of the one in use, or no more. Meanwhile none
    /// is dialled or asked here.
    pub fn handle_hold(&mut self, is_held: bool, now: Instant) {
        if std::mem::replace(&mut self.is_held, is_held) == is_held {
            return;
        }
        if is_held && !matches!(self.beside, Beside::Alone | Beside::Over) {
            self.drop_other();
            self.dial_at = Some(now);
        }
        if !is_held && self.doubted.is_some() {
            self.dial_at.get_or_insert(now);
        }
        self.handle_timeout(now);
    }

    /// Whether QUIC, which is in use, leaves unanswered what it was asked.
    pub fn handle_doubt(&mut self, is_doubted: bool, now: Instant) {
        if self.current != Transport::Quic || self.doubted.is_some() == is_doubted {
            return;
        }
        self.doubted = is_doubted.then_some(now);
        match (is_doubted, self.beside) {
            (true, Beside::Alone) if !self.is_held => self.dial(),
            (false, Beside::Dialling | Beside::Proven { .. }) => self.drop_other(),
            (true, Beside::Alone) => {}
            (true, Beside::Dialling | Beside::Proven { .. } | Beside::Asked | Beside::Over) => {}
            (false, Beside::Alone | Beside::Asked | Beside::Over) => {}
        }
        if !is_doubted {
            (self.is_away, self.again, self.dial_at) = (false, Duration::ZERO, None);
        }
    }

    /// The gateway has proven who it is on the other connection.
    pub fn handle_proven(&mut self, now: Instant) {
        if self.beside != Beside::Dialling {
            return;
        }
        self.beside = Beside::Proven { since: now };
        self.ask_if_due(now);
    }

    /// The gateway has accepted the other connection, which is the one in use from now on. `random` is any number.
    pub fn handle_moved(&mut self, random: u32, now: Instant) {
        if self.beside != Beside::Asked {
            return;
        }
        let lasted = now.saturating_duration_since(self.since);
        self.current = self.current.other();
        (self.since, self.beside, self.doubted, self.dial_at) = (now, Beside::Alone, None, None);
        self.again = Duration::ZERO;
        if self.current == Transport::Tls {
            if lasted >= SOUND_AFTER {
                self.wait = None;
            }
            self.wait_longer(random, now);
        }
    }

    /// The other connection could not be made, or has ended. `random` is any number.
    pub fn handle_failed(&mut self, random: u32, now: Instant) {
        if matches!(self.beside, Beside::Alone | Beside::Over) {
            return;
        }
        self.beside = Beside::Alone;
        match self.current {
            Transport::Quic => {
                self.is_away = self.doubted.is_some();
                self.again = (self.again * 2).clamp(FIRST_AGAIN, LONGEST_AGAIN);
                self.dial_at = self.doubted.map(|_| now + jittered(self.again, random));
            }
            Transport::Tls => self.wait_longer(random, now),
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.beside == Beside::Alone && !self.is_held && self.dial_at.is_some_and(|at| now >= at) {
            self.dial();
        }
        self.ask_if_due(now);
    }

    /// When [`Self::handle_timeout`] must be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.beside {
            Beside::Alone => self.dial_at.filter(|_| !self.is_held),
            Beside::Proven { since } => self.ask_at(since),
            Beside::Dialling | Beside::Asked | Beside::Over => None,
        }
    }

    /// The next thing the owner must do.
    pub fn poll_event(&mut self) -> Option<ChangeEvent> {
        self.events.pop_front()
    }

    fn dial(&mut self) {
        self.dial_at = None;
        self.beside = Beside::Dialling;
        self.events.push_back(ChangeEvent::Dial(self.current.other()));
    }

    fn drop_other(&mut self) {
        self.beside = Beside::Alone;
        self.events.push_back(ChangeEvent::Drop);
    }

    /// When the connection that was proven then is asked: up at once, down only from a QUIC that was silent for long
    /// enough. Where both had failed, it shows that the gateway is back, for which QUIC has some time as well.
    fn ask_at(&self, proven: Instant) -> Option<Instant> {
        match self.current {
            Transport::Tls => Some(proven),
            Transport::Quic if self.is_away => self.doubted.map(|_| proven + REOPENED_AFTER),
            Transport::Quic => self.doubted.map(|since| (since + DOUBTED_FOR).max(proven + PROVEN_FOR)),
        }
    }

    fn ask_if_due(&mut self, now: Instant) {
        let Beside::Proven { since } = self.beside else { return };
        if self.ask_at(since).is_none_or(|at| now < at) {
            return;
        }
        let (beside, event) = match self.is_away {
            true => (Beside::Over, ChangeEvent::Reopen),
            false => (Beside::Asked, ChangeEvent::Ask),
        };
        self.beside = beside;
        self.events.push_back(event);
    }

    /// QUIC is tried later than the last time, so that a session does not go up and down all the time.
    fn wait_longer(&mut self, random: u32, now: Instant) {
        let wait = self.wait.map_or(FIRST_WAIT, |wait| (wait * 2).min(LONGEST_WAIT));
        self.wait = Some(wait);
        self.dial_at = Some(now + jittered(wait, random));
    }
}

/// Between half of a wait and all of it, so that many clients of one gateway do not come in step.
fn jittered(wait: Duration, random: u32) -> Duration {
    let half = wait / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

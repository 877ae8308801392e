//! How soon a host that moves is followed by another attempt.

use std::time::{Duration, Instant};

/// How long after the attempt that followed a move the next one may begin for the next move; it doubles each time. A
/// link that comes and goes must not have the gateway asked ten times a second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The same at most.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// A connection that has held for so long before the next move ends the pauses, and so does a host that stays where it
/// is for a while.
pub(super) const HELD_AFTER: Duration = Duration::from_secs(1);
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// Makes pauses between moves that are followed: none before the first one, growing ones while no connection holds.
#[derive(Debug, Default)]
pub(super) struct Following {
    pause: Duration,
    /// When a move was followed last.
    followed: Option<Instant>,
    /// Since when a connection leads somewhere, if the host has not moved since.
    held: Option<Instant>,
}

impl Following {
    /// The host has moved: when that is followed.
    pub(super) fn handle_move(&mut self, now: Instant) -> Instant {
        let is_since = |at: Option<Instant>, time| at.is_some_and(|at| now.saturating_duration_since(at) >= time);
        if is_since(self.held, HELD_AFTER) || is_since(self.followed, SETTLED_AFTER) {
            *self = Self::default();
        }
        self.held = None;
        self.followed.map_or(now, |followed| now.max(followed + self.pause))
    }

    /// The move is followed now.
    pub(super) fn note_followed(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.followed = Some(now);
    }

    /// There is a connection that leads somewhere.
    pub(super) fn note_held(&mut self, now: Instant) {
        self.held = Some(now);
    }
}

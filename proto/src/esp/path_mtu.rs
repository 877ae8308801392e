//! How large a datagram may be in one direction: path MTU discovery by padded probes, in the spirit of RFC 8899.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Stopped
//!     Stopped --> Searching: path is up, only the base is known to pass
//!     Stopped --> Confirming: path is up, more is known to pass
//!     Searching --> Settled: nothing left to try
//!     Settled --> Confirming: every second in use, or in doubt
//!     Settled --> Searching: every 10 minutes in use
//!     Confirming --> Settled: answered
//!     Confirming --> Searching: answered, but a search is not finished
//!     Confirming --> Confirming: not answered, back to the base, which is confirmed next
//!     Confirming --> Settled: the base is answered, and a search 5 s later, or it is not
//! ```
//!
//! All sizes are bytes of UDP payload, and multiples of [`packet::ALIGNMENT`], as every ESP datagram is. A search tries
//! its largest size first, which is one round trip on most paths, and then halves what lies between what passed and
//! what did not, down to [`RESOLUTION`]. ICMP is not needed and not listened to.
//!
//! That a size does not pass is believed once small probes that were sent beside it are answered: on a path that is
//! broken altogether, size is not what is wrong, and [`super::path::Path`] sees to that.

mod trial;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::packet;
use super::path::{Nonces, SEED_LEN};
use super::probe::{self, Kind, Probe};
use trial::{Purpose, Step, Trial};

/// What a search leaves open: the path passes less than that many bytes more than what was found.
pub const RESOLUTION: u16 = 8;

/// The pause between confirmations of the size in use. A size that no longer passes is left within two seconds so, and
/// a path that not even the base passes within three.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// The pause before larger sizes are tried again on a path in use (RFC 8899 section 5.1.1, PMTU_RAISE_TIMER).
pub const RAISE_AFTER: Duration = Duration::from_secs(600);

/// The pause between falling back to the base and the next search, so that a short disturbance is over by then.
const SEARCH_AFTER_FALL: Duration = Duration::from_secs(5);

/// The pause before a path that did not pass the base is tried again.
const RETRY_NARROW_AFTER: Duration = Duration::from_secs(60);

/// Doubt so soon after a size was confirmed or found wanting is not followed.
const DOUBT_PAUSE: Duration = Duration::from_millis(500);

/// Most bytes of UDP payload that IPv4 can carry.
const MAX_DATAGRAM: u16 = 65_507;

/// Bytes of the datagram of an unpadded probe.
const SMALL: u16 = 60;
const _: () = assert!(SMALL as usize == packet::sealed_len(probe::LEN));

/// A probe to send to the session's address, padded but for those that show whether the path works at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtuTransmit {
    /// Bytes of the datagram. It must not be fragmented.
    pub size: u16,
    /// What the dummy packet begins with.
    pub probe: Probe,
}

impl PathMtuTransmit {
    /// Bytes of the dummy packet that makes a datagram of that size, for [`Probe::encode_padded`].
    pub const fn content_len(&self) -> usize {
        packet::largest_inner(self.size as usize)
    }
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMtuEvent {
    /// The largest datagram from now on, in bytes; also that the path is no longer too narrow.
    Current(u16),
    /// Not even the base passes, though smaller datagrams do: another carrier has to take the packets.
    TooNarrow,
}

/// The largest datagram of one direction of a session.
pub struct PathMtu {
    nonces: Nonces,
    base: u16,
    ceiling: u16,
    current: u16,
    up: bool,
    narrow: bool,
    search: Option<Search>,
    trial: Option<Trial>,
    /// When something was last learnt about the current size.
    checked: Option<Instant>,
    sent: Option<Instant>,
    /// What the last answer took.
    round_trip: Option<Duration>,
    /// When the next search begins, and its largest size.
    next_search: Option<(Instant, u16)>,
    /// Probes of the trial under way, one padded and one small at most.
    transmits: VecDeque<PathMtuTransmit>,
    events: VecDeque<PathMtuEvent>,
}

/// A search between the current size and `end`.
#[derive(Debug, Clone, Copy)]
struct Search {
    /// Larger than what is still to be tried; a multiple of the alignment.
    end: u16,
    /// The largest size is tried before the middle.
    from_top: bool,
}

impl Search {
    const fn up_to(top: u16) -> Self {
        Self { end: top.saturating_add(ALIGNMENT), from_top: true }
    }

    /// The next size to try when `passes` is known to pass.
    fn next_size(&mut self, passes: u16) -> Option<u16> {
        let left = self.end.saturating_sub(passes);
        if std::mem::take(&mut self.from_top) && left > ALIGNMENT {
            return Some(self.end.saturating_sub(ALIGNMENT));
        }
        // Half of it, rounded up to the alignment.
        (left > RESOLUTION).then(|| passes.saturating_add(left.div_ceil(2 * ALIGNMENT).saturating_mul(ALIGNMENT)))
    }

    /// Datagrams of `size` do not pass.
    fn exclude(&mut self, size: u16) {
        let end = size.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT);
        // The largest size may be ruled out without being tried.
        self.from_top &= end >= self.end;
        self.end = self.end.min(end);
    }
}

/// [`packet::ALIGNMENT`], which is 4.
const ALIGNMENT: u16 = 4;
const _: () = assert!(packet::ALIGNMENT == 4);

const fn aligned(size: u16) -> u16 {
    size.saturating_sub(size % ALIGNMENT)
}

impl PathMtu {
    /// Starts with `base`, which every path has to pass, and never goes beyond `ceiling`; neither does it go below
    /// `base`. `seed` is secret and random; it may be that of a [`super::path::Path`].
    pub fn new(base: u16, ceiling: u16, seed: [u8; SEED_LEN]) -> Self {
        let base = aligned(base.min(MAX_DATAGRAM));
        Self {
            nonces: Nonces::new(b"path mtu", seed),
            base,
            ceiling: aligned(ceiling.min(MAX_DATAGRAM)).max(base),
            current: base,
            up: false,
            narrow: false,
            search: None,
            trial: None,
            checked: None,
            sent: None,
            round_trip: None,
            next_search: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The largest datagram that is believed to pass.
    pub const fn current(&self) -> u16 {
        self.current
    }

    /// Whether not even the base passes.
    pub const fn is_too_narrow(&self) -> bool {
        self.narrow
    }

    /// The path came up or moved: everything has to be found out anew. What was known stays in use until it is
    /// disproved, so that a session that moves between equal paths shows no change to the hosts behind it.
    pub fn handle_up(&mut self, now: Instant) {
        self.handle_down();
        (self.up, self.checked, self.round_trip) = (true, None, None);
        if std::mem::take(&mut self.narrow) {
            self.set_current(self.current);
        }
        self.begin_search(self.ceiling, now);
    }

    /// The path went down: nothing is tried any more.
    pub fn handle_down(&mut self) {
        self.up = false;
        (self.trial, self.search, self.next_search) = (None, None, None);
        self.transmits.clear();
    }

    /// Packets were sent by ESP. To be called once per batch or wake-up.
    pub const fn handle_sent(&mut self, now: Instant) {
        self.sent = Some(now);
    }

    /// An authenticated probe came; says whether it answers one of ours.
    pub fn handle_probe(&mut self, probe: &Probe, now: Instant) -> bool {
        if probe.kind != Kind::Answer || !self.up {
            return false;
        }
        let Some(trial) = self.trial.take_if(|trial| trial.is_answered_by(probe)) else {
            return self.trial.as_mut().is_some_and(|trial| trial.take_small_answer(probe));
        };
        (self.checked, self.round_trip) = (Some(now), Some(trial.elapsed(now)));
        self.transmits.clear();
        if std::mem::take(&mut self.narrow) || trial.size() > self.current {
            self.set_current(trial.size());
        }
        self.continue_search(now);
        true
    }

    /// The system refused to send a datagram of `size` bytes (EMSGSIZE). No larger one passes either.
    pub fn handle_too_big(&mut self, size: u16, now: Instant) {
        if !self.up {
            return;
        }
        if let Some(search) = &mut self.search {
            search.exclude(size);
        }
        let is_ruled_out = self.trial.take_if(|trial| trial.size() >= size).is_some();
        if is_ruled_out {
            self.transmits.clear();
        }
        if size <= self.base {
            self.find_too_narrow(now);
        } else if size <= self.current {
            self.fall_back(now);
            let mut search = Search::up_to(self.ceiling);
            search.exclude(size);
            self.search = Some(search);
            self.next_search = None;
            self.continue_search(now);
        } else if is_ruled_out {
            self.continue_search(now);
        }
    }

    /// Something hints that large datagrams get lost: the current size is confirmed at once.
    pub fn handle_doubt(&mut self, now: Instant) {
        let is_fresh = self.checked.is_some_and(|checked| now.saturating_duration_since(checked) < DOUBT_PAUSE);
        let is_confirming = self.trial.as_ref().is_some_and(|trial| trial.purpose() == Purpose::Confirm);
        if self.up && !self.narrow && !is_fresh && !is_confirming {
            if let (Some(trial), Some(search)) = (&self.trial, &mut self.search) {
                // The interrupted size is tried again.
                search.from_top = trial.size().saturating_add(ALIGNMENT) == search.end;
            }
            self.try_size(self.current, Purpose::Confirm, now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.step_trial(now);
        if self.trial.is_some() || !self.is_watching() {
            return;
        }
        if let Some((_, top)) = self.next_search.take_if(|(at, _)| now >= *at) {
            self.begin_search(top, now);
        } else if !self.narrow && self.confirm_at().is_some_and(|at| now >= at) {
            self.try_size(self.current, Purpose::Confirm, now);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if let Some(trial) = &self.trial {
            return Some(trial.next_at());
        }
        let search_at = self.next_search.map(|(at, _top)| at);
        let confirm_at = self.confirm_at().filter(|_| !self.narrow);
        search_at.into_iter().chain(confirm_at).min().filter(|_| self.is_watching())
    }

    /// The next probe to send, on the active outbound SA, and without fragmentation.
    pub fn poll_transmit(&mut self) -> Option<PathMtuTransmit> {
        self.transmits.pop_front()
    }

    /// The next change.
    pub fn poll_event(&mut self) -> Option<PathMtuEvent> {
        self.events.pop_front()
    }

    /// Whether timers run: on a path in use, and on one that is not used because it is too narrow.
    fn is_watching(&self) -> bool {
        self.up && (self.narrow || self.sent > self.checked)
    }

    fn confirm_at(&self) -> Option<Instant> {
        self.checked.and_then(|checked| checked.checked_add(CONFIRM_AFTER))
    }

    /// Searches up to `top`, but first makes sure of the current size if that is in question.
    fn begin_search(&mut self, top: u16, now: Instant) {
        self.search = Some(Search::up_to(top));
        let is_unproven = self.checked.is_none() && self.current > self.base;
        if is_unproven || self.narrow {
            self.try_size(self.current, Purpose::Confirm, now);
        } else {
            self.continue_search(now);
        }
    }

    /// Tries the next size, or ends the search.
    fn continue_search(&mut self, now: Instant) {
        let Some(search) = &mut self.search else { return };
        if let Some(size) = search.next_size(self.current) {
            self.try_size(size, Purpose::Search, now);
            return;
        }
        self.search = None;
        self.next_search = now.checked_add(RAISE_AFTER).map(|at| (at, self.ceiling));
        self.next_search.take_if(|_| self.current == self.ceiling);
        if self.checked.is_none() {
            // Nothing was answered, so not even the base is proven.
            self.try_size(self.current, Purpose::Confirm, now);
        }
    }

    fn try_size(&mut self, size: u16, purpose: Purpose, now: Instant) {
        let nonces = [self.nonces.draw(), self.nonces.draw()];
        self.trial = Some(Trial::new(size, purpose, nonces, self.round_trip, now));
        self.step_trial(now);
    }

    fn step_trial(&mut self, now: Instant) {
        let Some(trial) = &mut self.trial else { return };
        match trial.step(now) {
            Step::Wait => {}
            Step::Send { padded, small } => {
                self.transmits.clear();
                self.transmits.push_back(PathMtuTransmit { size: trial.size(), probe: padded });
                self.transmits.extend(small.map(|probe| PathMtuTransmit { size: SMALL, probe }));
            }
            Step::GiveUp => self.give_up(now),
        }
    }

    /// The trial went unanswered.
    fn give_up(&mut self, now: Instant) {
        let Some(trial) = self.trial.take() else { return };
        match trial.purpose() {
            Purpose::Search => {
                if let Some(search) = &mut self.search {
                    search.exclude(trial.size());
                }
                self.continue_search(now);
            }
            Purpose::Confirm if self.current == self.base => self.find_too_narrow(now),
            Purpose::Confirm => {
                let top = self.search.map_or(self.current, |_| self.ceiling);
                self.fall_back(now);
                self.next_search = now.checked_add(SEARCH_AFTER_FALL).map(|at| (at, top));
                self.try_size(self.base, Purpose::Confirm, now);
            }
        }
    }

    /// Returns to the base, without a search.
    fn fall_back(&mut self, now: Instant) {
        (self.trial, self.search) = (None, None);
        self.checked = Some(now);
        self.set_current(self.base);
    }

    fn find_too_narrow(&mut self, now: Instant) {
        (self.trial, self.search) = (None, None);
        self.checked = Some(now);
        self.next_search = now.checked_add(RETRY_NARROW_AFTER).map(|at| (at, self.ceiling));
        self.current = self.base;
        if !self.narrow {
            self.narrow = true;
            self.events.push_back(PathMtuEvent::TooNarrow);
        }
    }

    fn set_current(&mut self, size: u16) {
        self.current = size;
        self.events.push_back(PathMtuEvent::Current(size));
    }
}

#[cfg(test)]
mod tests;

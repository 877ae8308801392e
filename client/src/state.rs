//! The client's life cycle: when it connects, waits, gives up or stands blocked. Pure: time and random numbers are
//! arguments.
//!
//! After any `handle_…`, drain [`LifeCycle::poll_event`], then sleep until [`LifeCycle::poll_timeout`] or the next
//! input.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Disconnected
//!     Disconnected --> Connecting: handle_start
//!     Connecting --> Connected: handle_connected
//!     Connecting --> Connecting: handle_attempt_failed, no answer
//!     Connecting --> Disconnected: refused, a login is needed, no permission, or no answer in time
//!     Connected --> Reconnecting: handle_lost
//!     Connected --> Blocked: handle_lost, refused
//!     Connected --> LoginNeeded: handle_lost, a login is needed
//!     Reconnecting --> LoginNeeded: handle_attempt_failed, a login is needed
//!     Blocked --> LoginNeeded: handle_attempt_failed, a login is needed
//!     LoginNeeded --> Connected: handle_connected
//!     LoginNeeded --> Reconnecting: handle_attempt_failed, no answer
//!     LoginNeeded --> Blocked: handle_attempt_failed, refused
//!     LoginNeeded --> Disconnected: handle_stop
//!     Connected --> Disconnected: handle_lost, the device is gone
//!     Reconnecting --> Disconnected: handle_attempt_failed, the device is gone
//!     Reconnecting --> Connected: handle_connected
//!     Reconnecting --> Reconnecting: handle_attempt_failed, no answer; handle_wake
//!     Connecting --> CaptivePortal: handle_portal, one
//!     Reconnecting --> CaptivePortal: handle_portal, one
//!     CaptivePortal --> Connecting: handle_portal, none
//!     CaptivePortal --> Reconnecting: handle_portal, none
//!     CaptivePortal --> Connected: handle_connected
//!     CaptivePortal --> Blocked: handle_attempt_failed, refused
//!     CaptivePortal --> Disconnected: handle_stop, or no answer in time
//!     Reconnecting --> Blocked: handle_attempt_failed, refused
//!     Blocked --> Connected: handle_connected
//!     Blocked --> Reconnecting: handle_attempt_failed, no answer
//!     Connecting --> Disconnected: handle_stop
//!     Reconnecting --> Disconnected: handle_stop
//!     Blocked --> Disconnected: handle_stop
//!     Connected --> Disconnecting: handle_stop
//!     Disconnecting --> Disconnected: handle_closed, or 2 s
//! ```
//!
//! What a client meets before the gateway has proven who it is, a stranger may have caused: it counts as no answer. A
//! client that gives up for want of time tells the most telling of it.
//!
//! A client that is connected may attempt another connection beside the one it has, which takes its place: when its
//! host has moved to where that one does not lead ([`LifeCycle::handle_move`]), and as long as it leads nowhere
//! ([`LifeCycle::handle_astray`]).
//!
//! Once connected, the host stays configured until `Disconnected`: while `Reconnecting`, `Blocked` and `LoginNeeded`
//! nothing that belongs in the tunnel leaves the host another way. `CaptivePortal` is how `Connecting` and
//! `Reconnecting` are called while the network is known to have a portal: everything goes on as in these.

mod back_off;
mod following;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use adit_program::exit::Exit;

use back_off::{BackOff, jitter};
use following::Following;

/// How long the gateway's name may take to resolve, before an attempt's own time begins.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Wait between retries while blocked.
const BLOCKED_RETRY: Duration = Duration::from_secs(30);
/// Wait between retries while a login is needed: it may be that the gateway does without one from some time on. Whoever
/// logs in on this host ends the wait.
const LOGIN_RETRY: Duration = Duration::from_secs(300);
/// A connection that lasted less than this does not reset the back-off, so that a gateway that drops us at once is not
/// hammered.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// How long a goodbye to the gateway may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Over how long a time at most the clients of a gateway spread their return that told when it is back.
const LONGEST_SPREAD: Duration = Duration::from_secs(5);
/// How long after waking the loss of a connection counts as caused by the sleep: longer than it takes to find out.
const JUST_WOKEN: Duration = Duration::from_secs(5);

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No tunnel and no attempt to make one.
    Disconnected,
    /// Making the first connection; the host is untouched.
    Connecting,
    /// Packets flow.
    Connected,
    /// The connection was lost; a new one is being made.
    Reconnecting,
    /// As [`Self::Connecting`] or [`Self::Reconnecting`], in a network that lets nobody out who has not been at its
    /// captive portal.
    CaptivePortal,
    /// Saying goodbye.
    Disconnecting,
    /// The gateway refuses this device; retried slowly.
    Blocked,
    /// The user's login is over; waits for another one.
    LoginNeeded,
}

impl State {
    /// The state's name in status output.
    pub fn label(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::CaptivePortal => "captive portal",
            Self::Disconnecting => "disconnecting",
            Self::Blocked => "blocked",
            Self::LoginNeeded => "login needed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What kind of obstacle ended an attempt or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing answered, or the connection broke off.
    NoAnswer,
    /// This host's own firewall drops what is sent to the gateway.
    Firewall,
    /// The path to the gateway is too narrow for a tunnel.
    NarrowPath,
    /// The network lets nobody out who has not been at its captive portal.
    CaptivePortal,
    /// The handshake was broken off, by whomever.
    BrokenOff,
    /// The dates in a certificate do not fit a clock.
    Clock,
    /// The gateway answered nonsense.
    Protocol,
    /// The gateway refused this device.
    Refused,
    /// The gateway wants the user to log in.
    LoginNeeded,
    /// Who answers is not the gateway of the profile.
    IdentityMismatch,
    /// A permission or capability is missing on this host.
    Permission,
    /// This host refused for another reason (an unusable key, routes).
    Local,
    /// The source of packets failed: the TUN device is gone. There is nothing left to connect.
    DeviceGone,
}

impl Obstacle {
    /// Whether more attempts of the same kind are pointless for a first connection.
    pub(crate) fn is_final(self) -> bool {
        match self {
            Self::Refused | Self::LoginNeeded | Self::Permission | Self::Local | Self::DeviceGone => true,
            Self::NoAnswer
            | Self::BrokenOff
            | Self::Clock
            | Self::Firewall
            | Self::NarrowPath
            | Self::CaptivePortal
            | Self::Protocol
            | Self::IdentityMismatch => false,
        }
    }

    /// How much it tells whoever waits for a connection; silence tells least.
    pub(crate) fn weight(self) -> u8 {
        match self {
            Self::NoAnswer => 0,
            Self::BrokenOff => 1,
            Self::IdentityMismatch => 2,
            Self::Clock => 3,
            Self::Firewall | Self::NarrowPath | Self::CaptivePortal | Self::Protocol => 4,
            Self::Refused | Self::LoginNeeded | Self::Permission | Self::Local | Self::DeviceGone => 5,
        }
    }

    /// The exit code of a program that ends for this reason.
    pub fn exit(self) -> Exit {
        match self {
            Self::NoAnswer
            | Self::BrokenOff
            | Self::Clock
            | Self::Firewall
            | Self::NarrowPath
            | Self::CaptivePortal => Exit::Unreachable,
            Self::Refused | Self::LoginNeeded => Exit::AuthRefused,
            Self::IdentityMismatch => Exit::IdentityMismatch,
            Self::Permission => Exit::Permission,
            Self::Protocol | Self::Local | Self::DeviceGone => Exit::Other,
        }
    }
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Begin an attempt to connect: at most [`RESOLVE_TIMEOUT`] for the gateway's name, then at most `timeout`.
    Attempt {
        /// Longest duration of the attempt once there are addresses.
        timeout: Duration,
    },
    /// Drop the attempt in progress.
    Abandon,
    /// Say goodbye to the gateway, then call [`LifeCycle::handle_closed`].
    Close,
    /// Everything is over: `None` after a stop, else the obstacle that made us give up.
    Finished(Option<Obstacle>),
}

/// The life-cycle machine of one client.
#[derive(Debug)]
pub struct LifeCycle {
    /// Never `CaptivePortal`, as which [`Self::state`] shows two others.
    state: State,
    since: Instant,
    reason: String,
    /// What to tell if patience ends.
    most_telling: (Obstacle, String),
    patience: Option<Duration>,
    give_up: Option<Instant>,
    woke: Option<Instant>,
    waiting: Waiting,
    back_off: BackOff,
    following: Following,
    /// When the host's last move is followed, if that has to wait.
    follow_at: Option<Instant>,
    /// Whether the network is known to have a captive portal, while there is no connection.
    at_portal: bool,
    events: VecDeque<Event>,
}

/// What a machine that is neither idle nor connected waits for.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    Nothing,
    Attempt { began: Instant, timeout: Duration },
    Retry { at: Instant },
    Goodbye { deadline: Instant },
}

impl LifeCycle {
    /// A disconnected machine. The first connection must come about within `patience`; `None` tries for ever.
    pub fn new(patience: Option<Duration>, now: Instant) -> Self {
        Self {
            state: State::Disconnected,
            since: now,
            reason: String::new(),
            most_telling: (Obstacle::NoAnswer, String::new()),
            patience,
            give_up: None,
            woke: None,
            waiting: Waiting::Nothing,
            back_off: BackOff::new(now),
            following: Following::default(),
            follow_at: None,
            at_portal: false,
            events: VecDeque::new(),
        }
    }

    /// The state now.
    pub fn state(&self) -> State {
        if self.at_portal { State::CaptivePortal } else { self.state }
    }

    /// When the state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Why the last attempt or connection ended; empty while connected.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Begins to connect. Ignored unless disconnected.
    pub fn handle_start(&mut self, now: Instant) {
        if self.state == State::Disconnected {
            self.give_up = self.patience.map(|patience| now + patience);
            self.most_telling = (Obstacle::NoAnswer, String::new());
            self.back_off = BackOff::new(now);
            self.enter(State::Connecting, now);
            self.attempt(now);
        }
    }

    /// The attempt in progress succeeded.
    pub fn handle_connected(&mut self, now: Instant) {
        if matches!(self.waiting, Waiting::Attempt { .. }) {
            self.waiting = Waiting::Nothing;
            (self.give_up, self.follow_at) = (None, None);
            self.following.note_held(now);
            self.reason.clear();
            self.enter(State::Connected, now);
        }
    }

    /// The attempt in progress failed. `random` is any number, for the jitter.
    pub fn handle_attempt_failed(&mut self, obstacle: Obstacle, reason: &str, random: u32, now: Instant) {
        let Waiting::Attempt { began, timeout } = self.waiting else { return };
        if self.state == State::Connected {
            // Whatever it met, the connection in use says when it is over.
            self.waiting = Waiting::Nothing;
            return;
        }
        if now.saturating_duration_since(began) >= timeout {
            self.back_off.lengthen_attempts();
        }
        self.note(obstacle, reason);
        match self.state {
            State::Connecting if obstacle.is_final() => self.finish(Some(obstacle), now),
            State::Connecting => self.retry(began, random, now),
            State::Reconnecting | State::Blocked | State::LoginNeeded => {
                self.reconsider(obstacle, began, random, now);
            }
            State::Disconnected | State::Connected | State::CaptivePortal | State::Disconnecting => {}
        }
    }

    /// The connection ended without our doing. `random` is any number, for the jitter.
    pub fn handle_lost(&mut self, obstacle: Obstacle, reason: &str, random: u32, now: Instant) {
        match self.state {
            State::Connected => {
                if now.saturating_duration_since(self.since) >= STABLE_AFTER {
                    self.back_off = BackOff::new(now);
                }
                self.note(obstacle, reason);
                let is_attempt_in_vain =
                    matches!(obstacle, Obstacle::DeviceGone | Obstacle::Refused | Obstacle::LoginNeeded);
                if matches!(self.waiting, Waiting::Attempt { .. }) && !is_attempt_in_vain {
                    // The one that was to take its place is under way.
                    self.enter(State::Reconnecting, now);
                    return;
                }
                self.abandon();
                self.reconsider(obstacle, now, random, now);
            }
            State::Disconnecting => self.handle_closed(now),
            State::Disconnected
            | State::Connecting
            | State::Reconnecting
            | State::CaptivePortal
            | State::Blocked
            | State::LoginNeeded => {}
        }
    }

    /// A look at the network, beside the attempts, has found a captive portal, which this text tells of, or none.
    pub fn handle_portal(&mut self, portal: Option<&str>, now: Instant) {
        if !matches!(self.state, State::Connecting | State::Reconnecting) {
            return;
        }
        if self.at_portal != portal.is_some() {
            self.since = now;
        }
        match portal {
            Some(reason) => self.note(Obstacle::CaptivePortal, reason),
            // What was told of the portal is true no more.
            None if self.at_portal => {
                self.reason.clear();
                self.most_telling = (Obstacle::NoAnswer, String::new());
            }
            None => {}
        }
        self.at_portal = portal.is_some();
    }

    /// The gateway whose connection was just lost said that it restarts, and when it is back: it is not tried before.
    /// `random` is any number, for the jitter.
    pub fn handle_restart(&mut self, back_in: Duration, random: u32, now: Instant) {
        if self.state == State::Reconnecting {
            self.abandon();
            let spread = (back_in / 4).min(LONGEST_SPREAD);
            self.waiting = Waiting::Retry { at: now + back_in + jitter(spread, random) };
        }
    }

    /// Somebody has logged in on this host: what waits for that tries at once.
    pub fn handle_login(&mut self, now: Instant) {
        if self.state == State::LoginNeeded && matches!(self.waiting, Waiting::Retry { .. }) {
            self.attempt(now);
        }
    }

    /// The host woke from sleep: waits began in another time, and an attempt under way has hardly a chance. If the
    /// connection turns out to be lost, it is made anew without any wait.
    pub fn handle_wake(&mut self, now: Instant) {
        self.woke = Some(now);
        match self.waiting {
            Waiting::Attempt { .. } | Waiting::Retry { .. } => {
                self.abandon();
                self.back_off = BackOff::new(now);
                self.attempt(now);
            }
            Waiting::Nothing | Waiting::Goodbye { .. } => {}
        }
    }

    /// This host has moved, so that what was tried from elsewhere is tried anew; a connection that is in use goes on
    /// until another one takes its place. The first move of a while is followed at once, and those of a host that goes
    /// on moving after pauses, while what is under way goes on.
    pub fn handle_move(&mut self, now: Instant) {
        if !self.follows_moves() {
            return;
        }
        let at = self.following.handle_move(now);
        if at > now {
            self.follow_at.get_or_insert(at);
        } else {
            self.follow_move(now);
        }
    }

    /// The connection in use leads nowhere, and this host has not moved: another one is tried beside it, unless one is
    /// already. Whoever tells this makes pauses.
    pub fn handle_astray(&mut self, now: Instant) {
        if self.state == State::Connected && matches!(self.waiting, Waiting::Nothing) {
            self.attempt(now);
        }
    }

    /// The connection in use leads to the gateway again, so none is to take its place.
    pub fn handle_way_back(&mut self, now: Instant) {
        if self.state == State::Connected {
            self.abandon();
            (self.waiting, self.follow_at) = (Waiting::Nothing, None);
            self.following.note_held(now);
        }
    }

    fn follow_move(&mut self, now: Instant) {
        self.following.note_followed(now);
        self.abandon();
        self.attempt(now);
    }

    /// A refusal holds wherever this host is.
    fn follows_moves(&self) -> bool {
        matches!(self.state, State::Connecting | State::Connected | State::Reconnecting)
    }

    /// The user wants the tunnel to end.
    pub fn handle_stop(&mut self, now: Instant) {
        match self.state {
            State::Connected => {
                self.abandon();
                self.waiting = Waiting::Goodbye { deadline: now + CLOSE_TIMEOUT };
                self.enter(State::Disconnecting, now);
                self.events.push_back(Event::Close);
            }
            State::Connecting | State::Reconnecting | State::Blocked | State::LoginNeeded => {
                self.abandon();
                self.finish(None, now);
            }
            State::Disconnected | State::CaptivePortal | State::Disconnecting => {}
        }
    }

    /// The goodbye is said.
    pub fn handle_closed(&mut self, now: Instant) {
        if self.state == State::Disconnecting {
            self.finish(None, now);
        }
    }

    /// Time passed. `random` is any number, for the jitter.
    pub fn handle_timeout(&mut self, random: u32, now: Instant) {
        if self.give_up.is_some_and(|at| now >= at) {
            self.abandon();
            let (obstacle, reason) = self.most_telling.clone();
            self.reason = reason;
            self.finish(Some(obstacle), now);
            return;
        }
        if self.follow_at.take_if(|at| now >= *at).is_some() && self.follows_moves() {
            return self.follow_move(now);
        }
        match self.waiting {
            Waiting::Attempt { began, timeout } if now >= deadline(began, timeout) => {
                self.events.push_back(Event::Abandon);
                self.handle_attempt_failed(Obstacle::NoAnswer, "no answer in time", random, now);
            }
            Waiting::Retry { at } if now >= at => self.attempt(now),
            Waiting::Goodbye { deadline } if now >= deadline => self.finish(None, now),
            Waiting::Nothing | Waiting::Attempt { .. } | Waiting::Retry { .. } | Waiting::Goodbye { .. } => {}
        }
    }

    /// The next thing the shell must do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = match self.waiting {
            Waiting::Nothing => None,
            Waiting::Attempt { began, timeout } => Some(deadline(began, timeout)),
            Waiting::Goodbye { deadline } => Some(deadline),
            Waiting::Retry { at } => Some(at),
        };
        waiting.into_iter().chain(self.give_up).chain(self.follow_at).min()
    }

    fn enter(&mut self, state: State, now: Instant) {
        if self.state != state {
            self.state = state;
            self.since = now;
            self.at_portal = false;
        }
    }

    fn note(&mut self, obstacle: Obstacle, reason: &str) {
        // Who does not answer behind a portal, or answers in the gateway's place, is news of that portal.
        if !self.at_portal || obstacle.weight() >= Obstacle::CaptivePortal.weight() {
            reason.clone_into(&mut self.reason);
        }
        if obstacle.weight() >= self.most_telling.0.weight() {
            self.most_telling = (obstacle, reason.to_owned());
        }
    }

    /// Goes on after a failure of a client that was connected once. `began` is when the attempt that failed did.
    fn reconsider(&mut self, obstacle: Obstacle, began: Instant, random: u32, now: Instant) {
        if obstacle == Obstacle::DeviceGone {
            self.finish(Some(obstacle), now);
        } else if obstacle == Obstacle::Refused {
            self.enter(State::Blocked, now);
            self.waiting = Waiting::Retry { at: now + jitter(BLOCKED_RETRY, random) };
        } else if obstacle == Obstacle::LoginNeeded {
            self.enter(State::LoginNeeded, now);
            self.waiting = Waiting::Retry { at: now + jitter(LOGIN_RETRY, random) };
        } else {
            self.enter(State::Reconnecting, now);
            if self.woke.take_if(|woke| now.saturating_duration_since(*woke) < JUST_WOKEN).is_some() {
                self.attempt(now);
            } else {
                self.retry(began, random, now);
            }
        }
    }

    fn attempt(&mut self, now: Instant) {
        // It begins from where this host is now.
        self.follow_at = None;
        let timeout = self.back_off.attempt_timeout();
        self.waiting = Waiting::Attempt { began: now, timeout };
        self.events.push_back(Event::Attempt { timeout });
    }

    fn retry(&mut self, began: Instant, random: u32, now: Instant) {
        if self.at_portal {
            // Somebody may be at the portal just now, and wants to be let in soon.
            self.back_off.stay_quick(now);
        }
        self.waiting = Waiting::Retry { at: self.back_off.retry_at(began, random, now) };
    }

    fn abandon(&mut self) {
        if matches!(self.waiting, Waiting::Attempt { .. }) {
            self.events.push_back(Event::Abandon);
        }
    }

    fn finish(&mut self, obstacle: Option<Obstacle>, now: Instant) {
        self.waiting = Waiting::Nothing;
        (self.give_up, self.follow_at) = (None, None);
        self.enter(State::Disconnected, now);
        self.events.push_back(Event::Finished(obstacle));
    }
}

/// When an attempt is abandoned that has not failed by itself.
fn deadline(began: Instant, timeout: Duration) -> Instant {
    began + RESOLVE_TIMEOUT + timeout
}

#[cfg(test)]
mod tests;

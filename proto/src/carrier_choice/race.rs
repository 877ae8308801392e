//! Two connections to one gateway, of which the first that proves itself is asked for the session.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Waiting
//!     Waiting --> Dialling: QUIC at once, TLS after a while or once QUIC has failed
//!     Dialling --> Proven: the gateway has shown who it is
//!     Proven --> Asked: the other one is not asked, and QUIC had its time
//!     Asked --> [*]: accepted, or refused by the gateway
//!     Dialling --> Out: failed
//!     Proven --> Out: the other one is accepted
//!     Asked --> Out: no answer
//! ```

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Transport;

/// How long QUIC is tried alone: as long as the first of several addresses is (RFC 8305 section 5).
pub const TLS_AFTER: Duration = Duration::from_millis(250);

/// How long QUIC has to prove itself before TLS is asked in its place: a host that is busy, or a slow path, is no
/// network that blocks UDP.
pub const TLS_ASKED_AFTER: Duration = Duration::from_millis(500);

/// How long a gateway that was asked may take to answer before it is asked on the other connection.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What the owner has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaceEvent {
    /// Shake hands, and no more.
    Dial(Transport),
    /// Ask for the session on this connection, whose gateway has proven who it is.
    Ask(Transport),
    /// Drop this connection, or the attempt to make it.
    Drop(Transport),
    /// The session is on this connection. Nothing follows.
    Won(Transport),
    /// There is no session. Nothing follows.
    Lost,
}

/// How a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody answered, or somebody whom nothing proves to be the gateway did.
    NoAnswer,
    /// The gateway itself refused, and would on the other connection as well.
    Refused,
}

/// How far one of the two has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Waiting,
    Dialling,
    Proven,
    Asked,
    Out,
}

/// The race of one attempt to connect.
#[derive(Debug)]
pub struct Race {
    quic: Runner,
    tls: Runner,
    tls_at: Instant,
    tls_asked_at: Instant,
    /// Since when the connection that is asked owes an answer.
    asked: Option<Instant>,
    is_over: bool,
    events: VecDeque<RaceEvent>,
}

impl Race {
    /// Starts with QUIC. Where the network is known to block UDP, TLS is dialled at the same moment, and need not wait.
    #[must_use]
    pub fn new(blocks_udp: bool, now: Instant) -> Self {
        let mut race = Self {
            quic: Runner::Waiting,
            tls: Runner::Waiting,
            tls_at: if blocks_udp { now } else { now + TLS_AFTER },
            tls_asked_at: if blocks_udp { now } else { now + TLS_ASKED_AFTER },
            asked: None,
            is_over: false,
            events: VecDeque::new(),
        };
        race.dial(Transport::Quic);
        race.handle_timeout(now);
        race
    }

    /// The gateway has proven who it is on this connection. If it has on both, tell of QUIC first.
    pub fn handle_proven(&mut self, transport: Transport, now: Instant) {
        if self.is_over || *self.runner(transport) != Runner::Dialling {
            return;
        }
        *self.runner(transport) = Runner::Proven;
        self.ask_next(now);
        self.replace_silent(now);
    }

    /// The gateway has opened the session on this connection.
    pub fn handle_accepted(&mut self, transport: Transport) {
        if !self.is_over && *self.runner(transport) == Runner::Asked {
            self.leave(transport.other());
            self.end(RaceEvent::Won(transport));
        }
    }

    /// This connection could not be made, or has ended.
    pub fn handle_failed(&mut self, transport: Transport, failure: Failure, now: Instant) {
        let (before, other) = (*self.runner(transport), transport.other());
        if self.is_over || matches!(before, Runner::Waiting | Runner::Out) {
            return;
        }
        *self.runner(transport) = Runner::Out;
        if before == Runner::Asked && failure == Failure::Refused {
            self.leave(other);
            return self.end(RaceEvent::Lost);
        }
        if before == Runner::Asked {
            self.asked = None;
        }
        match *self.runner(other) {
            Runner::Waiting => self.dial(other),
            Runner::Proven => self.ask_next(now),
            Runner::Out => self.end(RaceEvent::Lost),
            Runner::Dialling | Runner::Asked => {}
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.tls == Runner::Waiting && now >= self.tls_at && !self.is_over {
            self.dial(Transport::Tls);
        }
        self.ask_next(now);
        self.replace_silent(now);
    }

    /// When [`Self::handle_timeout`] must be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over {
            return None;
        }
        let tls = match self.tls {
            Runner::Waiting => Some(self.tls_at),
            Runner::Proven => Some(self.tls_asked_at).filter(|_| self.asked.is_none()),
            Runner::Dialling | Runner::Asked | Runner::Out => None,
        };
        let can_replace = self.quic == Runner::Proven || self.tls == Runner::Proven;
        let overdue = self.asked.filter(|_| can_replace).map(|asked| asked + ANSWER_WITHIN);
        tls.into_iter().chain(overdue).min()
    }

    /// The next thing the owner must do.
    pub fn poll_event(&mut self) -> Option<RaceEvent> {
        self.events.pop_front()
    }

    /// Asks on a connection that is proven, if none is asked. TLS waits a little for QUIC.
    fn ask_next(&mut self, now: Instant) {
        let may_tls = self.quic != Runner::Dialling || now >= self.tls_asked_at;
        if self.asked.is_some() || self.is_over {
            return;
        }
        if self.quic == Runner::Proven {
            self.ask(Transport::Quic, now);
        } else if self.tls == Runner::Proven && may_tls {
            self.ask(Transport::Tls, now);
        }
    }

    /// Asks the other connection if the gateway left the first one's question unanswered for too long. The first one
    /// is dropped before, so that the device does not come twice.
    fn replace_silent(&mut self, now: Instant) {
        let is_overdue = self.asked.is_some_and(|asked| now >= asked + ANSWER_WITHIN);
        let asked = if self.quic == Runner::Asked { Transport::Quic } else { Transport::Tls };
        if is_overdue && !self.is_over && *self.runner(asked.other()) == Runner::Proven {
            self.leave(asked);
            self.ask(asked.other(), now);
        }
    }

    fn dial(&mut self, transport: Transport) {
        *self.runner(transport) = Runner::Dialling;
        self.events.push_back(RaceEvent::Dial(transport));
    }

    fn ask(&mut self, transport: Transport, now: Instant) {
        *self.runner(transport) = Runner::Asked;
        self.asked = Some(now);
        self.events.push_back(RaceEvent::Ask(transport));
    }

    fn leave(&mut self, transport: Transport) {
        let before = std::mem::replace(self.runner(transport), Runner::Out);
        if !matches!(before, Runner::Waiting | Runner::Out) {
            self.events.push_back(RaceEvent::Drop(transport));
        }
    }

    fn end(&mut self, how: RaceEvent) {
        self.is_over = true;
        self.events.push_back(how);
    }

    fn runner(&mut self, transport: Transport) -> &mut Runner {
        match transport {
            Transport::Quic => &mut self.quic,
            Transport::Tls => &mut self.tls,
        }
    }
}

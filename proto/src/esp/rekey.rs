//! The epochs of a session: who starts one, when its SAs become active, when the old ones go.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Idle
//!     Idle --> Preparing: client wants an epoch, or server got SA_INIT
//!     Preparing --> Offered: client sent SA_INIT
//!     Offered --> Installing: client got SA_INIT
//!     Preparing --> Installing: server has its share
//!     Installing --> Confirming: both SAs are installed, server sends SA_INIT
//!     Confirming --> Idle: first authenticated packet of the epoch, outbound SA becomes active
//!     Idle --> Closed
//! ```
//!
//! Only the client starts an epoch; a server's wish is a hint, so two ends that want one at the same time do not run
//! apart. Nothing is lost on the way: the server can open packets of the epoch before the client can know its keys; the
//! client sends with them first, a probe; the server switches when it opened that, the client when it opened something
//! of the server's. Old inbound SAs stay for [`RETIRE_AFTER`] more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::capsule::{EspCapsule, FLAG_EXTENDED_SEQUENCE, FLAG_PROBE_ANSWERS, Group, SaInit};
use super::field::Answer;
use super::spi::Spi;
use crate::packet::icmp::RateLimit;
use crate::role::Role;
use crate::sealing::suite::Suite;

/// How long an old inbound SA stays after the first authenticated packet of the new one: longer than packets live.
pub const RETIRE_AFTER: Duration = Duration::from_secs(10);

/// When the old inbound SA goes and the new outbound one is used even if no packet came: the peer has had the keys for
/// long then.
pub const RETIRE_ANYWAY_AFTER: Duration = Duration::from_secs(60);

/// The first pause between probes on a new SA; it doubles up to [`MAX_PROBE_PAUSE`].
const PROBE_PAUSE: Duration = Duration::from_millis(200);
const MAX_PROBE_PAUSE: Duration = Duration::from_secs(5);

/// Inbound SAs of a session at most; with more, the oldest goes early. Epochs of one second fit.
const MAX_INBOUND: usize = 16;

/// Epochs that a client may start per second, and at once.
const EPOCHS_PER_SECOND: u32 = 2;
const EPOCHS_AT_ONCE: u32 = 16;

/// The peer broke the rules; the session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// A capsule that the peer may not send, or not now.
    #[error("unexpected capsule for setting up security associations")]
    Unexpected,
    /// An SA_INIT for another epoch than the next.
    #[error("SA_INIT for another epoch")]
    Epoch,
    /// An SA_INIT with another suite or group than negotiated, or a share of the wrong length.
    #[error("SA_INIT with another choice than negotiated")]
    Choice,
    /// An index that the peer already receives on in this session.
    #[error("SA_INIT with an spi in use")]
    Spi,
    /// More epochs than a client may start.
    #[error("too many epochs")]
    TooOften,
}

/// What the owner of the SAs has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RekeyEvent {
    /// Choose an index and make a share of `group`, for the hybrid from the peer's, then call
    /// [`Rekey::handle_prepared`].
    Prepare {
        /// The epoch.
        epoch: u32,
        /// The key exchange, if the epoch has one.
        group: Option<Group>,
        /// The client's share, if this end is the server.
        peer_share: Bytes,
    },
    /// Finish the key exchange, advance the key chain, install the inbound SA and keep the outbound one ready, then
    /// call [`Rekey::handle_installed`].
    Install {
        /// What the client sent.
        client: SaInit,
        /// What the server sends.
        server: SaInit,
    },
    /// Send a probe request on the outbound SA of this epoch, active or not.
    ProbeOutbound {
        /// The epoch.
        epoch: u32,
    },
    /// Send on the SA of this epoch from now on, and drop older outbound ones.
    ActivateOutbound {
        /// The epoch.
        epoch: u32,
    },
    /// Drop the inbound SA of this epoch.
    RetireInbound {
        /// The epoch.
        epoch: u32,
    },
    /// Drop the outbound SA of every epoch: the session is over.
    RetireOutbound,
}

#[derive(Debug)]
enum State {
    Idle,
    Preparing { peer: Option<SaInit> },
    Offered { ours: SaInit },
    Installing { ours: SaInit, theirs: Spi },
    Confirming { epoch: u32, anyway_at: Instant, probe_at: Option<Instant>, pause: Duration },
    Closed,
}

/// An epoch whose inbound SA exists.
#[derive(Debug)]
struct Live {
    epoch: u32,
    theirs: Spi,
    retire_at: Option<Instant>,
}

/// The epochs of one session.
#[derive(Debug)]
pub struct Rekey {
    role: Role,
    suite: Suite,
    group: Group,
    state: State,
    next_epoch: u32,
    requested: Option<u32>,
    /// An epoch was wanted while another was being confirmed.
    wanted: bool,
    active: Option<u32>,
    live: VecDeque<Live>,
    limit: RateLimit,
    transmits: VecDeque<EspCapsule>,
    events: VecDeque<RekeyEvent>,
}

impl Rekey {
    /// Starts with no SA at all, with what was negotiated.
    pub fn new(role: Role, negotiated: &Answer) -> Self {
        Self {
            role,
            suite: negotiated.suite,
            group: negotiated.group,
            state: State::Idle,
            next_epoch: 0,
            requested: None,
            wanted: false,
            active: None,
            live: VecDeque::new(),
            limit: RateLimit::new(EPOCHS_PER_SECOND, EPOCHS_AT_ONCE),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The epoch this end sends with; `None` before the first is confirmed.
    pub(crate) const fn active_epoch(&self) -> Option<u32> {
        self.active
    }

    /// Whether the session is over.
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// This end wants an epoch: at the start of the session, or because an SA's lifetime is over. A client starts one
    /// unless one is under way; a server asks the client, once per epoch.
    pub fn handle_rekey_wanted(&mut self) {
        // While one is under way it serves this wish, too; one that is being confirmed was begun before it.
        self.wanted |= matches!(self.state, State::Confirming { .. });
        if !matches!(self.state, State::Idle) {
            return;
        }
        match self.role {
            Role::Client => self.prepare(None),
            Role::Server if self.next_epoch > 0 && self.requested != Some(self.next_epoch) => {
                self.requested = Some(self.next_epoch);
                self.transmits.push_back(EspCapsule::RekeyRequest(self.next_epoch));
            }
            Role::Server => {}
        }
    }

    /// A capsule came.
    ///
    /// # Errors
    /// If the peer may not send it; the session has to end.
    pub fn handle_capsule(&mut self, capsule: EspCapsule, now: Instant) -> Result<(), RekeyError> {
        if matches!(self.state, State::Closed) {
            return Ok(());
        }
        match (capsule, self.role) {
            (EspCapsule::SaInit(init), Role::Client) => self.handle_answer(init),
            (EspCapsule::SaInit(init), Role::Server) => self.handle_offer(init, now),
            (EspCapsule::RekeyRequest(epoch), Role::Client) => {
                if epoch == self.next_epoch && epoch > 0 {
                    self.handle_rekey_wanted();
                }
                Ok(())
            }
            (EspCapsule::RekeyRequest(_), Role::Server) => Err(RekeyError::Unexpected),
        }
    }

    /// The index and share that [`RekeyEvent::Prepare`] asked for. Ignored if nothing did.
    pub fn handle_prepared(&mut self, spi: Spi, share: Bytes) {
        let State::Preparing { peer } = &mut self.state else { return };
        let peer = peer.take();
        let flags = FLAG_EXTENDED_SEQUENCE | FLAG_PROBE_ANSWERS;
        let ours = SaInit { epoch: self.next_epoch, suite: self.suite, flags, spi, group: self.group(), share };
        match peer {
            None => {
                self.transmits.push_back(EspCapsule::SaInit(ours.clone()));
                self.state = State::Offered { ours };
            }
            Some(client) => {
                self.state = State::Installing { ours: ours.clone(), theirs: client.spi };
                self.events.push_back(RekeyEvent::Install { client, server: ours });
            }
        }
    }

    /// Both SAs of [`RekeyEvent::Install`] exist. Ignored if nothing asked for it.
    pub fn handle_installed(&mut self, now: Instant) {
        let State::Installing { ours, theirs } = &self.state else { return };
        let (ours, theirs) = (ours.clone(), *theirs);
        let epoch = ours.epoch;
        self.live.push_back(Live { epoch, theirs, retire_at: None });
        self.next_epoch = epoch.saturating_add(1);
        let probe_at = match self.role {
            Role::Client => Some(now),
            Role::Server => {
                self.transmits.push_back(EspCapsule::SaInit(ours));
                None
            }
        };
        let anyway_at = after(now, RETIRE_ANYWAY_AFTER);
        self.state = State::Confirming { epoch, anyway_at, probe_at, pause: PROBE_PAUSE };
        self.retire_surplus();
        self.handle_timeout(now);
    }

    /// A packet of this epoch was authenticated. To be called before what is in it is handled, so that a probe is
    /// answered with the same epoch; further calls cost a comparison.
    pub fn handle_authenticated(&mut self, epoch: u32, now: Instant) {
        if matches!(self.state, State::Confirming { epoch: confirming, .. } if confirming == epoch) {
            self.confirm(epoch, now, RETIRE_AFTER);
        }
    }

    /// This end's own address changed. The peer follows a packet of the newest epoch alone, so that one is probed at
    /// once while it is being confirmed.
    pub fn handle_rebind(&mut self, now: Instant) {
        if let State::Confirming { probe_at: Some(at), pause, .. } = &mut self.state {
            (*at, *pause) = (now, PROBE_PAUSE);
            self.handle_timeout(now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Confirming { epoch, anyway_at, probe_at, pause } = &mut self.state {
            let epoch = *epoch;
            if now >= *anyway_at {
                self.confirm(epoch, now, Duration::ZERO);
            } else if probe_at.is_some_and(|at| now >= at) {
                *probe_at = Some(after(now, *pause));
                *pause = pause.saturating_mul(2).min(MAX_PROBE_PAUSE);
                self.events.push_back(RekeyEvent::ProbeOutbound { epoch });
            }
        }
        let events = &mut self.events;
        self.live.retain(|live| {
            let stays = live.retire_at.is_none_or(|at| now < at);
            if !stays {
                events.push_back(RekeyEvent::RetireInbound { epoch: live.epoch });
            }
            stays
        });
    }

    /// The session, its request stream or its connection ended: its SAs end with it, at once.
    pub fn handle_closed(&mut self) {
        self.state = State::Closed;
        self.active = None;
        self.transmits.clear();
        self.events.clear();
        self.events.push_back(RekeyEvent::RetireOutbound);
        self.events.extend(self.live.drain(..).map(|live| RekeyEvent::RetireInbound { epoch: live.epoch }));
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let confirming = match self.state {
            State::Confirming { anyway_at, probe_at, .. } => Some(probe_at.map_or(anyway_at, |at| at.min(anyway_at))),
            State::Idle
            | State::Preparing { .. }
            | State::Offered { .. }
            | State::Installing { .. }
            | State::Closed => None,
        };
        self.live.iter().filter_map(|live| live.retire_at).chain(confirming).min()
    }

    /// The next capsule to send on the request stream.
    pub fn poll_transmit(&mut self) -> Option<EspCapsule> {
        self.transmits.pop_front()
    }

    /// The next thing to do.
    pub fn poll_event(&mut self) -> Option<RekeyEvent> {
        self.events.pop_front()
    }

    fn handle_offer(&mut self, init: SaInit, now: Instant) -> Result<(), RekeyError> {
        match self.state {
            State::Idle => {}
            // Who starts the next epoch has confirmed this one.
            State::Confirming { epoch, .. } => self.confirm(epoch, now, RETIRE_AFTER),
            State::Preparing { .. } | State::Offered { .. } | State::Installing { .. } | State::Closed => {
                return Err(RekeyError::Unexpected);
            }
        }
        self.check(&init, self.group().map_or(0, Group::client_share_len))?;
        if !self.limit.allow(now) {
            return Err(RekeyError::TooOften);
        }
        self.prepare(Some(init));
        Ok(())
    }

    fn handle_answer(&mut self, server: SaInit) -> Result<(), RekeyError> {
        let State::Offered { ours } = &self.state else { return Err(RekeyError::Unexpected) };
        let ours = ours.clone();
        self.check(&server, self.group().map_or(0, Group::server_share_len))?;
        self.state = State::Installing { ours: ours.clone(), theirs: server.spi };
        self.events.push_back(RekeyEvent::Install { client: ours, server });
        Ok(())
    }

    fn check(&self, init: &SaInit, share_len: usize) -> Result<(), RekeyError> {
        if init.epoch != self.next_epoch {
            return Err(RekeyError::Epoch);
        }
        if init.suite != self.suite || init.group != self.group() || init.share.len() != share_len {
            return Err(RekeyError::Choice);
        }
        if self.live.iter().any(|live| live.theirs == init.spi) {
            return Err(RekeyError::Spi);
        }
        Ok(())
    }

    fn prepare(&mut self, peer: Option<SaInit>) {
        let peer_share = peer.as_ref().map(|peer| peer.share.clone()).unwrap_or_default();
        self.events.push_back(RekeyEvent::Prepare { epoch: self.next_epoch, group: self.group(), peer_share });
        self.state = State::Preparing { peer };
    }

    /// The key exchange of the next epoch: none in the first, whose secret is as fresh as the connection.
    fn group(&self) -> Option<Group> {
        (self.next_epoch > 0).then_some(self.group)
    }

    fn confirm(&mut self, epoch: u32, now: Instant, retire_after: Duration) {
        self.state = State::Idle;
        self.active = Some(epoch);
        self.events.push_back(RekeyEvent::ActivateOutbound { epoch });
        let retire_at = after(now, retire_after);
        for live in self.live.iter_mut().filter(|live| live.epoch < epoch) {
            live.retire_at = Some(live.retire_at.map_or(retire_at, |at| at.min(retire_at)));
        }
        if std::mem::take(&mut self.wanted) {
            self.handle_rekey_wanted();
        }
    }

    fn retire_surplus(&mut self) {
        while self.live.len() > MAX_INBOUND
            && let Some(oldest) = self.live.pop_front()
        {
            self.events.push_back(RekeyEvent::RetireInbound { epoch: oldest.epoch });
        }
    }
}

fn after(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause).unwrap_or(now)
}

#[cfg(test)]
mod tests;

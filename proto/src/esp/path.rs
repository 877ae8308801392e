//! Whether ESP passes between the two ends, and to which address.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Waiting: server
//!     [*] --> Probing: client
//!     Waiting --> Up: first address is validated
//!     Probing --> Up: answered
//!     Probing --> Down: not answered
//!     Up --> Down: not answered
//!     Down --> Up: answered
//! ```
//!
//! Only an answered probe proves both directions. While packets are sent, one is due every [`ACTIVE_INTERVAL`]; without
//! an answer for [`ANSWER_WITHIN`] the path is down, so the session is back on its other carrier within 3 seconds of a
//! failure. In `Down`, the client goes on probing, ever more slowly, and the server when it hears the client.
//!
//! An authenticated packet from elsewhere moves nothing. The newest one makes its address the **candidate**; a probe
//! there, answered from there, moves the session. Until then packets go to the old address, and the candidate gets at
//! most three times the bytes that came from it (the rule of RFC 9000 section 8.1).

mod candidate;
mod series;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::packet;
use super::probe::{self, Kind, Probe};
use crate::packet::icmp::RateLimit;
use candidate::Candidate;
use series::{REPEAT_AFTER, Series, Step};

pub(super) use series::Nonces;
pub use series::{ANSWER_WITHIN, SEED_LEN};

/// The pause between proofs of a path that packets are sent on.
pub const ACTIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The client's pause between proofs of an idle path. They are too few for NATs that forget a binding within two
/// minutes (RFC 4787 section 4.3 asks for more): QUIC keeps its own alive, and brings what the gateway has to send
/// until ESP is proven again.
pub const KEEP_ALIVE: Duration = Duration::from_secs(4 * 60);

/// The first pause before a path that went down is tried again; it doubles each time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often it doubles at most: the longest pause is 16 s.
const MAX_BACK_OFF: u32 = 4;

/// A path that was up for so long counts as sound: its next failure starts with the first pause again.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// A probe on a path whose round trip is known is repeated for the first time after so many of those: soon, as that has
/// a gateway asked that may have restarted.
const FIRST_REPEAT: u32 = 4;
/// The same at least: peers do not always answer at once.
const LEAST_FIRST_REPEAT: Duration = Duration::from_millis(50);

/// Doubt so soon after a proof is not followed: where packets of one direction keep to another carrier, all of them
/// raise it.
const DOUBT_PAUSE: Duration = Duration::from_millis(200);

/// Answers per second, and at once: far more than an honest peer asks for, searching for its path MTU included.
const ANSWER_RATE: (u32, u32) = (50, 50);

/// Probes and answers waiting to be sent; newer ones are dropped.
const MAX_TRANSMITS: usize = 8;

/// Bytes of a datagram that carries an unpadded probe.
const PROBE_DATAGRAM_LEN: u64 = packet::sealed_len(probe::LEN) as u64;

/// What an owner has to know of an authenticated packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Where it came from.
    pub from: SocketAddr,
    /// Bytes of the datagram.
    pub len: usize,
    /// Whether it has the highest sequence number so far, in the newest epoch.
    pub newest: bool,
    /// The probe in it.
    pub probe: Option<Probe>,
}

/// A dummy packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathTransmit {
    /// Where to.
    pub to: SocketAddr,
    /// Its content.
    pub probe: Probe,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEvent {
    /// ESP carries packets from now on, to this address.
    Up(SocketAddr),
    /// ESP carries packets to this address from now on.
    Moved(SocketAddr),
    /// ESP does not pass: another carrier has to.
    Down,
}

/// Whether ESP carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathState {
    /// No address is known.
    Waiting,
    /// The first probe is under way.
    Probing,
    /// Probes are answered.
    Up,
    /// They are not.
    Down,
}

/// The path of one session, seen from one end.
pub struct Path {
    nonces: Nonces,
    client: bool,
    keep_alive: Duration,
    state: PathState,
    address: Option<SocketAddr>,
    series: Option<Series>,
    candidate: Option<Candidate>,
    /// When the probe was sent that was answered last.
    proven: Instant,
    round_trip: Option<Duration>,
    sent: Option<Instant>,
    up_since: Option<Instant>,
    back_off: u32,
    retry_at: Option<Instant>,
    unanswered: bool,
    answers: RateLimit,
    transmits: VecDeque<PathTransmit>,
    events: VecDeque<PathEvent>,
}

impl Path {
    /// The client's end: probes `gateway` at once, and `keep_alive` apart when idle ([`KEEP_ALIVE`]). `seed` is secret
    /// and random.
    pub fn client(gateway: SocketAddr, keep_alive: Duration, seed: [u8; SEED_LEN], now: Instant) -> Self {
        let mut path = Self::server(seed, now);
        (path.client, path.keep_alive) = (true, keep_alive);
        (path.state, path.address) = (PathState::Probing, Some(gateway));
        path.probe(now);
        path
    }

    /// The server's end: waits for the client. `seed` is secret and random.
    pub fn server(seed: [u8; SEED_LEN], now: Instant) -> Self {
        Self {
            nonces: Nonces::new(b"path", seed),
            client: false,
            keep_alive: KEEP_ALIVE,
            state: PathState::Waiting,
            address: None,
            series: None,
            candidate: None,
            proven: now,
            round_trip: None,
            sent: None,
            up_since: None,
            back_off: 0,
            retry_at: None,
            unanswered: false,
            answers: RateLimit::new(ANSWER_RATE.0, ANSWER_RATE.1),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Whether ESP carries packets.
    pub const fn state(&self) -> PathState {
        self.state
    }

    /// The validated address, where packets go; the gateway's for a client.
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The address that is being validated.
    pub fn candidate(&self) -> Option<SocketAddr> {
        self.candidate.as_ref().map(|candidate| candidate.address)
    }

    /// A packet was authenticated. A batch without probes from one address may be reported as one.
    pub fn handle_received(&mut self, received: &Received, now: Instant) {
        if self.address == Some(received.from) {
            self.handle_from_address(received, now);
            return;
        }
        if self.client {
            // A gateway does not move (RFC 9000 section 9): who sends its packets from elsewhere is neither followed
            // nor answered.
            return;
        }
        match &mut self.candidate {
            Some(candidate) if candidate.address == received.from => candidate.handle_received(received.len),
            Some(_) | None if received.newest => {
                let series = Series::new(self.nonces.draw(), REPEAT_AFTER, now);
                self.candidate = Some(Candidate::new(received.from, received.len, series));
            }
            // Late or replayed traffic of an old network: neither followed nor answered.
            Some(_) | None => return,
        }
        self.handle_from_candidate(received, now);
    }

    /// Packets were sent by ESP. To be called once per batch or wake-up.
    pub const fn handle_sent(&mut self, now: Instant) {
        self.sent = Some(now);
    }

    /// Something hints that the path is broken: the peer's packets come on another carrier, or the system reports an
    /// error.
    pub fn handle_doubt(&mut self, now: Instant) {
        let is_fresh = now.saturating_duration_since(self.proven) < DOUBT_PAUSE;
        if self.state == PathState::Up && self.series.is_none() && !is_fresh {
            self.probe(now);
        }
    }

    /// This end's own address or network changed: what was learnt about the path may be wrong.
    pub fn handle_rebind(&mut self, now: Instant) {
        if self.address.is_some() {
            self.back_off = 0;
            self.round_trip = None;
            self.probe(now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.step_series(now);
        self.step_candidate(now);
        if self.series.is_none() && self.next_probe_at().is_some_and(|at| now >= at) {
            self.probe(now);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = match &self.series {
            Some(series) => Some(series.next_at()),
            None => self.next_probe_at(),
        };
        let candidate = self.candidate.as_ref().map(|candidate| candidate.series.next_at());
        next.into_iter().chain(candidate).min()
    }

    /// The next dummy packet to send, on the active outbound SA.
    pub fn poll_transmit(&mut self) -> Option<PathTransmit> {
        self.transmits.pop_front()
    }

    /// Whether a probe of a path that is up had to be repeated since this was last asked: a gateway that restarted
    /// knows none of the session's keys and drops them, but tells so on QUIC when it hears from the client there.
    pub const fn take_unanswered(&mut self) -> bool {
        std::mem::replace(&mut self.unanswered, false)
    }

    /// The next change.
    pub fn poll_event(&mut self) -> Option<PathEvent> {
        self.events.pop_front()
    }

    fn handle_from_address(&mut self, received: &Received, now: Instant) {
        match received.probe {
            Some(probe) if probe.kind == Kind::Request => self.answer(received.from, &probe, now),
            Some(probe) => self.handle_answer(&probe, now),
            None => {}
        }
        let may_retry = self.retry_at.is_none_or(|at| now >= at);
        if self.state == PathState::Down && self.series.is_none() && may_retry {
            self.probe(now);
        }
    }

    fn handle_answer(&mut self, answer: &Probe, now: Instant) {
        if let Some(series) = self.series.take_if(|series| series.is_answered_by(answer)) {
            self.round_trip = series.round_trip(now).or(self.round_trip);
            self.prove(series.first(), now);
        }
    }

    fn handle_from_candidate(&mut self, received: &Received, now: Instant) {
        let answered = received.probe.is_some_and(|probe| {
            self.candidate.as_ref().is_some_and(|candidate| candidate.series.is_answered_by(&probe))
        });
        if let Some(candidate) = self.candidate.take_if(|_| answered) {
            self.adopt(&candidate, now);
            return;
        }
        // Its own probe goes first: it is what ends the uncertainty.
        self.step_candidate(now);
        let answer = received.probe.filter(|probe| probe.kind == Kind::Request);
        let permitted =
            self.candidate.as_mut().is_some_and(|candidate| answer.is_some() && candidate.spend(PROBE_DATAGRAM_LEN));
        if let Some(request) = answer.filter(|_| permitted) {
            self.answer(received.from, &request, now);
        }
    }

    /// The candidate proved itself.
    fn adopt(&mut self, candidate: &Candidate, now: Instant) {
        self.address = Some(candidate.address);
        self.series = None;
        if self.state == PathState::Up {
            self.proven = candidate.series.first();
            self.events.push_back(PathEvent::Moved(candidate.address));
        } else {
            self.prove(candidate.series.first(), now);
        }
    }

    fn prove(&mut self, first_sent: Instant, now: Instant) {
        self.proven = first_sent;
        self.retry_at = None;
        if self.state != PathState::Up
            && let Some(address) = self.address
        {
            self.state = PathState::Up;
            self.up_since = Some(now);
            self.events.push_back(PathEvent::Up(address));
        }
    }

    fn step_series(&mut self, now: Instant) {
        let (Some(series), Some(to)) = (&mut self.series, self.address) else { return };
        match series.step(now) {
            Step::Wait => {}
            Step::Send(probe) => {
                self.unanswered |= self.state == PathState::Up && now > series.first();
                self.transmit(to, probe);
            }
            Step::GiveUp => self.fail(now),
        }
    }

    fn step_candidate(&mut self, now: Instant) {
        let Some(candidate) = &mut self.candidate else { return };
        match candidate.series.step(now) {
            Step::Wait => {}
            Step::Send(probe) => {
                let to = candidate.address;
                if candidate.spend(PROBE_DATAGRAM_LEN) {
                    self.transmit(to, probe);
                }
            }
            Step::GiveUp => self.candidate = None,
        }
    }

    /// The series went unanswered.
    fn fail(&mut self, now: Instant) {
        self.series = None;
        let was_sound = self.up_since.take().is_some_and(|since| now.saturating_duration_since(since) >= SOUND_AFTER);
        if was_sound {
            self.back_off = 0;
        }
        if self.state != PathState::Down {
            self.state = PathState::Down;
            self.events.push_back(PathEvent::Down);
        }
        let pause = RETRY_AFTER.saturating_mul(1 << self.back_off);
        self.back_off = self.back_off.saturating_add(1).min(MAX_BACK_OFF);
        self.retry_at = now.checked_add(pause);
    }

    /// When a path without a series has to be probed again.
    fn next_probe_at(&self) -> Option<Instant> {
        match self.state {
            PathState::Waiting | PathState::Probing => None,
            PathState::Down => self.retry_at.filter(|_| self.client),
            PathState::Up => {
                let in_use = self.sent.is_some_and(|sent| sent >= self.proven);
                let keep_alive = self.client.then_some(self.keep_alive);
                let pause = if in_use { Some(ACTIVE_INTERVAL) } else { keep_alive };
                pause.and_then(|pause| self.proven.checked_add(pause))
            }
        }
    }

    /// Starts a series to the address and sends its first probe.
    fn probe(&mut self, now: Instant) {
        let round_trips = self.round_trip.map(|once| once.saturating_mul(FIRST_REPEAT));
        let first_pause = round_trips.map_or(REPEAT_AFTER, |pause| pause.clamp(LEAST_FIRST_REPEAT, REPEAT_AFTER));
        self.series = Some(Series::new(self.nonces.draw(), first_pause, now));
        self.step_series(now);
    }

    fn answer(&mut self, to: SocketAddr, request: &Probe, now: Instant) {
        if let Some(probe) = request.answer().filter(|_| self.answers.allow(now)) {
            self.transmit(to, probe);
        }
    }

    fn transmit(&mut self, to: SocketAddr, probe: Probe) {
        if self.transmits.len() < MAX_TRANSMITS {
            self.transmits.push_back(PathTransmit { to, probe });
        }
    }
}

#[cfg(test)]
mod tests;

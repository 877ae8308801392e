//! The ESP carrier of one session, seen from one end: [`EspSession`].
//!
//! It joins [`Rekey`], [`Path`], [`PathMtu`] and [`Marking`] and decides what lies between them: which SA a probe is
//! sealed with, when packets may go by ESP and how large they may be, where they leave, and when keys are replaced. Its
//! owner has what needs a system or a crypto library: it makes shares, secrets and SAs, sends datagrams, and tells the
//! workers the route.
//!
//! ```text
//! reports and hints of workers, capsules, time ─ handle_… ─▶ EspSession ─ poll_command ─▶ keys, SAs, route, probes
//!                                                                       └ poll_transmit ─▶ capsules
//! ```
//!
//! After every `handle_…` all commands are to be carried out, in order; those that ask for an answer say with which
//! call.

mod command;
mod epochs;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::capsule::{EspCapsule, SaInit};
use super::field::Answer;
use super::keys::{EpochKeys, KeyChain, KeyError};
use super::lifetime::{Lifetime, RekeyPolicy};
use super::marking::{Marking, MarkingTransmit};
use super::packet::{self, NextHeader, PREFIX_LEN};
use super::path::{KEEP_ALIVE, Nonces, Path, PathEvent, PathState, Received};
use super::path_mtu::{PathMtu, PathMtuEvent};
use super::probe::{self, Kind, Probe};
use super::rekey::{Rekey, RekeyError, RekeyEvent};
use super::sa::{Acceptance, IvRule, Outbound};
use super::spi::Spi;
use crate::packet::{IPV6_MIN_MTU, ecn};
use crate::role::Role;
use crate::sealing::aead::Aead;
use crate::sealing::counter::Usage;
use epochs::Epochs;

pub use command::{Change, Command, Hints, NewSas, Report, Route, SaKeys, Setup};

/// How long a path that came up has to show its size before it is used at the least one: all trials of the first size.
const SIZE_WITHIN: Duration = Duration::from_secs(2);

/// A handle on an outbound SA, such as an `Arc`: its owner shares the SA with those who seal packets.
pub trait OutboundHandle: Clone {
    /// What was sealed so far.
    fn usage(&self) -> Usage;

    /// A dummy packet of `len` bytes that begins with `probe`, sealed; `None` if the SA seals nothing more.
    fn seal_probe(&self, probe: &Probe, len: usize) -> Option<Vec<u8>>;
}

impl<A: Aead, H: Clone + Deref<Target = Outbound<A>>> OutboundHandle for H {
    fn usage(&self) -> Usage {
        Outbound::usage(self)
    }

    fn seal_probe(&self, probe: &Probe, len: usize) -> Option<Vec<u8>> {
        let mut datagram = vec![0; packet::sealed_len(len)];
        let content = datagram.get_mut(PREFIX_LEN..PREFIX_LEN.saturating_add(len));
        content.and_then(|content| probe.encode_padded(content)).expect("every size tried holds a probe");
        let sealed = self.reserve(1, len).and_then(|mut numbers| numbers.seal(&mut datagram, len, NextHeader::Nothing));
        sealed.is_ok().then_some(datagram)
    }
}

/// An epoch between [`Command::Install`] and [`EspSession::handle_installed`].
struct Installing {
    client: SaInit,
    server: SaInit,
}

/// The ESP carrier of one session, seen from one end.
pub struct EspSession<H, O> {
    role: Role,
    negotiated: Answer,
    policy: RekeyPolicy,
    largest_packet: u16,
    nonces: Nonces,
    chain: KeyChain,
    rekey: Rekey,
    path: Path,
    path_mtu: PathMtu,
    marking: Marking,
    /// Whether the workers were told that marks pass.
    marked: bool,
    epochs: Epochs<H>,
    installing: Option<Installing>,
    /// The index of the epoch under way, which no SA has yet.
    claimed: Option<Spi>,
    /// The newest epoch of which a packet came.
    heard: Option<u32>,
    /// The epoch whose lifetime was over and said so.
    over: Option<u32>,
    /// Where the newest packets from the addresses in use arrived.
    origins: Vec<(SocketAddr, O)>,
    /// Until when a path that came up waits for its size, so that the device's MTU does not fall for one round trip.
    size_due: Option<Instant>,
    commands: VecDeque<Command<H, O>>,
}

impl<H: OutboundHandle, O: Copy + PartialEq> EspSession<H, O> {
    /// The client's end: starts the first epoch at once and probes `gateway`, the address of the connection.
    pub fn client(setup: Setup<'_>, gateway: SocketAddr, now: Instant) -> Self {
        let path = Path::client(gateway, KEEP_ALIVE, setup.seed, now);
        let mut session = Self::new(Role::Client, setup, path);
        session.rekey.handle_rekey_wanted();
        session.settle(now);
        session
    }

    /// The server's end: waits for the client.
    pub fn server(setup: Setup<'_>, now: Instant) -> Self {
        let path = Path::server(setup.seed, now);
        Self::new(Role::Server, setup, path)
    }

    fn new(role: Role, setup: Setup<'_>, path: Path) -> Self {
        let Setup { negotiated, secret, policy, largest_packet, seed } = setup;
        Self {
            role,
            negotiated,
            policy,
            largest_packet,
            nonces: Nonces::new(b"session", seed),
            chain: KeyChain::new(secret),
            rekey: Rekey::new(role, &negotiated),
            path,
            path_mtu: PathMtu::new(datagram_len(IPV6_MIN_MTU), datagram_len(largest_packet), seed),
            marking: Marking::new(seed),
            marked: false,
            epochs: Epochs::default(),
            installing: None,
            claimed: None,
            heard: None,
            over: None,
            origins: Vec::new(),
            size_due: None,
            commands: VecDeque::new(),
        }
    }

    /// Whether ESP passes.
    pub const fn state(&self) -> PathState {
        self.path.state()
    }

    /// Whether ESP passes, but not in datagrams that carry the least packets. What else needs as large ones on this way
    /// does not pass either, as QUIC with packets in it.
    pub const fn is_too_narrow(&self) -> bool {
        matches!(self.path.state(), PathState::Up) && self.path_mtu.is_too_narrow()
    }

    /// Whether a probe of a path that is up had to be repeated since this was last asked.
    pub const fn take_unanswered(&mut self) -> bool {
        self.path.take_unanswered()
    }

    /// A capsule came on the request stream. [`Self::poll_transmit`] may have an answer then.
    ///
    /// # Errors
    /// If the peer may not send it; the session has to end.
    pub fn handle_capsule(&mut self, capsule: EspCapsule, now: Instant) -> Result<(), RekeyError> {
        self.rekey.handle_capsule(capsule, now)?;
        self.settle(now);
        Ok(())
    }

    /// The index and share that [`Command::Prepare`] asked for.
    pub fn handle_prepared(&mut self, spi: Spi, share: Bytes, now: Instant) {
        self.claimed = Some(spi);
        self.rekey.handle_prepared(spi, share);
        self.settle(now);
    }

    /// The secret of the key exchange that [`Command::Install`] asked for, `None` without an exchange; returns what the
    /// SAs of the epoch are made from.
    ///
    /// # Errors
    /// If no keys can be made; the session has to end.
    ///
    /// # Panics
    /// If no [`Command::Install`] asked for it.
    pub fn handle_secret(&mut self, secret: Option<&[u8]>) -> Result<NewSas, KeyError> {
        let Installing { client, server } = self.installing.as_ref().expect("an owner answers to what it was asked");
        let EpochKeys { client_to_server, server_to_client } = self.chain.advance(client, server, secret)?;
        Ok(NewSas {
            epoch: client.epoch,
            client_to_server: SaKeys { spi: server.spi, keys: client_to_server },
            server_to_client: SaKeys { spi: client.spi, keys: server_to_client },
            accept: Acceptance { iv: IvRule::IsSequence, vouched: self.negotiated.vouched },
            role: self.role,
        })
    }

    /// Both SAs of the epoch exist, and the inbound one is its worker's. Ignored if no [`Command::Install`] asked for
    /// it.
    pub fn handle_installed(&mut self, outbound: H, now: Instant) {
        let Some(Installing { client, server }) = self.installing.take() else { return };
        let inbound = match self.role {
            Role::Client => client.spi,
            Role::Server => server.spi,
        };
        let [high, low, ..] = self.nonces.draw();
        let lifetime = Lifetime::new(&self.policy, u16::from_be_bytes([high, low]), now);
        self.claimed = None;
        self.epochs.add(client.epoch, inbound, outbound, lifetime);
        self.rekey.handle_installed(now);
        if client.epoch == 0 {
            // What was due before could not be sealed.
            self.path.handle_rebind(now);
        }
        self.settle(now);
    }

    /// The system refused to send a datagram of so many bytes because it is too large.
    pub fn handle_refused(&mut self, len: usize, now: Instant) {
        let is_padded = len > packet::sealed_len(probe::LEN) && !self.rekey.is_closed();
        if let Some(size) = u16::try_from(len).ok().filter(|_| is_padded) {
            self.path_mtu.handle_too_big(size, now);
            self.settle(now);
        }
    }

    /// This end's own address or network changed.
    pub fn handle_rebind(&mut self, now: Instant) {
        if self.rekey.is_closed() {
            return;
        }
        self.origins.clear();
        self.rekey.handle_rebind(now);
        self.path.handle_rebind(now);
        if self.path.state() == PathState::Up {
            self.path_mtu.handle_up(now);
            self.marking.handle_up(now);
            self.update_route();
        }
        self.settle(now);
    }

    /// A worker authenticated packets.
    pub fn handle_report(&mut self, report: &Report<O>, now: Instant) {
        if self.rekey.is_closed() {
            return;
        }
        let &Report { epoch, from, origin, len, newest, probe } = report;
        // First, so that a probe is answered with the epoch it came with.
        self.rekey.handle_authenticated(epoch, now);
        self.follow_rekey();
        self.heard = self.heard.max(Some(epoch));
        let newest = newest && self.heard == Some(epoch);
        if let Some(probe) = probe.filter(|probe| probe.kind == Kind::Answer) {
            self.commands.push_back(Command::ListenForSent);
            if self.path.address() == Some(from) {
                self.path_mtu.handle_probe(&probe, now);
                self.marking.handle_probe(&probe, now);
            }
        }
        self.path.handle_received(&Received { from, len, newest, probe }, now);
        if newest || self.path.address() != Some(from) {
            self.remember(from, origin);
        }
        self.settle(now);
    }

    /// The packet path has something to tell.
    pub fn handle_hints(&mut self, hints: Hints, now: Instant) {
        if self.rekey.is_closed() {
            return;
        }
        if hints.sent {
            self.path.handle_sent(now);
            self.path_mtu.handle_sent(now);
            self.marking.handle_sent();
        }
        if hints.doubt {
            self.path.handle_doubt(now);
            self.path_mtu.handle_doubt(now);
        }
        if hints.rekey {
            self.rekey.handle_rekey_wanted();
        }
        // Workers may go on for a moment with a size that was just given up.
        if let Some(refused) = hints.too_big.filter(|&refused| refused <= self.path_mtu.current()) {
            self.path_mtu.handle_too_big(refused, now);
        }
        self.settle(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.rekey.is_closed() {
            return;
        }
        if self.lifetime_ends(now).is_some_and(|ends| now >= ends) {
            self.over = self.epochs.active_number();
            self.rekey.handle_rekey_wanted();
        }
        self.rekey.handle_timeout(now);
        self.path.handle_timeout(now);
        self.path_mtu.handle_timeout(now);
        self.marking.handle_timeout(now);
        if self.size_due.take_if(|due| now >= *due).is_some() {
            self.update_route();
        }
        self.settle(now);
    }

    /// The session, its request stream or its connection ended: its SAs end with it, at once. All commands that follow
    /// are [`Command::SetRoute`] with `None` and [`Command::Retire`], also for what an owner that failed left undone;
    /// whatever else is called then changes nothing.
    pub fn handle_closed(&mut self) {
        self.commands.retain(|command| matches!(command, Command::Retire(_)));
        self.rekey.handle_closed();
        self.follow_rekey();
    }

    /// When [`Self::handle_timeout`] is due; at once if the keys in use have sealed enough.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.rekey.is_closed() {
            return None;
        }
        let path = [self.path.poll_timeout(), self.path_mtu.poll_timeout(), self.marking.poll_timeout(), self.size_due];
        let keys = [self.rekey.poll_timeout(), self.lifetime_ends(now)];
        path.into_iter().chain(keys).flatten().min()
    }

    /// The next capsule to send on the request stream; to be asked for at the start and after every other call.
    pub fn poll_transmit(&mut self) -> Option<EspCapsule> {
        self.rekey.poll_transmit()
    }

    /// The next thing to do.
    pub fn poll_command(&mut self) -> Option<Command<H, O>> {
        self.commands.pop_front()
    }

    /// When the lifetime of the active epoch ends: now, if enough was sealed. `None` once that was acted on.
    fn lifetime_ends(&self, now: Instant) -> Option<Instant> {
        self.epochs.active_ends(now).filter(|_| self.over != self.epochs.active_number())
    }

    /// Turns what the machines want into commands.
    fn settle(&mut self, now: Instant) {
        self.follow_rekey();
        self.follow_path(now);
        self.follow_path_mtu();
        self.follow_marking();
        while let Some(transmit) = self.path.poll_transmit() {
            self.send_probe(transmit.to, &transmit.probe, probe::LEN, ecn::NOT_ECT);
        }
    }

    fn follow_rekey(&mut self) {
        while let Some(event) = self.rekey.poll_event() {
            match event {
                RekeyEvent::Prepare { epoch: _, group, peer_share } => {
                    let peer_share = (self.role == Role::Server).then_some(peer_share);
                    self.commands.push_back(Command::Prepare { group, peer_share });
                }
                RekeyEvent::Install { client, server } => {
                    let peer = if self.role == Role::Client { &server } else { &client };
                    self.commands.push_back(Command::Install { peer_share: peer.share.clone() });
                    self.installing = Some(Installing { client, server });
                }
                RekeyEvent::ProbeOutbound { epoch } => self.probe_epoch(epoch),
                RekeyEvent::ActivateOutbound { epoch } => {
                    self.epochs.activate(epoch);
                    self.commands.push_back(Command::Tell(Change::NewKeys { epoch }));
                    self.update_route();
                }
                RekeyEvent::RetireInbound { epoch } => {
                    self.commands.extend(self.epochs.retire_inbound(epoch).map(Command::Retire));
                }
                RekeyEvent::RetireOutbound => {
                    self.commands.push_back(Command::SetRoute(None));
                    self.commands.extend(self.claimed.take().map(Command::Retire));
                    self.installing = None;
                    self.epochs.retire_outbound();
                }
            }
        }
    }

    fn follow_path(&mut self, now: Instant) {
        while let Some(event) = self.path.poll_event() {
            match event {
                PathEvent::Up(to) => {
                    self.commands.push_back(Command::Tell(Change::Up(to)));
                    self.path_mtu.handle_up(now);
                    self.marking.handle_up(now);
                    let is_least = self.path_mtu.current() == datagram_len(IPV6_MIN_MTU);
                    self.size_due = now.checked_add(SIZE_WITHIN).filter(|_| is_least);
                }
                PathEvent::Moved(to) => {
                    self.commands.push_back(Command::Tell(Change::Moved(to)));
                    self.path_mtu.handle_up(now);
                    self.marking.handle_up(now);
                }
                PathEvent::Down => {
                    self.commands.push_back(Command::Tell(Change::Down));
                    self.path_mtu.handle_down();
                    self.marking.handle_down();
                    self.size_due = None;
                }
            }
            self.update_route();
        }
    }

    fn follow_path_mtu(&mut self) {
        while let Some(transmit) = self.path_mtu.poll_transmit() {
            let Some(to) = self.path.address() else { break };
            self.send_probe(to, &transmit.probe, transmit.content_len(), ecn::NOT_ECT);
        }
        while let Some(event) = self.path_mtu.poll_event() {
            let change = match event {
                PathMtuEvent::Current(datagram) => Change::Size(datagram),
                PathMtuEvent::TooNarrow => Change::TooNarrow,
            };
            self.commands.push_back(Command::Tell(change));
            self.size_due = None;
            self.update_route();
        }
    }

    fn follow_marking(&mut self) {
        while let Some(MarkingTransmit { probe, marked }) = self.marking.poll_transmit() {
            let Some(to) = self.path.address() else { break };
            self.send_probe(to, &probe, probe::LEN, if marked { ecn::ECT_0 } else { ecn::NOT_ECT });
        }
        if self.marked != self.marking.passes() {
            self.marked = self.marking.passes();
            self.commands.push_back(Command::Tell(Change::Marks(self.marked)));
            self.update_route();
        }
    }

    /// Tells the workers how to send now.
    fn update_route(&mut self) {
        let has_size = self.size_due.is_none() && !self.path_mtu.is_too_narrow();
        let passes = self.path.state() == PathState::Up && has_size;
        let route = self.epochs.active().zip(self.path.address()).filter(|_| passes).map(|(sa, to)| Route {
            sa: sa.clone(),
            to,
            origin: self.origin(to),
            mtu: self.mtu(),
            vouched: self.negotiated.vouched,
            marked: self.marking.passes(),
        });
        self.commands.push_back(Command::SetRoute(route));
    }

    fn mtu(&self) -> u16 {
        let largest = packet::largest_inner(usize::from(self.path_mtu.current()));
        u16::try_from(largest).map_or(self.largest_packet, |largest| largest.min(self.largest_packet))
    }

    /// Sends a probe with an SA that is not active yet. Its answer means nothing but that packets of the epoch pass.
    fn probe_epoch(&mut self, epoch: u32) {
        let to = self.path.address().or_else(|| self.path.candidate());
        let probe = Probe { kind: Kind::Request, nonce: self.nonces.draw() };
        if let Some((sa, to)) = self.epochs.outbound(epoch).cloned().zip(to) {
            self.send(&sa, to, &probe, probe::LEN, ecn::NOT_ECT);
        }
    }

    /// Sends a dummy packet of `len` bytes with the SA in use, before the first is in use with the newest.
    fn send_probe(&mut self, to: SocketAddr, probe: &Probe, len: usize, ecn: u8) {
        if let Some(sa) = self.epochs.for_probes().cloned() {
            self.send(&sa, to, probe, len, ecn);
        }
    }

    fn send(&mut self, sa: &H, to: SocketAddr, probe: &Probe, len: usize, ecn: u8) {
        if let Some(datagram) = sa.seal_probe(probe, len) {
            self.commands.push_back(Command::Send { to, origin: self.origin(to), datagram, ecn });
        }
    }

    /// Where datagrams to an address leave: where its own arrived.
    fn origin(&self, to: SocketAddr) -> Option<O> {
        self.origins.iter().find(|(address, _)| *address == to).map(|&(_, origin)| origin)
    }

    /// Keeps where packets of the session's address and of its candidate arrive.
    fn remember(&mut self, from: SocketAddr, origin: O) {
        let in_use = [self.path.address(), self.path.candidate()];
        let is_known = self.origins.contains(&(from, origin));
        self.origins.retain(|(address, _)| *address != from && in_use.contains(&Some(*address)));
        if in_use.contains(&Some(from)) {
            self.origins.push((from, origin));
        }
        if !is_known && self.path.address() == Some(from) {
            self.update_route();
        }
    }
}

/// Bytes of the datagram that carries a packet of that size, at most [`u16::MAX`]; [`PathMtu::new`] lowers its ceiling
/// to what UDP can carry.
fn datagram_len(packet: u16) -> u16 {
    u16::try_from(packet::sealed_len(usize::from(packet))).unwrap_or(u16::MAX)
}

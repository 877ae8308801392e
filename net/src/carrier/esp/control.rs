//! What keeps the SAs of a session alive and knows where they lead: [`EspControl`].
//!
//! It drives the machines of [`adit_proto::esp`] for one session. Capsules come in and go out through the owner of the request
//! stream; SAs and dummy packets go to the workers by [`DataPlane`], and their [`Report`]s come back; what it finds out stands in the
//! session's [`Carriers`], where workers read it once per batch. It lives in the task of its session: when that ends, the SAs end.

mod epochs;
mod setup;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_proto::esp::capsule::EspCapsule;
use adit_proto::esp::field::Answer;
use adit_proto::esp::keys::KeyChain;
use adit_proto::esp::packet::{self, NextHeader, PREFIX_LEN};
use adit_proto::esp::path::{KEEP_ALIVE, Path, PathEvent, PathState, Received};
use adit_proto::esp::path_mtu::{PathMtu, PathMtuEvent};
use adit_proto::esp::probe::{self, Kind, Probe};
use adit_proto::esp::rekey::{Rekey, RekeyEvent};
use adit_proto::esp::sa::Outbound;
use adit_proto::role::Role;
use tokio::sync::mpsc;
use tracing::debug;

use super::{Cipher, random};
use crate::carrier::{Carried, Carriers, EspRoute, Hints, Origin};
use crate::worker::{DataPlane, Report};
use epochs::Epochs;

pub use setup::{EspError, EspSettings, EspSetup, Exporter, exporter_secret};

/// Reports of workers that wait for the control side; more are dropped, and probes are repeated. 5 KiB.
const MAX_REPORTS: usize = 64;

/// Reports handled before others get their turn.
const REPORTS_AT_ONCE: usize = 32;

/// How long a path that came up has to show its size before it is used at the least one: all trials of the first size.
const SIZE_WITHIN: Duration = Duration::from_secs(2);

/// The packet that every path has to take, or another carrier does: what IPv6 asks of a link (RFC 8200 section 5), in bytes.
const LEAST_PACKET: u16 = 1280;

/// The ESP carrier of one session, seen from one end. Dropping it ends the carrier.
pub struct EspControl<S: Carried> {
    session: Arc<S>,
    plane: Arc<dyn DataPlane<S>>,
    negotiated: Answer,
    largest_packet: u16,
    rekey: Rekey,
    path: Path,
    path_mtu: PathMtu,
    epochs: Epochs<S>,
    /// The newest epoch of which a packet came.
    heard: Option<u32>,
    /// The epoch whose lifetime was over and said so.
    over: Option<u32>,
    /// Where the newest packets from the addresses in use arrived.
    origins: Vec<(SocketAddr, Origin)>,
    report_sender: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    /// Until when a path that came up waits for its size, so that the device's MTU does not fall for one round trip.
    size_due: Option<Instant>,
    failed: Option<EspError>,
}

impl<S: Carried> EspControl<S> {
    /// The client's end: starts the first epoch at once and probes `gateway`, the address of the connection.
    pub fn client(setup: EspSetup<'_, S>, gateway: SocketAddr, now: Instant) -> Self {
        let path = Path::client(gateway, KEEP_ALIVE, random(), now);
        let mut control = Self::new(Role::Client, setup, path);
        control.rekey.handle_wanted();
        control.failed = control.settle(now).err();
        control
    }

    /// The server's end: waits for the client.
    pub fn server(setup: EspSetup<'_, S>, now: Instant) -> Self {
        Self::new(Role::Server, setup, Path::server(random(), now))
    }

    fn new(role: Role, setup: EspSetup<'_, S>, path: Path) -> Self {
        let EspSetup { negotiated, secret, plane, session, policy, largest_packet } = setup;
        let (report_sender, reports) = mpsc::channel(MAX_REPORTS);
        let epochs = Epochs::new(role, negotiated, KeyChain::new(secret), policy, Arc::clone(&plane));
        Self {
            session,
            plane,
            negotiated,
            largest_packet,
            rekey: Rekey::new(role, &negotiated),
            path,
            path_mtu: PathMtu::new(datagram_len(LEAST_PACKET), datagram_len(largest_packet), random()),
            epochs,
            heard: None,
            over: None,
            origins: Vec::new(),
            report_sender,
            reports,
            size_due: None,
            failed: None,
        }
    }

    /// Whether ESP passes.
    pub const fn state(&self) -> PathState {
        self.path.state()
    }

    /// Whether a probe of a path that is up had to be repeated since this was last asked.
    pub const fn take_unanswered(&mut self) -> bool {
        self.path.take_unanswered()
    }

    /// A capsule came on the request stream. [`Self::poll_capsule`] may have an answer then.
    ///
    /// # Errors
    /// If the peer may not send it, or it leads nowhere; the session has to end.
    pub fn handle_capsule(&mut self, capsule: EspCapsule, now: Instant) -> Result<(), EspError> {
        self.rekey.handle_capsule(capsule, now)?;
        self.settle(now)
    }

    /// This end's own address or network changed.
    pub fn handle_rebind(&mut self, now: Instant) {
        self.origins.clear();
        self.path.handle_rebind(now);
        if self.path.state() == PathState::Up {
            self.path_mtu.handle_up(now);
            self.update_route();
        }
        if let Err(error) = self.settle(now) {
            self.failed = Some(error);
        }
    }

    /// The next capsule to send on the request stream; to be asked for at the start and after every other call.
    pub fn poll_capsule(&mut self) -> Option<EspCapsule> {
        self.rekey.poll_transmit()
    }

    /// Waits until workers report, packets were sent, or time has come, and handles that. Cancel-safe.
    ///
    /// # Errors
    /// If ESP cannot go on; the session has to end.
    pub async fn next(&mut self) -> Result<(), EspError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let due = self.poll_timeout(now());
        let carriers = self.session.carriers();
        tokio::select! {
            Some(report) = self.reports.recv() => self.handle_reports(report)?,
            hints = carriers.hinted() => self.handle_hints(hints, now()),
            () = sleep_until(due) => {}
        }
        self.handle_timeout(now())
    }

    fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let lifetime = self.epochs.active_ends(now).filter(|&(epoch, _)| self.over != Some(epoch));
        let machines =
            [self.rekey.poll_timeout(), self.path.poll_timeout(), self.path_mtu.poll_timeout(), self.size_due];
        let lifetime = lifetime.map(|(_epoch, ends)| ends);
        machines.into_iter().chain([lifetime]).flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), EspError> {
        if let Some((epoch, ends)) = self.epochs.active_ends(now)
            && now >= ends
            && self.over != Some(epoch)
        {
            self.over = Some(epoch);
            self.rekey.handle_wanted();
        }
        self.rekey.handle_timeout(now);
        self.path.handle_timeout(now);
        self.path_mtu.handle_timeout(now);
        if self.size_due.take_if(|due| now >= *due).is_some() {
            self.update_route();
        }
        self.settle(now)
    }

    fn handle_reports(&mut self, first: Report) -> Result<(), EspError> {
        let now = now();
        self.handle_report(&first, now)?;
        for _ in 1..REPORTS_AT_ONCE {
            let Ok(report) = self.reports.try_recv() else { break };
            self.handle_report(&report, now)?;
        }
        Ok(())
    }

    fn handle_report(&mut self, report: &Report, now: Instant) -> Result<(), EspError> {
        let &Report { epoch, from, origin, len, newest, probe } = report;
        // First, so that a probe is answered with the epoch it came with.
        self.rekey.handle_authenticated(epoch, now);
        self.follow_rekey(now)?;
        self.heard = self.heard.max(Some(epoch));
        let newest = newest && self.heard == Some(epoch);
        if let Some(probe) = probe.filter(|probe| probe.kind == Kind::Answer) {
            self.carriers().forget_sent();
            if self.path.address() == Some(from) {
                self.path_mtu.handle_probe(&probe, now);
            }
        }
        self.path.handle_received(&Received { from, len, newest, probe }, now);
        if newest || self.path.address() != Some(from) {
            self.remember(from, origin);
        }
        self.settle(now)
    }

    fn handle_hints(&mut self, hints: Hints, now: Instant) {
        if hints.sent {
            self.path.handle_sent(now);
            self.path_mtu.handle_sent(now);
        }
        if hints.doubt {
            self.path.handle_doubt(now);
            self.path_mtu.handle_doubt(now);
        }
        if hints.rekey {
            self.rekey.handle_wanted();
        }
        // Workers may go on for a moment with a size that was just given up.
        if let Some(refused) = hints.too_big.filter(|&refused| refused <= self.path_mtu.current()) {
            self.path_mtu.handle_too_big(refused, now);
        }
    }

    /// Does what the machines want done.
    fn settle(&mut self, now: Instant) -> Result<(), EspError> {
        self.follow_rekey(now)?;
        self.follow_path(now);
        self.follow_path_mtu(now);
        while let Some(transmit) = self.path.poll_transmit() {
            self.send_probe(transmit.to, &transmit.probe, probe::LEN);
        }
        Ok(())
    }

    fn follow_rekey(&mut self, now: Instant) -> Result<(), EspError> {
        while let Some(event) = self.rekey.poll_event() {
            match event {
                RekeyEvent::Prepare { epoch: _, group, peer_share } => {
                    let (spi, share) = self.epochs.prepare(group, &peer_share)?;
                    self.rekey.handle_prepared(spi, share);
                }
                RekeyEvent::Install { client, server } => {
                    self.epochs.install((&client, &server), &self.session, &self.report_sender, now)?;
                    self.rekey.handle_installed(now);
                    if client.epoch == 0 {
                        // What was due before could not be sealed.
                        self.path.handle_rebind(now);
                    }
                }
                RekeyEvent::ProbeOutbound { epoch } => self.probe_epoch(epoch),
                RekeyEvent::ActivateOutbound { epoch } => {
                    self.epochs.activate(epoch);
                    self.carriers().note_epoch(epoch);
                    self.update_route();
                    debug!(epoch, "esp sends with new keys");
                }
                RekeyEvent::RetireInbound { epoch } => self.epochs.retire_inbound(epoch),
                RekeyEvent::RetireOutbound => {
                    self.carriers().set_esp(None);
                    self.epochs.retire_outbound();
                }
            }
        }
        Ok(())
    }

    fn follow_path(&mut self, now: Instant) {
        while let Some(event) = self.path.poll_event() {
            match event {
                PathEvent::Up(to) => {
                    debug!(%to, "esp is up");
                    self.path_mtu.handle_up(now);
                    let is_least = self.path_mtu.current() == datagram_len(LEAST_PACKET);
                    self.size_due = now.checked_add(SIZE_WITHIN).filter(|_| is_least);
                }
                PathEvent::Moved(to) => {
                    debug!(%to, "esp moved");
                    self.path_mtu.handle_up(now);
                }
                PathEvent::Down => {
                    debug!("esp is down");
                    self.path_mtu.handle_down();
                    self.size_due = None;
                }
            }
            self.update_route();
        }
    }

    fn follow_path_mtu(&mut self, now: Instant) {
        while let Some(transmit) = self.path_mtu.poll_transmit() {
            let Some(to) = self.path.address() else { break };
            if !self.send_probe(to, &transmit.probe, transmit.content_len()) {
                self.path_mtu.handle_too_big(transmit.size, now);
            }
        }
        while let Some(event) = self.path_mtu.poll_event() {
            match event {
                PathMtuEvent::Current(datagram) => debug!(datagram, "esp path takes datagrams of this size"),
                PathMtuEvent::TooNarrow => debug!("esp path is too narrow"),
            }
            self.size_due = None;
            self.update_route();
        }
    }

    /// Tells the workers how to send now.
    fn update_route(&self) {
        let has_size = self.size_due.is_none() && !self.path_mtu.is_too_narrow();
        let passes = self.path.state() == PathState::Up && has_size;
        let route = self.epochs.active().zip(self.path.address()).filter(|_| passes).map(|(sa, to)| EspRoute {
            sa: Arc::clone(sa),
            to,
            origin: self.origin(to),
            mtu: self.mtu(),
            vouched: self.negotiated.vouched,
        });
        self.carriers().set_esp(route);
    }

    fn mtu(&self) -> u16 {
        let largest = packet::largest_inner(usize::from(self.path_mtu.current()));
        u16::try_from(largest).map_or(self.largest_packet, |largest| largest.min(self.largest_packet))
    }

    /// Sends a probe with an SA that is not active yet. Its answer means nothing but that packets of the epoch pass.
    fn probe_epoch(&self, epoch: u32) {
        let to = self.path.address().or_else(|| self.path.candidate());
        if let Some((sa, to)) = self.epochs.outbound(epoch).zip(to) {
            let probe = Probe { kind: Kind::Request, nonce: random() };
            self.send(sa, to, &probe, probe::LEN);
        }
    }

    /// Sends a probe with the SA in use; says whether its size was no problem.
    fn send_probe(&self, to: SocketAddr, probe: &Probe, len: usize) -> bool {
        self.epochs.for_dummies().is_none_or(|sa| self.send(sa, to, probe, len))
    }

    /// Sends a dummy packet of `len` bytes.
    fn send(&self, sa: &Outbound<Cipher>, to: SocketAddr, probe: &Probe, len: usize) -> bool {
        let mut datagram = vec![0; packet::sealed_len(len)];
        let content = datagram.get_mut(PREFIX_LEN..PREFIX_LEN.saturating_add(len));
        content.and_then(|content| probe.encode_padded(content)).expect("every size tried holds a probe");
        let sealed = sa.reserve(1, len).and_then(|mut numbers| numbers.seal(&mut datagram, len, NextHeader::Nothing));
        // Whatever else the system says, an unanswered probe says as much.
        let refused = sealed.is_ok().then(|| self.plane.send(self.origin(to), to, &datagram).err()).flatten();
        refused.is_none_or(|error| error.raw_os_error() != Some(libc::EMSGSIZE))
    }

    /// Where datagrams to an address leave: where its own arrived.
    fn origin(&self, to: SocketAddr) -> Origin {
        let known = self.origins.iter().find(|(address, _)| *address == to).map(|&(_, origin)| origin);
        known.unwrap_or_else(|| self.plane.origin(to))
    }

    /// Keeps where packets of the session's address and of its candidate arrive.
    fn remember(&mut self, from: SocketAddr, origin: Origin) {
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

    fn carriers(&self) -> &Carriers {
        self.session.carriers()
    }
}

impl<S: Carried> Drop for EspControl<S> {
    fn drop(&mut self) {
        self.rekey.handle_closed();
        // Only SAs are dropped here, which cannot fail.
        self.follow_rekey(now()).ok();
    }
}

/// Bytes of the datagram that carries a packet of that size.
fn datagram_len(packet: u16) -> u16 {
    u16::try_from(packet::sealed_len(usize::from(packet))).unwrap_or(u16::MAX)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

//! What keeps the SAs of a session alive and knows where they lead: [`EspControl`].
//!
//! [`EspSession`] decides; this carries its commands out. Capsules come in and go out through the owner of the request
//! stream; SAs and probes go to the workers by [`DataPlane`], and their [`Report`]s come back; the route stands in the
//! session's [`Carriers`], where workers read it once per batch. It lives in the task of its session: when that ends,
//! the SAs end.

mod setup;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_proto::esp::capsule::{EspCapsule, Group};
use adit_proto::esp::path::PathState;
use adit_proto::esp::sa::{Inbound, Outbound};
use adit_proto::esp::session::{Change, Command, EspSession, Route, Setup};
use adit_proto::esp::spi::Spi;
use tokio::sync::mpsc;

use super::key_exchange::Exchange;
use super::key_log::KeyLog;
use super::random;
use crate::carrier::{Carried, Carriers, DatagramRoute, Origin, OutboundSa};
use crate::cipher::Cipher;
use crate::worker::{DataPlane, Installation, Report};

pub use setup::{EspError, EspSettings, EspSetup, Exporter, exporter_secret};

/// Reports of workers that wait for the control side; more are dropped, and probes are repeated. 5 KiB.
const MAX_REPORTS: usize = 64;

/// Reports handled before others get their turn.
const REPORTS_AT_ONCE: usize = 32;

/// The machine, with the workers' handle on an SA and their name for where a datagram leaves.
type Esp = EspSession<Arc<Outbound<Cipher>>, Origin>;

/// The ESP carrier of one session, seen from one end. Dropping it ends the carrier.
pub struct EspControl<S: Carried> {
    machine: Esp,
    session: Arc<S>,
    plane: Arc<dyn DataPlane<S>>,
    /// The key exchange under way.
    exchange: Option<Exchange>,
    /// The newest index of an inbound SA.
    last_spi: Option<Spi>,
    report_sender: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    failed: Option<EspError>,
}

impl<S: Carried> EspControl<S> {
    /// The client's end: starts the first epoch at once and probes `gateway`, the address of the connection.
    pub fn client(setup: EspSetup<'_, S>, gateway: SocketAddr, now: Instant) -> Self {
        Self::new(setup, now, |setup| Esp::client(setup, gateway, now))
    }

    /// The server's end: waits for the client.
    pub fn server(setup: EspSetup<'_, S>, now: Instant) -> Self {
        Self::new(setup, now, |setup| Esp::server(setup, now))
    }

    fn new(setup: EspSetup<'_, S>, now: Instant, machine: impl FnOnce(Setup<'_>) -> Esp) -> Self {
        let EspSetup { negotiated, secret, plane, session, policy, largest_packet } = setup;
        let machine = machine(Setup { negotiated, secret, policy, largest_packet, seed: random() });
        let (report_sender, reports) = mpsc::channel(MAX_REPORTS);
        let mut control =
            Self { machine, session, plane, exchange: None, last_spi: None, report_sender, reports, failed: None };
        control.failed = control.execute(now).err();
        control
    }

    /// Whether ESP passes.
    pub const fn state(&self) -> PathState {
        self.machine.state()
    }

    /// Whether ESP passes, but not in datagrams that carry the least packets.
    pub const fn is_too_narrow(&self) -> bool {
        self.machine.is_too_narrow()
    }

    /// Whether a probe of a path that is up had to be repeated since this was last asked.
    pub const fn take_unanswered(&mut self) -> bool {
        self.machine.take_unanswered()
    }

    /// A capsule came on the request stream. [`Self::poll_capsule`] may have an answer then.
    ///
    /// # Errors
    /// If the peer may not send it, or it leads nowhere; the session has to end.
    pub fn handle_capsule(&mut self, capsule: EspCapsule, now: Instant) -> Result<(), EspError> {
        self.machine.handle_capsule(capsule, now)?;
        self.execute(now)
    }

    /// This end's own address or network changed.
    pub fn handle_rebind(&mut self, now: Instant) {
        self.machine.handle_rebind(now);
        if let Err(error) = self.execute(now) {
            self.failed = Some(error);
        }
    }

    /// The next capsule to send on the request stream; to be asked for at the start and after every other call.
    pub fn poll_capsule(&mut self) -> Option<EspCapsule> {
        self.machine.poll_transmit()
    }

    /// Waits until workers report, packets were sent, or time has come, and handles that. Cancel-safe.
    ///
    /// # Errors
    /// If ESP cannot go on; the session has to end.
    pub async fn drive(&mut self) -> Result<(), EspError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let due = self.machine.poll_timeout(now());
        let carriers = self.session.carriers();
        tokio::select! {
            Some(report) = self.reports.recv() => self.handle_reports(&report)?,
            hints = carriers.hinted() => self.machine.handle_hints(hints, now()),
            () = sleep_until(due) => {}
        }
        let now = now();
        self.machine.handle_timeout(now);
        self.execute(now)
    }

    fn handle_reports(&mut self, first: &Report) -> Result<(), EspError> {
        let now = now();
        self.machine.handle_report(first, now);
        self.execute(now)?;
        for _ in 1..REPORTS_AT_ONCE {
            let Ok(report) = self.reports.try_recv() else { break };
            self.machine.handle_report(&report, now);
            self.execute(now)?;
        }
        Ok(())
    }

    /// Does what the machine wants done.
    fn execute(&mut self, now: Instant) -> Result<(), EspError> {
        while let Some(command) = self.machine.poll_command() {
            match command {
                Command::Prepare { group, peer_share } => self.prepare(group, peer_share.as_deref(), now)?,
                Command::Install { peer_share } => self.install(&peer_share, now)?,
                Command::Retire(spi) => self.plane.retire(spi),
                Command::SetRoute(route) => self.set_route(route),
                Command::Send { to, origin, datagram, ecn } => {
                    let sent = self.send(to, origin, &datagram, ecn);
                    // Whatever else the system says, an unanswered probe says as much.
                    if sent.is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE)) {
                        self.machine.handle_refused(datagram.len(), now);
                    }
                }
                Command::ListenForSent => self.carriers().forget_sent(),
                Command::Tell(change) => self.tell(change),
            }
        }
        Ok(())
    }

    /// Makes this end's share and chooses an index.
    fn prepare(&mut self, group: Option<Group>, peer_share: Option<&[u8]>, now: Instant) -> Result<(), EspError> {
        let (exchange, share) = Exchange::begin(group, peer_share)?;
        let spi = self.plane.claim_spi(self.last_spi).ok_or(EspError::NoSpi)?;
        self.last_spi = Some(spi);
        self.exchange = exchange;
        self.machine.handle_prepared(spi, share, now);
        Ok(())
    }

    /// Makes the keys of an epoch and from them its SAs, of which the inbound one is in use from here on.
    fn install(&mut self, peer_share: &[u8], now: Instant) -> Result<(), EspError> {
        let secret = self.exchange.take().map(|exchange| exchange.finish(peer_share)).transpose()?;
        let new = self.machine.handle_secret(secret.as_ref().map(|secret| secret.as_slice()))?;
        if let Some(log) = KeyLog::from_environment() {
            for direction in [&new.client_to_server, &new.server_to_client] {
                log.record(direction.spi, &direction.keys);
            }
        }
        let (epoch, accept) = (new.epoch, new.accept);
        let (inbound, outbound) = new.into_inbound_and_outbound();
        let sa = Inbound::new(inbound.spi, inbound.keys, accept)?;
        let outbound = Arc::new(Outbound::new(outbound.spi, outbound.keys)?);
        let (session, reports) = (Arc::clone(&self.session), self.report_sender.clone());
        self.plane.install(Installation { sa, epoch, session, reports });
        self.machine.handle_installed(outbound, now);
        Ok(())
    }

    fn set_route(&self, route: Option<Route<Arc<Outbound<Cipher>>, Origin>>) {
        self.carriers().set_route(route.map(|Route { sa, to, origin, mtu, vouched, marked }| {
            let origin = origin.unwrap_or_else(|| self.plane.origin(to));
            DatagramRoute { sa: OutboundSa::Esp(sa), to, origin, mtu, vouched, marked }
        }));
    }

    fn send(&self, to: SocketAddr, origin: Option<Origin>, datagram: &[u8], ecn: u8) -> io::Result<()> {
        let origin = origin.unwrap_or_else(|| self.plane.origin(to));
        self.plane.send(origin, to, datagram, ecn)
    }

    fn tell(&self, change: Change) {
        match change {
            Change::NewKeys { epoch } => {
                self.carriers().note_epoch(epoch);
                tracing::debug!(epoch, "esp sends with new keys");
            }
            Change::Up(to) => tracing::debug!(%to, "esp is up"),
            Change::Moved(to) => tracing::debug!(%to, "esp moved"),
            Change::Down => tracing::debug!("esp is down"),
            Change::Size(datagram) => tracing::debug!(datagram, "esp path takes datagrams of this size"),
            Change::TooNarrow => tracing::debug!("esp path is too narrow"),
            Change::Marks(pass) => tracing::debug!(pass, "esp path and ECN marks"),
        }
    }

    fn carriers(&self) -> &Carriers {
        self.session.carriers()
    }
}

impl<S: Carried> Drop for EspControl<S> {
    fn drop(&mut self) {
        self.machine.handle_closed();
        self.execute(now()).expect("SAs are only dropped here, which cannot fail");
    }
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

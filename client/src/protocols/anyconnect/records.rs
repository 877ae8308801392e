//! The DTLS side of a session: its associations, what is said in their records, and whether packets go there.

use std::future::pending;
use std::iter::from_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::Carried as _;
use adit_net::carrier::dtls::DtlsCarrier;
use adit_net::cipher::Cipher;
use adit_net::worker::{AssociationPlane, RecordReport, Stray};
use adit_program::random::random;
use adit_proto::anyconnect::frame::FrameKind;
use adit_proto::anyconnect::record;
use adit_proto::anyconnect::record_path::{RecordPath, State};
use adit_proto::anyconnect::tunnel::settings::DtlsSettings;
use adit_proto::anyconnect::tunnel::{APP_ID_LEN, PSK_LABEL, PSK_LEN};
use adit_proto::drop_reason::DropReason;
use adit_proto::dtls::handshake::{Credential, Setup};
use adit_proto::dtls::record::ContentType;
use adit_proto::dtls::sa::Outbound;
use adit_proto::dtls::succession::{Change, Succession};
use adit_proto::dtls::suite::CipherSuite;
use adit_proto::esp::session::Hints;
use adit_proto::packet::IPV6_MIN_MTU;
use adit_proto::packet::ecn::NOT_ECT;
use bytes::Bytes;
use rustls::ClientConnection;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use zeroize::Zeroizing;

use crate::packet_source::TunnelSession;
use crate::protocols::data::DataPath;

/// Datagrams that wait; more are dropped, and repeated by who means them. Each has at most 2 KiB.
const STRAYS: usize = 16;
/// How long at most the gateway is not asked in records: less than what is on the way remembers of a conversation.
const LONGEST_SILENCE: Duration = Duration::from_secs(20);
/// Bytes of the largest datagram of a handshake: what every path takes.
const HANDSHAKE: usize = 1200;

/// What both ends take from the TLS connection, and what the gateway said of records.
pub(super) struct Terms {
    psk: Zeroizing<[u8; PSK_LEN]>,
    settings: DtlsSettings,
}

impl Terms {
    /// Takes the key of DTLS from the connection that the gateway has answered on.
    pub(super) fn new(settings: DtlsSettings, connection: &ClientConnection) -> Option<Self> {
        let psk = connection.export_keying_material([0; PSK_LEN], PSK_LABEL, None);
        let psk = psk.inspect_err(|error| tracing::warn!(%error, "no key for DTLS; packets go by TLS")).ok()?;
        Some(Self { psk: Zeroizing::new(psk), settings })
    }
}

/// The DTLS side of one session. Dropping it ends what there is.
pub(super) struct Records {
    data: Arc<DataPath>,
    session: Arc<TunnelSession>,
    plane: Arc<dyn AssociationPlane<TunnelSession>>,
    gateway: SocketAddr,
    app_id: [u8; APP_ID_LEN],
    psk: Zeroizing<[u8; PSK_LEN]>,
    strays: mpsc::Receiver<Stray>,
    succession: Succession<Cipher, Arc<Outbound<Cipher>>>,
    path: RecordPath,
    carrier: DtlsCarrier<TunnelSession>,
    /// Packets go by the connection, whatever passes.
    is_paused: bool,
}

impl Records {
    /// Begins without an association, towards the address of the connection; `None` without workers.
    pub(super) fn new(terms: Terms, connection: SocketAddr, data: &Arc<DataPath>) -> Option<Self> {
        let Terms { psk, settings: DtlsSettings { port, app_id, dpd, keepalive } } = terms;
        let plane = data.packets().workers()?.plane();
        let (sender, strays) = mpsc::channel(STRAYS);
        plane.hand_strays_to(&sender);
        let intervals = [dpd, keepalive, Some(LONGEST_SILENCE)].into_iter().flatten();
        let interval = intervals.min().unwrap_or(LONGEST_SILENCE);
        let session = Arc::clone(data.session());
        Some(Self {
            carrier: DtlsCarrier::new(Arc::clone(&session), Arc::clone(&plane)),
            data: Arc::clone(data),
            session,
            plane,
            gateway: beside(connection, port.get()),
            app_id,
            psk,
            strays,
            succession: Succession::default(),
            path: RecordPath::new(interval, Instant::now()),
            is_paused: false,
        })
    }

    /// Waits until something happens and does what follows from it. Cancel-safe.
    pub(super) async fn turn(&mut self) {
        let due = [self.path.poll_timeout(), self.succession.poll_timeout()].into_iter().flatten().min();
        let handled = tokio::select! {
            Some(stray) = self.strays.recv() => self.handle_stray(stray),
            report = self.carrier.report() => self.handle_report(&report),
            hints = self.session.carriers().hinted() => {
                self.handle_hints(hints);
                Ok(())
            }
            () = until(due) => Ok(()),
        };
        if let Err(reason) = handled {
            self.session.carriers().counters().count_drop(reason);
        }
        let now = Instant::now();
        self.look();
        self.path.handle_timeout(now);
        self.succession.handle_timeout(now);
        self.drain(now);
    }

    /// Has packets go by the connection, and waits until the gateway has those that are under way in records, or for so
    /// long.
    pub(super) async fn pause(&mut self, patience: Duration) {
        self.is_paused = true;
        // The answer to a question shows that what was sent before it has arrived.
        self.path.handle_doubt(Instant::now());
        self.drain(Instant::now());
        let answered = async {
            while self.path.state() == State::Passing && self.path.is_asking() {
                self.turn().await;
            }
        };
        let _in_time = timeout(patience, answered).await;
    }

    /// Of datagrams that no worker can open only the gateway's are taken.
    fn handle_stray(&mut self, stray: Stray) -> Result<(), DropReason> {
        let mut datagram = stray.datagram;
        self.succession.handle_datagram(&mut datagram, stray.from, (), Instant::now())
    }

    fn handle_report(&mut self, report: &RecordReport) -> Result<(), DropReason> {
        let now = Instant::now();
        match report {
            RecordReport::Heard => self.path.handle_heard(),
            RecordReport::Opened { content: ContentType::ApplicationData, body } => self.path.handle_record(body, now),
            RecordReport::Opened { content, body } => self.succession.handle_opened(*content, body, now)?,
        }
        Ok(())
    }

    fn handle_hints(&mut self, hints: Hints) {
        let now = Instant::now();
        if hints.sent {
            self.path.handle_sent(now);
        }
        if hints.doubt {
            self.path.handle_doubt(now);
        }
        let Some(mtu) = hints.too_big.and_then(|datagram| self.carrier.handle_too_big(datagram)) else { return };
        self.path.handle_narrow(mtu);
        if mtu < IPV6_MIN_MTU {
            tracing::debug!(mtu, "packets do not fit the records of this path");
            self.succession.handle_close();
        }
    }

    /// Looks whether records came, and whether the keys have served their time.
    fn look(&mut self) {
        if self.carrier.has_heard() {
            self.path.handle_heard();
            self.session.carriers().forget_sent();
        }
        if self.succession.outbound().is_some_and(|sa| self.carrier.is_worn(sa)) {
            self.succession.handle_close();
        }
    }

    /// Does what the machines ask for.
    fn drain(&mut self, now: Instant) {
        if self.path.poll_association() {
            let setup = self.setup();
            self.succession.begin(self.gateway, (), setup, now);
        }
        let handshake: Vec<_> = from_fn(|| self.succession.poll_transmit()).collect();
        while let Some(change) = self.succession.poll_change() {
            self.follow(change, now);
        }
        if !self.succession.is_beginning() {
            self.path.handle_not_established(now);
        }
        for (_gateway, (), datagram) in handshake {
            self.send(&datagram);
        }
        while let Some(plaintext) = self.path.poll_transmit() {
            let sealed = self.succession.outbound().map(|sa| sa.record(ContentType::ApplicationData, &plaintext));
            if let Some(Ok(record)) = sealed {
                self.send(&record);
            }
        }
        let route = self.succession.outbound().zip(self.path.mtu()).filter(|_| !self.is_paused);
        let origin = self.plane.origin(self.gateway);
        self.carrier.set_route(route.map(|(sa, mtu)| (sa, origin, mtu)));
    }

    fn follow(&mut self, change: Change, now: Instant) {
        match change {
            Change::Established(gateway) => {
                let Some(sa) = self.succession.take_inbound() else { return };
                self.carrier.associate(gateway, sa);
                self.path.handle_established(self.carrier.largest_packet().unwrap_or(IPV6_MIN_MTU), now);
            }
            Change::Data(body) => self.handle_data(&body, now),
            Change::Closed(ending) => {
                tracing::debug!(?ending, "no association any more");
                self.carrier.dissociate();
                self.path.handle_closed(now);
            }
        }
    }

    /// Takes what a record held that came before the worker took over.
    fn handle_data(&mut self, body: &[u8], now: Instant) {
        match record::split(body) {
            Some((FrameKind::Data, packet)) => {
                self.path.handle_heard();
                self.data.hand_over(&mut vec![Bytes::copy_from_slice(packet)]);
            }
            Some(_) | None => self.path.handle_record(body, now),
        }
    }

    /// What an association begins with.
    fn setup(&self) -> Setup {
        let (key, suites) = (Zeroizing::new(self.psk.to_vec()), CipherSuite::PSK.to_vec());
        Setup {
            credential: Credential::PreSharedKey { key, suites },
            session_id: self.app_id.to_vec(),
            random: random().expect("the system has randomness: TLS came before"),
            largest_datagram: HANDSHAKE,
        }
    }

    fn send(&self, datagram: &[u8]) {
        // What is lost here is sent again like what is lost on its way.
        self.plane.send(self.plane.origin(self.gateway), self.gateway, datagram, NOT_ECT).ok();
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.succession.handle_close();
        self.drain(Instant::now());
    }
}

/// Another port of the same host, as datagrams from there name it.
fn beside(mut address: SocketAddr, port: u16) -> SocketAddr {
    let ip = address.ip().to_canonical();
    if ip != address.ip() {
        return SocketAddr::new(ip, port);
    }
    // Kept is the link that a link-local address is on.
    address.set_port(port);
    address
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;

//! A running gateway as administrators see it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_host::GuardReport;
use adit_net::worker::Routing as _;
use adit_proto::sealing::suite::Suite;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::core::local::LocalCore;
use crate::core::login::logins::Logins;
use crate::core::personal::PersonalTerms;
use crate::core::router::Router;
use crate::core::sessions::{Ending, Session};
use crate::reload::{ReloadAnswer, ReloadOrder, ReloadRefusal, ReloadRequest};
use crate::sources::local::hashers::HashCounts;

/// How long an announced restart is waited for. A stop long after it is one like any other.
const ANNOUNCEMENT_LASTS: Duration = Duration::from_secs(10 * 60);

/// One live session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Number of the session, unique in this run of the gateway.
    pub session: u64,
    /// The user who owns the device.
    pub user: String,
    /// The device's id.
    pub device: String,
    /// The device's name, as it gave it at enrolment.
    pub device_name: String,
    /// Inner addresses.
    pub addresses: Vec<IpAddr>,
    /// Outer address of the client.
    pub remote: SocketAddr,
    /// What serves the client: `connect-ip` or `anyconnect`.
    #[serde(default)]
    pub front_end: String,
    /// The client's name and version, as it says itself; native ones do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The group that the user has chosen for this session, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Carrier in use: `esp`, `dtls`, `quic` or `tls`.
    pub carrier: String,
    /// Cipher suite of the carrier in use; not of `quic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Largest packet the carrier in use takes now, in bytes.
    pub mtu: u16,
    /// Seconds since the session began.
    pub seconds: u64,
    /// Packets and bytes received from the client.
    pub rx_packets: u64,
    /// See `rx_packets`.
    pub rx_bytes: u64,
    /// Packets and bytes sent to the client.
    pub tx_packets: u64,
    /// See `tx_packets`.
    pub tx_bytes: u64,
    /// Packets received from the client after one that it sent later, so reordered on the way: a client has one worker.
    /// Only those that came by `esp` are noticed.
    pub reordered: u64,
    /// Dropped packets by reason (non-zero only).
    pub drops: BTreeMap<String, u64>,
}

/// A certificate that the gateway gets itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// The name it is for.
    pub name: String,
    /// When it ends (RFC 3339); `None` while there is none.
    pub ends: Option<String>,
    /// When it is renewed.
    pub renews: Option<String>,
    /// Why there is no newer one, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Whether an administrator should look after it.
    pub alarming: bool,
}

impl CertificateReport {
    /// What an administrator should know, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let trouble = self.trouble.as_ref().filter(|_| self.alarming)?;
        let standing = self.ends.as_ref().map_or_else(|| "none yet".to_owned(), |ends| format!("it ends at {ends}"));
        Some(format!("the certificate of {} ({standing}): {trouble}", self.name))
    }
}

/// The gateway at a glance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Version of the program.
    pub version: String,
    /// Seconds since the gateway was ready.
    pub uptime_seconds: u64,
    /// Sockets it listens on.
    pub listen: Vec<SocketAddr>,
    /// The TUN device.
    pub tun: String,
    /// Threads that move packets.
    pub workers: usize,
    /// Live sessions.
    pub sessions: usize,
    /// Packets dropped before a session was known, by reason (non-zero only).
    pub drops: BTreeMap<String, u64>,
    /// What became of the passwords of the gateway's own users; `None` where it knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passwords: Option<HashCounts>,
    /// Logins that found as many being checked as may be, by source (non-zero only).
    #[serde(default)]
    pub logins_turned_away: BTreeMap<String, u64>,
    /// Settings of the host that do not hold, or had to be put back within the last ten minutes.
    #[serde(default)]
    pub guards: Vec<GuardReport>,
    /// The certificates that the gateway gets itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateReport>,
    /// What an administrator should look after; none when all is well.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What the administration may ask of a running gateway.
pub trait LiveGateway: Send + Sync {
    /// All live sessions.
    fn sessions(&self) -> Vec<SessionInfo>;
    /// The gateway at a glance.
    fn status(&self) -> GatewayStatus;
    /// Ends the sessions of a device and closes its connections, for this reason; returns how many sessions there were.
    fn close_device(&self, device: &str, why: Ending) -> usize;
    /// The terms on which sessions begin now.
    fn personal_terms(&self) -> Arc<PersonalTerms>;
    /// Reads the configuration again; blocks until that is done.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn reload(&self, request: ReloadRequest) -> Result<ReloadAnswer, ReloadRefusal>;
    /// The next stop is a restart, if it is soon: clients are told that the gateway is back in so long a time.
    fn announce_restart(&self, back_in: Duration);
    /// Where users log in, if they can.
    fn logins(&self) -> Option<Arc<Logins>> {
        None
    }
}

/// The core, router and sockets of this process, seen together.
pub struct GatewayView {
    core: Arc<LocalCore>,
    router: Arc<Router>,
    listen: Vec<SocketAddr>,
    since: Instant,
    guards: Mutex<Vec<GuardReport>>,
    certificates: Mutex<Vec<CertificateReport>>,
    reloads: mpsc::Sender<ReloadOrder>,
    restart: Mutex<Option<AnnouncedRestart>>,
}

/// That the next stop is a restart.
#[derive(Debug, Clone, Copy)]
struct AnnouncedRestart {
    at: Instant,
    back_in: Duration,
}

impl GatewayView {
    /// The view of a gateway that listens on `listen`, is ready now, and does the reloads it is sent.
    pub fn new(
        core: Arc<LocalCore>,
        router: Arc<Router>,
        listen: Vec<SocketAddr>,
        reloads: mpsc::Sender<ReloadOrder>,
    ) -> Self {
        let (guards, certificates) = (Mutex::default(), Mutex::default());
        let restart = Mutex::default();
        Self { core, router, listen, since: Instant::now(), guards, certificates, reloads, restart }
    }

    /// How long after its stop the gateway is back, if it was announced lately that it would restart.
    pub fn announced_restart(&self) -> Option<Duration> {
        let announced = *self.restart.lock().unwrap_or_else(PoisonError::into_inner);
        announced.filter(|restart| restart.at.elapsed() < ANNOUNCEMENT_LASTS).map(|restart| restart.back_in)
    }

    /// Notes what the guards of the host found last.
    pub fn tell_guards(&self, guards: Vec<GuardReport>) {
        *self.guards.lock().unwrap_or_else(PoisonError::into_inner) = guards;
    }

    /// Notes how the certificates stand that the gateway gets itself.
    pub fn tell_certificates(&self, certificates: Vec<CertificateReport>) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = certificates;
    }
}

impl LiveGateway for GatewayView {
    fn sessions(&self) -> Vec<SessionInfo> {
        let now = Instant::now();
        self.core.sessions().all().iter().map(|session| info(session, now)).collect()
    }

    fn status(&self) -> GatewayStatus {
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        GatewayStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.since.elapsed().as_secs(),
            listen: self.listen.clone(),
            tun: self.router.tun_name().to_owned(),
            workers: self.router.queues().len(),
            sessions: self.core.sessions().len(),
            drops: self.router.counters().traffic().drops.into_iter().map(|(r, n)| (r.to_owned(), n)).collect(),
            passwords: self.core.logins().and_then(|logins| logins.chain().hash_counts()),
            logins_turned_away: self.core.logins().map(|logins| logins.turned_away()).unwrap_or_default(),
            guards: self.guards.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            warnings: certificates.iter().filter_map(CertificateReport::warning).collect(),
            certificates,
        }
    }

    fn personal_terms(&self) -> Arc<PersonalTerms> {
        self.core.personal_terms()
    }

    fn reload(&self, request: ReloadRequest) -> Result<ReloadAnswer, ReloadRefusal> {
        let stopping = || ReloadRefusal("the gateway is stopping".to_owned());
        let (answer, told) = oneshot::channel();
        self.reloads.blocking_send(ReloadOrder { request, answer }).map_err(|_stopped| stopping())?;
        told.blocking_recv().map_err(|_stopped| stopping())?
    }

    fn announce_restart(&self, back_in: Duration) {
        let announced = AnnouncedRestart { at: Instant::now(), back_in };
        *self.restart.lock().unwrap_or_else(PoisonError::into_inner) = Some(announced);
    }

    fn logins(&self) -> Option<Arc<Logins>> {
        self.core.logins()
    }

    fn close_device(&self, device: &str, why: Ending) -> usize {
        usize::from(self.core.shut_out(device, why))
    }
}

/// The session as administrators see it.
fn info(session: &Session, now: Instant) -> SessionInfo {
    let traffic = session.carriers.counters().traffic();
    let about = session.connection.about();
    let suite = session.carriers.suite().map(Suite::label).or(about.cipher);
    SessionInfo {
        session: session.id,
        user: session.device.user.clone(),
        device: session.device.id.clone(),
        device_name: session.device.name.clone(),
        addresses: session.addresses().collect(),
        remote: session.connection.remote(),
        front_end: about.front_end.to_owned(),
        client: about.client.map(str::to_owned),
        group: session.connection.group().map(str::to_owned),
        carrier: session.carriers.name().to_owned(),
        suite: suite.map(str::to_owned),
        mtu: session.carriers.mtu(),
        seconds: now.saturating_duration_since(session.since).as_secs(),
        rx_packets: traffic.rx_packets,
        rx_bytes: traffic.rx_bytes,
        tx_packets: traffic.tx_packets,
        tx_bytes: traffic.tx_bytes,
        reordered: traffic.rx_reordered,
        drops: traffic.drops.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
    }
}

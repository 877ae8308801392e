//! The CONNECT-IP front-end: accepts QUIC connections, authenticates them, and turns requests into sessions of the core.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use adit_net::h3::{H3Connection, close};
use adit_net::task;
use adit_proto::capsule::dns::DnsAssign;
use adit_proto::h3::connection::Role;
use adit_proto::h3::error::Code;
use adit_proto::range::{RouteRange, from_prefixes};
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::gateway::Gateway;
use crate::identity::{Authority, device_identity};
use crate::store::{AuthError, Device};

mod inbound;
mod request;
mod tunnel;

use inbound::Inbound;

/// A connection must have finished its handshake after this time.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A connection must have logged in, or enrolled, after this time.
const LOGIN_DEADLINE: Duration = Duration::from_secs(10);
/// Handshakes in progress above which clients must first prove their address (QUIC Retry, RFC 9000 section 8.1.2).
const RETRY_ABOVE: usize = 50;

/// The front-end and what all its connections share.
pub struct FrontEnd {
    gateway: Arc<Gateway>,
    authority: Arc<Authority>,
    config: Arc<Config>,
    offer: Offer,
    /// Connections that have not logged in yet.
    pending: AtomicUsize,
}

/// What every session is offered besides its addresses.
struct Offer {
    routes: Vec<RouteRange>,
    dns: Option<DnsAssign>,
}

/// Who is at the other end of a connection, as far as TLS knows.
enum Peer {
    /// No certificate; may enrol or log in with a token.
    Anonymous,
    /// A device certificate of our authority: its device id and serial number.
    Certificate { device: String, serial: String },
    /// A certificate of our authority that names no device.
    Nameless,
}

impl FrontEnd {
    /// Makes the front-end; sessions are offered `advertised` prefixes.
    pub fn new(gateway: Arc<Gateway>, authority: Arc<Authority>, config: Arc<Config>, advertised: &[IpNet]) -> Self {
        let dns = &config.dns;
        let offer = Offer {
            routes: from_prefixes(advertised),
            dns: (!dns.servers.is_empty()).then(|| DnsAssign::plain(&dns.servers, &dns.domains)),
        };
        Self { gateway, authority, config, offer, pending: AtomicUsize::new(0) }
    }

    /// Accepts connections until the endpoint closes.
    pub async fn serve(self: Arc<Self>, endpoint: quinn::Endpoint) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(incoming, &mut connections),
                    None => return,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn admit(self: &Arc<Self>, incoming: quinn::Incoming, connections: &mut JoinSet<()>) {
        let pending = self.pending.load(Ordering::Relaxed);
        if pending >= self.config.limits.pending_sessions {
            return incoming.ignore();
        }
        if pending >= RETRY_ABOVE && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "retry not sent");
            }
            return;
        }
        let login = PendingLogin::new(Arc::clone(self));
        connections.spawn(async move { login.run(incoming).await });
    }

    /// Who may log in with a certificate; checked after every handshake, since the store may have revoked it.
    fn authenticate_certificate(&self, device: &str, serial: &str) -> Result<Device, AuthError> {
        self.gateway.store().authenticate_certificate(device, serial, SystemTime::now())
    }
}

/// A connection on its way in; counted until it logs in or ends.
struct PendingLogin {
    front_end: Arc<FrontEnd>,
    counted: bool,
}

impl PendingLogin {
    fn new(front_end: Arc<FrontEnd>) -> Self {
        front_end.pending.fetch_add(1, Ordering::Relaxed);
        Self { front_end, counted: true }
    }

    fn logged_in(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.front_end.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn run(mut self, incoming: quinn::Incoming) {
        let remote = incoming.remote_address();
        let handshake = async { incoming.accept()?.await };
        let quic = match tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => return tracing::debug!(%remote, %error, "handshake failed"),
            Err(_elapsed) => return tracing::debug!(%remote, "handshake took too long"),
        };
        let peer = Arc::new(peer_of(&quic));
        let http = H3Connection::start(quic, Role::Server);
        let inbound = Arc::new(Inbound::default());
        // Reads from the start, so that nothing a stranger sends piles up.
        let _receiving =
            task::spawn(Arc::clone(&inbound).receive(http.quic().clone(), Arc::clone(self.front_end.gateway.router())));
        let (logged_in, mut login) = tokio::sync::mpsc::channel(1);
        let mut requests: JoinSet<()> = JoinSet::new();
        let deadline = tokio::time::sleep(LOGIN_DEADLINE);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                accepted = http.accept_request() => {
                    let Ok(stream) = accepted else { break };
                    let context = request::Context {
                        front_end: Arc::clone(&self.front_end),
                        peer: Arc::clone(&peer),
                        quic: http.quic().clone(),
                        inbound: Arc::clone(&inbound),
                        logged_in: logged_in.clone(),
                    };
                    requests.spawn(context.handle(stream));
                }
                Some(()) = login.recv() => self.logged_in(),
                Some(_) = requests.join_next() => {}
                () = &mut deadline, if self.counted => {
                    close(http.quic(), Code::EXCESSIVE_LOAD, "no login in time");
                    break;
                }
            }
        }
        // Sessions end with their connection: let their tasks see it and give back their addresses.
        while requests.join_next().await.is_some() {}
    }
}

impl Drop for PendingLogin {
    fn drop(&mut self) {
        self.logged_in();
    }
}

/// Reads who TLS found at the other end.
fn peer_of(quic: &quinn::Connection) -> Peer {
    let Some(chain) =
        quic.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
    else {
        return Peer::Anonymous;
    };
    match chain.first().map(|certificate| device_identity(certificate)) {
        None => Peer::Anonymous,
        Some(Ok(identity)) => Peer::Certificate { device: identity.device, serial: identity.serial },
        Some(Err(error)) => {
            tracing::debug!(%error, "client certificate names no device");
            Peer::Nameless
        }
    }
}

//! What clients are told, what they log in with, and what all of them share.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_net::{quic, tls};
use anyhow::Result;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::histogram::Histogram;
use super::load_path::SharedSockets;
use super::returning::Returns;
use super::roam;
use super::session::{Echoes, Session};

/// Reasons of failed clients that are kept; their number is not bounded.
const MAX_REASONS: usize = 8;

/// What a client is told.
pub(super) struct Plan {
    /// The gateway's name in its certificate.
    pub(super) host: String,
    /// Where it listens.
    pub(super) gateway: SocketAddr,
    /// Its inner address, which answers echo requests.
    pub(super) inner: Ipv4Addr,
    /// Its certificate authority.
    pub(super) authority: CertificateDer<'static>,
    /// The settings of connections of clients that have no certificate.
    pub(super) quic: quinn::ClientConfig,
    /// Whether clients offer ESP.
    pub(super) esp: bool,
    /// The settings of connections over TCP, of clients of the AnyConnect family; `None` where clients are native ones.
    pub(super) anyconnect: Option<Arc<ClientConfig>>,
}

impl Plan {
    /// The settings of a client's connection.
    ///
    /// # Errors
    /// If the certificate cannot be used.
    pub(super) fn quic(&self, pass: &Pass) -> Result<quinn::ClientConfig> {
        match pass {
            Pass::Token(_) => Ok(self.quic.clone()),
            Pass::Certificate { chain, key } => {
                let tls = tls::client_config(&self.authority, Some((chain.clone(), key.clone_key())))?;
                Ok(quic::client_config(tls)?)
            }
        }
    }
}

/// How a client proves who it is.
pub(super) enum Pass {
    /// A bearer token, or the token of a login.
    Token(String),
    /// A device certificate and its key.
    Certificate {
        /// The certificate, and those up to the authority.
        chain: Vec<CertificateDer<'static>>,
        /// Its private key.
        key: PrivateKeyDer<'static>,
    },
}

/// Who sends how much.
pub(super) struct Load {
    /// Who sends, in turn.
    pub(super) sessions: Vec<Arc<Session>>,
    /// Echo requests per second of all together.
    pub(super) rate: f64,
}

/// What all clients share.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) echoes: Arc<Echoes>,
    /// Where clients that do not move connect from.
    pub(super) endpoints: Vec<quinn::Endpoint>,
    /// The sockets by which ESP goes.
    pub(super) sockets: Arc<SharedSockets<Session>>,
    pub(super) passes: Vec<Pass>,
    /// The share of clients that move.
    roam: f64,
    /// From the first datagram to the address.
    pub(super) connect_times: Histogram,
    /// The same, of clients that only look in.
    pub(super) visit_times: Histogram,
    sessions: Mutex<Vec<Arc<Session>>>,
    /// Clients that could not connect or lost their tunnel.
    pub(super) ended: AtomicU32,
    /// Clients that looked in and were not answered.
    pub(super) visits_failed: AtomicU32,
    /// Clients that came back to a gateway that restarted.
    pub(super) returns: Returns,
    reasons: Mutex<Vec<String>>,
}

impl Shared {
    /// What clients with these passes share, of whom a share moves; nobody has connected yet.
    pub(super) fn new(
        plan: Plan,
        endpoints: Vec<quinn::Endpoint>,
        sockets: Arc<SharedSockets<Session>>,
        passes: Vec<Pass>,
        roam: f64,
    ) -> Self {
        Self {
            plan,
            echoes: Arc::new(Echoes::new()),
            endpoints,
            sockets,
            passes,
            roam,
            connect_times: Histogram::default(),
            visit_times: Histogram::default(),
            sessions: Mutex::default(),
            ended: AtomicU32::new(0),
            visits_failed: AtomicU32::new(0),
            returns: Returns::default(),
            reasons: Mutex::default(),
        }
    }

    /// The endpoint on which a client connects.
    pub(super) fn endpoint(&self, number: u32) -> &quinn::Endpoint {
        &self.endpoints[number as usize % self.endpoints.len()]
    }

    /// Whether a client is among those that move.
    pub(super) fn roams(&self, number: u32) -> bool {
        roam::is_roamer(number, self.roam)
    }

    /// A session has its address.
    pub(super) fn note_connected(&self, after: Duration, session: &Arc<Session>) {
        self.connect_times.note(after);
        self.sessions().push(Arc::clone(session));
    }

    /// A client has another session in place of its former one.
    pub(super) fn replace(&self, session: &Arc<Session>) {
        if let Some(place) = self.sessions().iter_mut().find(|former| former.number() == session.number()) {
            *place = Arc::clone(session);
        }
    }

    /// A client failed, which `counter` counts.
    pub(super) fn note_failed(&self, counter: &AtomicU32, reason: &anyhow::Error) {
        counter.fetch_add(1, Ordering::Relaxed);
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = format!("{reason:#}");
        if reasons.len() < MAX_REASONS && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    /// Why clients failed, each reason once.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All sessions, in the order in which they got their addresses.
    pub(super) fn sessions(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! TCP: one place where everybody is listened to, and guests that answer.
//!
//! After the TLS handshake a connection asks in HTTP/1.1. The head of each request says whose it is: the guests, which
//! are the front-ends and the pages for browsers, are asked in turn. What is nobody's gets a plain 404 that tells
//! nothing. On loopback addresses a listener may do without TLS, for a reverse proxy that has it. An authority that
//! asks in its hello whether the gateway has a name is answered by the handshake, and with nothing else.
//!
//! Whoever asks is a stranger, so everything is bounded: the connections, which count together with those that come by
//! QUIC; the head of a request; and the time for each. A stranger that stays gives way to others.

mod challenges;
mod connection;
#[cfg(feature = "oidc")]
mod login_pages;
mod page;
mod portal;
mod quiet;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_program::exit::{Exit, Failure};
use adit_program::rights::Capability;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use rustls::{CipherSuite, ProtocolVersion, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::core::admission::{Pending, Place};

pub use challenges::{Challenges, Offer};
#[cfg(feature = "oidc")]
pub(crate) use page::escaped;
pub use page::page;
pub use portal::Portal;

/// Most connections at once of a listener without TLS, each below 64 KiB. A reverse proxy has few.
const MOST_WITHOUT_TLS: usize = 512;
/// Pause after a failed accept, which means that descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An answer to a request.
pub type Answer = Response<Full<Bytes>>;

/// A connection that a guest has taken over.
pub type CallerStream = TlsStream<TcpStream>;

/// What a guest does with a connection that it takes over, once the caller has its answer. Given the connection and
/// what has been read of it after the request. It ends with the gateway.
pub type TakeOver = Box<dyn FnOnce(CallerStream, Bytes) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What a guest makes of a request.
pub enum Reply {
    /// An answer; the caller may ask more.
    Answer(Answer),
    /// An answer that makes the connection the guest's: a 2xx to CONNECT, or 101. From then on the connection counts no
    /// longer as a stranger's, so the guest has opened a session for it before.
    TakeOver(Answer, TakeOver),
    /// As [`Self::TakeOver`] of a CONNECT, which the guest answers itself on the connection: HTTP here writes the names
    /// of headers in its own way, and some callers compare them letter by letter.
    Connect(TakeOver),
}

/// What answers requests of some kind.
pub trait Guest: Send + Sync {
    /// Whether a request is for this guest, by its head alone.
    fn wants(&self, head: &Parts) -> bool;

    /// Answers it. Whoever asks may be anybody, and may never send the body that the head announces.
    fn answer<'a>(
        &'a self,
        request: Request<Incoming>,
        caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;
}

/// Who asks.
pub struct Caller {
    /// The caller's address; of a reverse proxy, its own.
    pub address: SocketAddr,
    /// The address of this host that the caller chose.
    pub local: SocketAddr,
    /// The certificate that the caller showed, which is one of the gateway's own authority, whatever its dates.
    pub certificate: Option<CertificateDer<'static>>,
    /// The version of TLS; `None` behind a reverse proxy.
    pub protocol: Option<ProtocolVersion>,
    /// The cipher suite of TLS; `None` behind a reverse proxy.
    pub suite: Option<CipherSuite>,
    place: Option<Place>,
}

impl Caller {
    /// A device has logged in on this connection: strangers give way before it.
    pub fn know(&self) {
        if let Some(place) = &self.place {
            place.know(Instant::now());
        }
    }

    /// The caller asks for something: idle strangers give way before it.
    fn touch(&self) {
        if let Some(place) = &self.place {
            place.touch(Instant::now());
        }
    }
}

/// Who answers at some listeners, and how many may ask at once.
pub struct Guests {
    guests: Vec<Arc<dyn Guest>>,
    pending: Arc<Pending>,
    challenges: Arc<Challenges>,
}

impl Guests {
    /// Guests are asked in this order. Their callers have places in `pending`.
    pub(crate) fn new(guests: Vec<Arc<dyn Guest>>, pending: Arc<Pending>) -> Self {
        Self { guests, pending, challenges: Arc::default() }
    }

    /// Guests with places of their own, of so many callers.
    pub fn alone(guests: Vec<Arc<dyn Guest>>, callers: usize) -> Self {
        Self::new(guests, Pending::new(callers))
    }

    /// Also answers the questions of authorities.
    #[must_use]
    pub fn answering(self, challenges: &Arc<Challenges>) -> Self {
        Self { challenges: Arc::clone(challenges), ..self }
    }
}

/// An address that is listened to.
pub struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Listens on a socket of [`bind`], with TLS or without.
    ///
    /// # Errors
    /// If the system refuses.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(socket: std::net::TcpListener, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: TcpListener::from_std(socket)?, tls: tls.map(TlsAcceptor::from) })
    }

    /// Serves the guests until it is dropped.
    pub async fn serve(self, guests: Arc<Guests>) {
        let mut connections = JoinSet::new();
        loop {
            let has_room = self.tls.is_some() || connections.len() < MOST_WITHOUT_TLS;
            tokio::select! {
                accepted = self.socket.accept(), if has_room => match accepted {
                    Ok((stream, caller)) => {
                        let (tls, guests) = (self.tls.clone(), Arc::clone(&guests));
                        connections.spawn(connection::admit(stream, caller, tls, guests));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a connection failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_ended) = connections.join_next() => {}
            }
        }
    }
}

/// Takes an address for a [`Listener`]; `key` is what names it in the configuration, and `instead` what else would do.
///
/// # Errors
/// The address cannot be had.
pub fn bind(address: SocketAddr, key: &str, instead: &str) -> Result<std::net::TcpListener, Failure> {
    std::net::TcpListener::bind(address).map_err(|error| {
        let (exit, next) = if error.kind() == ErrorKind::PermissionDenied {
            (Exit::Permission, format!("{}; or choose a port above 1023", Capability::NetBindService.next_step()))
        } else if error.kind() == ErrorKind::AddrNotAvailable {
            (Exit::Other, format!("choose an address of this host for `{key}`, or wait until it has it"))
        } else {
            (Exit::Other, format!("stop what listens there (`ss -ltnp`), or change `{key}`{instead}"))
        };
        Failure::new(exit, format!("listen on {address}/tcp"), error.to_string(), next)
    })
}

#[cfg(test)]
mod tests;

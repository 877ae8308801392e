//! What the gateway shows to browsers during a login: HTTP/1.1 over TLS, and on loopback addresses without TLS, for a
//! reverse proxy that has it.
//!
//! Whoever asks is a stranger, so everything is bounded: the connections, in all and from one network; the head of a
//! request; and the time for each. Bodies are not read.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::tls::{ServerIdentity, crypto_provider};
use adit_program::exit::{Exit, Failure};
use adit_program::rights::Capability;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::core::admission::{Admission, Pending};
use crate::sources::oidc::{Oidc, Page, Visit};

/// Most connections at once, each below 64 KiB.
const MAX_CONNECTIONS: usize = 512;
/// How long a TLS handshake may take, and the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may stay: for the page, its style, and a provider that takes its time.
const LIFETIME: Duration = Duration::from_secs(60);
/// Most bytes of a request's head. What a provider has a browser bring back is far below it.
const MAX_HEAD: usize = 16 << 10;
/// Pause after a failed accept, which means that descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Headers of every answer: nothing from elsewhere, no scripts, in no frame, and nothing is kept or told to others.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// A place where browsers are listened to.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Listens on an address. TLS shows browsers the certificate of `identity` that is for them.
    ///
    /// # Errors
    /// The address cannot be had.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn bind(address: SocketAddr, identity: Arc<ServerIdentity>) -> Result<Self, Failure> {
        let failed = |error: io::Error| bind_failure(address, &error);
        let socket = std::net::TcpListener::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let socket = TcpListener::from_std(socket).map_err(failed)?;
        if address.ip().is_loopback() {
            return Ok(Self { socket, address, tls: None });
        }
        let config = ServerConfig::builder_with_provider(crypto_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| {
                Failure::new(Exit::Other, "TLS for browsers", error.to_string(), "report this as a fault of Adit")
            })?
            .with_no_client_auth()
            .with_cert_resolver(identity);
        Ok(Self { socket, address, tls: Some(TlsAcceptor::from(Arc::new(config))) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the pages of a provider's logins until it is dropped.
    pub async fn serve(self, oidc: Arc<Oidc>) {
        let pending = Pending::new(MAX_CONNECTIONS);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.socket.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, client)) => {
                        let (tls, oidc, pending) = (self.tls.clone(), Arc::clone(&oidc), Arc::clone(&pending));
                        connections.spawn(async move { admit(stream, client.ip(), tls, oidc, pending).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a browser failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_ended) = connections.join_next() => {}
            }
        }
    }
}

fn bind_failure(address: SocketAddr, error: &io::Error) -> Failure {
    let (exit, next) = if error.kind() == ErrorKind::PermissionDenied {
        (Exit::Permission, format!("{}; or choose a port above 1023", Capability::NetBindService.next_step()))
    } else if error.kind() == ErrorKind::AddrNotAvailable {
        (Exit::Other, "choose an address of this host for `oidc.listen`, or wait until it has it".to_owned())
    } else {
        (Exit::Other, "stop what listens there (`ss -ltnp`), or change `oidc.listen`".to_owned())
    };
    Failure::new(exit, format!("listen on {address}/tcp"), error.to_string(), next)
}

/// Serves a connection while it has a place and time.
async fn admit(stream: TcpStream, client: IpAddr, tls: Option<TlsAcceptor>, oidc: Arc<Oidc>, pending: Arc<Pending>) {
    // All clients of a reverse proxy on this host share its address.
    let place = if client.to_canonical().is_loopback() {
        None
    } else {
        match pending.admit(client, true, Instant::now()) {
            Admission::Place(place) => Some(place),
            Admission::ProveAddress | Admission::Full => return,
        }
    };
    let given_way = async {
        match &place {
            Some(place) => place.given_way().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = given_way => {}
        _ended = timeout(LIFETIME, serve(stream, tls, &oidc)) => {}
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, oidc: &Oidc) {
    let Some(tls) = tls else { return exchange(stream, oidc).await };
    match timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => exchange(stream, oidc).await,
        Ok(Err(error)) => tracing::debug!(%error, "a browser's TLS handshake failed"),
        Err(_elapsed) => tracing::debug!("a browser's TLS handshake took too long"),
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: S, oidc: &Oidc) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(oidc, &request).await) });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = pin!(served).await {
        tracing::debug!(%error, "a browser's connection failed");
    }
}

async fn answer(oidc: &Oidc, request: &hyper::Request<Incoming>) -> hyper::Response<Full<Bytes>> {
    let mut response = if request.method() == Method::GET {
        let cookies = request.headers().get(header::COOKIE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        encode(oidc.visit(Visit { path, query, cookies }).await)
    } else {
        let mut refused = hyper::Response::new(Full::default());
        *refused.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        refused.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        refused
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn encode(page: Page) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(page.media_type));
    let cookie = page.cookie.map(|cookie| {
        // Lax, as Strict ones do not come along on the way back from another site.
        HeaderValue::try_from(format!("{cookie}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600"))
    });
    if let Some(Ok(cookie)) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests;

//! One HTTP/3 request: a tunnel, an enrolment, a renewal, or something we do not serve.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_net::http::StreamError;
use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_proto::connect_ip::request::{ConnectIpRequest, HttpRequest, Incoming, Rejection, Request};
use adit_proto::connect_ip::template::Target;
use adit_proto::datagram::Prefix;
use adit_proto::enrollment::{ENROLL_PATH, MAX_BODY, RENEW_PATH};
use adit_proto::http::field::Field;
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::packet::IPV6_MIN_MTU;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::FrontEnd;
use super::answer::{HttpRefusal, answer_json, answer_refusal, answer_status, refuse};
use super::inbound::Inbound;
use super::peer::Peer;
use super::tunnel;
use crate::accounts::{Accounts as _, AuthError, Device};
use crate::enroll;

/// A whole request other than a tunnel must arrive within this time.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// What a request needs to know of its connection.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) front_end: Arc<FrontEnd>,
    pub(super) peer: Arc<Peer>,
    pub(super) http: Arc<H3Connection>,
    pub(super) inbound: Arc<Inbound>,
    /// Told once somebody has logged in.
    pub(super) logged_in: mpsc::Sender<()>,
}

impl Context {
    /// Serves one request.
    pub(super) async fn handle(self, stream: TunnelStream) {
        if let Err(error) = self.serve(stream).await {
            tracing::debug!(%error, "request ended");
        }
    }

    async fn serve(&self, mut stream: TunnelStream) -> Result<(), StreamError> {
        let fields = match timeout(REQUEST_DEADLINE, first_headers(&mut stream)).await {
            Ok(fields) => fields?,
            Err(_elapsed) => return Err(stream.abandon_incomplete()),
        };
        match Request::parse(&fields) {
            Ok(Incoming::ConnectIp(request)) => self.connect_ip(stream, &request).await,
            Ok(Incoming::Http(request)) => self.http(&mut stream, &request).await,
            Err(Rejection::Status(status)) => answer_status(&mut stream, status, &[]).await,
            Err(Rejection::Malformed(fault)) => Err(stream.fail(fault)),
        }
    }

    async fn connect_ip(&self, mut stream: TunnelStream, request: &ConnectIpRequest) -> Result<(), StreamError> {
        if request.target != Target::ANY {
            return answer_status(&mut stream, 501, &[]).await;
        }
        let device = match self.authenticate(request.authorization.as_deref()).await {
            Ok(device) => device,
            Err(refused) => return refuse(&mut stream, request, &refused).await,
        };
        self.arrived();
        let Some(_claim) = self.inbound.claim() else {
            return refuse(
                &mut stream,
                request,
                &HttpRefusal { status: 409, reason: "this connection has a tunnel already" },
            )
            .await;
        };
        if !self.takes_packets().await {
            let reason = "the client takes no QUIC datagrams with packets of 1280 bytes";
            return refuse(&mut stream, request, &HttpRefusal { status: 400, reason }).await;
        }
        tunnel::run(self, stream, request, device).await
    }

    /// Whether the client announced HTTP datagrams (RFC 9297 section 2.1.1) large enough for IPv6 (RFC 9484 section 7.2.1).
    async fn takes_packets(&self) -> bool {
        let settings = timeout(REQUEST_DEADLINE, self.http.peer_settings()).await;
        let announced = settings.is_ok_and(|settings| settings.is_ok_and(|settings| settings.datagrams));
        let prefix = Prefix::new(0).as_bytes().len();
        let largest = self.http.quic().max_datagram_size().map_or(0, |size| size.saturating_sub(prefix));
        announced && largest >= usize::from(IPV6_MIN_MTU)
    }

    /// Says that this connection is no stranger's any more. Once is enough.
    fn arrived(&self) {
        let _said_already = self.logged_in.try_send(());
    }

    /// Decides who the device is: its certificate, if it showed one, else its bearer token.
    async fn authenticate(&self, authorization: Option<&str>) -> Result<Device, HttpRefusal> {
        let front_end = Arc::clone(&self.front_end);
        let peer = Arc::clone(&self.peer);
        let token = authorization.and_then(bearer_token).map(str::to_owned);
        let checked = tokio::task::spawn_blocking(move || match (&*peer, token) {
            (Peer::Certificate { device, serial }, _) => front_end.authenticate_certificate(device, serial),
            (Peer::Nameless, _) => Err(AuthError::Unknown),
            (Peer::Anonymous, Some(token)) => front_end.gateway.store().authenticate_token(&token),
            (Peer::Anonymous, None) => Err(AuthError::Unknown),
        });
        match checked.await {
            Ok(Ok(device)) => Ok(device),
            Ok(Err(error)) => Err(self.refusal(&error)),
            Err(_panicked) => Err(HttpRefusal { status: 500, reason: "internal error" }),
        }
    }

    fn refusal(&self, error: &AuthError) -> HttpRefusal {
        let anonymous = matches!(*self.peer, Peer::Anonymous);
        match error {
            AuthError::Unknown if anonymous => {
                HttpRefusal { status: 401, reason: "a device certificate or token is needed" }
            }
            AuthError::Unknown => HttpRefusal { status: 403, reason: "this device is not known here" },
            AuthError::Revoked => HttpRefusal { status: 403, reason: "this device was revoked" },
            AuthError::Expired => HttpRefusal { status: 403, reason: "this device's certificate has expired" },
            AuthError::Store(error) => {
                tracing::error!(%error, "a device could not be checked");
                HttpRefusal { status: 503, reason: "the gateway's store failed" }
            }
        }
    }

    async fn http(&self, stream: &mut TunnelStream, request: &HttpRequest) -> Result<(), StreamError> {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", ENROLL_PATH) => self.enroll(stream).await,
            ("POST", RENEW_PATH) => self.renew(stream).await,
            (_, ENROLL_PATH | RENEW_PATH) => answer_status(stream, 405, &[Field::new("allow", "POST")]).await,
            _ => answer_status(stream, 404, &[]).await,
        }
    }

    async fn enroll(&self, stream: &mut TunnelStream) -> Result<(), StreamError> {
        let Some(request) = read_json(stream).await? else {
            return answer_refusal(stream, 400, "malformed", "the body is no enrolment request").await;
        };
        let front_end = Arc::clone(&self.front_end);
        let enrolled = tokio::task::spawn_blocking(move || {
            let (store, now) = (front_end.gateway.store(), SystemTime::now());
            enroll::enroll(store, &front_end.authority, &front_end.config, &request, now)
        });
        let enrolled = enrolled.await;
        if matches!(enrolled, Ok(Ok(_))) {
            self.arrived();
        }
        answer_json(stream, enrolled).await
    }

    async fn renew(&self, stream: &mut TunnelStream) -> Result<(), StreamError> {
        if !matches!(*self.peer, Peer::Certificate { .. }) {
            return answer_refusal(stream, 401, "no_certificate", "renewal needs the present device certificate").await;
        }
        let device = match self.authenticate(None).await {
            Ok(device) => device,
            Err(HttpRefusal { status, reason }) => return answer_refusal(stream, status, "refused", reason).await,
        };
        self.arrived();
        let Some(request) = read_json(stream).await? else {
            return answer_refusal(stream, 400, "malformed", "the body is no renewal request").await;
        };
        let front_end = Arc::clone(&self.front_end);
        let renewed = tokio::task::spawn_blocking(move || {
            let (store, now) = (front_end.gateway.store(), SystemTime::now());
            enroll::renew(store, &front_end.authority, &front_end.config, &device.id, &request, now)
        });
        answer_json(stream, renewed.await).await
    }
}

async fn first_headers(stream: &mut TunnelStream) -> Result<Vec<Field>, StreamError> {
    match stream.next_event().await? {
        Some(MessageEvent::Headers(fields)) => Ok(fields),
        Some(MessageEvent::Data(_) | MessageEvent::End) | None => Err(StreamError::Closed),
    }
}

/// The token of an `authorization: Bearer …` field (RFC 6750 section 2.1).
fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn read_json<T: DeserializeOwned>(stream: &mut TunnelStream) -> Result<Option<T>, StreamError> {
    match timeout(REQUEST_DEADLINE, stream.read_body(MAX_BODY)).await {
        Ok(body) => Ok(serde_json::from_slice(&body?).ok()),
        Err(_elapsed) => Err(stream.abandon_incomplete()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_scheme_is_case_insensitive_and_others_are_ignored() {
        assert_eq!(bearer_token("Bearer abc"), Some("abc"));
        assert_eq!(bearer_token("bearer  abc "), Some("abc"));
        assert_eq!(bearer_token("Basic abc"), None);
        assert_eq!(bearer_token("Bearer"), None);
    }
}

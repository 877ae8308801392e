//! One HTTP/3 request: a tunnel, an enrolment, a renewal, or something we do not serve.

use std::sync::Arc;
use std::time::Duration;

use adit_net::http::StreamError;
use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_proto::connect_ip::request::{ConnectIpRequest, HttpRequest, Incoming, Rejection, Request};
use adit_proto::connect_ip::template::Target;
use adit_proto::datagram::Prefix;
use adit_proto::enrollment::{ENROLL_PATH, MAX_BODY, RENEW_PATH};
use adit_proto::http::field::Field;
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::login::message::LOGIN_PATH;
use adit_proto::packet::IPV6_MIN_MTU;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::answer::{HttpRefusal, answer_json, answer_refusal, answer_status, ask_for_login, refuse};
use super::asker::{Asker, Denial};
use super::inbound::Inbound;
use super::stage::{self, Served, Stage};
use super::tunnel;
use crate::accounts::sqlite::HostClock;
use crate::core::login::Identity;
use crate::enroll::Enrollment;
use crate::front_ends::peer::Peer;

/// A whole request other than a tunnel must arrive within this time.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// What a request needs to know of its connection.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) asker: Asker,
    pub(super) http: Arc<H3Connection>,
    pub(super) inbound: Arc<Inbound>,
    /// Told what the requests bring about.
    pub(super) stage: Arc<watch::Sender<Stage>>,
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
        let identity = match self.asker.authenticate(request.authorization.as_deref()).await {
            Ok(identity) => identity,
            Err(refused) => return refuse(&mut stream, request, &refused).await,
        };
        let served = self.logged_in();
        let identity = match self.asker.check_login(identity, request.login.clone()).await {
            Ok(identity) => identity,
            Err(Denial::LoginNeeded(reason)) => return ask_for_login(&mut stream, request, reason).await,
            Err(Denial::Refused(refused)) => return refuse(&mut stream, request, &refused).await,
        };
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
        tunnel::run(self, stream, request, identity, served).await
    }

    /// Whether the client announced HTTP datagrams (RFC 9297 section 2.1.1) large enough for IPv6 (RFC 9484 section
    /// 7.2.1).
    async fn takes_packets(&self) -> bool {
        let settings = timeout(REQUEST_DEADLINE, self.http.peer_settings()).await;
        let announced = settings.is_ok_and(|settings| settings.is_ok_and(|settings| settings.datagrams));
        let prefix = Prefix::new(0).as_bytes().len();
        let largest = self.http.quic().max_datagram_size().map_or(0, |size| size.saturating_sub(prefix));
        announced && largest >= usize::from(IPV6_MIN_MTU)
    }

    /// Says that this connection is no stranger's any more, and stays while its request is served.
    pub(super) fn logged_in(&self) -> Served {
        stage::serve(&self.stage)
    }

    async fn http(&self, stream: &mut TunnelStream, request: &HttpRequest) -> Result<(), StreamError> {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", ENROLL_PATH) => self.enroll(stream).await,
            ("POST", RENEW_PATH) => self.renew(stream).await,
            ("POST", LOGIN_PATH) => self.log_in(stream).await,
            (_, ENROLL_PATH | RENEW_PATH | LOGIN_PATH) => {
                answer_status(stream, 405, &[Field::new("allow", "POST")]).await
            }
            _ => answer_status(stream, 404, &[]).await,
        }
    }

    async fn enroll(&self, stream: &mut TunnelStream) -> Result<(), StreamError> {
        let Some(request) = read_json(stream).await? else {
            return answer_refusal(stream, 400, "malformed", "the body is no enrolment request").await;
        };
        let enroll = move |enrollment: &Enrollment| enrollment.enroll(&request, HostClock);
        let enrolled = self.asker.front_end.enrollment.off_runtime(enroll).await;
        let _served = enrolled.as_ref().ok().map(|enrolled| {
            self.asker.front_end.core.enrolled(&enrolled.device, &self.asker.caller);
            self.logged_in()
        });
        answer_json(stream, enrolled).await
    }

    async fn renew(&self, stream: &mut TunnelStream) -> Result<(), StreamError> {
        if !matches!(*self.asker.peer, Peer::Certificate { .. }) {
            return answer_refusal(stream, 401, "no_certificate", "renewal needs the present device certificate").await;
        }
        let device = match self.asker.authenticate(None).await {
            Ok(Identity { device, .. }) => device,
            Err(HttpRefusal { status, reason }) => return answer_refusal(stream, status, "refused", reason).await,
        };
        let _served = self.logged_in();
        let Some(request) = read_json(stream).await? else {
            return answer_refusal(stream, 400, "malformed", "the body is no renewal request").await;
        };
        let renew = move |enrollment: &Enrollment| enrollment.renew(&device.id, &request, HostClock);
        let renewed = self.asker.front_end.enrollment.off_runtime(renew).await;
        answer_json(stream, renewed).await
    }
}

async fn first_headers(stream: &mut TunnelStream) -> Result<Vec<Field>, StreamError> {
    match stream.next_event().await? {
        Some(MessageEvent::Headers(fields)) => Ok(fields),
        Some(MessageEvent::Data(_) | MessageEvent::End) | None => Err(StreamError::Closed),
    }
}

/// Reads a body, which may hold a secret and is wiped.
pub(super) async fn read_json<T: DeserializeOwned>(stream: &mut TunnelStream) -> Result<Option<T>, StreamError> {
    match timeout(REQUEST_DEADLINE, stream.read_body(MAX_BODY)).await {
        Ok(body) => Ok(serde_json::from_slice(&Zeroizing::new(body?)).ok()),
        Err(_elapsed) => Err(stream.abandon_incomplete()),
    }
}

//! Everything the gateway answers to a request but the capsules of a tunnel.

use std::time::Duration;

use adit_net::http::StreamError;
use adit_net::http::stream::TunnelStream;
use adit_proto::connect_ip::request::ConnectIpRequest;
use adit_proto::connect_ip::server::reject;
use adit_proto::enrollment::Refusal;
use adit_proto::http::fault::Fault;
use adit_proto::http::field::Field;
use adit_proto::login::message::{LOGIN_FIELD, LOGIN_NEEDED};
use serde::Serialize;
use tokio::time::timeout;

use crate::enroll::EnrollRefusal;

/// How long a client may leave an answer or our capsules unread. Nothing else of a session is looked after meanwhile,
/// so that is short of what ESP needs to notice a broken path.
pub(super) const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// Why the client gets no tunnel: HTTP status and words for its user.
pub(super) struct HttpRefusal {
    pub(super) status: u16,
    pub(super) reason: &'static str,
}

impl HttpRefusal {
    /// The fields of the answer. Private ones go only to a client that named a private extension; others never see one.
    pub(super) fn fields(&self, request: &ConnectIpRequest) -> Vec<Field> {
        let challenge = (self.status == 401).then(|| Field::new("www-authenticate", "Bearer"));
        let reason = request.wants_dns.then(|| Field::new("adit-reason", self.reason));
        challenge.into_iter().chain(reason).collect()
    }
}

/// Refuses a tunnel.
pub(super) async fn refuse(
    stream: &mut TunnelStream,
    request: &ConnectIpRequest,
    refusal: &HttpRefusal,
) -> Result<(), StreamError> {
    answer_status(stream, refusal.status, &refusal.fields(request)).await
}

/// Refuses a tunnel until the device's user has logged in.
pub(super) async fn ask_for_login(
    stream: &mut TunnelStream,
    request: &ConnectIpRequest,
    reason: &'static str,
) -> Result<(), StreamError> {
    let (status, fields) = call_for_login(request, reason);
    answer_status(stream, status, &fields).await
}

/// Status and fields of an answer that asks for a login first. A client that names no private extension hears no more
/// than that it is refused.
pub(super) fn call_for_login(request: &ConnectIpRequest, reason: &'static str) -> (u16, Vec<Field>) {
    if !request.wants_dns {
        return (403, Vec::new());
    }
    let fields = [
        Field::new("www-authenticate", "Bearer"),
        Field::new(LOGIN_FIELD, LOGIN_NEEDED),
        Field::new("adit-reason", reason),
    ];
    (401, fields.into())
}

/// Abandons the stream of a client that left what it is told, an answer or capsules, unread for [`FLUSH_DEADLINE`].
pub(super) fn unread(stream: &mut TunnelStream) -> StreamError {
    stream.fail(Fault::Excessive("the client does not read what it is told"))
}

/// Answers with what was asked for, or with why not.
pub(super) async fn answer_json<T: Serialize>(
    stream: &mut TunnelStream,
    outcome: Result<T, EnrollRefusal>,
) -> Result<(), StreamError> {
    match outcome {
        Ok(answer) => answer_body(stream, 200, &answer).await,
        Err(EnrollRefusal { status, body }) => answer_body(stream, status, &body).await,
    }
}

pub(super) async fn answer_refusal(
    stream: &mut TunnelStream,
    status: u16,
    code: &str,
    message: &str,
) -> Result<(), StreamError> {
    answer_body(stream, status, &Refusal { code: code.to_owned(), message: message.to_owned() }).await
}

async fn answer_body<T: Serialize>(stream: &mut TunnelStream, status: u16, body: &T) -> Result<(), StreamError> {
    let body = serde_json::to_vec(body).expect("texts and numbers are always JSON");
    let fields = [
        Field::new(":status", status.to_string()),
        Field::new("content-type", "application/json"),
        Field::new("content-length", body.len().to_string()),
    ];
    answer(stream, &fields, &body).await
}

pub(super) async fn answer_status(stream: &mut TunnelStream, status: u16, extra: &[Field]) -> Result<(), StreamError> {
    answer(stream, &reject(status, extra), &[]).await
}

/// Answers and ends our side. A client that leaves the answer unread loses its request, which else would keep its
/// connection for ever.
async fn answer(stream: &mut TunnelStream, fields: &[Field], body: &[u8]) -> Result<(), StreamError> {
    let sent = timeout(FLUSH_DEADLINE, async {
        stream.send_headers(fields).await?;
        if body.is_empty() { Ok(()) } else { stream.send_data(body).await }
    })
    .await;
    sent.unwrap_or_else(|_elapsed| Err(unread(stream)))?;
    stream.finish();
    Ok(())
}

//! One HTTP/3 POST on a connection of its own: enrolment and renewal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_net::http::StreamError;
use adit_net::http::h3::H3Connection;
use adit_net::http::stream::TunnelStream;
use adit_proto::enrollment::MAX_BODY;
use adit_proto::http::field::{Field, status};
use adit_proto::http::h3::message::MessageEvent;
use adit_proto::role::Role;

use super::ConnectError;
use super::control::stream_error;
use super::dial::{dial, explain};
use crate::protocols::authority;

/// What the gateway answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// The body, at most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
    /// The address that answered.
    pub remote: SocketAddr,
}

/// Posts `body` to `path` of the gateway at `host`:`port` and waits for the answer, all within `timeout`.
///
/// `addresses` are tried in order; `mark` is the SO_MARK of the outer socket.
#[expect(clippy::too_many_arguments, reason = "each names another part of one request")]
pub async fn post(
    host: &str,
    port: u16,
    addresses: &[SocketAddr],
    mark: Option<u32>,
    tls: Arc<rustls::ClientConfig>,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> Result<Answer, ConnectError> {
    let exchange = async {
        let dialled = dial(host, addresses, tls, mark, timeout).await?;
        let remote = dialled.quic.remote_address();
        let http = H3Connection::start(dialled.quic.clone(), Role::Client);
        let stream = http.open_request().await.map_err(|error| explain(&error, remote))?;
        let answered = exchange(stream.into(), &authority(host, port), path, body).await;
        let (status, body) = answered.map_err(|error| stream_error(error, remote))?;
        Ok(Answer { status, body, remote })
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(ConnectError::Unreachable(authority(host, port))),
    }
}

async fn exchange(
    mut stream: TunnelStream,
    authority: &str,
    path: &str,
    body: &[u8],
) -> Result<(u16, Vec<u8>), StreamError> {
    let length = body.len().to_string();
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", authority),
        (":path", path),
        ("content-type", "application/json"),
        ("content-length", length.as_str()),
    ];
    stream.send_headers(&fields.map(|(name, value)| Field::new(name, value))).await?;
    stream.send_data(body).await?;
    stream.finish();
    match stream.next_event().await? {
        Some(MessageEvent::Headers(fields)) => {
            let status = status(&fields).map_err(|error| stream.fail(error))?;
            Ok((status, stream.read_body(MAX_BODY).await?))
        }
        Some(_) | None => Err(StreamError::Closed),
    }
}

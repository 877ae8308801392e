//! One HTTP/3 POST on a connection of its own: enrolment and renewal.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_net::http::h3::H3Connection;
use adit_net::http::post::post_json;
use adit_proto::enrollment::MAX_BODY;
use adit_proto::role::Role;

use super::ConnectError;
use super::control::stream_error;
use super::dial::{Endpoint, Needs, dial};
use super::explain::explain;
use super::obstruction;
use crate::protocols::authority;

/// What the gateway answered.
#[derive(Debug)]
pub struct PostReply {
    /// HTTP status code.
    pub status: u16,
    /// The body, at most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
    /// The address that answered.
    pub remote: SocketAddr,
}

/// Posts `body` to `path` of a gateway and waits for the answer, all within `timeout`.
///
/// # Errors
/// Why there is no answer; a refusal is one.
pub async fn post(
    gateway: &Endpoint<'_>,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> Result<PostReply, ConnectError> {
    let began = Instant::now();
    let dialled = obstruction::watch(dial(gateway, Needs::Requests, timeout), &gateway.addresses, gateway.mark).await?;
    let remote = dialled.quic.remote_address();
    let asked = async {
        let http = H3Connection::start(dialled.quic.clone(), Role::Client);
        let stream = http.open_request().await.map_err(|error| explain(&error, remote))?;
        let authority = authority(gateway.host, gateway.port);
        let answered = post_json(stream.into(), &authority, path, body, MAX_BODY).await;
        let (status, body) = answered.map_err(|error| stream_error(error, remote))?;
        Ok(PostReply { status, body, remote })
    };
    let left = timeout.saturating_sub(began.elapsed());
    match tokio::time::timeout(left, asked).await {
        // The gateway may have the request.
        Ok(Err(ConnectError::Unreachable(_))) | Err(_) => {
            Err(ConnectError::Closed(format!("{remote} did not answer the request")))
        }
        Ok(answer) => answer,
    }
}

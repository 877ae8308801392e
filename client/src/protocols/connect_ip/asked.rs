//! Whether a gateway speaks CONNECT-IP, asked over TCP, where gateways of other families listen, too; and whether it
//! answers by QUIC.

use std::net::SocketAddr;
#[cfg(feature = "cli")]
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::http::h1;
use adit_net::http::h3::close;
use adit_proto::connect_ip::client::{Client, ClientConfig};
use adit_proto::connect_ip::template::FULL_TUNNEL_PATH;
use adit_proto::http::h3::error::Code;
#[cfg(feature = "cli")]
use tokio::net::TcpStream;

use super::control::REASON_FIELD;
use super::dial::{Needs, dial};
#[cfg(feature = "cli")]
use super::explain::explain_unproven_tcp;
use super::{ConnectError, Endpoint};
use crate::protocols::authority;
use crate::protocols::stream::shake;

/// Asks for a tunnel without saying who asks. An Adit gateway refuses that in words that only a client of its own kind
/// is told; whatever else comes is the answer of another. Returns who answered, too.
///
/// # Errors
/// Why the gateway could not be asked.
pub(crate) async fn speaks_connect_ip(
    gateway: &Endpoint<'_>,
    timeout: Duration,
) -> Result<(bool, SocketAddr), ConnectError> {
    let began = Instant::now();
    let (stream, remote) = shake(gateway, timeout).await?;
    let machine = Client::new(ClientConfig {
        authority: authority(gateway.host, gateway.port),
        path: FULL_TUNNEL_PATH.to_owned(),
        bearer: None,
        wants_dns: true,
        login: None,
        esp: None,
    });
    let left = timeout.saturating_sub(began.elapsed());
    let answered = tokio::time::timeout(left, h1::request_tunnel(stream, &machine.request())).await;
    let is_spoken = match answered {
        Ok(Ok(answered)) => answered.fields.iter().any(|field| field.name == REASON_FIELD),
        // Some gateways end a connection on which something is asked that they do not know.
        Ok(Err(_)) | Err(_) => false,
    };
    Ok((is_spoken, remote))
}

/// Shakes hands by QUIC, and no more; returns how long an answer takes, and who answered.
///
/// # Errors
/// Why nobody has.
pub(crate) async fn answers(gateway: &Endpoint<'_>, timeout: Duration) -> Result<(Duration, SocketAddr), ConnectError> {
    let dialled = dial(gateway, Needs::Requests, timeout).await?;
    let (rtt, remote) = (dialled.quic.rtt(), dialled.quic.remote_address());
    close(&dialled.quic, Code::NO_ERROR, "only asked");
    Ok((rtt, remote))
}

/// Shakes hands by TLS on a connection with an address of the gateway, and no more. Its TLS is one for TCP.
///
/// # Errors
/// Why who is there does not answer as the gateway.
#[cfg(feature = "cli")]
pub(crate) async fn answers_by_tls(
    gateway: &Endpoint<'_>,
    socket: TcpStream,
    address: SocketAddr,
) -> Result<(), ConnectError> {
    let shaken = h1::connect(socket, Arc::clone(&gateway.tls), gateway.host).await;
    shaken.map(drop).map_err(|error| explain_unproven_tcp(&error, address, gateway.trusts, gateway.known_past))
}

//! A request of a login: on a connection of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_net::http::h1::{self, Reply};
use adit_proto::anyconnect::external_browser::KEY_HEADER;
use adit_proto::anyconnect::login::MAX_BODY;
use adit_proto::http::field::Field;
use zeroize::Zeroizing;

use crate::protocols::anyconnect::AGENT;
use crate::protocols::connect_ip::{Endpoint, explain_tcp};
use crate::protocols::stream::shake;
use crate::protocols::{ConnectError, authority};

/// What stands in the head of each request.
pub(super) fn fields(endpoint: &Endpoint<'_>, cookies: Option<&str>, key: Option<&str>) -> Vec<Field> {
    let host = authority(endpoint.host, endpoint.port);
    let fixed = [
        ("host", host.as_str()),
        ("user-agent", AGENT),
        ("x-transcend-version", "1"),
        ("x-aggregate-auth", "1"),
        ("content-type", "application/xml; charset=utf-8"),
    ];
    let key = key.map(|key| (KEY_HEADER, key));
    let fields = fixed.into_iter().chain(cookies.map(|cookies| ("cookie", cookies))).chain(key);
    fields.map(|(name, value)| Field::new(name, value)).collect()
}

pub(super) async fn post(
    endpoint: &Endpoint<'_>,
    path: &str,
    fields: Vec<Field>,
    document: Zeroizing<String>,
    timeout: Duration,
) -> Result<(Reply, SocketAddr), ConnectError> {
    let began = Instant::now();
    let (stream, remote) = shake(endpoint, timeout).await?;
    let left = timeout.saturating_sub(began.elapsed());
    let posted = tokio::time::timeout(left, h1::post(stream, path, fields, document, MAX_BODY)).await;
    match posted.map(|posted| posted.map_err(|error| explain_tcp(&error, remote))) {
        Ok(Ok(reply)) => Ok((reply, remote)),
        // The gateway may have the request.
        Ok(Err(ConnectError::Unreachable(_))) | Err(_) => {
            Err(ConnectError::Closed(format!("{remote} did not answer the request")))
        }
        Ok(Err(error)) => Err(error),
    }
}

//! One request with a body in JSON, and its answer.

use adit_proto::http::field::{Field, status};
use adit_proto::http::h3::message::MessageEvent;

use super::StreamError;
use super::stream::TunnelStream;

/// Posts `body` to `path` of a gateway that requests name `authority`; returns the status of the answer and its body,
/// of at most `limit` bytes.
///
/// # Errors
/// Why there is no answer.
pub async fn post_json(
    mut stream: TunnelStream,
    authority: &str,
    path: &str,
    body: &[u8],
    limit: usize,
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
            Ok((status, stream.read_body(limit).await?))
        }
        Some(_) | None => Err(StreamError::Closed),
    }
}

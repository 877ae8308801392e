//! The calling end of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_program::task;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::MAX_ANSWER;

/// How long a call may take from connecting to the last byte of its answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why a call on the control socket failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No process listens on the socket.
    #[error("nothing listens on {}", socket.display())]
    NotRunning {
        /// The socket that was called.
        socket: PathBuf,
    },
    /// The other end answered with a status of 400 or more.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The reason in words.
        message: String,
    },
    /// The call could not be completed (no permission, timeout, broken answer).
    #[error("call {}", socket.display())]
    Io {
        /// The socket that was called.
        socket: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// Calls the control socket once and returns the answer's body; `Value::Null` as `body` sends none.
///
/// # Errors
/// See [`CallError`]. A call that takes more than 60 s fails with `TimedOut`.
pub async fn call(socket: &Path, method: &str, path: &str, body: &Value) -> Result<Value, CallError> {
    let failed = |source| CallError::Io { socket: socket.to_owned(), source };
    let answered = timeout(TIMEOUT, exchange(socket, method, path, body)).await;
    let (status, bytes) = match answered {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(CallError::NotRunning { socket: socket.to_owned() });
        }
        Ok(Err(error)) => return Err(failed(error)),
        Err(elapsed) => return Err(failed(elapsed.into())),
    };
    let value = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
    if status.is_client_error() || status.is_server_error() {
        let message = value.ok().and_then(|value| Some(value.get("error")?.as_str()?.to_owned()));
        return Err(CallError::Refused {
            status: status.as_u16(),
            message: message.unwrap_or_else(|| format!("the answer was {status}")),
        });
    }
    value.map_err(|error| failed(error.into()))
}

async fn exchange(socket: &Path, method: &str, path: &str, body: &Value) -> io::Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let _driver = task::spawn(connection);
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "adit")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(bytes)))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}

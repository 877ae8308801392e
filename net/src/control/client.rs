//! The calling end of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_program::task::{self, Task};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::MAX_ANSWER;

/// How long a call may take from connecting to the last byte of its answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest line that a follower reads, in bytes.
const MAX_LINE: usize = 64 * 1024;

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
    let asked = async {
        let Exchange { response, _kept } = exchange(socket, method, path, body).await?;
        read_whole(response).await
    };
    let (status, bytes) = within_time(socket, asked).await?;
    answer(socket, status, &bytes)
}

/// Follows what a control socket tells at `path`.
///
/// # Errors
/// See [`CallError`]; `Refused` if there are too many followers already.
pub async fn follow(socket: &Path, path: &str) -> Result<Follower, CallError> {
    let exchange = within_time(socket, exchange(socket, "GET", path, &Value::Null)).await?;
    if exchange.response.status() == StatusCode::OK {
        return Ok(Follower { socket: socket.to_owned(), exchange, unread: BytesMut::new() });
    }
    let (status, bytes) = within_time(socket, read_whole(exchange.response)).await?;
    answer(socket, status, &bytes)?;
    Err(failed(socket, io::Error::new(io::ErrorKind::InvalidData, format!("the answer was {status}"))))
}

/// Hears what a control socket tells.
pub struct Follower {
    socket: PathBuf,
    exchange: Exchange,
    unread: BytesMut,
}

impl Follower {
    /// Waits for the next value; `None` when the other end has nothing more to tell. Cancel-safe.
    ///
    /// # Errors
    /// `Io` if the other end broke off: it crashed, or this follower did not read for too long.
    pub async fn next(&mut self) -> Result<Option<Value>, CallError> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line = self.unread.split_to(end + 1);
                return serde_json::from_slice(&line).map(Some).map_err(|error| failed(&self.socket, error.into()));
            }
            if self.unread.len() > MAX_LINE {
                return Err(failed(&self.socket, io::Error::new(io::ErrorKind::InvalidData, "a line without an end")));
            }
            match self.exchange.response.body_mut().frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.unread.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(failed(&self.socket, io::Error::other(error))),
                None => return Ok(None),
            }
        }
    }
}

/// An answer whose body may still be coming.
struct Exchange {
    response: Response<Incoming>,
    /// What the body comes by.
    _kept: (http1::SendRequest<Full<Bytes>>, Task<hyper::Result<()>>),
}

async fn exchange(socket: &Path, method: &str, path: &str, body: &Value) -> io::Result<Exchange> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = task::spawn(connection);
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "adit")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(bytes)))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok(Exchange { response, _kept: (sender, driver) })
}

async fn read_whole(response: Response<Incoming>) -> io::Result<(StatusCode, Bytes)> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}

/// What a whole answer says.
fn answer(socket: &Path, status: StatusCode, bytes: &[u8]) -> Result<Value, CallError> {
    let value = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(bytes) };
    if status.is_client_error() || status.is_server_error() {
        let message = value.ok().and_then(|value: Value| Some(value.get("error")?.as_str()?.to_owned()));
        return Err(CallError::Refused {
            status: status.as_u16(),
            message: message.unwrap_or_else(|| format!("the answer was {status}")),
        });
    }
    value.map_err(|error| failed(socket, error.into()))
}

async fn within_time<T>(socket: &Path, asked: impl Future<Output = io::Result<T>>) -> Result<T, CallError> {
    match timeout(TIMEOUT, asked).await {
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(CallError::NotRunning { socket: socket.to_owned() })
        }
        Ok(answered) => answered.map_err(|error| failed(socket, error)),
        Err(elapsed) => Err(failed(socket, elapsed.into())),
    }
}

fn failed(socket: &Path, source: io::Error) -> CallError {
    CallError::Io { socket: socket.to_owned(), source }
}

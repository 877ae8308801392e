//! The control socket: HTTP/1.1 and JSON over a Unix socket, with the peer's user id checked.
//!
//! Both binaries serve one for their verbs (`adit-server users`, `adit-client status`, …). A request's body and an
//! answer's body are JSON values; a refusal is `{"error": "…"}` with a status of 400 or more.
//!
//! Whoever wants to hear of changes follows a path: the answer's body goes on as long as there is something to tell, a
//! JSON value in each line. There are at most [`MAX_FOLLOWERS`], and one that does not read is dropped.

mod client;
mod events;
mod server;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use serde_json::{Value, json};

pub use client::{CallError, Follower, call, follow};
pub use events::Events;
pub use server::{ControlServer, serve};

/// Largest request body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Largest answer body, in bytes: a list of some ten thousand sessions.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Most followers at once; further ones are refused.
pub const MAX_FOLLOWERS: u8 = 16;

/// One request on the control socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The HTTP method, such as `GET` or `POST`.
    pub method: String,
    /// The path without the query, such as `/v1/sessions`.
    pub path: String,
    /// The body; `Value::Null` when there is none.
    pub body: Value,
    /// User id of the process that connected, as the kernel reports it (`SO_PEERCRED`).
    pub peer_uid: u32,
}

/// The answer to a [`Request`]. Its body may hold a secret, such as a new token, which `Debug` does not show.
#[derive(Clone, PartialEq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Response {
    /// Answers 200 with a body.
    #[must_use]
    pub fn ok(body: Value) -> Self {
        Self { status: 200, body }
    }

    /// Refuses with a status of 400 or more and a message, which the caller sees as [`CallError::Refused`].
    #[must_use]
    pub fn refused(status: u16, message: impl Into<String>) -> Self {
        Self { status, body: json!({ "error": message.into() }) }
    }
}

/// The future of a [`Handler`]'s answer.
pub type Handling<'a> = Pin<Box<dyn Future<Output = Response> + Send + 'a>>;

/// The future of a [`Handler`]'s events, or of its refusal to tell any.
pub type Subscribing<'a> = Pin<Box<dyn Future<Output = Result<Events, Response>> + Send + 'a>>;

/// Whoever answers the requests of a control socket.
pub trait Handler: Send + Sync + 'static {
    /// Begins to tell what happens, if that is what a request asks for; all other requests are for [`Self::handle`].
    fn follow(&self, _request: &Request) -> Option<Subscribing<'_>> {
        None
    }

    /// Answers one request. Several requests may be in progress at once; a future is dropped when its caller hangs up.
    fn handle(&self, request: Request) -> Handling<'_>;
}

#[cfg(test)]
mod tests;

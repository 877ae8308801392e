//! HTTP of both ends: requests and their answers, and tunnels.

pub mod h1;
pub mod h3;
pub mod post;
pub mod stream;

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer broke the protocol; the stream or connection was closed with this error.
    #[error("HTTP/3 error {:#x}: {}", .0.code().value(), .0.reason())]
    Protocol(adit_proto::http::h3::error::Error),
    /// The peer broke the protocol of a tunnel over HTTP/1.1; the connection was closed.
    #[error("{}", .0.reason())]
    Fault(adit_proto::http::fault::Fault),
    /// The peer abandoned the stream with this code.
    #[error("the peer ended the stream with code {0:#x}")]
    Reset(u64),
    /// The connection is gone.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// We closed the stream ourselves.
    #[error("the stream is closed")]
    Closed,
    /// The message is larger than the caller allows.
    #[error("the message is longer than {0} bytes")]
    TooLong(usize),
}

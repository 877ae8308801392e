//! A request or a tunnel, whatever version of HTTP it came by.

use adit_proto::esp::keys::SECRET_LEN;
use adit_proto::http::fault::Fault;
use adit_proto::http::field::Field;
use adit_proto::http::h3::message::MessageEvent;

use super::StreamError;
use super::h1::UpgradedStream;
use super::h3::RequestStream;
use crate::carrier::esp::exporter_secret;

/// One request and its response, or one tunnel.
///
/// What tells the versions of HTTP apart stays in here: how a message is framed, which code a fault gets, and what the
/// connection underneath can be asked.
#[expect(clippy::large_enum_variant, reason = "there is one for a tunnel, and it hardly moves")]
pub enum TunnelStream {
    /// A request stream of HTTP/3.
    H3(RequestStream),
    /// A connection that HTTP/1.1 was upgraded on, after its header sections.
    H1(UpgradedStream),
}

impl From<RequestStream> for TunnelStream {
    fn from(stream: RequestStream) -> Self {
        Self::H3(stream)
    }
}

impl From<UpgradedStream> for TunnelStream {
    fn from(stream: UpgradedStream) -> Self {
        Self::H1(stream)
    }
}

impl TunnelStream {
    /// The stream's number on its connection, by which datagrams name it (RFC 9297 section 2.1); 0 in HTTP/1.1.
    pub fn id(&self) -> u64 {
        match self {
            Self::H3(stream) => stream.id(),
            Self::H1(_) => 0,
        }
    }

    /// The secret of ESP's keys, which only the two ends of the connection know; `None` if its handshake is not done,
    /// and in HTTP/1.1, where no ESP goes beside the tunnel.
    pub fn exporter_secret(&self) -> Option<[u8; SECRET_LEN]> {
        match self {
            Self::H3(stream) => exporter_secret(stream.quic()),
            Self::H1(_) => None,
        }
    }

    /// Says that the request was for a tunnel: after a 2xx response only content may come.
    pub fn expect_tunnel(&mut self) {
        match self {
            Self::H3(stream) => stream.expect_tunnel(),
            Self::H1(_) => {}
        }
    }

    /// Waits for the next part of the peer's message; `None` after its end. Cancel-safe.
    ///
    /// # Errors
    /// Why no more can come. After a breach of the protocol the stream or the connection is closed.
    pub async fn next_event(&mut self) -> Result<Option<MessageEvent>, StreamError> {
        match self {
            Self::H3(stream) => stream.next_event().await,
            Self::H1(stream) => Ok(stream.next_event().await),
        }
    }

    /// Reads what is left of the message's body, at most `limit` bytes.
    ///
    /// # Errors
    /// Those of [`Self::next_event`], and a body that is longer.
    pub async fn read_body(&mut self, limit: usize) -> Result<Vec<u8>, StreamError> {
        let mut body = Vec::new();
        while let Some(event) = self.next_event().await? {
            if let MessageEvent::Data(data) = event {
                if body.len() + data.len() > limit {
                    self.fail(Fault::Excessive("the body is too long"));
                    return Err(StreamError::TooLong(limit));
                }
                body.extend_from_slice(&data);
            }
        }
        Ok(body)
    }

    /// Sends a header section.
    ///
    /// # Errors
    /// Why it cannot be sent: in HTTP/1.1 the header sections came before the upgrade.
    pub async fn send_headers(&mut self, fields: &[Field]) -> Result<(), StreamError> {
        match self {
            Self::H3(stream) => stream.send_headers(fields).await,
            Self::H1(_) => Err(StreamError::Closed),
        }
    }

    /// Sends content.
    ///
    /// # Errors
    /// Why it cannot be sent.
    pub async fn send_data(&mut self, data: &[u8]) -> Result<(), StreamError> {
        match self {
            Self::H3(stream) => stream.send_data(data).await,
            Self::H1(stream) => {
                stream.queue_data(data);
                stream.flush().await;
                Ok(())
            }
        }
    }

    /// Queues content for [`Self::flush`]. Whoever queues sees to it that this is bounded.
    pub fn queue_data(&mut self, data: &[u8]) {
        match self {
            Self::H3(stream) => stream.queue_data(data),
            Self::H1(stream) => stream.queue_data(data),
        }
    }

    /// Whether nothing waits to be sent.
    pub fn is_flushed(&self) -> bool {
        match self {
            Self::H3(stream) => stream.is_flushed(),
            Self::H1(stream) => stream.is_flushed(),
        }
    }

    /// Sends what is queued. Cancel-safe: the next call goes on where this one was.
    ///
    /// # Errors
    /// Why it cannot be sent.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        match self {
            Self::H3(stream) => stream.flush().await,
            Self::H1(stream) => {
                stream.flush().await;
                Ok(())
            }
        }
    }

    /// Ends our side of the message.
    pub fn finish(&mut self) {
        match self {
            Self::H3(stream) => stream.finish(),
            Self::H1(stream) => stream.finish(),
        }
    }

    /// Acts on a fault with the error that this version of HTTP has for it: abandons the stream, or closes the
    /// connection.
    pub fn fail(&mut self, fault: Fault) -> StreamError {
        match self {
            Self::H3(stream) => stream.fail(fault),
            Self::H1(stream) => stream.fail(fault),
        }
    }

    /// Abandons a request that did not come whole in time.
    pub fn abandon_incomplete(&mut self) -> StreamError {
        match self {
            Self::H3(stream) => stream.abandon_incomplete(),
            Self::H1(stream) => stream.finish(),
        }
        StreamError::Closed
    }
}

//! Tunnels over HTTP/1.1: a connection that was upgraded, of which one end reads and writes the capsules that are no
//! packets. Packets take the way of the [`tls` carrier](crate::carrier::tls). Single requests to gateways of others are
//! here, too.

mod exchange;
mod request;
mod shaken;

use std::sync::Arc;

use adit_proto::http::fault::Fault;
use adit_proto::http::field::Field;
use adit_proto::http::h3::message::MessageEvent;
use bytes::Bytes;
use hyper::HeaderMap;
use tokio::sync::mpsc;

use super::StreamError;
use crate::carrier::tls::CapsuleCarrier;

pub use exchange::{Heard, Reply, ask_verbatim, get, post};
pub use request::{Answered, connect, request_tunnel};
pub use shaken::Shaken;

/// The fields of a head that are text, as protocols read them.
#[must_use]
pub fn fields(headers: &HeaderMap) -> Vec<Field> {
    let text = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?.trim())));
    text.map(|(name, value)| Field::new(name, value)).collect()
}

/// The capsules of one tunnel.
pub struct UpgradedStream {
    carrier: Arc<CapsuleCarrier>,
    capsules: mpsc::Receiver<Bytes>,
}

impl UpgradedStream {
    /// The capsules of a carrier; those that come are in `capsules`, which ends with the connection.
    #[must_use]
    pub fn new(carrier: Arc<CapsuleCarrier>, capsules: mpsc::Receiver<Bytes>) -> Self {
        Self { carrier, capsules }
    }

    /// Waits for capsules, or pieces of some; `None` when the connection has ended. Cancel-safe.
    pub(super) async fn next_event(&mut self) -> Option<MessageEvent> {
        self.capsules.recv().await.map(MessageEvent::Data)
    }

    pub(super) fn queue_data(&self, capsules: &[u8]) {
        self.carrier.queue(capsules);
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.carrier.is_flushed()
    }

    pub(super) async fn flush(&self) {
        self.carrier.flush().await;
    }

    /// Ends the connection: HTTP/1.1 knows no end of one direction alone.
    pub(super) fn finish(&self) {
        self.carrier.close();
    }

    pub(super) fn fail(&self, fault: Fault) -> StreamError {
        self.carrier.close();
        StreamError::Fault(fault)
    }
}

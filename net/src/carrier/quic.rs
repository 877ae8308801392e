//! The `quic` carrier: inner packets in HTTP datagrams of one request stream (RFC 9484 section 6, RFC 9297 section
//! 2.1).

mod feeding;

use std::sync::Arc;
use std::time::Instant;

use adit_proto::datagram::{self, Datagram, PACKET_CONTEXT, Prefix};
use adit_proto::drop_reason::DropReason;
use adit_proto::http::h3::error::Error;
use bytes::Bytes;
use futures::FutureExt;

use crate::carrier::Carrier;
use crate::carrier::counters::Counters;
use crate::carrier::outbox::Outbox;
use crate::http::h3::close;
use crate::packet_buffer::PacketBuffer;
use adit_program::task::{self, Task};

/// Sends and receives the packets of one request stream. Cheap to share behind an `Arc`; all methods take `&self`.
pub struct Datagrams {
    quic: quinn::Connection,
    stream_id: u64,
    prefix: Prefix,
    counters: Arc<Counters>,
    outbox: Arc<Outbox>,
    _feeding: Task,
}

impl Datagrams {
    /// Uses the datagrams of `quic` that belong to request stream `stream_id`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(quic: quinn::Connection, stream_id: u64) -> Self {
        let (prefix, counters) = (Prefix::new(stream_id), Arc::default());
        let outbox = Arc::new(Outbox::new(feeding::BOUNDS));
        let len = prefix.as_bytes().len();
        let feeding = feeding::feed(Arc::clone(&outbox), quic.clone(), len, Arc::clone(&counters));
        Self { quic, stream_id, prefix, counters, outbox, _feeding: task::spawn(feeding) }
    }

    /// The QUIC connection underneath.
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// Waits until packets were taken to be sent since this last returned. Cancel-safe.
    pub async fn sent(&self) {
        self.outbox.taken().await;
    }

    /// Largest packet that fits a datagram now, in bytes; 0 when the peer takes none.
    pub fn mtu(&self) -> u16 {
        let payload = self.quic.max_datagram_size().unwrap_or(0).saturating_sub(self.prefix.as_bytes().len());
        u16::try_from(payload).unwrap_or(u16::MAX)
    }

    /// Waits for at least one packet of this stream, then takes what is there, appending at most `limit` packets to
    /// `batch`. What is no packet of the stream is dropped and counted.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn receive(&self, batch: &mut Vec<Bytes>, limit: usize) -> Result<(), quinn::ConnectionError> {
        let mut datagrams = Vec::with_capacity(limit);
        while batch.is_empty() {
            receive(&self.quic, &mut datagrams, limit).await?;
            for datagram in datagrams.drain(..) {
                match self.packet(datagram) {
                    Ok(packet) => batch.push(packet),
                    Err(reason) => self.counters.count_drop(reason),
                }
            }
        }
        Ok(())
    }

    /// The packet in a datagram, if it is one of this stream.
    ///
    /// # Errors
    /// Why it is none.
    pub fn packet(&self, datagram: Datagram) -> Result<Bytes, DropReason> {
        match datagram {
            Datagram { stream_id, .. } if stream_id != self.stream_id => Err(DropReason::UnknownStream),
            Datagram { context_id: PACKET_CONTEXT, payload, .. } => Ok(payload),
            Datagram { .. } => Err(DropReason::UnknownContext),
        }
    }
}

impl Carrier for Datagrams {
    fn name(&self) -> &'static str {
        "quic"
    }

    fn mtu(&self) -> u16 {
        Self::mtu(self)
    }

    /// Asks the connection, which is behind a lock, only about packets that are larger than it is known to take.
    fn takes(&self, len: usize) -> Result<(), u16> {
        if len <= usize::from(self.outbox.known_mtu()) {
            return Ok(());
        }
        let mtu = Self::mtu(self);
        self.outbox.set_known_mtu(mtu);
        if len > usize::from(mtu) { Err(mtu) } else { Ok(()) }
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// When too many packets wait for the connection, the oldest are dropped.
    fn send(&self, packets: &mut Vec<PacketBuffer>) {
        let datagrams = packets.drain(..).map(|packet| packet.with_prefix(self.prefix.as_bytes()));
        let dropped = self.outbox.put(datagrams, Instant::now());
        self.counters.count_drops(dropped, DropReason::QueueFull);
    }
}

/// Waits for at least one HTTP datagram of any stream, then takes what is there, appending at most `limit` to `batch`.
/// Cancel-safe.
///
/// One that cannot be parsed closes the connection, as RFC 9297 section 2.1 demands.
///
/// # Errors
/// The connection has ended.
pub async fn receive(
    quic: &quinn::Connection,
    batch: &mut Vec<Datagram>,
    limit: usize,
) -> Result<(), quinn::ConnectionError> {
    let mut next = Some(quic.read_datagram().await);
    while let Some(read) = next.take() {
        match datagram::decode(read?) {
            Ok(datagram) => batch.push(datagram),
            Err(fault) => {
                let error = Error::from(fault);
                close(quic, error.code(), error.reason());
            }
        }
        if batch.len() < limit {
            next = quic.read_datagram().now_or_never();
        }
    }
    Ok(())
}

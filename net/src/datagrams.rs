//! The `quic` carrier: inner packets in HTTP datagrams of one request stream (RFC 9484 section 6, RFC 9297 section 2.1).

use adit_proto::datagram::{self, Datagram, PACKET_CONTEXT, Prefix};
use adit_proto::drop_reason::DropReason;
use bytes::Bytes;
use futures::FutureExt;
use quinn::SendDatagramError;

use crate::carrier::Carrier;
use crate::counters::Counters;
use crate::h3::close;
use crate::packet_buffer::PacketBuffer;

/// Sends and receives the packets of one request stream. Cheap to share behind an `Arc`; all methods take `&self`.
pub struct Datagrams {
    quic: quinn::Connection,
    stream_id: u64,
    prefix: Prefix,
}

impl Datagrams {
    /// Uses the datagrams of `quic` that belong to request stream `stream_id`.
    pub fn new(quic: quinn::Connection, stream_id: u64) -> Self {
        Self { quic, stream_id, prefix: Prefix::new(stream_id) }
    }

    /// The QUIC connection underneath.
    pub fn quic(&self) -> &quinn::Connection {
        &self.quic
    }

    /// Largest packet that fits a datagram now, in bytes; 0 when the peer takes none.
    pub fn mtu(&self) -> u16 {
        let payload = self.quic.max_datagram_size().unwrap_or(0).saturating_sub(self.prefix.as_bytes().len());
        u16::try_from(payload).unwrap_or(u16::MAX)
    }

    /// Sends the packets, emptying `packets`, and counts what was sent and what was dropped.
    ///
    /// Never waits: when the connection's send buffer is full, the oldest datagrams in it give way.
    pub fn send(&self, packets: &mut Vec<PacketBuffer>, counters: &Counters) {
        for packet in packets.drain(..) {
            let bytes = packet.packet().len() as u64;
            match self.quic.send_datagram(packet.with_prefix(self.prefix.as_bytes())) {
                Ok(()) => counters.count_tx(1, bytes),
                Err(error) => counters.count_drop(drop_reason(&error)),
            }
        }
    }

    /// Waits for at least one packet of this stream, then takes what is there, appending at most `limit` to `batch`; drops, and
    /// counts, what is none. Errors when the connection ends.
    pub async fn receive(
        &self,
        batch: &mut Vec<Bytes>,
        limit: usize,
        counters: &Counters,
    ) -> Result<(), quinn::ConnectionError> {
        let mut datagrams = Vec::with_capacity(limit);
        while batch.is_empty() {
            receive(&self.quic, &mut datagrams, limit).await?;
            for datagram in datagrams.drain(..) {
                match self.packet(datagram) {
                    Ok(packet) => batch.push(packet),
                    Err(reason) => counters.count_drop(reason),
                }
            }
        }
        Ok(())
    }

    /// The packet in a datagram, if it is one of this stream.
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

    fn send(&self, packets: &mut Vec<PacketBuffer>, counters: &Counters) {
        Self::send(self, packets, counters);
    }
}

/// Waits for at least one HTTP datagram of any stream, then takes what is there, appending at most `limit` to `batch`. Cancel-safe.
///
/// One that cannot be parsed closes the connection, as RFC 9297 section 2.1 demands.
pub async fn receive(
    quic: &quinn::Connection,
    batch: &mut Vec<Datagram>,
    limit: usize,
) -> Result<(), quinn::ConnectionError> {
    let mut next = Some(quic.read_datagram().await);
    while let Some(read) = next.take() {
        match datagram::decode(read?) {
            Ok(datagram) => batch.push(datagram),
            Err(error) => close(quic, error.code(), error.reason()),
        }
        if batch.len() < limit {
            next = quic.read_datagram().now_or_never();
        }
    }
    Ok(())
}

fn drop_reason(error: &SendDatagramError) -> DropReason {
    match error {
        SendDatagramError::TooLarge => DropReason::TooBig,
        SendDatagramError::ConnectionLost(_) => DropReason::NotConnected,
        SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => DropReason::SendFailed,
    }
}

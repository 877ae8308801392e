//! The `tls` carrier: inner packets in DATAGRAM capsules (RFC 9297 section 3.5) on the stream of a tunnel of HTTP/1.1.

use adit_proto::capsule::packets::{CapsulePrefix, PacketReader};
use adit_proto::http::fault::Fault;
use bytes::{Bytes, BytesMut};

use super::stream::{Framing, Pump, StreamCarrier};
use crate::packet_buffer::PacketBuffer;

/// The carrier of a tunnel over HTTP/1.1.
pub type CapsuleCarrier = StreamCarrier<Capsules>;

/// What moves its packets.
pub type CapsulePump<P> = Pump<Capsules, P>;

/// Packets in capsules. Other capsules come out as they are.
#[derive(Debug, Default)]
pub struct Capsules(PacketReader);

impl Framing for Capsules {
    const NAME: &'static str = "tls";
    const IS_ALONE: bool = false;

    fn frame(packet: PacketBuffer) -> Bytes {
        // No packet is longer than its length field says.
        let len = u16::try_from(packet.packet().len()).unwrap_or(u16::MAX);
        packet.with_prefix(CapsulePrefix::new(len).as_bytes())
    }

    fn packet_len(frame: usize) -> usize {
        CapsulePrefix::packet_len(frame)
    }

    fn read(&mut self, stream: &mut BytesMut, packets: &mut Vec<Bytes>, others: &mut Vec<u8>) -> Result<(), Fault> {
        self.0.read(stream, packets, others)
    }

    fn may_end(&self, rest: &[u8]) -> bool {
        self.0.is_between_capsules(rest)
    }
}

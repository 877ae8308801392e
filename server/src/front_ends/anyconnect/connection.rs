//! The frames of a connection that has become a channel.

use adit_net::carrier::stream::Framing;
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::anyconnect::frame::{self, Frame, FrameKind, HEAD_LEN, head};
use adit_proto::http::fault::Fault;
use bytes::{Bytes, BytesMut};

use crate::core::sessions::Ending;
use crate::front_ends::stream::{StreamConnection, StreamProtocol};

/// The connection of one session.
pub(super) type TlsConnection = StreamConnection<Cstp>;

/// Packets in frames of the channel, each in a record of its own.
pub(super) struct Cstp;

impl Framing for Cstp {
    const NAME: &'static str = "tls";
    const IS_ALONE: bool = true;

    fn frame(packet: PacketBuffer) -> Bytes {
        // No packet is longer than its length field says.
        let length = u16::try_from(packet.packet().len()).unwrap_or(u16::MAX);
        packet.with_prefix(&head(FrameKind::Data, length))
    }

    fn packet_len(frame: usize) -> usize {
        frame.saturating_sub(HEAD_LEN)
    }

    fn read(&mut self, stream: &mut BytesMut, packets: &mut Vec<Bytes>, others: &mut Vec<u8>) -> Result<(), Fault> {
        while let Some(frame) = frame::take(stream).map_err(|_broken| Fault::Malformed("no frame"))? {
            match frame {
                Frame { kind: FrameKind::Data, payload } => packets.push(payload),
                other => others.extend_from_slice(&other.encode()),
            }
        }
        Ok(())
    }

    fn may_end(&self, rest: &[u8]) -> bool {
        rest.is_empty()
    }
}

impl StreamProtocol for Cstp {
    const FRONT_END: &'static str = "anyconnect";

    /// Tells a client that must not come back by itself why; all others come back when the connection ends.
    fn farewell(ending: Ending) -> Option<Bytes> {
        match ending {
            Ending::Replaced | Ending::Shutdown => None,
            Ending::Revoked
            | Ending::Disabled
            | Ending::Crowded
            | Ending::Idle
            | Ending::OutsideHours
            | Ending::LoginOver
            | Ending::CertificateOver => Some(frame::farewell(ending.reason())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_become_frames_and_come_out_of_them_beside_all_else() {
        let packet = Cstp::frame(PacketBuffer::copy_from(b"packet"));
        assert_eq!((&packet[..], Cstp::packet_len(packet.len())), (&b"STF\x01\x00\x06\x00\x00packet"[..], 6));
        let question = b"STF\x01\x00\x02\x03\x00ab";
        let mut stream = BytesMut::from(&[&packet[..], question, &packet[..10]].concat()[..]);
        let (mut packets, mut others) = (Vec::new(), Vec::new());
        Cstp.read(&mut stream, &mut packets, &mut others).unwrap();
        assert_eq!((packets, others), (vec![Bytes::from_static(b"packet")], question.to_vec()));
        assert!(!Cstp.may_end(&stream) && stream.len() == 10, "a frame has begun");
        assert!(Cstp.read(&mut BytesMut::from(&b"GET /"[..]), &mut Vec::new(), &mut Vec::new()).is_err());
    }
}

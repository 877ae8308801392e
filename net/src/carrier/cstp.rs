//! The carrier of AnyConnect's channel (CSTP): a packet in each frame, and each frame in a TLS record of its own.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_proto::anyconnect::channel::{Channel, ChannelEvent};
use adit_proto::anyconnect::frame::{self, Frame, FrameKind, HEAD_LEN, NoFrame, head};
use adit_proto::http::fault::Fault;
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use super::Carrier as _;
use super::stream::{Framing, StreamCarrier};
use crate::packet_buffer::PacketBuffer;

/// Packets in frames of the channel, each in a record of its own.
#[derive(Debug, Clone, Copy)]
pub struct Cstp;

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

/// Follows the frames of a channel that are no packets, until it is over.
pub struct FollowedChannel {
    carrier: Arc<StreamCarrier<Cstp>>,
    channel: Channel,
    frames: mpsc::Receiver<Bytes>,
    unread: Duration,
    /// Packets received when that was looked at last.
    received: u64,
}

/// Why a channel is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEnd {
    /// The peer has ended the session for good, and says why.
    Ended(Bytes),
    /// The peer leaves, or does not speak as the protocol says; the client may come back.
    Left,
    /// The peer has said nothing, or read nothing, for too long.
    Silent,
    /// The connection is over.
    Closed,
}

impl FollowedChannel {
    /// Follows `channel` on its carrier, whose frames that are no packets come out of `frames`. A peer may leave unread
    /// for as long as `unread` what is said to it.
    #[must_use]
    pub fn new(
        carrier: Arc<StreamCarrier<Cstp>>,
        channel: Channel,
        frames: mpsc::Receiver<Bytes>,
        unread: Duration,
    ) -> Self {
        Self { carrier, channel, frames, unread, received: 0 }
    }

    /// Follows it no longer; whoever has the frames reads them to their end.
    #[must_use]
    pub fn into_frames(self) -> mpsc::Receiver<Bytes> {
        self.frames
    }

    /// Answers what the peer asks, and asks a peer that is silent, until the channel is over. Cancel-safe.
    pub async fn over(&mut self) -> ChannelEnd {
        loop {
            match self.channel.poll_event() {
                Ok(None) => {}
                Ok(Some(ChannelEvent::Ended(reason))) => return ChannelEnd::Ended(reason),
                Ok(Some(ChannelEvent::Left)) | Err(NoFrame) => return ChannelEnd::Left,
                Ok(Some(ChannelEvent::Silent)) => return ChannelEnd::Silent,
            }
            if !self.answer().await {
                return ChannelEnd::Silent;
            }
            let Some(look) = self.channel.poll_timeout() else { return ChannelEnd::Silent };
            tokio::select! {
                frame = self.frames.recv() => match frame {
                    Some(frame) => {
                        self.channel.buffer().extend_from_slice(&frame);
                        self.channel.handle_received(Instant::now());
                    }
                    None => return ChannelEnd::Closed,
                },
                () = sleep_until(look.into()) => self.look(),
            }
        }
    }

    /// Says what there is to say. False if the peer does not read it. Cancel-safe.
    async fn answer(&mut self) -> bool {
        loop {
            // Two frames in one record would be thrown away, so each waits until the one before it is sent.
            if timeout(self.unread, self.carrier.flush()).await.is_err() {
                return false;
            }
            match self.channel.poll_transmit() {
                Some(answer) => self.carrier.queue(&answer),
                None => return true,
            }
        }
    }

    fn look(&mut self) {
        // Packets pass by the channel, and show as well that the peer is there.
        let (packets, _) = self.carrier.counters().packets();
        if packets != mem::replace(&mut self.received, packets) {
            self.channel.handle_received(Instant::now());
        }
        self.channel.handle_timeout(Instant::now());
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

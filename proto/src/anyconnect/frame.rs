//! Frames of the channel (CSTP), each in one TLS record.
//!
//! ```text
//! "STF" (3) | 1 (1) | length of the payload (2) | type (1) | 0 (1) | payload
//! ```
//!
//! Clients throw away a record that holds more than one frame, and end over a frame in two records. What they send is
//! read as a stream all the same, however it is cut.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use bytes::{Buf as _, Bytes, BytesMut};

/// Bytes of the head.
pub const HEAD_LEN: usize = 8;
/// Largest payload, in bytes: with its head it fills a TLS record.
pub const MAX_PAYLOAD: u16 = 16_376;
/// The reason in a [`FrameKind::Disconnect`] after which a client has no more use for its token.
pub const USER_ENDED: u8 = 0xb0;
/// What every frame begins with.
const MAGIC: [u8; 4] = *b"STF\x01";

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// One packet.
    Data,
    /// Asks whether the peer is there.
    DpdRequest,
    /// Says so, with the payload of the request.
    DpdResponse,
    /// The sender leaves: a reason of one byte, and text.
    Disconnect,
    /// Keeps the way open.
    Keepalive,
    /// A compressed packet, which nobody has agreed to.
    Compressed,
    /// The gateway has ended the session.
    Terminate,
    /// Any other number.
    Unknown(u8),
}

impl FrameKind {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::DpdRequest => 3,
            Self::DpdResponse => 4,
            Self::Disconnect => 5,
            Self::Keepalive => 7,
            Self::Compressed => 8,
            Self::Terminate => 9,
            Self::Unknown(number) => number,
        }
    }

    /// The kind with that number.
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::Data,
            3 => Self::DpdRequest,
            4 => Self::DpdResponse,
            5 => Self::Disconnect,
            7 => Self::Keepalive,
            8 => Self::Compressed,
            9 => Self::Terminate,
            other => Self::Unknown(other),
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Its payload.
    pub payload: Bytes,
}

/// The frame that ends a session for good, with the reason: a client is not to come back by itself, and a gateway is to
/// let its token be worth nothing.
pub fn farewell(reason: &str) -> Bytes {
    let payload = [&[USER_ENDED], reason.as_bytes()].concat();
    Frame { kind: FrameKind::Disconnect, payload: payload.into() }.encode()
}

/// What came is no frame; nothing after it can be told apart any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what the other end sends is no frame")]
pub struct NoFrame;

impl Frame {
    /// The frame as it is sent; a payload is cut to [`MAX_PAYLOAD`].
    pub fn encode(&self) -> Bytes {
        let payload = self.payload.get(..MAX_PAYLOAD.into()).unwrap_or(&self.payload);
        let mut frame = BytesMut::with_capacity(HEAD_LEN.saturating_add(payload.len()));
        frame.extend_from_slice(&head(self.kind, u16::try_from(payload.len()).unwrap_or(MAX_PAYLOAD)));
        frame.extend_from_slice(payload);
        frame.freeze()
    }
}

/// The head of a frame with `length` bytes of payload.
#[inline]
pub const fn head(kind: FrameKind, length: u16) -> [u8; HEAD_LEN] {
    let [m0, m1, m2, m3] = MAGIC;
    let [high, low] = length.to_be_bytes();
    [m0, m1, m2, m3, high, low, kind.number(), 0]
}

/// Takes the first frame off `buffer`; `None` until it is whole.
///
/// # Errors
/// What the buffer begins with is no frame.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, NoFrame> {
    let Some((head, _)) = buffer.split_first_chunk::<HEAD_LEN>() else {
        let begun = buffer.len().min(MAGIC.len());
        return if buffer.get(..begun) == MAGIC.get(..begun) { Ok(None) } else { Err(NoFrame) };
    };
    let [m0, m1, m2, m3, high, low, kind, _reserved] = *head;
    let length = u16::from_be_bytes([high, low]);
    if [m0, m1, m2, m3] != MAGIC || length > MAX_PAYLOAD {
        return Err(NoFrame);
    }
    if buffer.len() < HEAD_LEN.saturating_add(length.into()) {
        return Ok(None);
    }
    buffer.advance(HEAD_LEN);
    Ok(Some(Frame { kind: FrameKind::of(kind), payload: buffer.split_to(length.into()).freeze() }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: FrameKind, payload: &'static [u8]) -> Frame {
        Frame { kind, payload: Bytes::from_static(payload) }
    }

    /// All frames of a stream that comes in pieces of this size, and whether it breaks.
    fn taken(stream: &[u8], size: usize) -> (Vec<Frame>, bool) {
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(size) {
            buffer.extend_from_slice(piece);
            loop {
                match take(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(NoFrame) => return (frames, true),
                }
            }
        }
        (frames, false)
    }

    #[test]
    fn frame_is_laid_out_as_clients_want_it() {
        assert_eq!(&frame(FrameKind::Data, b"packet").encode()[..], b"STF\x01\x00\x06\x00\x00packet");
        assert_eq!(&frame(FrameKind::DpdResponse, b"").encode()[..], b"STF\x01\x00\x00\x04\x00");
        assert_eq!(&farewell("over")[..], b"STF\x01\x00\x05\x05\x00\xb0over");
        assert_eq!(head(FrameKind::Terminate, 0x1234)[4..], [0x12, 0x34, 9, 0]);
    }

    #[test]
    fn what_is_no_frame_ends_the_stream_at_its_first_wrong_byte() {
        for wrong in [&b"X"[..], b"STF\x02", b"STG", b"STF\x01\x3f\xf9\x00\x00", b"STF\x01\xff\xff\x00\x00"] {
            assert_eq!(taken(wrong, 1), (Vec::new(), true), "{wrong:?}");
        }
        assert_eq!(taken(b"STF\x01\x3f\xf8\x00\x00", 1), (Vec::new(), false), "the largest one, not yet whole");
        let good = frame(FrameKind::Keepalive, b"");
        assert_eq!(taken(&[&good.encode()[..], b"GET /"].concat(), 64), (vec![good], true));
    }

    #[test]
    fn frame_over_several_records_waits_for_its_end() {
        let whole = frame(FrameKind::Data, b"packet").encode();
        for cut in 0..whole.len() {
            let mut buffer = BytesMut::from(whole.get(..cut).unwrap());
            assert_eq!(take(&mut buffer), Ok(None), "{cut}");
            assert_eq!(buffer.len(), cut, "nothing is lost");
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..9),
            size in 1_usize..100,
        ) {
            let frames: Vec<Frame> = frames
                .into_iter()
                .map(|(kind, payload)| Frame { kind: FrameKind::of(kind), payload: payload.into() })
                .collect();
            let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().to_vec()).collect();
            prop_assert_eq!(taken(&stream, size), (frames, false));
        }

        #[test]
        fn nothing_disturbs_the_reader(stream in proptest::collection::vec(any::<u8>(), 0..100), size in 1_usize..9) {
            drop(taken(&stream, size));
        }
    }
}

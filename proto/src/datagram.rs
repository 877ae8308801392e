//! HTTP datagrams in QUIC DATAGRAM frames (RFC 9297 section 2.1) with the context ID of CONNECT-IP (RFC 9484 section
//! 6).
//!
//! ```text
//! quarter stream id (varint)  context id (varint, 0 = IP packet)  packet (to the end of the frame)
//! ```

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use bytes::{Buf, Bytes};

use crate::http::fault::Fault;
use crate::varint;

/// Context ID of full IP packets (RFC 9484 section 6).
pub const PACKET_CONTEXT: u64 = 0;

/// Largest quarter stream ID: stream IDs are below 2^62 (RFC 9297 section 2.1).
const MAX_QUARTER_STREAM_ID: u64 = (1 << 60) - 1;

/// Longest prefix: a quarter stream ID of eight bytes and the packet context.
const MAX_PREFIX_LEN: usize = 9;

/// The bytes in front of every packet of one request stream: its quarter stream ID and the packet context.
///
/// Two bytes long for the first 64 request streams of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; MAX_PREFIX_LEN],
    len: usize,
}

impl Prefix {
    /// The prefix for a client-initiated bidirectional stream; the two low bits of its ID do not count.
    ///
    /// # Panics
    /// If `stream_id` exceeds [`varint::MAX`].
    pub fn new(stream_id: u64) -> Self {
        let mut encoded = Vec::with_capacity(MAX_PREFIX_LEN);
        varint::encode(stream_id >> 2, &mut encoded);
        varint::encode(PACKET_CONTEXT, &mut encoded);
        let mut bytes = [0; MAX_PREFIX_LEN];
        for (target, source) in bytes.iter_mut().zip(&encoded) {
            *target = *source;
        }
        Self { bytes, len: encoded.len() }
    }

    /// The bytes to put in front of a packet.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).expect("no prefix is longer than the longest")
    }
}

/// An HTTP datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The request stream it belongs to.
    pub stream_id: u64,
    /// What the payload is; 0 is an IP packet, others are dropped by the receiver (RFC 9484 section 6).
    pub context_id: u64,
    /// The rest of the frame.
    pub payload: Bytes,
}

/// Decodes the payload of a QUIC DATAGRAM frame without copying the packet.
///
/// # Errors
/// [`Fault::Datagram`] if the quarter stream ID is cut short or above 2^60 - 1 (RFC 9297 section
/// 2.1), or if the context ID is cut short (section 5.2: "Datagram or Capsule Protocol parse error").
pub fn decode(mut payload: Bytes) -> Result<Datagram, Fault> {
    let too_short = Fault::Datagram("datagram ends inside its ids");
    let (quarter, length) = varint::decode(&payload).ok_or(too_short)?;
    if quarter > MAX_QUARTER_STREAM_ID {
        return Err(Fault::Datagram("datagram for an impossible stream id"));
    }
    payload.advance(length);
    let (context_id, payload) = split_context(payload).ok_or(too_short)?;
    Ok(Datagram { stream_id: quarter << 2, context_id, payload })
}

/// Splits the payload of an HTTP datagram into context ID and packet; `None` if it ends inside the ID.
#[inline]
pub(crate) fn split_context(mut payload: Bytes) -> Option<(u64, Bytes)> {
    let (context_id, length) = varint::decode(&payload)?;
    payload.advance(length);
    Some((context_id, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_unreadable(payload: &[u8]) -> bool {
        matches!(decode(Bytes::copy_from_slice(payload)), Err(Fault::Datagram(_)))
    }

    #[test]
    fn first_request_stream_has_a_prefix_of_two_bytes() {
        assert_eq!(Prefix::new(0).as_bytes(), [0, 0]);
        assert_eq!(Prefix::new(252).as_bytes(), [63, 0]);
        assert_eq!(Prefix::new(256).as_bytes(), [0x40, 64, 0]);
    }

    #[test]
    fn packet_follows_stream_and_context() {
        let datagram = decode(Bytes::from_static(&[1, 0, 0x45, 0])).unwrap();
        assert_eq!(datagram, Datagram { stream_id: 4, context_id: 0, payload: Bytes::from_static(&[0x45, 0]) });
        let other_context = decode(Bytes::from_static(&[0, 0x40, 2])).unwrap();
        assert_eq!((other_context.context_id, other_context.payload.len()), (2, 0));
    }

    #[test]
    fn datagram_cut_short_is_a_datagram_error() {
        for payload in [&[][..], &[0x40], &[0xc0, 0, 0], &[0], &[0, 0x40], &[0, 0x80, 0, 0]] {
            assert!(is_unreadable(payload));
        }
    }

    #[test]
    fn quarter_stream_id_above_limit_is_a_datagram_error() {
        let mut payload = Vec::new();
        varint::encode(MAX_QUARTER_STREAM_ID + 1, &mut payload);
        payload.push(0);
        assert!(is_unreadable(&payload));
        assert!(is_unreadable(&[0xff; 10]));
    }

    #[test]
    fn largest_stream_id_round_trips() {
        let stream_id = varint::MAX & !3;
        let datagram = decode(Bytes::copy_from_slice(Prefix::new(stream_id).as_bytes())).unwrap();
        assert_eq!((datagram.stream_id, datagram.context_id), (stream_id, PACKET_CONTEXT));
    }

    proptest! {
        #[test]
        fn round_trip(quarter in 0..=MAX_QUARTER_STREAM_ID, packet in proptest::collection::vec(any::<u8>(), 0..32)) {
            let mut payload = Prefix::new(quarter << 2).as_bytes().to_vec();
            payload.extend_from_slice(&packet);
            let datagram = decode(Bytes::from(payload)).unwrap();
            prop_assert_eq!(datagram, Datagram { stream_id: quarter << 2, context_id: 0, payload: Bytes::from(packet) });
        }

        #[test]
        fn arbitrary_bytes_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(datagram) = decode(Bytes::from(payload)) {
                prop_assert!(datagram.stream_id <= varint::MAX && datagram.stream_id % 4 == 0);
            }
        }
    }
}

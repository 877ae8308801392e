//! Packets in DATAGRAM capsules (RFC 9297 section 3.5), where a tunnel has no datagrams of QUIC to put them in.
//!
//! ```text
//! 0 (DATAGRAM)  length (varint)  0 (IP packet)  packet (length - 1 bytes)
//! ```
//!
//! A tunnel's stream carries other capsules, too. [`PacketReader`] takes the packets out of it, many at a time and
//! without copying them, and leaves all else to whoever reads capsules.

use bytes::{Buf as _, Bytes, BytesMut};

use super::DATAGRAM;
use super::stream::{MAX_SKIPPED_LEN, MAX_VALUE_LEN};
use crate::datagram::PACKET_CONTEXT;
use crate::http::fault::Fault;
use crate::varint;

/// Longest prefix: the type, a length of four bytes, and the context.
const MAX_PREFIX_LEN: usize = 6;

/// The bytes in front of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapsulePrefix {
    bytes: [u8; MAX_PREFIX_LEN],
    len: usize,
}

impl CapsulePrefix {
    /// The prefix of a packet of `len` bytes.
    pub fn new(len: u16) -> Self {
        let value = u32::from(len).saturating_add(1);
        let [first, second, third, fourth] = value.to_be_bytes();
        let context = 0;
        let (bytes, len) = match value {
            0..0x40 => ([0, fourth, context, 0, 0, 0], 3),
            0x40..0x4000 => ([0, 0x40 | third, fourth, context, 0, 0], 4),
            _ => ([0, 0x80 | first, second, third, fourth, context], MAX_PREFIX_LEN),
        };
        Self { bytes, len }
    }

    /// How long the packet is that makes `framed` bytes with its prefix.
    pub const fn packet_len(framed: usize) -> usize {
        let prefix = match framed {
            0..=0x41 => 3,
            0x42..=0x4002 => 4,
            _ => MAX_PREFIX_LEN,
        };
        framed.saturating_sub(prefix)
    }

    /// The bytes to put in front of the packet.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).expect("no prefix is longer than the longest")
    }
}

/// Takes packets out of a stream of capsules.
#[derive(Debug, Default)]
pub struct PacketReader {
    /// Bytes still to come of a capsule without a packet.
    passing: u64,
}

impl PacketReader {
    /// Takes all whole packets off the front of `stream` and appends them to `packets`. What belongs to other capsules
    /// is appended to `others`, as it came. The beginning of a packet stays in `stream` until the rest has come.
    ///
    /// # Errors
    /// [`Fault::Excessive`] for a capsule that is too long, [`Fault::Malformed`] for a datagram without a context.
    pub fn read(&mut self, stream: &mut BytesMut, packets: &mut Vec<Bytes>, others: &mut Vec<u8>) -> Result<(), Fault> {
        loop {
            self.pass_on(stream, others);
            let Some((kind, kind_len)) = varint::decode(stream) else { return Ok(()) };
            let Some((length, length_len)) = stream.get(kind_len..).and_then(varint::decode) else { return Ok(()) };
            let head = kind_len.saturating_add(length_len);
            if length > if kind == DATAGRAM { MAX_VALUE_LEN } else { MAX_SKIPPED_LEN } {
                return Err(Fault::Excessive("capsule is too long"));
            }
            if kind != DATAGRAM {
                self.passing = length.saturating_add(head as u64);
                continue;
            }
            let value = usize::try_from(length).unwrap_or(usize::MAX);
            if stream.len() < head.saturating_add(value) {
                return Ok(());
            }
            stream.advance(head);
            let mut datagram = stream.split_to(value);
            let (context, length) =
                varint::decode(&datagram).ok_or(Fault::Malformed("datagram capsule without context id"))?;
            datagram.advance(length);
            // Others mean nothing to us and are dropped (RFC 9484 section 6).
            if context == PACKET_CONTEXT {
                packets.push(datagram.freeze());
            }
        }
    }

    /// Whether the stream may end here, with `rest` left in it.
    pub fn is_between_capsules(&self, rest: &[u8]) -> bool {
        self.passing == 0 && rest.is_empty()
    }

    fn pass_on(&mut self, stream: &mut BytesMut, others: &mut Vec<u8>) {
        let here = usize::try_from(self.passing).unwrap_or(usize::MAX).min(stream.len());
        others.extend_from_slice(stream.get(..here).unwrap_or_default());
        stream.advance(here);
        self.passing = self.passing.saturating_sub(here as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{AssignedAddress, Capsule, CapsuleDecoder, encode};
    use super::*;

    /// What comes out of a stream that is cut into pieces of these lengths, and the rest.
    fn read(stream: &[u8], cuts: &[usize]) -> Result<(Vec<Bytes>, Vec<u8>, bool), Fault> {
        let (mut reader, mut held) = (PacketReader::default(), BytesMut::new());
        let (mut packets, mut others) = (Vec::new(), Vec::new());
        let mut rest = stream;
        for cut in cuts.iter().copied().chain([stream.len()]) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            held.extend_from_slice(piece);
            reader.read(&mut held, &mut packets, &mut others)?;
            rest = after;
        }
        Ok((packets, others, reader.is_between_capsules(&held)))
    }

    fn in_capsule(packet: &[u8]) -> Vec<u8> {
        [CapsulePrefix::new(u16::try_from(packet.len()).unwrap()).as_bytes(), packet].concat()
    }

    proptest! {
        #[test]
        fn packets_and_other_capsules_come_out_whole_however_the_stream_is_cut(
            parts in prop::collection::vec((any::<bool>(), 0_usize..20_000), 0..6),
            cuts in prop::collection::vec(0_usize..20_000, 0..8),
        ) {
            let (mut stream, mut packets, mut others) = (Vec::new(), Vec::new(), Vec::new());
            for (number, (is_packet, len)) in parts.into_iter().enumerate() {
                let content = vec![u8::try_from(number).unwrap(); len];
                if is_packet {
                    stream.extend(in_capsule(&content));
                    packets.push(Bytes::from(content));
                } else {
                    let mut capsule = Vec::new();
                    varint::encode(0x2f, &mut capsule);
                    varint::encode(len as u64, &mut capsule);
                    capsule.extend(content);
                    stream.extend(&capsule);
                    others.extend(capsule);
                }
            }
            prop_assert_eq!(read(&stream, &cuts), Ok((packets, others, true)));
        }

        #[test]
        fn any_bytes_are_survived(stream in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let _outcome = read(&stream, &[cut]);
        }

        #[test]
        fn packet_reads_as_any_decoder_of_capsules_reads_it(len in 0_u16..) {
            let packet = vec![7; usize::from(len)];
            let mut decoder = CapsuleDecoder::new();
            decoder.handle(&in_capsule(&packet)).unwrap();
            let Some(Capsule::Datagram(payload)) = decoder.poll_event() else { panic!("no datagram") };
            prop_assert_eq!(payload.split_first(), Some((&0, packet.as_slice())));
            prop_assert_eq!(CapsulePrefix::packet_len(in_capsule(&packet).len()), packet.len());
        }
    }

    #[test]
    fn datagram_of_another_context_is_dropped_and_one_without_is_malformed() {
        assert_eq!(read(&[0, 2, 5, 9], &[]), Ok((vec![], vec![], true)));
        assert!(matches!(read(&[0, 0], &[]), Err(Fault::Malformed(_))));
        assert!(matches!(read(&[0, 1, 0x40], &[]), Err(Fault::Malformed(_))));
    }

    #[test]
    fn capsule_that_is_too_long_is_refused_by_its_head() {
        for (kind, most) in [(0, MAX_VALUE_LEN), (0x2f, MAX_SKIPPED_LEN)] {
            let head = |length| {
                let mut head = Vec::new();
                varint::encode(kind, &mut head);
                varint::encode(length, &mut head);
                head
            };
            assert!(read(&head(most), &[]).is_ok_and(|(_, _, is_whole)| !is_whole));
            assert!(matches!(read(&head(most + 1), &[]), Err(Fault::Excessive(_))));
        }
    }

    #[test]
    fn end_amid_a_capsule_is_seen() {
        let mut assign = Vec::new();
        encode(&Capsule::AddressAssign(Vec::<AssignedAddress>::new()), &mut assign);
        for whole in [in_capsule(&[1, 2, 3]), assign] {
            for cut in 1..whole.len() {
                let (part, _) = whole.split_at(cut);
                assert!(!read(part, &[]).unwrap().2, "{cut} of {whole:?}");
            }
            assert!(read(&whole, &[]).unwrap().2);
        }
    }
}

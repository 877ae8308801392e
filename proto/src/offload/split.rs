//! Taking a superpacket apart.
//!
//! Each segment gets the superpacket's headers, with what differs patched, as Linux's own segmentation does
//! (`inet_gso_segment`, `ipv6_gso_segment`, `tcp_gso_segment`, `__udp_gso_segment`):
//!
//! | field | segment `i` |
//! | --- | --- |
//! | IPv4 total length, IPv6 payload length, UDP length | its own |
//! | IPv4 identification | first + `i` |
//! | IPv4 header checksum | computed |
//! | TCP sequence number | first + `i` × `gso_size` |
//! | FIN, PSH | on the last only |
//! | CWR | on the first only (RFC 3168 section 6.1.2) |
//! | TCP or UDP checksum | partial, for its own length |
//!
//! [`Split::write_packet`] copies a segment out of a superpacket to where it is sealed.

use std::ops::Range;

use super::Kind;
use super::superpacket::{Partial, Superpacket};
use super::transport::{self, CWR, FIN, PSH};
use super::{put_u16, put_u32, u16_at, u32_at};
use crate::drop_reason::DropReason;
use crate::packet::checksum::Checksum;

/// The longest headers of a superpacket that can be split: both with all options are 120 bytes, which leaves room for
/// IPv6 extension headers.
pub const MAX_HEADER_LEN: usize = 256;

/// What becomes of the TCP or UDP checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// They stay partial, and the segments go as vouched.
    Partial,
    /// They are computed.
    Full,
}

/// The headers of a superpacket, ready to be written in front of each segment.
///
/// It keeps a copy, so the headers may lie where the first segment goes.
#[derive(Debug, Clone)]
pub struct Split {
    /// All headers, with zeros in the fields that differ.
    template: [u8; MAX_HEADER_LEN],
    kind: Kind,
    header_len: usize,
    csum_start: usize,
    gso_size: usize,
    payload_len: usize,
    segments: usize,
    /// IPv4 only: identification of the first segment and sum of the template's IP header.
    id: u16,
    ip_sum: Checksum,
    /// Sum of the pseudo-header but for the length.
    pseudo_sum: Checksum,
    /// TCP only: sequence number of the first segment, and all flags.
    sequence: u32,
    flags: u8,
}

/// One segment of a superpacket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its position, from 0.
    pub index: usize,
    /// True for the last one.
    pub is_last: bool,
    /// The length of its headers in bytes, equal for all segments.
    pub header_len: usize,
    /// Where its payload is in the superpacket as it was read in one piece.
    pub payload: Range<usize>,
}

impl Segment {
    /// The length of the segment as a packet of its own, in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a packet has headers")]
    pub fn len(&self) -> usize {
        self.header_len.saturating_add(self.payload.len())
    }
}

impl Split {
    /// Begins to take `superpacket` apart, which was parsed from the same `head`.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`] if it is plain, does not fit `head`, or has more than [`MAX_HEADER_LEN`] bytes of
    /// headers.
    pub fn new(superpacket: &Superpacket, head: &[u8]) -> Result<Self, DropReason> {
        Self::read(superpacket, head).ok_or(DropReason::BadOffload)
    }

    fn read(superpacket: &Superpacket, head: &[u8]) -> Option<Self> {
        let &Superpacket { ref ip, kind, header_len, gso_size, segments, .. } = superpacket;
        let header = head.get(..header_len)?;
        let mut template = [0; MAX_HEADER_LEN];
        template.get_mut(..header_len)?.copy_from_slice(header);
        if kind == Kind::Plain {
            return None;
        }
        let csum_start = ip.upper_layer;
        let mut split = Self {
            template,
            kind,
            header_len,
            csum_start,
            gso_size,
            payload_len: superpacket.payload_len(),
            segments,
            id: 0,
            ip_sum: Checksum::new(),
            pseudo_sum: transport::pseudo_header(kind, header, 0)?,
            sequence: 0,
            flags: 0,
        };
        if !kind.is_v6() {
            split.id = u16_at(header, transport::IPV4_ID)?;
            put_u32(&mut split.template, transport::IPV4_TOTAL_LEN, 0)?; // and the identification
            put_u16(&mut split.template, transport::IPV4_CHECKSUM, 0)?;
            split.ip_sum = Checksum::new().with(split.template.get(..csum_start)?);
        }
        if kind.is_tcp() {
            split.sequence = u32_at(header, csum_start.checked_add(transport::TCP_SEQUENCE)?)?;
            split.flags = *header.get(csum_start.checked_add(transport::TCP_FLAGS)?)?;
        }
        Some(split)
    }

    /// The segment at `index`; `None` if there are fewer.
    pub fn segment(&self, index: usize) -> Option<Segment> {
        let is_last = index.checked_add(1)? == self.segments;
        let from = index.checked_mul(self.gso_size).filter(|_| index < self.segments)?;
        let to = if is_last { self.payload_len } else { from.checked_add(self.gso_size)? };
        let payload = self.header_len.checked_add(from)?..self.header_len.checked_add(to)?;
        Some(Segment { index, is_last, header_len: self.header_len, payload })
    }

    /// All segments in order.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        (0..self.segments).filter_map(|index| self.segment(index))
    }

    /// Writes the headers of `segment` to the beginning of `slot`. The checksum is partial, as `NEEDS_CSUM` wants it.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] if the slot is too short.
    fn write_header(&self, segment: &Segment, slot: &mut [u8]) -> Result<(), DropReason> {
        self.patch(segment, slot).ok_or(DropReason::TooBig)
    }

    /// Computes the checksum of `segment`, whose headers were written to the beginning of `slot` and are followed by
    /// its payload.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] if the slot is too short.
    fn complete(&self, segment: &Segment, slot: &mut [u8]) -> Result<(), DropReason> {
        let packet = slot.get_mut(..segment.len()).ok_or(DropReason::TooBig)?;
        let csum_offset = self.kind.csum_offset().ok_or(DropReason::BadOffload)?;
        Partial { csum_start: self.csum_start, csum_offset }.complete(packet)
    }

    /// Copies `segment` out of its `superpacket`, which was read in one piece, to the beginning of `slot`, as a whole
    /// packet.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] if the slot is too short, [`DropReason::BadLength`] if the superpacket is.
    pub fn write_packet(
        &self,
        segment: &Segment,
        superpacket: &[u8],
        slot: &mut [u8],
        checksums: Checksums,
    ) -> Result<(), DropReason> {
        let payload = superpacket.get(segment.payload.clone()).ok_or(DropReason::BadLength)?;
        let place = slot.get_mut(segment.header_len..segment.len()).ok_or(DropReason::TooBig)?;
        place.copy_from_slice(payload);
        self.write_header(segment, slot)?;
        match checksums {
            Checksums::Partial => Ok(()),
            Checksums::Full => self.complete(segment, slot),
        }
    }

    fn patch(&self, segment: &Segment, slot: &mut [u8]) -> Option<()> {
        let header = slot.get_mut(..self.header_len)?;
        header.copy_from_slice(self.template.get(..self.header_len)?);
        if self.kind.is_v6() {
            let payload_len = u16::try_from(segment.len().checked_sub(transport::IPV6_LEN)?).ok()?;
            put_u16(header, transport::IPV6_PAYLOAD_LEN, payload_len)?;
        } else {
            let total_len = u16::try_from(segment.len()).ok()?;
            let id = self.id.wrapping_add(u16::try_from(segment.index & 0xffff).ok()?);
            put_u16(header, transport::IPV4_TOTAL_LEN, total_len)?;
            put_u16(header, transport::IPV4_ID, id)?;
            put_u16(header, transport::IPV4_CHECKSUM, self.ip_sum.with_word(total_len).with_word(id).finish())?;
        }
        let upper_len = u16::try_from(segment.len().checked_sub(self.csum_start)?).ok()?;
        let partial = self.pseudo_sum.with_word(upper_len).fold();
        let upper = header.get_mut(self.csum_start..)?;
        if self.kind.is_tcp() {
            let distance = u32::try_from(segment.payload.start.checked_sub(self.header_len)?).ok()?;
            put_u32(upper, transport::TCP_SEQUENCE, self.sequence.wrapping_add(distance))?;
            *upper.get_mut(transport::TCP_FLAGS)? = self.flags_of(segment);
            put_u16(upper, transport::TCP_CHECKSUM, partial)
        } else {
            put_u16(upper, transport::UDP_LENGTH, upper_len)?;
            put_u16(upper, transport::UDP_CHECKSUM, partial)
        }
    }

    const fn flags_of(&self, segment: &Segment) -> u8 {
        let last_only = if segment.is_last { 0 } else { FIN | PSH };
        let first_only = if segment.index == 0 { 0 } else { CWR };
        self.flags & !last_only & !first_only
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::offload::samples::{ACK, ALL_KINDS, CWR, FIN, PSH, Sample};
    use crate::packet::IpPacket;

    fn split(sample: &Sample, gso_size: usize) -> (Split, Vec<u8>) {
        let packet = sample.build_partial();
        let superpacket = Superpacket::parse(sample.virtio(gso_size), &packet, packet.len()).unwrap();
        (Split::new(&superpacket, &packet).unwrap(), packet)
    }

    fn packets(sample: &Sample, gso_size: usize, checksums: Checksums) -> Vec<Vec<u8>> {
        let (split, packet) = split(sample, gso_size);
        let write = |segment: Segment| {
            let mut slot = vec![0xee; segment.len()];
            split.write_packet(&segment, &packet, &mut slot, checksums).unwrap();
            slot
        };
        split.segments().map(write).collect()
    }

    /// The segments built one by one, without the code under test.
    fn expected(sample: &Sample, gso_size: usize) -> Vec<Sample> {
        let count = sample.payload.chunks(gso_size).count();
        let segment = |(index, payload): (usize, &[u8])| {
            let step = u32::try_from(index * gso_size).unwrap();
            let mut flags = sample.flags;
            if index > 0 {
                flags &= !CWR;
            }
            if index + 1 < count {
                flags &= !(FIN | PSH);
            }
            Sample {
                sequence: sample.sequence.wrapping_add(step),
                id: sample.id.wrapping_add(u16::try_from(index).unwrap()),
                flags,
                payload: payload.to_vec(),
                ..sample.clone()
            }
        };
        sample.payload.chunks(gso_size).enumerate().map(segment).collect()
    }

    #[test]
    fn segments_are_what_they_would_be_on_their_own() {
        for (v6, tcp) in ALL_KINDS {
            let sample = Sample { flags: ACK | PSH | FIN | CWR, id: 0xffff, ..Sample::new(v6, tcp, 2_950) };
            let expected = expected(&sample, 1_000);
            let full: Vec<_> = expected.iter().map(Sample::build).collect();
            let partial: Vec<_> = expected.iter().map(Sample::build_partial).collect();
            assert_eq!(packets(&sample, 1_000, Checksums::Full), full);
            assert_eq!(packets(&sample, 1_000, Checksums::Partial), partial);
        }
    }

    #[test]
    fn options_and_extension_headers_are_copied() {
        let options = Sample { ip_options: vec![1; 8], ..Sample::new(false, true, 300) };
        let extension = Sample { ip_options: vec![0, 0, 1, 4, 0, 0, 0, 0], ..Sample::new(true, false, 300) };
        for sample in [options, extension] {
            let expected: Vec<_> = expected(&sample, 200).iter().map(Sample::build).collect();
            assert_eq!(packets(&sample, 200, Checksums::Full), expected);
        }
    }

    #[test]
    fn sequence_number_and_identification_wrap() {
        let sample = Sample { sequence: u32::MAX - 5, id: u16::MAX, ..Sample::new(false, true, 20) };
        let packets = packets(&sample, 10, Checksums::Full);
        assert_eq!(&packets[1][4..6], [0, 0]);
        assert_eq!(&packets[1][24..28], [0, 0, 0, 4]);
    }

    #[test]
    fn superpacket_without_payload_is_one_segment() {
        let sample = Sample::new(true, true, 0);
        assert_eq!(packets(&sample, 10, Checksums::Full), [sample.build()]);
    }

    #[test]
    fn longest_packets_keep_their_length() {
        let v4 = Sample::new(false, false, 65_507);
        assert_eq!(packets(&v4, 65_507, Checksums::Full), [v4.build()]);
        let v6 = Sample::new(true, false, 65_527);
        assert_eq!(packets(&v6, 65_527, Checksums::Full), [v6.build()]);
        assert_eq!(packets(&v6, 1_000, Checksums::Partial).len(), 66);
    }

    #[test]
    fn header_may_be_written_over_itself() {
        let sample = Sample::new(false, true, 2_500);
        let (split, mut packet) = split(&sample, 1_000);
        let first = split.segment(0).unwrap();
        split.write_header(&first, &mut packet).unwrap();
        split.complete(&first, &mut packet).unwrap();
        assert_eq!(packet[..first.len()], expected(&sample, 1_000)[0].build());
    }

    #[test]
    fn segments_can_be_taken_from_any_position() {
        let (split, _) = split(&Sample::new(false, true, 2_500), 1_000);
        let all: Vec<_> = split.segments().collect();
        assert_eq!(all.len(), 3);
        assert!(all.iter().enumerate().all(|(index, segment)| split.segment(index).as_ref() == Some(segment)));
        assert_eq!(all.last().map(|last| (last.is_last, last.payload.clone())), Some((true, 2_040..2_540)));
        assert_eq!(split.segment(3), None);
        assert_eq!(split.segment(usize::MAX), None);
    }

    #[test]
    fn short_slot_and_short_superpacket_are_refused() {
        let sample = Sample::new(false, true, 100);
        let (split, packet) = split(&sample, 60);
        let last = split.segment(1).unwrap();
        let mut slot = vec![0; last.len()];
        let short = last.len() - 1;
        let write = |packet: &[u8], slot: &mut [u8]| split.write_packet(&last, packet, slot, Checksums::Full);
        assert_eq!(write(&packet, &mut slot[..short]), Err(DropReason::TooBig));
        assert_eq!(write(&packet[..packet.len() - 1], &mut slot), Err(DropReason::BadLength));
        assert_eq!(split.write_header(&last, &mut slot[..39]), Err(DropReason::TooBig));
        assert_eq!(split.complete(&last, &mut slot[..short]), Err(DropReason::TooBig));
    }

    #[test]
    fn plain_packet_and_endless_headers_are_refused() {
        let fragment = Sample { fragment: 0x2000, ..Sample::new(false, true, 10) }.build();
        let superpacket = Superpacket::parse(Default::default(), &fragment, fragment.len()).unwrap();
        assert_eq!(Split::new(&superpacket, &fragment).err(), Some(DropReason::BadOffload));
        let extension = [vec![0, 31, 1, 252], vec![0; 252]].concat();
        let sample = Sample { ip_options: extension, ..Sample::new(true, true, 10) };
        let packet = sample.build_partial();
        let superpacket = Superpacket::parse(sample.virtio(5), &packet, packet.len()).unwrap();
        assert_eq!(Split::new(&superpacket, &packet).err(), Some(DropReason::BadOffload));
    }

    proptest! {
        #[test]
        fn any_superpacket_splits_into_what_its_segments_would_be(
            kind in prop::sample::select(ALL_KINDS.to_vec()), len in 1..3_000_usize, gso_size in 1..1_500_usize,
            flags: u8, words in 0..=10_usize, sequence: u32, id: u16, tos: u8, ttl in 1..=255_u8,
        ) {
            let tcp_options = if kind.1 { vec![1; words * 4] } else { vec![] };
            let sample =
                Sample { flags, tcp_options, sequence, id, tos, ttl, ..Sample::new(kind.0, kind.1, len) };
            let full = packets(&sample, gso_size, Checksums::Full);
            let partial = packets(&sample, gso_size, Checksums::Partial);
            let expected = expected(&sample, gso_size);
            prop_assert_eq!(full.len(), expected.len());
            for ((full, partial), expected) in full.iter().zip(&partial).zip(&expected) {
                prop_assert_eq!(partial, &expected.build_partial());
                prop_assert!(IpPacket::parse(full).is_ok());
                // 0 and 0xffff are the same checksum, and TCP may have either.
                prop_assert!(full == &expected.build() || kind.1 && crate::offload::samples::is_valid(full, expected.ip_len()));
            }
        }
    }
}

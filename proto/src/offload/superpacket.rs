//! What a TUN device handed over, checked.

use super::virtio::{self, VirtioHeader};
use super::{Kind, transport};
use super::{put_u16, u16_at};
use crate::drop_reason::DropReason;
use crate::packet::IpPacket;
use crate::packet::checksum::Checksum;

/// A packet or superpacket as the kernel handed it over: what stands in its headers and in the virtio-net header,
/// checked against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superpacket {
    /// The IP packet, as long as the whole superpacket; one lookup serves all segments.
    pub ip: IpPacket,
    /// What is inside; `Plain` for everything that is not well-formed TCP or UDP.
    pub kind: Kind,
    /// The length of all headers in bytes, derived from the packet; the length of the IP headers when `Plain`.
    pub header_len: usize,
    /// The payload of each segment but the last in bytes, never 0 if there is more than one segment.
    pub gso_size: usize,
    /// The number of segments, at least 1.
    pub segments: usize,
    /// Where the checksum is partial; `None` if it stands complete in the packet, verified or not.
    pub partial: Option<Partial>,
}

/// A checksum that so far covers the pseudo-header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// Where the checksum begins to count, in bytes from the IP header.
    pub csum_start: usize,
    /// Where the checksum is, in bytes from `csum_start`.
    pub csum_offset: usize,
}

impl Superpacket {
    /// The length of the largest packet in it, in bytes.
    pub fn largest_packet(&self) -> usize {
        self.ip.len.min(self.header_len.saturating_add(self.gso_size))
    }

    /// Checks a packet of `len` bytes, which begins with `head`, against the virtio-net header in front of it.
    ///
    /// `head` is the whole packet, or, when the read scattered it, at least its headers. `hdr_len` is not looked at:
    /// the kernel gives the length of its linear part there, which for a forwarded packet goes into the payload.
    ///
    /// # Errors
    /// Those of [`IpPacket::parse`], or [`DropReason::BadOffload`] if the virtio-net header does not fit the packet: an
    /// unknown or obsolete type, segments of another protocol than the packet's, of no size, of a fragment or without a
    /// partial checksum in the right place, or a checksum outside of what follows the IP headers.
    pub fn parse(header: VirtioHeader, head: &[u8], len: usize) -> Result<Self, DropReason> {
        let ip = IpPacket::parse_head(head, len)?;
        let partial = Partial::read(header, &ip)?;
        if header.gso_type == virtio::GSO_NONE {
            return Ok(Self::single(ip, head, partial));
        }
        Self::segmented(header, ip, head, partial).ok_or(DropReason::BadOffload)
    }

    fn single(ip: IpPacket, head: &[u8], partial: Option<Partial>) -> Self {
        let kind = Kind::of(&ip);
        let well_formed = kind.is_tcp() || transport::udp_length_holds(ip.len, head, ip.upper_layer);
        let header_end = transport::header_end(kind, head, ip.upper_layer).filter(|_| well_formed);
        let (kind, header_len) = header_end.map_or((Kind::Plain, ip.upper_layer), |end| (kind, end));
        Self { ip, kind, header_len, gso_size: ip.len.saturating_sub(header_len), segments: 1, partial }
    }

    fn segmented(header: VirtioHeader, ip: IpPacket, head: &[u8], partial: Option<Partial>) -> Option<Self> {
        let kind = Kind::of(&ip);
        let tcp_bits = if kind.is_tcp() { virtio::GSO_ECN } else { 0 };
        let type_fits = kind != Kind::Plain && header.gso_type & !tcp_bits == kind.gso_type();
        let csum_fits = partial == Partial::of(kind, &ip);
        let gso_size = usize::from(header.gso_size);
        if !type_fits || !csum_fits || gso_size == 0 {
            return None;
        }
        let header_len = transport::header_end(kind, head, ip.upper_layer)?;
        let payload_len = ip.len.checked_sub(header_len)?;
        let segments = payload_len.div_ceil(gso_size).max(1);
        Some(Self { ip, kind, header_len, gso_size, segments, partial })
    }

    /// The length of the payload of all segments together, in bytes.
    pub const fn payload_len(&self) -> usize {
        self.ip.len.saturating_sub(self.header_len)
    }

    /// True if the checksum may stay partial for a peer that takes vouched packets.
    ///
    /// That needs it to be the TCP or UDP checksum of a packet that is no fragment and has no IPv6 extension headers.
    /// All other partial checksums have to be completed, those of a single packet by [`Partial::complete`].
    pub fn may_vouch(&self) -> bool {
        self.kind != Kind::Plain
            && self.partial.is_some()
            && self.partial == Partial::of(self.kind, &self.ip)
            && (!self.kind.is_v6() || self.ip.upper_layer == transport::IPV6_LEN)
    }
}

impl Partial {
    /// The place of the TCP or UDP checksum.
    pub(super) fn of(kind: Kind, ip: &IpPacket) -> Option<Self> {
        kind.csum_offset().map(|csum_offset| Self { csum_start: ip.upper_layer, csum_offset })
    }

    /// The place that the virtio-net header names, if it is behind the IP headers and inside the packet.
    fn read(header: VirtioHeader, ip: &IpPacket) -> Result<Option<Self>, DropReason> {
        if header.flags & virtio::NEEDS_CSUM == 0 {
            return Ok(None);
        }
        let partial = Self { csum_start: usize::from(header.csum_start), csum_offset: usize::from(header.csum_offset) };
        let end = partial.field().saturating_add(2);
        if partial.csum_start < ip.upper_layer || end > ip.len {
            return Err(DropReason::BadOffload);
        }
        Ok(Some(partial))
    }

    /// The offset of the checksum in the packet.
    const fn field(self) -> usize {
        self.csum_start.saturating_add(self.csum_offset)
    }

    /// Completes the checksum of one whole packet in place.
    ///
    /// A result of 0 is written as 0xffff, which means the same, since 0 would say of UDP that there is no checksum
    /// (RFC 768); Linux does so for every protocol (`skb_checksum_help`).
    ///
    /// # Errors
    /// [`DropReason::BadOffload`] if the checksum is outside of the packet, which is then left alone.
    pub fn complete(self, packet: &mut [u8]) -> Result<(), DropReason> {
        let inside = u16_at(packet, self.field()).is_some();
        let covered = packet.get(self.csum_start..).filter(|_| inside).ok_or(DropReason::BadOffload)?;
        let checksum = match Checksum::new().with(covered).finish() {
            0 => 0xffff,
            other => other,
        };
        put_u16(packet, self.field(), checksum).ok_or(DropReason::BadOffload)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::offload::samples::{ALL_KINDS, Sample, is_valid};
    use crate::packet::tests::ipv4;

    fn parse(header: VirtioHeader, packet: &[u8]) -> Result<Superpacket, DropReason> {
        Superpacket::parse(header, packet, packet.len())
    }

    /// What the kernel says of a single packet with a partial checksum.
    fn single(sample: &Sample) -> VirtioHeader {
        VirtioHeader { gso_type: virtio::GSO_NONE, gso_size: 0, ..sample.virtio(0) }
    }

    #[test]
    fn superpackets_of_all_kinds_are_read() {
        let kinds = [Kind::Tcp4, Kind::Tcp6, Kind::Udp4, Kind::Udp6];
        for ((v6, tcp), kind) in ALL_KINDS.into_iter().zip(kinds) {
            let options = if tcp { vec![1; 12] } else { vec![] };
            let sample = Sample { tcp_options: options, ..Sample::new(v6, tcp, 3_001) };
            let packet = sample.build_partial();
            let superpacket = parse(sample.virtio(1_000), &packet).unwrap();
            assert_eq!((superpacket.kind, superpacket.segments), (kind, 4));
            assert_eq!((superpacket.header_len, superpacket.gso_size), (sample.header_len(), 1_000));
            assert_eq!(superpacket.payload_len(), 3_001);
            let partial = Partial { csum_start: sample.ip_len(), csum_offset: sample.csum_offset() };
            assert_eq!(superpacket.partial, Some(partial));
            assert!(superpacket.may_vouch());
        }
    }

    #[test]
    fn header_length_of_the_kernel_is_not_believed() {
        let sample = Sample::new(false, true, 3_000);
        let packet = sample.build_partial();
        let expected = parse(sample.virtio(1_000), &packet);
        for hdr_len in [0, 1, 1_440, u16::MAX] {
            assert_eq!(parse(VirtioHeader { hdr_len, ..sample.virtio(1_000) }, &packet), expected);
        }
    }

    #[test]
    fn head_of_a_scattered_superpacket_is_enough() {
        let sample = Sample::new(true, true, 3_000);
        let packet = sample.build_partial();
        let expected = parse(sample.virtio(1_000), &packet);
        let header_len = sample.header_len();
        assert_eq!(Superpacket::parse(sample.virtio(1_000), &packet[..header_len], packet.len()), expected);
        let cut = Superpacket::parse(sample.virtio(1_000), &packet[..header_len - 1], packet.len());
        assert_eq!(cut, Err(DropReason::BadOffload));
    }

    #[test]
    fn superpacket_that_is_one_segment_is_allowed() {
        for len in [0, 1, 100] {
            let sample = Sample::new(false, false, len);
            let superpacket = parse(sample.virtio(100), &sample.build_partial()).unwrap();
            assert_eq!(superpacket.segments, 1);
        }
    }

    #[test]
    fn ecn_bit_belongs_to_tcp() {
        for (v6, tcp) in ALL_KINDS {
            let sample = Sample::new(v6, tcp, 100);
            let mut header = sample.virtio(10);
            header.gso_type |= virtio::GSO_ECN;
            assert_eq!(parse(header, &sample.build_partial()).is_ok(), tcp);
        }
        let sample = Sample::new(false, true, 100);
        let header = VirtioHeader { gso_type: virtio::GSO_ECN, ..sample.virtio(10) };
        assert_eq!(parse(header, &sample.build_partial()), Err(DropReason::BadOffload));
    }

    #[test]
    fn header_that_does_not_fit_the_packet_is_refused() {
        for (v6, tcp) in ALL_KINDS {
            let sample = Sample::new(v6, tcp, 100);
            let (packet, good) = (sample.build_partial(), sample.virtio(10));
            for gso_type in (1..=255).filter(|kind| kind & !virtio::GSO_ECN != good.gso_type) {
                assert_eq!(parse(VirtioHeader { gso_type, ..good }, &packet), Err(DropReason::BadOffload));
            }
            let bad = [
                VirtioHeader { gso_size: 0, ..good },
                VirtioHeader { flags: 0, ..good },
                VirtioHeader { flags: 2, ..good },
                VirtioHeader { csum_start: good.csum_start + 2, ..good },
                VirtioHeader { csum_offset: good.csum_offset + 2, ..good },
            ];
            for header in bad {
                assert_eq!(parse(header, &packet), Err(DropReason::BadOffload), "{header:?}");
            }
        }
    }

    #[test]
    fn superpacket_of_a_fragment_is_refused() {
        let sample = Sample { fragment: 0x2000, ..Sample::new(false, true, 100) };
        assert_eq!(parse(sample.virtio(10), &sample.build_partial()), Err(DropReason::BadOffload));
    }

    #[test]
    fn superpacket_with_a_malformed_tcp_header_is_refused() {
        let sample = Sample::new(false, true, 30);
        let mut packet = sample.build_partial();
        for data_offset in [0x40, 0xf0] {
            packet[32] = data_offset;
            assert_eq!(parse(sample.virtio(10), &packet), Err(DropReason::BadOffload));
        }
    }

    #[test]
    fn checksum_outside_of_the_upper_layer_is_refused() {
        let sample = Sample::new(false, true, 0);
        let packet = sample.build_partial();
        let at = |csum_start, csum_offset| VirtioHeader { csum_start, csum_offset, ..single(&sample) };
        for header in [at(0, 10), at(19, 17), at(20, 19), at(40, 0), at(u16::MAX, u16::MAX)] {
            assert_eq!(parse(header, &packet), Err(DropReason::BadOffload), "{header:?}");
        }
        assert!(parse(at(20, 18), &packet).is_ok(), "the last two bytes");
    }

    #[test]
    fn only_the_checksum_of_tcp_and_udp_is_vouched_for() {
        for (v6, tcp) in ALL_KINDS {
            let sample = Sample::new(v6, tcp, 100);
            let packet = sample.build_partial();
            assert!(parse(single(&sample), &packet).unwrap().may_vouch());
            let complete = parse(VirtioHeader::default(), &packet).unwrap();
            assert!(!complete.may_vouch() && complete.kind != Kind::Plain);
            let inner = VirtioHeader { csum_start: single(&sample).csum_start + 8, ..single(&sample) };
            assert!(!parse(inner, &packet).unwrap().may_vouch());
        }
        let extended = Sample { ip_options: vec![0, 0, 1, 4, 0, 0, 0, 0], ..Sample::new(true, true, 100) };
        let superpacket = parse(extended.virtio(10), &extended.build_partial()).unwrap();
        assert_eq!((superpacket.segments, superpacket.may_vouch()), (10, false));
        let fragment = Sample { fragment: 0x2000, ..Sample::new(false, false, 100) };
        assert!(!parse(single(&fragment), &fragment.build_partial()).unwrap().may_vouch());
        let mut short_udp = Sample::new(false, false, 100).build_partial();
        short_udp[25] -= 1;
        assert!(!parse(single(&Sample::new(false, false, 100)), &short_udp).unwrap().may_vouch());
    }

    #[test]
    fn plain_packet_is_one_segment() {
        let packet = ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 1, &[], &[8, 0, 0, 0, 0, 1, 0, 1]);
        let superpacket = parse(VirtioHeader::default(), &packet).unwrap();
        assert_eq!((superpacket.kind, superpacket.segments, superpacket.header_len), (Kind::Plain, 1, 20));
        assert_eq!(superpacket.partial, None);
    }

    #[test]
    fn completed_checksum_is_right() {
        for (v6, tcp) in ALL_KINDS {
            for len in [0, 1, 2, 99, 1_400] {
                let sample = Sample::new(v6, tcp, len);
                let mut packet = sample.build_partial();
                let partial = parse(single(&sample), &packet).unwrap().partial.unwrap();
                partial.complete(&mut packet).unwrap();
                assert!(is_valid(&packet, sample.ip_len()));
            }
        }
    }

    #[test]
    fn checksum_of_0_is_written_as_0xffff() {
        let sample = Sample::new(false, false, 2);
        let completed = |payload: [u8; 2]| {
            let sample = Sample { payload: payload.to_vec(), ..sample.clone() };
            let mut packet = sample.build_partial();
            Partial { csum_start: 20, csum_offset: 6 }.complete(&mut packet).unwrap();
            assert_eq!(packet, sample.build());
            [packet[26], packet[27]]
        };
        let without = completed([0, 0]);
        assert_eq!(completed(without), [0xff, 0xff], "the payload makes up for the rest");
    }

    #[test]
    fn checksum_beyond_the_packet_changes_nothing() {
        let mut packet = [7; 21];
        for (csum_start, csum_offset) in [(0, 20), (20, 0), (22, 0), (usize::MAX, 1), (1, usize::MAX)] {
            let partial = Partial { csum_start, csum_offset };
            assert_eq!(partial.complete(&mut packet), Err(DropReason::BadOffload));
        }
        assert_eq!(packet, [7; 21]);
    }

    proptest! {
        #[test]
        fn parse_never_panics(
            header: [u8; virtio::LEN], packet in prop::collection::vec(any::<u8>(), 0..200), more in 0..70_000_usize,
        ) {
            let _ = Superpacket::parse(VirtioHeader::decode(&header), &packet, packet.len() + more);
        }

        #[test]
        fn parse_never_panics_on_near_packets(
            kind in prop::sample::select(ALL_KINDS.to_vec()), at in 0..80_usize, value: u8, gso_size in 1..200_usize,
            field in 0..virtio::LEN, field_value: u8,
        ) {
            let sample = Sample::new(kind.0, kind.1, 100);
            let mut packet = sample.build_partial();
            packet[at] = value;
            let mut header = sample.virtio(gso_size).encode();
            header[field] = field_value;
            if let Ok(superpacket) = parse(VirtioHeader::decode(&header), &packet) {
                prop_assert!(superpacket.segments > 0 && superpacket.header_len <= packet.len());
                if let Some(partial) = superpacket.partial {
                    prop_assert!(partial.complete(&mut packet).is_ok());
                }
            }
        }
    }
}

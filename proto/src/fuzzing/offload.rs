//! Bodies of the targets for superpackets.

use std::ops::Range;

use crate::drop_reason::DropReason;
use crate::offload::Kind;
use crate::offload::coalesce::{Coalescer, Limits};
use crate::offload::split::{Checksums, Split};
use crate::offload::superpacket::Superpacket;
use crate::offload::virtio::{self, VirtioHeader};
use crate::packet::checksum::Checksum;
use crate::packet::{IpPacket, protocol};

/// Segments of whatever the kernel hands over are packets with right checksums and the same payload. First ten bytes:
/// the virtio-net header, little-endian.
pub fn offload_split(data: &[u8]) {
    let Some((header, packet)) = data.split_first_chunk() else { return };
    let Ok(superpacket) = Superpacket::parse(little_endian(header), packet, packet.len()) else { return };
    assert!(superpacket.segments > 0 && superpacket.header_len <= packet.len());
    if let Some(partial) = superpacket.partial {
        assert_eq!(partial.complete(&mut packet.to_vec()), Ok(()));
    }
    let Ok(split) = Split::new(&superpacket, packet) else { return };
    let mut payload = Vec::new();
    for segment in split.segments() {
        let mut slot = vec![0xee; segment.len()];
        let written = split.write_packet(&segment, packet, &mut slot, Checksums::Full);
        assert_eq!(written, Ok(()), "the slot is long enough");
        assert_checksum(&slot);
        payload.extend_from_slice(slot.get(segment.header_len..).unwrap_or_default());
    }
    assert_eq!(Some(&payload[..]), packet.get(superpacket.header_len..));
}

/// Whatever comes out of the tunnel, each write splits into the packets it was made of. First byte: 1 to have every
/// superpacket refused. Then packets, each after two bytes: length, and 0x8000 if vouched for.
pub fn offload_coalesce(data: &[u8]) {
    let Some((&refuses, mut rest)) = data.split_first() else { return };
    let original = data.to_vec();
    let mut coalescer = Coalescer::new(Limits { packets: 40, ..Limits::default() });
    let mut accepted = 0_usize;
    while let Some((head, tail)) = rest.split_first_chunk() {
        let head = u16::from_be_bytes(*head);
        let (packet, tail) = tail.split_at(usize::from(head & 0x7fff).min(tail.len()));
        let start = data.len().saturating_sub(packet.len().saturating_add(tail.len()));
        rest = tail;
        let Ok(ip) = IpPacket::parse(packet) else { continue };
        let at = start..start.saturating_add(packet.len());
        match coalescer.handle_packet(&original, at, &ip, head & 0x8000 != 0) {
            Ok(()) => accepted = accepted.saturating_add(1),
            Err(reason) => assert!(matches!(reason, DropReason::BadVouched | DropReason::QueueFull)),
        }
    }
    let mut buffer = original.clone();
    let mut written = 0_usize;
    while let Some(gather) = coalescer.poll_write(&mut buffer) {
        let pieces: Vec<Range<usize>> = std::iter::once(gather.first.clone()).chain(gather.rest()).collect();
        assert_eq!(pieces.len(), gather.segments);
        let packet: Vec<u8> = pieces.iter().filter_map(|piece| buffer.get(piece.clone())).flatten().copied().collect();
        assert_eq!(packet.len(), gather.len);
        assert_made_of(gather.header, &packet, &pieces, &original);
        if refuses == 1 && gather.segments > 1 {
            coalescer.retry_singly();
        } else {
            written = written.saturating_add(pieces.len());
        }
    }
    assert!(written == accepted && coalescer.is_empty());
}

/// Splits a write again and compares with the packets that lay in the receive buffer.
fn assert_made_of(header: VirtioHeader, packet: &[u8], pieces: &[Range<usize>], original: &[u8]) {
    let Ok(superpacket) = Superpacket::parse(header, packet, packet.len()) else {
        unreachable!("the kernel would refuse it too")
    };
    assert_eq!(superpacket.segments, pieces.len());
    if header == VirtioHeader::default() {
        assert_eq!(pieces.first().and_then(|piece| original.get(piece.clone())), Some(packet));
        return;
    }
    let Ok(split) = Split::new(&superpacket, packet) else { return };
    for (index, (segment, piece)) in split.segments().zip(pieces).enumerate() {
        let before = if index == 0 { 0 } else { superpacket.header_len };
        let from = piece.start.saturating_sub(before);
        let expected = original.get(from..from.saturating_add(segment.len()));
        let mut slot = vec![0; segment.len()];
        assert_eq!(split.write_packet(&segment, packet, &mut slot, Checksums::Partial), Ok(()));
        assert_eq!(unsummed(&superpacket, &slot), expected.map_or_else(Vec::new, |old| unsummed(&superpacket, old)));
    }
}

/// A packet without what coalescing may change: identification and checksums.
fn unsummed(superpacket: &Superpacket, packet: &[u8]) -> Vec<u8> {
    let field = superpacket.partial.map_or(0, |partial| partial.csum_start.saturating_add(partial.csum_offset));
    let is_v4 = superpacket.ip.source.is_ipv4();
    let is_left_out =
        |at: usize| (field..field.saturating_add(2)).contains(&at) || is_v4 && matches!(at, 4 | 5 | 10 | 11);
    packet.iter().enumerate().map(|(at, byte)| if is_left_out(at) { 0 } else { *byte }).collect()
}

fn assert_checksum(packet: &[u8]) {
    let Ok(ip) = IpPacket::parse(packet) else { unreachable!("a segment is a packet") };
    assert_ne!(Kind::of(&ip), Kind::Plain);
    let upper = packet.get(ip.upper_layer..).unwrap_or_default();
    let addresses = if ip.source.is_ipv6() { packet.get(8..40) } else { packet.get(12..20) };
    let is_known = matches!(ip.protocol, protocol::TCP | protocol::UDP);
    let len = u32::try_from(upper.len()).unwrap_or_default();
    let sum = Checksum::pseudo_header(addresses.unwrap_or_default(), len, ip.protocol).with(upper);
    assert!(is_known && sum.finish() == 0);
}

fn little_endian(bytes: &[u8; virtio::LEN]) -> VirtioHeader {
    let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
    VirtioHeader {
        flags,
        gso_type,
        hdr_len: u16::from_le_bytes([h0, h1]),
        gso_size: u16::from_le_bytes([g0, g1]),
        csum_start: u16::from_le_bytes([s0, s1]),
        csum_offset: u16::from_le_bytes([o0, o1]),
    }
}

//! Inner IP packets: the checked view of one, the Internet checksum, and the ICMP errors the tunnel answers with.
//!
//! [`IpPacket::parse`] is the only way from bytes to a packet the tunnel will carry. It reads headers only, so it never
//! looks at, and never depends on, a payload byte.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use std::net::IpAddr;

use crate::drop_reason::DropReason;

pub mod checksum;
pub mod ecn;
pub mod icmp;
mod ipv4;
mod ipv6;

/// What IPv6 asks of every link, in bytes (RFC 8200 section 5): the smallest MTU a tunnel may have, and so the packet
/// that every path has to take.
pub const IPV6_MIN_MTU: u16 = 1280;

/// Protocol numbers (IANA) that the packet modules tell apart.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// IPv6 mobility header.
    pub const MOBILITY: u8 = 135;
    /// Host identity protocol.
    pub const HOST_IDENTITY: u8 = 139;
    /// Shim6.
    pub const SHIM6: u8 = 140;
}

/// What the tunnel needs to know of one well-formed IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpPacket {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The upper-layer protocol (IANA number); in IPv6 the one after the extension headers, or the one a later fragment
    /// names.
    pub protocol: u8,
    /// The TTL or hop limit, never 0.
    pub ttl: u8,
    /// The length of the whole packet in bytes.
    pub len: usize,
    /// The offset in bytes of what follows the IP headers; at most `len`.
    pub upper_layer: usize,
    /// True for a fragment other than the first, which holds no upper-layer header.
    pub later_fragment: bool,
    /// True for any fragment, the first included.
    pub fragment: bool,
}

impl IpPacket {
    /// Checks one whole IP packet and reads its headers (RFC 791 section 3.1, RFC 8200 sections 3 and 4).
    ///
    /// `packet` must be exactly as long as its header says. The IPv4 header checksum is left to the host that receives
    /// or forwards the packet.
    ///
    /// # Errors
    /// The reason to drop the packet: a malformed header, a length that does not match, a TTL or hop limit of 0, or a
    /// route inside the packet (IPv4 source routes, IPv6 routing headers with segments left), which would make the
    /// destination field meaningless to a policy.
    pub fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        Self::parse_head(packet, packet.len())
    }

    /// Does what [`IpPacket::parse`] does for a packet of `len` bytes of which only the beginning, `head`, is at hand.
    ///
    /// # Errors
    /// Those of [`IpPacket::parse`]; headers that go beyond `head` are cut short.
    pub fn parse_head(head: &[u8], len: usize) -> Result<Self, DropReason> {
        match head.first().map(|first| first >> 4) {
            _ if head.len() > len => Err(DropReason::BadLength),
            Some(4) => ipv4::parse(head, len),
            Some(6) => ipv6::parse(head, len),
            Some(_) => Err(DropReason::BadVersion),
            None => Err(DropReason::Truncated),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// An IPv4 packet with `options` (a multiple of 4 bytes) and a correct checksum.
    pub(crate) fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, next: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let header_len = 20 + options.len();
        let total = u16::try_from(header_len + payload.len()).unwrap().to_be_bytes();
        let version_ihl = 0x40 | u8::try_from(header_len / 4).unwrap();
        let mut packet = vec![version_ihl, 0, total[0], total[1], 0x12, 0x34, 0x40, 0, 64, next, 0, 0];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(options);
        let checksum = checksum::Checksum::new().with(&packet).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&checksum);
        packet.extend(payload);
        packet
    }

    /// An IPv6 packet; `payload` begins with whatever `next` names.
    pub(crate) fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, len[0], len[1], next, 64];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    #[test]
    fn other_versions_and_nothing_are_refused() {
        assert_eq!(IpPacket::parse(&[]), Err(DropReason::Truncated));
        for version in (0..16u8).filter(|version| ![4, 6].contains(version)) {
            assert_eq!(IpPacket::parse(&[version << 4; 40]), Err(DropReason::BadVersion));
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(packet in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = IpPacket::parse(&packet);
        }

        #[test]
        fn head_tells_what_the_whole_packet_does(
            v6: bool, next: u8, payload in prop::collection::vec(any::<u8>(), 0..120), cut: prop::sample::Index,
        ) {
            let packet = if v6 {
                ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, next, &payload)
            } else {
                ipv4(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, next, &[1, 1, 1, 1], &payload)
            };
            let head = &packet[..cut.index(packet.len() + 1)];
            if let Ok(parsed) = IpPacket::parse_head(head, packet.len()) {
                prop_assert_eq!(Ok(parsed), IpPacket::parse(&packet));
                prop_assert!(parsed.upper_layer <= head.len());
            }
        }

        #[test]
        fn parse_never_panics_on_near_packets(
            v6: bool, next: u8, payload in prop::collection::vec(any::<u8>(), 0..120),
            words in 0..=10usize, at in 0..60usize, value: u8,
        ) {
            let mut packet = if v6 {
                ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, next, &payload)
            } else {
                ipv4(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, next, &vec![value; words * 4], &payload)
            };
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
            if let Ok(parsed) = IpPacket::parse(&packet) {
                prop_assert_eq!(parsed.len, packet.len());
                prop_assert!(parsed.upper_layer <= parsed.len);
                prop_assert!(parsed.ttl > 0);
            }
        }
    }
}

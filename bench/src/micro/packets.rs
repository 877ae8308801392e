//! Packets to work on, built field by field: a flow from 10.64.0.2 to 192.0.2.1, or from fd00::2 to 2001:db8::1.

use std::net::{Ipv4Addr, Ipv6Addr};

use adit_proto::offload::virtio::{self, VirtioHeader};
use adit_proto::packet::checksum::Checksum;
use adit_proto::packet::protocol;

/// Where the flow comes from.
pub(super) const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
pub(super) const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// Where it goes.
pub(super) const DESTINATION_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const DESTINATION_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Sizes of packets in bytes: a bare acknowledgement, the old default, a full packet of a tunnel.
pub(super) const SIZES: [usize; 3] = [64, 576, 1420];
/// The largest of them.
pub(super) const FULL: usize = 1420;

const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;

/// What the flow is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// TCP with timestamps, as every kernel sends it.
    Tcp,
    Udp,
}

/// How far the TCP or UDP checksum is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    /// The pseudo-header alone, as a kernel hands it over and as a peer vouches for it.
    Partial,
    Complete,
}

impl Transport {
    /// The name in the catalogue.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Bytes of the IPv4 header and the one behind it.
    pub(super) const fn header_len(self) -> usize {
        IPV4_LEN + self.upper_len()
    }

    const fn upper_len(self) -> usize {
        match self {
            Self::Tcp => 32,
            Self::Udp => 8,
        }
    }

    const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }

    const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// The header of a segment at byte `position` of its stream, with a checksum of zero.
    fn upper_header(self, position: usize, payload_len: usize) -> Vec<u8> {
        let mut header = [40_000_u16, 443].map(u16::to_be_bytes).concat();
        match self {
            Self::Tcp => {
                header.extend(u32::try_from(position).unwrap_or_default().to_be_bytes());
                // Acknowledgement; eight words, ACK; window; no checksum, nothing urgent; two fillers and a timestamp.
                header.extend([0, 0, 0, 77, 0x80, 0x10, 1, 0xf5, 0, 0, 0, 0]);
                header.extend([1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8]);
            }
            Self::Udp => {
                header.extend(be16(8 + payload_len));
                header.extend([0, 0]);
            }
        }
        header
    }

    /// The packet of a flow in IPv4 that has `number` packets of the same size before it.
    pub(super) fn packet(self, number: usize, payload_len: usize, sum: Sum) -> Vec<u8> {
        let addresses = [SOURCE_V4.octets(), DESTINATION_V4.octets()].concat();
        let mut packet = vec![0x45, 0];
        packet.extend(be16(self.header_len() + payload_len));
        packet.extend(be16(number + 1));
        packet.extend([0x40, 0, 64, self.protocol(), 0, 0]);
        packet.extend(&addresses);
        let header_sum = Checksum::new().with(&packet).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&header_sum);
        packet.extend(self.upper(number * payload_len, payload_len, sum, &addresses));
        packet
    }

    /// A packet in IPv6.
    pub(super) fn packet_v6(self, payload_len: usize) -> Vec<u8> {
        let addresses = [SOURCE_V6.octets(), DESTINATION_V6.octets()].concat();
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(be16(self.upper_len() + payload_len));
        packet.extend([self.protocol(), 64]);
        packet.extend(&addresses);
        debug_assert_eq!(packet.len(), IPV6_LEN);
        packet.extend(self.upper(0, payload_len, Sum::Complete, &addresses));
        packet
    }

    fn upper(self, position: usize, payload_len: usize, sum: Sum, addresses: &[u8]) -> Vec<u8> {
        let mut upper = self.upper_header(position, payload_len);
        upper.extend((0..payload_len).map(|at| (position + at).to_le_bytes()[0]));
        let upper_len = u32::try_from(upper.len()).unwrap_or_default();
        let pseudo = Checksum::pseudo_header(addresses, upper_len, self.protocol());
        let field = match sum {
            Sum::Partial => pseudo.fold(),
            Sum::Complete => pseudo.with(&upper).finish(),
        };
        let at = self.checksum_offset();
        upper[at..at + 2].copy_from_slice(&field.to_be_bytes());
        upper
    }

    /// So many packets of `len` bytes each, one behind the other in their flow.
    pub(super) fn flow(self, packets: usize, len: usize, sum: Sum) -> Vec<Vec<u8>> {
        (0..packets).map(|number| self.packet(number, len - self.header_len(), sum)).collect()
    }

    /// A superpacket of so many segments, each a packet of `len` bytes, and what the kernel says of it.
    pub(super) fn superpacket(self, segments: usize, len: usize) -> (VirtioHeader, Vec<u8>) {
        let gso_size = len - self.header_len();
        let header = VirtioHeader {
            flags: virtio::NEEDS_CSUM,
            gso_type: match self {
                Self::Tcp => virtio::GSO_TCPV4,
                Self::Udp => virtio::GSO_UDP_L4,
            },
            hdr_len: narrow(self.header_len()),
            gso_size: narrow(gso_size),
            csum_start: narrow(IPV4_LEN),
            csum_offset: narrow(self.checksum_offset()),
        };
        (header, self.packet(0, segments * gso_size, Sum::Partial))
    }
}

/// A UDP packet of `len` bytes with complete checksums.
pub(super) fn udp(len: usize) -> Vec<u8> {
    Transport::Udp.packet(0, len - Transport::Udp.header_len(), Sum::Complete)
}

fn narrow(length: usize) -> u16 {
    u16::try_from(length).expect("lengths inside a packet are below 2^16")
}

fn be16(length: usize) -> [u8; 2] {
    narrow(length).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use adit_proto::offload::superpacket::Superpacket;
    use adit_proto::packet::IpPacket;

    use super::*;

    #[test]
    fn packets_are_well_formed() {
        for transport in [Transport::Tcp, Transport::Udp] {
            for packet in transport.flow(3, 576, Sum::Complete).into_iter().chain([transport.packet_v6(100)]) {
                let ip = IpPacket::parse(&packet).unwrap();
                let upper = &packet[ip.upper_layer..];
                let addresses = if ip.source.is_ipv6() { &packet[8..40] } else { &packet[12..20] };
                let sum = Checksum::pseudo_header(addresses, u32::try_from(upper.len()).unwrap(), ip.protocol);
                assert_eq!(sum.with(upper).finish(), 0);
            }
        }
        assert_eq!(udp(FULL).len(), FULL);
    }

    #[test]
    fn superpackets_are_what_a_kernel_hands_over() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let (header, packet) = transport.superpacket(45, FULL);
            let superpacket = Superpacket::parse(header, &packet, packet.len()).unwrap();
            assert_eq!((superpacket.segments, superpacket.header_len), (45, transport.header_len()));
            assert!(superpacket.may_vouch());
        }
    }
}

//! The header in front of each packet on a TUN device opened with `IFF_VNET_HDR` (VIRTIO 1.2 section 5.1.6).
//!
//! ```text
//!  0      1         2         4          6            8             10
//!  flags  gso_type  hdr_len   gso_size   csum_start   csum_offset   packet…
//! ```
//!
//! A TUN device keeps to the legacy form: ten bytes, numbers in the machine's byte order, offsets from the IP header.

/// The length of the header, the kernel's default for a TUN device (`TUNSETVNETHDRSZ`).
pub const LEN: usize = 10;

/// Flag: the checksum at `csum_start + csum_offset` is partial and has to be completed from `csum_start` on.
pub const NEEDS_CSUM: u8 = 1;

/// Type: a single packet.
pub const GSO_NONE: u8 = 0;
/// Type: segments of TCP in IPv4.
pub const GSO_TCPV4: u8 = 1;
/// Type: segments of TCP in IPv6.
pub const GSO_TCPV6: u8 = 4;
/// Type: UDP datagrams of equal length, but for the last.
pub const GSO_UDP_L4: u8 = 5;
/// Bit of a TCP type: CWR is set and belongs to the first segment alone (RFC 3168 section 6.1.2).
pub const GSO_ECN: u8 = 0x80;

/// The header, field by field. The default is that of a single packet with a complete checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VirtioHeader {
    /// A set of flags, of which only [`NEEDS_CSUM`] means something here.
    pub flags: u8,
    /// One of the types, with or without [`GSO_ECN`].
    pub gso_type: u8,
    /// On write the length of all headers; on read a hint that need not be.
    pub hdr_len: u16,
    /// The payload of each segment but the last, in bytes.
    pub gso_size: u16,
    /// Where the checksum begins to count.
    pub csum_start: u16,
    /// Where the checksum is, from `csum_start`.
    pub csum_offset: u16,
}

impl VirtioHeader {
    /// Reads the header. What it says is checked against the packet by [`super::superpacket::Superpacket::parse`].
    pub const fn decode(bytes: &[u8; LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([g0, g1]),
            csum_start: u16::from_ne_bytes([s0, s1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Lays the header out as it goes before a packet.
    pub const fn encode(self) -> [u8; LEN] {
        let [h0, h1] = self.hdr_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.csum_start.to_ne_bytes();
        let [o0, o1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_of_a_tcp_superpacket_is_laid_out_as_the_kernel_does() {
        let header = VirtioHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 52,
            gso_size: 1368,
            csum_start: 20,
            csum_offset: 16,
        };
        let numbers = [52_u16, 1368, 20, 16].map(u16::to_ne_bytes).concat();
        assert_eq!(header.encode().to_vec(), [&[1, 1][..], &numbers].concat());
    }

    proptest! {
        #[test]
        fn every_header_survives(bytes: [u8; LEN]) {
            prop_assert_eq!(VirtioHeader::decode(&bytes).encode(), bytes);
        }
    }
}

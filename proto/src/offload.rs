//! Superpackets: what lets one system call carry many packets.
//!
//! A TUN device with virtio-net headers hands over and takes up to 64 KiB at once: a *superpacket*, one set of headers
//! with the payload of many TCP or UDP segments behind it. Towards the tunnel it is taken apart, and the packets that
//! come out of the tunnel are put together again:
//!
//! ```text
//! TUN read   [virtio][header][payload 0 | payload 1 | …]   superpacket::Superpacket, split::Split
//!            [header 0][payload 0]  [header 1][payload 1]  … one datagram each
//! TUN write  [virtio][header + payload 0][payload 1]…       coalesce::Coalescer, coalesce::Gather
//! ```
//!
//! Payload bytes are neither moved nor read here: a split writes headers only, and what was coalesced is a list of
//! ranges of the receive buffer for one gathering write. The exceptions are checksums that nobody vouches for.
//!
//! # Vouched packets
//!
//! A kernel that hands over a superpacket, or a packet with `NEEDS_CSUM`, has not computed the TCP or UDP checksum: the
//! field is *partial*, it holds the sum of the pseudo-header alone, folded and not complemented. The tunnel
//! authenticates each packet, so two ends that agreed on it leave the checksum partial and say so beside the packet
//! (next header 253 or 254 instead of 4 or 41): the sender *vouches* for it. The receiving end hands such a packet to
//! its kernel as it got it, with `NEEDS_CSUM`; the value of the field is not trusted but computed anew. Without that
//! agreement the sender completes every checksum ([`superpacket::Partial::complete`], [`split::Checksums::Full`]), and
//! the receiving end merges a packet only after it verified the checksum.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use crate::packet::{IpPacket, protocol};

pub mod coalesce;
#[cfg(test)]
mod samples;
pub mod split;
pub mod superpacket;
mod transport;
pub mod virtio;

/// The longest superpacket in bytes, headers included: what the IPv4 total length (RFC 791 section 3.1) can say, kept
/// for IPv6 too, as a kernel's `gso_max_size` is 65,536 for both.
pub const MAX_SUPERPACKET_LEN: usize = 65_535;

/// What kind of packet it is, as far as offloads go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// TCP in IPv4.
    Tcp4,
    /// TCP in IPv6.
    Tcp6,
    /// UDP in IPv4.
    Udp4,
    /// UDP in IPv6.
    Udp6,
    /// Everything else, fragments included.
    Plain,
}

impl Kind {
    /// The kind of a packet, by its IP headers alone.
    pub fn of(ip: &IpPacket) -> Self {
        match (ip.protocol, ip.source.is_ipv6()) {
            _ if ip.fragment => Self::Plain,
            (protocol::TCP, false) => Self::Tcp4,
            (protocol::TCP, true) => Self::Tcp6,
            (protocol::UDP, false) => Self::Udp4,
            (protocol::UDP, true) => Self::Udp6,
            _ => Self::Plain,
        }
    }

    const fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Tcp6)
    }

    const fn is_v6(self) -> bool {
        matches!(self, Self::Tcp6 | Self::Udp6)
    }

    /// Where in the upper-layer header the checksum is; `None` if that has none we know.
    const fn csum_offset(self) -> Option<usize> {
        match self {
            Self::Tcp4 | Self::Tcp6 => Some(transport::TCP_CHECKSUM),
            Self::Udp4 | Self::Udp6 => Some(transport::UDP_CHECKSUM),
            Self::Plain => None,
        }
    }

    /// The type of a superpacket of this kind in its virtio-net header.
    const fn gso_type(self) -> u8 {
        match self {
            Self::Tcp4 => virtio::GSO_TCPV4,
            Self::Tcp6 => virtio::GSO_TCPV6,
            Self::Udp4 | Self::Udp6 => virtio::GSO_UDP_L4,
            Self::Plain => virtio::GSO_NONE,
        }
    }

    /// The protocol number in the pseudo-header.
    const fn protocol(self) -> u8 {
        if self.is_tcp() { protocol::TCP } else { protocol::UDP }
    }
}

/// The 16-bit field at `at`, if it is within `bytes`.
#[inline]
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}

/// The 32-bit field at `at`, if it is within `bytes`.
#[inline]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_be_bytes(*field))
}

/// Writes the 16-bit field at `at`; `None` if it is not within `bytes`.
#[inline]
fn put_u16(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

/// Writes the 32-bit field at `at`; `None` if it is not within `bytes`.
#[inline]
fn put_u32(bytes: &mut [u8], at: usize, value: u32) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
    Some(())
}

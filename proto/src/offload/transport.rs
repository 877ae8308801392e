//! Where the fields of IP, TCP and UDP headers are, and sums over them.

use super::Kind;
use super::u16_at;
use crate::packet::checksum::Checksum;

/// The length of an IPv4 header without options (RFC 791 section 3.1).
pub(super) const IPV4_LEN: usize = 20;
/// The length of the fixed IPv6 header (RFC 8200 section 3).
pub(super) const IPV6_LEN: usize = 40;

/// Fields of the IPv4 header (RFC 791 section 3.1).
pub(super) const IPV4_TOTAL_LEN: usize = 2;
pub(super) const IPV4_ID: usize = 4;
pub(super) const IPV4_FRAGMENT: usize = 6;
pub(super) const IPV4_TTL: usize = 8;
pub(super) const IPV4_CHECKSUM: usize = 10;
/// Fields of the IPv6 header (RFC 8200 section 3).
pub(super) const IPV6_PAYLOAD_LEN: usize = 4;
pub(super) const IPV6_HOP_LIMIT: usize = 7;

/// The length of a TCP header without options (RFC 9293 section 3.1), and fields of it.
pub(super) const TCP_LEN: usize = 20;
pub(super) const TCP_SEQUENCE: usize = 4;
pub(super) const TCP_ACKNOWLEDGEMENT: usize = 8;
pub(super) const TCP_FLAGS: usize = 13;
pub(super) const TCP_WINDOW: usize = 14;
pub(super) const TCP_CHECKSUM: usize = 16;
pub(super) const TCP_URGENT: usize = 18;

/// Control bits of TCP (RFC 9293 section 3.1).
pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

/// The length of a UDP header (RFC 768), and fields of it.
pub(super) const UDP_LEN: usize = 8;
pub(super) const UDP_LENGTH: usize = 4;
pub(super) const UDP_CHECKSUM: usize = 6;

/// The offset of what follows the TCP or UDP header that begins at `start` of `head`; `None` if the header is malformed
/// or goes beyond `head`.
pub(super) fn header_end(kind: Kind, head: &[u8], start: usize) -> Option<usize> {
    let header = head.get(start..)?;
    let len = match kind {
        Kind::Tcp4 | Kind::Tcp6 => {
            let len = usize::from(header.get(12)? >> 4) << 2;
            (len >= TCP_LEN && len <= header.len()).then_some(len)?
        }
        Kind::Udp4 | Kind::Udp6 => (header.len() >= UDP_LEN).then_some(UDP_LEN)?,
        Kind::Plain => return None,
    };
    start.checked_add(len)
}

/// The two addresses as they stand in the header of an IP packet.
pub(super) fn addresses(kind: Kind, packet: &[u8]) -> Option<&[u8]> {
    if kind.is_v6() { packet.get(8..40) } else { packet.get(12..20) }
}

/// The sum over the pseudo-header of a TCP or UDP packet of `len` bytes, header included.
pub(super) fn pseudo_header(kind: Kind, packet: &[u8], len: usize) -> Option<Checksum> {
    Some(Checksum::pseudo_header(addresses(kind, packet)?, u32::try_from(len).ok()?, kind.protocol()))
}

/// True if the TCP or UDP checksum of `packet`, whose upper-layer header begins at `start`, is correct.
pub(super) fn checksum_holds(kind: Kind, packet: &[u8], start: usize) -> bool {
    let Some(body) = packet.get(start..) else { return false };
    pseudo_header(kind, packet, body.len()).is_some_and(|sum| sum.with(body).finish() == 0)
}

/// True if UDP says of itself that it fills its packet, as GSO needs it.
pub(super) fn udp_length_holds(packet_len: usize, head: &[u8], start: usize) -> bool {
    u16_at(head, start.saturating_add(UDP_LENGTH))
        .is_some_and(|len| Some(usize::from(len)) == packet_len.checked_sub(start))
}

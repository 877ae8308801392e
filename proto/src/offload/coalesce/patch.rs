//! What changes in the headers of the first packet when more join it, or when it stands alone with a partial checksum.

use crate::offload::Kind;
use crate::offload::put_u16;
use crate::offload::transport::{self, PSH};
use crate::packet::checksum::Checksum;

/// The length of a packet or superpacket, and where its TCP or UDP part begins, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    pub(super) csum_start: usize,
    pub(super) total: usize,
}

/// Writes all lengths and the checksums that depend on them; that of TCP or UDP stays partial.
pub(super) fn lengths(kind: Kind, packet: &mut [u8], lengths: Lengths) -> Option<()> {
    let Lengths { csum_start, total } = lengths;
    if kind.is_v6() {
        let payload_len = total.checked_sub(transport::IPV6_LEN)?;
        put_u16(packet, transport::IPV6_PAYLOAD_LEN, u16::try_from(payload_len).ok()?)?;
    } else if changes_total_len(packet, total) {
        put_u16(packet, transport::IPV4_TOTAL_LEN, u16::try_from(total).ok()?)?;
        put_u16(packet, transport::IPV4_CHECKSUM, 0)?;
        let checksum = Checksum::new().with(packet.get(..csum_start)?).finish();
        put_u16(packet, transport::IPV4_CHECKSUM, checksum)?;
    }
    let upper_len = total.checked_sub(csum_start)?;
    let partial = transport::pseudo_header(kind, packet, upper_len)?.fold();
    let upper = packet.get_mut(csum_start..)?;
    if kind.is_tcp() {
        return put_u16(upper, transport::TCP_CHECKSUM, partial);
    }
    put_u16(upper, transport::UDP_LENGTH, u16::try_from(upper_len).ok()?)?;
    put_u16(upper, transport::UDP_CHECKSUM, partial)
}

/// A single packet keeps its IPv4 header checksum, right or wrong.
fn changes_total_len(packet: &[u8], total: usize) -> bool {
    let stated = packet.get(transport::IPV4_TOTAL_LEN..).and_then(|field| field.first_chunk());
    stated.is_none_or(|stated| usize::from(u16::from_be_bytes(*stated)) != total)
}

/// Sets or clears PSH of a TCP packet.
pub(super) fn push(kind: Kind, packet: &mut [u8], csum_start: usize, is_set: bool) -> Option<()> {
    if kind.is_tcp() {
        let flags = packet.get_mut(csum_start.checked_add(transport::TCP_FLAGS)?)?;
        *flags = if is_set { *flags | PSH } else { *flags & !PSH };
    }
    Some(())
}

//! What became of datagrams.

use std::io;

use adit_proto::drop_reason::DropReason;

use crate::carrier::Carriers;
use crate::udp::Sent;

/// Counts `packets` packets of `inner` bytes in all that were handed to a socket as datagrams of `datagram` bytes, and tells the control side what it has to know.
pub(super) fn account(carriers: &Carriers, sent: &Sent, packets: usize, inner: usize, datagram: usize) {
    let (taken, counters) = (sent.datagrams.min(packets), carriers.counters());
    if taken > 0 {
        let bytes = if taken == packets { inner } else { inner / packets.max(1) * taken };
        counters.count_tx(taken as u64, bytes as u64);
        carriers.note_sent();
    }
    let Some(error) = &sent.error else { return };
    let reason = match error.raw_os_error() {
        Some(libc::EMSGSIZE) => {
            carriers.note_too_big(u16::try_from(datagram).unwrap_or(u16::MAX));
            DropReason::TooBig
        }
        Some(libc::ENOBUFS | libc::EAGAIN) => DropReason::QueueFull,
        _ if error.kind() == io::ErrorKind::WouldBlock => DropReason::QueueFull,
        _ => {
            carriers.note_doubt();
            DropReason::SendFailed
        }
    };
    for _ in taken..packets {
        counters.count_drop(reason);
    }
}

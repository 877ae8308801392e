//! Sealed packets that go to the kernel in one call, and what becomes of them.

use std::io;
use std::ops::Range;

use adit_proto::drop_reason::DropReason;

use super::outlet::{Outlet, SendOutcome};
use crate::carrier::{Carriers, DatagramRoute};
use crate::udp::DatagramSocket;

/// Sealed packets that go in one call. They stand one behind the other in a buffer that somebody else owns.
#[derive(Debug, Default)]
pub(super) struct SealedPackets {
    /// Where they are in the buffer.
    pub(super) at: Range<usize>,
    pub(super) packets: usize,
    /// The sum of the packets' own lengths, before they were sealed.
    pub(super) inner_bytes: usize,
    /// Bytes of each datagram but the last, which may be shorter.
    pub(super) segment: usize,
    /// The ECN bits that all of them have.
    pub(super) ecn: u8,
}

impl SealedPackets {
    /// Sends them from `buffer`, if there are any, counts them, and tells the control side what it has to know. If the
    /// session has ended meanwhile, they are lost.
    pub(super) fn send(
        &mut self,
        carriers: &Carriers,
        route: &DatagramRoute,
        buffer: &[u8],
        outlet: &mut Outlet<impl DatagramSocket>,
    ) -> SendOutcome {
        if self.packets == 0 {
            return SendOutcome::Finished;
        }
        if carriers.is_closed() {
            return self.lose(carriers, DropReason::NotConnected);
        }
        // A route may outlive its socket only by a bug of the control side; its packets are then lost, not the worker.
        let number = route.origin.socket;
        let (Some(socket), Some(datagrams)) = (outlet.sockets.get(number), buffer.get(self.at.clone())) else {
            return self.lose(carriers, DropReason::SendFailed);
        };
        let sent = socket.send(route.to, route.origin.local, datagrams, self.segment, self.ecn);
        if sent.datagrams > 0 {
            outlet.patience.took(number);
            self.handle_taken(carriers, sent.datagrams);
        }
        let Some(error) = sent.error else { return SendOutcome::Finished };
        match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => {
                if outlet.patience.waits_for(number, outlet.clock) {
                    return SendOutcome::SocketFull;
                }
                self.lose(carriers, DropReason::QueueFull)
            }
            Some(libc::ENOBUFS) => self.lose(carriers, DropReason::QueueFull),
            Some(libc::EMSGSIZE) => {
                let segment =
                    u16::try_from(self.segment).expect("a segment is no longer than a call, which is below 64 KiB");
                carriers.note_too_big(segment);
                self.lose(carriers, DropReason::TooBig)
            }
            _ => {
                carriers.note_doubt();
                self.lose(carriers, DropReason::SendFailed)
            }
        }
    }

    /// Counts the datagrams that the kernel took, from the first on, and keeps the rest.
    fn handle_taken(&mut self, carriers: &Carriers, datagrams: usize) {
        let taken = datagrams.min(self.packets);
        let bytes =
            if taken == self.packets { self.inner_bytes } else { self.inner_bytes / self.packets.max(1) * taken };
        carriers.counters().count_tx(taken as u64, bytes as u64);
        carriers.note_sent();
        self.at.start = self.at.end.min(self.at.start + taken * self.segment);
        self.packets -= taken;
        self.inner_bytes -= bytes;
    }

    fn lose(&mut self, carriers: &Carriers, reason: DropReason) -> SendOutcome {
        carriers.counters().count_drops(self.packets, reason);
        *self = Self::default();
        SendOutcome::Finished
    }
}

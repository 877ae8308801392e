//! What becomes of datagrams.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use adit_proto::drop_reason::DropReason;
use adit_proto::queue::patience::Patience;

use crate::carrier::{Carriers, EspRoute};
use crate::worker::ends::DatagramSocket;

/// What became of datagrams or of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(in crate::worker) enum Progress {
    /// Nothing of them is left: they were taken, or are lost and counted.
    Done,
    /// A socket is full; the rest is where it was.
    Waits,
}

/// Sealed packets that go in one call, one behind the other in some buffer.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    /// Where they are.
    pub(super) at: Range<usize>,
    /// How many.
    pub(super) packets: usize,
    /// Bytes of the packets inside.
    pub(super) inner: usize,
    /// Bytes of each datagram but the last, which may be shorter.
    pub(super) segment: usize,
    /// The ECN bits of them all.
    pub(super) ecn: u8,
}

impl Parcel {
    /// Sends what stands in `buffer`, if anything, counts it, and tells the control side what it has to know. If the
    /// session has ended meanwhile, it is lost.
    pub(super) fn send(
        &mut self,
        carriers: &Carriers,
        route: &EspRoute,
        buffer: &[u8],
        sockets: &[Arc<impl DatagramSocket>],
        patience: &mut Patience,
    ) -> Progress {
        if self.packets == 0 {
            return Progress::Done;
        }
        if carriers.is_closed() {
            return self.lose(carriers, DropReason::NotConnected);
        }
        let number = route.origin.socket;
        let (Some(socket), Some(datagrams)) = (sockets.get(number), buffer.get(self.at.clone())) else {
            return self.lose(carriers, DropReason::SendFailed);
        };
        let sent = socket.send(route.to, route.origin.local, datagrams, self.segment, self.ecn);
        if sent.datagrams > 0 {
            patience.took(number);
            self.take(carriers, sent.datagrams);
        }
        let Some(error) = sent.error else { return Progress::Done };
        match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => {
                if patience.waits_for(number, Instant::now) {
                    return Progress::Waits;
                }
                self.lose(carriers, DropReason::QueueFull)
            }
            Some(libc::ENOBUFS) => self.lose(carriers, DropReason::QueueFull),
            Some(libc::EMSGSIZE) => {
                carriers.note_too_big(u16::try_from(self.segment).unwrap_or(u16::MAX));
                self.lose(carriers, DropReason::TooBig)
            }
            _ => {
                carriers.note_doubt();
                self.lose(carriers, DropReason::SendFailed)
            }
        }
    }

    /// The kernel took so many datagrams from the first on.
    fn take(&mut self, carriers: &Carriers, datagrams: usize) {
        let taken = datagrams.min(self.packets);
        let bytes = if taken == self.packets { self.inner } else { self.inner / self.packets.max(1) * taken };
        carriers.counters().count_tx(taken as u64, bytes as u64);
        carriers.note_sent();
        self.at.start = self.at.end.min(self.at.start + taken * self.segment);
        self.packets -= taken;
        self.inner -= bytes;
    }

    fn lose(&mut self, carriers: &Carriers, reason: DropReason) -> Progress {
        carriers.counters().count_drops(self.packets, reason);
        *self = Self::default();
        Progress::Done
    }
}

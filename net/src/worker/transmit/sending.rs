//! A superpacket on its way: sealed as many segments at a time as fit one call, and sent.

use std::ops::Range;
use std::sync::Arc;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::NextHeader;
use adit_proto::offload::split::{Checksums, Split};
use adit_proto::offload::superpacket::Superpacket;

use super::last_read::LastRead;
use super::outlet::{Outlet, SendOutcome};
use super::sealed::SealedPackets;
use crate::carrier::{Carried, EspRoute};
use crate::udp::{DatagramSocket, MAX_SEGMENTS};

/// One superpacket. What was read may not change before all of it is sent.
pub(super) struct Sending<S> {
    session: Arc<S>,
    route: Arc<EspRoute>,
    split: Split,
    checksums: Checksums,
    next_header: NextHeader,
    /// Bytes of the superpacket.
    len: usize,
    /// Bytes of the largest segment.
    largest: usize,
    segments: usize,
    /// The first segment that is not sealed yet.
    next: usize,
    ecn: u8,
    /// Segments that are sealed and not sent.
    unsent: SealedPackets,
}

impl<S: Carried> Sending<S> {
    /// Begins with the superpacket that was just read.
    ///
    /// # Errors
    /// It cannot be taken apart.
    pub(super) fn new(
        session: Arc<S>,
        route: Arc<EspRoute>,
        superpacket: &Superpacket,
        read: &LastRead,
    ) -> Result<Self, DropReason> {
        let packet = read.packet(superpacket.ip.len);
        let vouched = route.vouched && superpacket.may_vouch();
        Ok(Self {
            session,
            split: Split::new(superpacket, packet)?,
            checksums: if vouched { Checksums::Partial } else { Checksums::Full },
            next_header: NextHeader::of_packet(packet, vouched).ok_or(DropReason::BadVersion)?,
            len: superpacket.ip.len,
            largest: superpacket.largest_packet(),
            segments: superpacket.segments,
            next: 0,
            ecn: route.ecn_of(packet),
            unsent: SealedPackets::default(),
            route,
        })
    }

    /// Seals and sends until nothing is left, or a socket is full.
    pub(super) fn advance(
        &mut self,
        read: &LastRead,
        sealed: &mut [u8],
        outlet: &mut Outlet<impl DatagramSocket>,
    ) -> SendOutcome {
        loop {
            // What was sealed, now or before the socket was full, goes first: it lies where the next segments will.
            let carriers = self.session.carriers();
            if self.unsent.send(carriers, &self.route, sealed, outlet) == SendOutcome::SocketFull {
                return SendOutcome::SocketFull;
            }
            if self.next >= self.segments {
                return SendOutcome::Finished;
            }
            // Then as many segments as one call takes are sealed.
            let at_once = (sealed.len() / self.stride()).clamp(1, MAX_SEGMENTS);
            let end = self.segments.min(self.next + at_once);
            let sealing = if carriers.is_closed() {
                Err(DropReason::NotConnected)
            } else {
                self.seal(self.next..end, read, sealed)
            };
            match sealing {
                Ok(unsent) => self.unsent = unsent,
                Err(reason) => {
                    // The segments before these were counted when they were sent.
                    carriers.counters().count_drops(self.segments - self.next, reason);
                    return SendOutcome::Finished;
                }
            }
            self.next = end;
        }
    }

    /// Bytes of a segment, sealed; the last may have less.
    fn stride(&self) -> usize {
        self.route.sealed_len(self.largest)
    }

    /// Seals some segments, one behind the other.
    fn seal(&self, segments: Range<usize>, read: &LastRead, sealed: &mut [u8]) -> Result<SealedPackets, DropReason> {
        let (packets, stride) = (segments.len(), self.stride());
        let count = u32::try_from(packets).expect("one call takes 64 segments");
        let mut numbers = self.route.sa.reserve(count, self.largest)?;
        let (mut bytes, mut inner_bytes) = (0, 0);
        let segments = segments.filter_map(|index| self.split.segment(index));
        for (slot, segment) in sealed.chunks_exact_mut(stride).zip(segments) {
            let packet = slot.get_mut(self.route.prefix_len()..).ok_or(DropReason::TooBig)?;
            self.split.write_packet(&segment, read.packet(self.len), packet, self.checksums)?;
            bytes += numbers.seal(slot, segment.len(), self.next_header)?;
            inner_bytes += segment.len();
        }
        Ok(SealedPackets { at: 0..bytes, packets, inner_bytes, segment: stride, ecn: self.ecn })
    }
}

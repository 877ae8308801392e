//! A superpacket on its way: sealed as many segments at a time as fit one call, behind what is collected already.

use std::ops::Range;
use std::sync::Arc;

use adit_proto::anyconnect::record;
use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::NextHeader;
use adit_proto::offload::split::{Checksums, Split};
use adit_proto::offload::superpacket::Superpacket;

use super::batch::{Added, Batches, Likeness};
use super::last_read::LastRead;
use super::outlet::{Outlet, SendOutcome};
use crate::carrier::{Carried, DatagramRoute, OutboundSa, SealPackets};
use crate::udp::DatagramSocket;

/// One superpacket. What was read may not change before all of it is sealed.
pub(super) struct Sending<S> {
    session: Arc<S>,
    route: Arc<DatagramRoute>,
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
}

impl<S: Carried> Sending<S> {
    /// Begins with the superpacket that was just read.
    ///
    /// # Errors
    /// It cannot be taken apart.
    pub(super) fn new(
        session: Arc<S>,
        route: Arc<DatagramRoute>,
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
            route,
        })
    }

    /// Seals until nothing is left, or a socket is full. What makes a whole call is sent; the rest waits in the
    /// session's batch for more, or for its flush.
    pub(super) fn advance(
        &mut self,
        read: &LastRead,
        batches: &mut Batches<S>,
        outlet: &mut Outlet<impl DatagramSocket>,
    ) -> SendOutcome {
        let sealed = self.route.sealed_len(self.largest);
        while self.next < self.segments {
            let Some(batch) = batches.place(&self.session, outlet) else { return SendOutcome::SocketFull };
            let like = Likeness { session: &self.session, route: &self.route, sealed, ecn: self.ecn };
            let room = batch.room(&like);
            if room == 0 {
                match batch.flush(outlet) {
                    SendOutcome::Finished => continue,
                    SendOutcome::SocketFull => return SendOutcome::SocketFull,
                }
            }
            let end = self.segments.min(self.next + room);
            let carriers = self.session.carriers();
            let sealing = if carriers.is_closed() {
                Err(DropReason::NotConnected)
            } else {
                batch.add(&like, |free| self.seal(self.next..end, read, free))
            };
            if let Err(reason) = sealing {
                // The segments before these were counted when they were sent.
                carriers.counters().count_drops(self.segments - self.next, reason);
                break;
            }
            self.next = end;
            batch.flush_if_complete(outlet);
        }
        SendOutcome::Finished
    }

    /// Seals some segments, one behind the other.
    fn seal(&self, segments: Range<usize>, read: &LastRead, free: &mut [u8]) -> Result<Added, DropReason> {
        let count = u32::try_from(segments.len()).expect("one call takes 64 segments");
        match &self.route.sa {
            OutboundSa::Esp(sa) => self.seal_with(sa.reserve(count, self.largest)?, segments, read, free),
            OutboundSa::Dtls(sa) => {
                let numbers = sa.reserve(count, record::HEAD_LEN + self.largest)?;
                self.seal_with(numbers, segments, read, free)
            }
        }
    }

    /// The same with the numbers of one format.
    #[inline]
    fn seal_with(
        &self,
        mut numbers: impl SealPackets,
        segments: Range<usize>,
        read: &LastRead,
        free: &mut [u8],
    ) -> Result<Added, DropReason> {
        let (packets, stride) = (segments.len(), self.route.sealed_len(self.largest));
        let (prefix_len, mut bytes, mut inner_bytes) = (self.route.prefix_len(), 0, 0);
        let segments = segments.filter_map(|index| self.split.segment(index));
        for (slot, segment) in free.chunks_exact_mut(stride).zip(segments) {
            let packet = slot.get_mut(prefix_len..).ok_or(DropReason::TooBig)?;
            self.split.write_packet(&segment, read.packet(self.len), packet, self.checksums)?;
            bytes += numbers.seal_packet(slot, segment.len(), self.next_header)?;
            inner_bytes += segment.len();
        }
        Ok(Added { packets, bytes, inner_bytes })
    }
}

//! A superpacket on its way: sealed as many segments at a time as fit one call, and sent.

use std::ops::Range;
use std::sync::Arc;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};
use adit_proto::offload::split::{Checksums, Split};
use adit_proto::offload::superpacket::Superpacket;
use adit_proto::packet::ecn;
use adit_proto::queue::patience::Patience;

use super::outcome::{Parcel, Progress};
use super::taken::Taken;
use crate::carrier::{Carried, EspRoute};
use crate::udp::MAX_SEGMENTS;
use crate::worker::ends::DatagramSocket;

/// One superpacket. What was read may not change before all is sent.
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
    /// The first that is not sealed.
    next: usize,
    ecn: u8,
    /// Those that are sealed and not sent.
    parcel: Parcel,
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
        taken: &Taken,
    ) -> Result<Self, DropReason> {
        let packet = taken.packet(superpacket.ip.len);
        let vouched = route.vouched && superpacket.may_vouch();
        Ok(Self {
            session,
            route,
            split: Split::new(superpacket, packet)?,
            checksums: if vouched { Checksums::Partial } else { Checksums::Full },
            next_header: NextHeader::of_packet(packet, vouched).ok_or(DropReason::BadVersion)?,
            len: superpacket.ip.len,
            largest: superpacket.largest_packet(),
            segments: superpacket.segments,
            next: 0,
            ecn: ecn::of_packet(packet),
            parcel: Parcel::default(),
        })
    }

    /// Seals and sends until nothing is left, or a socket is full.
    pub(super) fn advance(
        &mut self,
        taken: &Taken,
        sealed: &mut [u8],
        sockets: &[Arc<impl DatagramSocket>],
        patience: &mut Patience,
    ) -> Progress {
        loop {
            let carriers = self.session.carriers();
            if self.parcel.send(carriers, &self.route, sealed, sockets, patience) == Progress::Waits {
                return Progress::Waits;
            }
            if self.next >= self.segments {
                return Progress::Done;
            }
            let at_once = (sealed.len() / self.stride()).clamp(1, MAX_SEGMENTS);
            let end = self.segments.min(self.next + at_once);
            let parcel = if carriers.is_closed() {
                Err(DropReason::NotConnected)
            } else {
                self.seal(self.next..end, taken, sealed)
            };
            match parcel {
                Ok(parcel) => self.parcel = parcel,
                Err(reason) => {
                    // What went before is accounted for.
                    carriers.counters().count_drops(self.segments - self.next, reason);
                    return Progress::Done;
                }
            }
            self.next = end;
        }
    }

    /// Bytes of a segment, sealed; the last may have less.
    fn stride(&self) -> usize {
        sealed_len(self.largest)
    }

    /// Seals some segments, one behind the other.
    fn seal(&self, segments: Range<usize>, taken: &Taken, sealed: &mut [u8]) -> Result<Parcel, DropReason> {
        let (packets, stride) = (segments.len(), self.stride());
        let mut numbers = self.route.sa.reserve(u32::try_from(packets).unwrap_or(u32::MAX), self.largest)?;
        let (mut bytes, mut inner) = (0, 0);
        let segments = segments.filter_map(|index| self.split.segment(index));
        for (slot, segment) in sealed.chunks_exact_mut(stride).zip(segments) {
            let packet = slot.get_mut(PREFIX_LEN..).ok_or(DropReason::TooBig)?;
            self.split.write_packet(&segment, taken.packet(self.len), packet, self.checksums)?;
            bytes += numbers.seal(slot, segment.len(), self.next_header)?;
            inner += segment.len();
        }
        Ok(Parcel { at: 0..bytes, packets, inner, segment: stride, ecn: self.ecn })
    }
}

//! A superpacket on its way: sealed as many segments at a time as fit one call, and sent.

use std::ops::Range;
use std::sync::Arc;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN};
use adit_proto::offload::split::{Checksums, Split};
use adit_proto::offload::superpacket::Superpacket;
use adit_proto::packet::ecn;

use super::outcome::Parcel;
use super::patience::{Patience, Progress};
use super::slots::Slots;
use crate::carrier::{Carriers, EspRoute};
use crate::worker::ends::DatagramSocket;

/// One superpacket. Its bytes are in the worker's slots, or in `linear` if they were not read into their places;
/// neither may change before all is sent.
pub(super) struct Sending<S> {
    session: Arc<S>,
    route: Arc<EspRoute>,
    split: Split,
    /// The segments were read into their places.
    in_place: bool,
    checksums: Checksums,
    next_header: NextHeader,
    /// Bytes of the largest segment.
    largest: usize,
    segments: usize,
    /// The first that is not sealed.
    next: usize,
    ecn: u8,
    /// Those that are sealed and not sent.
    parcel: Parcel,
}

impl<S: AsRef<Carriers>> Sending<S> {
    /// Begins with the superpacket that was just read into `slots`.
    ///
    /// # Errors
    /// It cannot be taken apart.
    pub(super) fn new(
        session: Arc<S>,
        route: Arc<EspRoute>,
        superpacket: &Superpacket,
        slots: &mut Slots,
        linear: &mut [u8],
    ) -> Result<Self, DropReason> {
        let in_place = slots.holds(superpacket);
        let len = superpacket.ip.len;
        let head = if in_place { slots.head(len) } else { slots.gather(len, linear) };
        let vouched = route.vouched && superpacket.may_vouch();
        let sending = Self {
            session,
            route,
            split: Split::new(superpacket, head)?,
            in_place,
            checksums: if vouched { Checksums::Partial } else { Checksums::Full },
            next_header: NextHeader::of_packet(head, vouched).ok_or(DropReason::BadVersion)?,
            largest: superpacket.largest_packet(),
            segments: superpacket.segments,
            next: 0,
            ecn: ecn::of_packet(head),
            parcel: Parcel::default(),
        };
        if !in_place {
            slots.reshape(superpacket.shape());
        }
        Ok(sending)
    }

    /// Seals and sends until nothing is left, or a socket is full.
    pub(super) fn advance(
        &mut self,
        slots: &mut Slots,
        linear: &[u8],
        sockets: &[Arc<impl DatagramSocket>],
        patience: &mut Patience,
    ) -> Progress {
        loop {
            let carriers = (*self.session).as_ref();
            if self.parcel.send(carriers, &self.route, slots.buffer(), sockets, patience) == Progress::Waits {
                return Progress::Waits;
            }
            if self.next >= self.segments {
                return Progress::Done;
            }
            let end = self.segments.min(self.next + slots.at_once());
            let sealed = if carriers.is_closed() {
                Err(DropReason::NotConnected)
            } else {
                self.seal(self.next..end, slots, linear)
            };
            match sealed {
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

    /// Seals some segments: where they lie, or from the first slot on, where they are copied to.
    fn seal(&self, segments: Range<usize>, slots: &mut Slots, linear: &[u8]) -> Result<Parcel, DropReason> {
        let packets = segments.len();
        let first = if self.in_place { segments.start } else { 0 };
        let mut numbers = self.route.sa.reserve(u32::try_from(packets).unwrap_or(u32::MAX), self.largest)?;
        let (mut bytes, mut inner) = (0, 0);
        for (slot, segment) in (first..).zip(segments.filter_map(|index| self.split.segment(index))) {
            let slot = slots.slot_mut(slot);
            let packet = slot.get_mut(PREFIX_LEN..).ok_or(DropReason::TooBig)?;
            if self.in_place {
                self.split.write_header(&segment, packet)?;
                if self.checksums == Checksums::Full {
                    self.split.complete(&segment, packet)?;
                }
            } else {
                self.split.write_packet(&segment, linear, packet, self.checksums)?;
            }
            bytes += numbers.seal(slot, segment.len(), self.next_header)?;
            inner += segment.len();
        }
        let start = first * slots.stride();
        Ok(Parcel { at: start..start + bytes, packets, inner, segment: slots.stride(), ecn: self.ecn })
    }
}

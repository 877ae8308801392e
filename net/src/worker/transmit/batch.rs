//! Packets that come one by one, sealed and collected until a call's worth is there.

use std::sync::Arc;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};
use adit_proto::packet::ecn;
use adit_proto::queue::patience::Patience;

use super::outcome::{Parcel, Progress};
use crate::carrier::{Carried, EspRoute};
use crate::udp::{MAX_BYTES, MAX_SEGMENTS};
use crate::worker::ends::DatagramSocket;

/// Sessions that collect at the same time; one more sends what another has first. Bounds the memory to 256 KiB a worker.
const BATCHES: usize = 4;

/// The batches of one worker. Within a session, packets leave in the order they came.
pub(in crate::worker) struct Batches<S> {
    batches: [Batch<S>; BATCHES],
    /// Which gives way next.
    next: usize,
}

/// Sealed packets of one session: all as long as the first, but for the last.
struct Batch<S> {
    to: Option<(Arc<S>, Arc<EspRoute>)>,
    datagrams: Vec<u8>,
    /// Those that were not sent yet.
    parcel: Parcel,
    /// A socket was full: what is there goes before anything is added.
    waits: bool,
}

impl<S> Default for Batches<S> {
    fn default() -> Self {
        Self { batches: std::array::from_fn(|_| Batch::default()), next: 0 }
    }
}

impl<S> Default for Batch<S> {
    fn default() -> Self {
        Self { to: None, datagrams: Vec::with_capacity(MAX_BYTES), parcel: Parcel::default(), waits: false }
    }
}

impl<S: Carried> Batches<S> {
    /// Seals a packet and adds it to the batch of its session. If that [`Progress::Waits`], the packet was not taken.
    ///
    /// # Errors
    /// It could not be sealed.
    pub(in crate::worker) fn push(
        &mut self,
        session: &Arc<S>,
        route: &Arc<EspRoute>,
        packet: &[u8],
        next_header: NextHeader,
        sockets: &[Arc<impl DatagramSocket>],
        patience: &mut Patience,
    ) -> Result<Progress, DropReason> {
        let Some(batch) = self.place(session, sockets, patience) else { return Ok(Progress::Waits) };
        if !batch.takes(route, packet) && batch.flush(sockets, patience) == Progress::Waits {
            return Ok(Progress::Waits);
        }
        batch.push(session, route, packet, next_header)?;
        if batch.is_complete() {
            // The packet is taken; the batch itself knows that it waits.
            let (Progress::Done | Progress::Waits) = batch.flush(sockets, patience);
        }
        Ok(Progress::Done)
    }

    /// Sends what a session has waiting.
    pub(in crate::worker) fn flush_session(
        &mut self,
        session: &Arc<S>,
        sockets: &[Arc<impl DatagramSocket>],
        patience: &mut Patience,
    ) -> Progress {
        let own = self.batches.iter_mut().find(|batch| batch.is_of(session));
        own.map_or(Progress::Done, |batch| batch.flush(sockets, patience))
    }

    /// Sends all that there is.
    pub(in crate::worker) fn flush_all(
        &mut self,
        sockets: &[Arc<impl DatagramSocket>],
        patience: &mut Patience,
    ) -> Progress {
        self.flush_where(|_| true, sockets, patience)
    }

    /// Sends what waits for sockets that were full.
    pub(in crate::worker) fn resume(
        &mut self,
        sockets: &[Arc<impl DatagramSocket>],
        patience: &mut Patience,
    ) -> Progress {
        self.flush_where(|batch| batch.waits, sockets, patience)
    }

    fn flush_where(
        &mut self,
        wanted: impl Fn(&Batch<S>) -> bool,
        sockets: &[Arc<impl DatagramSocket>],
        patience: &mut Patience,
    ) -> Progress {
        let mut progress = Progress::Done;
        for batch in self.batches.iter_mut().filter(|batch| wanted(batch)) {
            if batch.flush(sockets, patience) == Progress::Waits {
                progress = Progress::Waits;
            }
        }
        progress
    }

    /// The batch of a session: its own, a free one, or one that is sent for it; `None` if that waits.
    fn place(
        &mut self,
        session: &Arc<S>,
        sockets: &[Arc<impl DatagramSocket>],
        patience: &mut Patience,
    ) -> Option<&mut Batch<S>> {
        let own = self.batches.iter().position(|batch| batch.is_of(session));
        if let Some(number) = own.or_else(|| self.batches.iter().position(|batch| batch.to.is_none())) {
            return self.batches.get_mut(number);
        }
        let number = self.next % BATCHES;
        self.next = number + 1;
        let batch = self.batches.get_mut(number)?;
        (batch.flush(sockets, patience) == Progress::Done).then_some(batch)
    }
}

impl<S: Carried> Batch<S> {
    fn is_of(&self, session: &Arc<S>) -> bool {
        self.to.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, session))
    }

    /// Whether a packet can go in the same call as what is there.
    fn takes(&self, route: &Arc<EspRoute>, packet: &[u8]) -> bool {
        let sealed = sealed_len(packet.len());
        match &self.to {
            None => true,
            Some((_, known)) => {
                !self.waits
                    && Arc::ptr_eq(known, route)
                    && sealed <= self.parcel.segment
                    && self.datagrams.len() + sealed <= MAX_BYTES
                    && ecn::of_packet(packet) == self.parcel.ecn
            }
        }
    }

    /// Whether nothing more can follow.
    fn is_complete(&self) -> bool {
        self.parcel.packets >= MAX_SEGMENTS || self.datagrams.len() < self.parcel.packets * self.parcel.segment
    }

    fn push(
        &mut self,
        session: &Arc<S>,
        route: &Arc<EspRoute>,
        packet: &[u8],
        next_header: NextHeader,
    ) -> Result<(), DropReason> {
        let sealed = sealed_len(packet.len());
        let start = self.datagrams.len();
        self.datagrams.resize(start + PREFIX_LEN, 0);
        self.datagrams.extend_from_slice(packet);
        self.datagrams.resize(start + sealed, 0);
        let slot = self.datagrams.get_mut(start..).unwrap_or_default();
        let numbered = route.sa.reserve(1, packet.len());
        if let Err(reason) = numbered.and_then(|mut number| number.seal(slot, packet.len(), next_header)) {
            self.datagrams.truncate(start);
            return Err(reason);
        }
        if self.to.is_none() {
            self.to = Some((Arc::clone(session), Arc::clone(route)));
            self.parcel.segment = sealed;
            self.parcel.ecn = ecn::of_packet(packet);
        }
        self.parcel.packets += 1;
        self.parcel.inner += packet.len();
        self.parcel.at.end = self.datagrams.len();
        Ok(())
    }

    fn flush(&mut self, sockets: &[Arc<impl DatagramSocket>], patience: &mut Patience) -> Progress {
        let Some((session, route)) = &self.to else { return Progress::Done };
        let progress = self.parcel.send(session.carriers(), route, &self.datagrams, sockets, patience);
        self.waits = progress == Progress::Waits;
        if progress == Progress::Done {
            self.to = None;
            self.datagrams.clear();
            self.parcel = Parcel::default();
        }
        progress
    }
}

//! Packets on their way to a socket, sealed and collected until a call's worth is there.

use std::sync::Arc;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::NextHeader;

use super::outlet::{Outlet, SendOutcome};
use super::sealed::SealedPackets;
use crate::carrier::{Carried, DatagramRoute};
use crate::udp::{DatagramSocket, MAX_BYTES, MAX_SEGMENTS};

/// Sessions that collect at the same time; one more sends what another has first. Bounds the memory to 256 KiB a
/// worker.
const BATCHES: usize = 4;

/// The batches of one worker. Within a session, packets leave in the order they came.
pub(in crate::worker) struct Batches<S> {
    batches: [Batch<S>; BATCHES],
    /// Which gives way next.
    next: usize,
}

/// Sealed packets of one session: all as long as the first, but for the last.
pub(super) struct Batch<S> {
    /// Whose packets these are; none while the batch is empty.
    to: Option<Recipient<S>>,
    /// Room for one call. Packets are sealed where they are sent from, one behind the other.
    datagrams: Box<[u8]>,
    /// Those of the datagrams that were not sent yet; behind their end the buffer is free.
    unsent: SealedPackets,
    /// A socket was full: what is there has to go before anything is added.
    is_held: bool,
}

/// What decides whether packets can go in one call: they leave by one route, are equally long, and have the same ECN
/// bits.
pub(super) struct Likeness<'a, S> {
    pub(super) session: &'a Arc<S>,
    pub(super) route: &'a Arc<DatagramRoute>,
    /// Bytes of each packet once it is sealed; the last may have less.
    pub(super) sealed: usize,
    pub(super) ecn: u8,
}

/// Packets that were just sealed into a batch.
pub(super) struct Added {
    pub(super) packets: usize,
    /// Bytes of the datagrams.
    pub(super) bytes: usize,
    /// The sum of the packets' own lengths.
    pub(super) inner_bytes: usize,
}

/// A session and how its packets are sent.
struct Recipient<S> {
    session: Arc<S>,
    route: Arc<DatagramRoute>,
}

/// A packet that is complete and only has to be sealed.
#[derive(Clone, Copy)]
pub(in crate::worker) struct Unsealed<'a> {
    pub(in crate::worker) packet: &'a [u8],
    pub(in crate::worker) next_header: NextHeader,
}

impl<S> Default for Batches<S> {
    fn default() -> Self {
        Self { batches: std::array::from_fn(|_| Batch::default()), next: 0 }
    }
}

impl<S> Default for Batch<S> {
    fn default() -> Self {
        let datagrams = vec![0; MAX_BYTES].into_boxed_slice();
        Self { to: None, datagrams, unsent: SealedPackets::default(), is_held: false }
    }
}

impl<S: Carried> Batches<S> {
    /// Seals a packet and adds it to the batch of its session. With [`SendOutcome::SocketFull`] the packet was not
    /// added.
    ///
    /// # Errors
    /// It could not be sealed.
    pub(in crate::worker) fn push(
        &mut self,
        session: &Arc<S>,
        route: &Arc<DatagramRoute>,
        unsealed: Unsealed<'_>,
        outlet: &mut Outlet<impl DatagramSocket>,
    ) -> Result<SendOutcome, DropReason> {
        let Unsealed { packet, next_header } = unsealed;
        let like = Likeness { session, route, sealed: route.sealed_len(packet.len()), ecn: route.ecn_of(packet) };
        let Some(batch) = self.place(session, outlet) else { return Ok(SendOutcome::SocketFull) };
        if batch.room(&like) == 0 && batch.flush(outlet) == SendOutcome::SocketFull {
            return Ok(SendOutcome::SocketFull);
        }
        batch.add(&like, |free| {
            let slot = free.get_mut(..like.sealed).ok_or(DropReason::TooBig)?;
            let place = slot.get_mut(route.prefix_len()..).and_then(|rest| rest.get_mut(..packet.len()));
            place.ok_or(DropReason::TooBig)?.copy_from_slice(packet);
            let bytes = route.seal(slot, packet.len(), next_header)?;
            Ok(Added { packets: 1, bytes, inner_bytes: packet.len() })
        })?;
        batch.flush_if_complete(outlet);
        Ok(SendOutcome::Finished)
    }

    /// Sends what a session has waiting.
    pub(in crate::worker) fn flush_session(
        &mut self,
        session: &Arc<S>,
        outlet: &mut Outlet<impl DatagramSocket>,
    ) -> SendOutcome {
        let own = self.batches.iter_mut().find(|batch| batch.is_of(session));
        own.map_or(SendOutcome::Finished, |batch| batch.flush(outlet))
    }

    /// Sends all that there is.
    pub(in crate::worker) fn flush_all(&mut self, outlet: &mut Outlet<impl DatagramSocket>) -> SendOutcome {
        self.flush_where(|_| true, outlet)
    }

    /// Sends what waits for sockets that were full.
    pub(in crate::worker) fn resume(&mut self, outlet: &mut Outlet<impl DatagramSocket>) -> SendOutcome {
        self.flush_where(|batch| batch.is_held, outlet)
    }

    fn flush_where(
        &mut self,
        wanted: impl Fn(&Batch<S>) -> bool,
        outlet: &mut Outlet<impl DatagramSocket>,
    ) -> SendOutcome {
        let mut outcome = SendOutcome::Finished;
        for batch in self.batches.iter_mut().filter(|batch| wanted(batch)) {
            if batch.flush(outlet) == SendOutcome::SocketFull {
                outcome = SendOutcome::SocketFull;
            }
        }
        outcome
    }

    /// The batch for a session's next packet: its own one, a free one, or another session's that is sent first to make
    /// room. `None` if the latter finds its socket full.
    pub(super) fn place(
        &mut self,
        session: &Arc<S>,
        outlet: &mut Outlet<impl DatagramSocket>,
    ) -> Option<&mut Batch<S>> {
        let own = self.batches.iter().position(|batch| batch.is_of(session));
        if let Some(number) = own.or_else(|| self.batches.iter().position(|batch| batch.to.is_none())) {
            return self.batches.get_mut(number);
        }
        let number = self.next % BATCHES;
        self.next = number + 1;
        let batch = self.batches.get_mut(number)?;
        (batch.flush(outlet) == SendOutcome::Finished).then_some(batch)
    }
}

impl<S: Carried> Batch<S> {
    fn is_of(&self, session: &Arc<S>) -> bool {
        self.to.as_ref().is_some_and(|to| Arc::ptr_eq(&to.session, session))
    }

    /// How many more such packets can go in the same call as what is there.
    pub(super) fn room(&self, like: &Likeness<'_, S>) -> usize {
        let segment = self.unsent.segment;
        let Some(to) = &self.to else { return (self.datagrams.len() / like.sealed).clamp(1, MAX_SEGMENTS) };
        let is_alike = Arc::ptr_eq(&to.route, like.route) && like.sealed <= segment && like.ecn == self.unsent.ecn;
        if self.is_held || !is_alike {
            return 0;
        }
        // Behind a shorter one nothing can follow.
        let most = if like.sealed < segment { 1 } else { MAX_SEGMENTS - self.unsent.packets };
        most.min(self.free() / like.sealed)
    }

    /// Adds packets, for which there must be room: `seal` puts them at the beginning of the free bytes.
    ///
    /// # Errors
    /// They could not be sealed; nothing was added.
    pub(super) fn add(
        &mut self,
        like: &Likeness<'_, S>,
        seal: impl FnOnce(&mut [u8]) -> Result<Added, DropReason>,
    ) -> Result<(), DropReason> {
        let free = self.datagrams.get_mut(self.unsent.at.end..).unwrap_or_default();
        let added = seal(free)?;
        if self.to.is_none() {
            self.to = Some(Recipient { session: Arc::clone(like.session), route: Arc::clone(like.route) });
            self.unsent.segment = like.sealed;
            self.unsent.ecn = like.ecn;
        }
        self.unsent.packets += added.packets;
        self.unsent.inner_bytes += added.inner_bytes;
        self.unsent.at.end += added.bytes;
        Ok(())
    }

    /// Sends what is there if nothing more can follow. If the socket is full, the batch itself remembers that it is
    /// held.
    pub(super) fn flush_if_complete(&mut self, outlet: &mut Outlet<impl DatagramSocket>) {
        let SealedPackets { packets, segment, .. } = self.unsent;
        if packets >= MAX_SEGMENTS || self.unsent.at.len() < packets * segment || self.free() < segment {
            let (SendOutcome::Finished | SendOutcome::SocketFull) = self.flush(outlet);
        }
    }

    /// Bytes behind the last datagram.
    fn free(&self) -> usize {
        self.datagrams.len() - self.unsent.at.end
    }

    pub(super) fn flush(&mut self, outlet: &mut Outlet<impl DatagramSocket>) -> SendOutcome {
        let Some(to) = &self.to else { return SendOutcome::Finished };
        let outcome = self.unsent.send(to.session.carriers(), &to.route, &self.datagrams, outlet);
        self.is_held = outcome == SendOutcome::SocketFull;
        if outcome == SendOutcome::Finished {
            self.to = None;
            self.unsent = SealedPackets::default();
        }
        outcome
    }
}

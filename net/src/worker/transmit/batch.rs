//! Packets that come one by one, sealed and collected until a call's worth is there.

use std::sync::Arc;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::NextHeader;

use super::outlet::{Outlet, SendOutcome};
use super::sealed::SealedPackets;
use crate::carrier::{Carried, EspRoute};
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
struct Batch<S> {
    /// Whose packets these are; none while the batch is empty.
    to: Option<Recipient<S>>,
    datagrams: Vec<u8>,
    /// Those of the datagrams that were not sent yet.
    unsent: SealedPackets,
    /// A socket was full: what is there has to go before anything is added.
    is_held: bool,
}

/// A session and how its packets are sent.
struct Recipient<S> {
    session: Arc<S>,
    route: Arc<EspRoute>,
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
        Self { to: None, datagrams: Vec::with_capacity(MAX_BYTES), unsent: SealedPackets::default(), is_held: false }
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
        route: &Arc<EspRoute>,
        unsealed: Unsealed<'_>,
        outlet: &mut Outlet<impl DatagramSocket>,
    ) -> Result<SendOutcome, DropReason> {
        let Some(batch) = self.place(session, outlet) else { return Ok(SendOutcome::SocketFull) };
        if !batch.takes(route, unsealed.packet) && batch.flush(outlet) == SendOutcome::SocketFull {
            return Ok(SendOutcome::SocketFull);
        }
        batch.push(session, route, unsealed)?;
        if batch.is_complete() {
            // The packet was added. If the socket is full, the batch itself remembers that it is held.
            let (SendOutcome::Finished | SendOutcome::SocketFull) = batch.flush(outlet);
        }
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
    fn place(&mut self, session: &Arc<S>, outlet: &mut Outlet<impl DatagramSocket>) -> Option<&mut Batch<S>> {
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

    /// Whether a packet can go in the same call as what is there.
    fn takes(&self, route: &Arc<EspRoute>, packet: &[u8]) -> bool {
        let sealed = route.sealed_len(packet.len());
        match &self.to {
            None => true,
            Some(to) => {
                !self.is_held
                    && Arc::ptr_eq(&to.route, route)
                    && sealed <= self.unsent.segment
                    && self.datagrams.len() + sealed <= MAX_BYTES
                    && route.ecn_of(packet) == self.unsent.ecn
            }
        }
    }

    /// Whether nothing more can follow.
    fn is_complete(&self) -> bool {
        self.unsent.packets >= MAX_SEGMENTS || self.datagrams.len() < self.unsent.packets * self.unsent.segment
    }

    fn push(&mut self, session: &Arc<S>, route: &Arc<EspRoute>, unsealed: Unsealed<'_>) -> Result<(), DropReason> {
        let Unsealed { packet, next_header } = unsealed;
        let sealed = route.sealed_len(packet.len());
        let start = self.datagrams.len();
        self.datagrams.resize(start + route.prefix_len(), 0);
        self.datagrams.extend_from_slice(packet);
        self.datagrams.resize(start + sealed, 0);
        let slot = self.datagrams.get_mut(start..).expect("the buffer was just made longer");
        let numbered = route.sa.reserve(1, packet.len());
        if let Err(reason) = numbered.and_then(|mut number| number.seal(slot, packet.len(), next_header)) {
            self.datagrams.truncate(start);
            return Err(reason);
        }
        if self.to.is_none() {
            self.to = Some(Recipient { session: Arc::clone(session), route: Arc::clone(route) });
            self.unsent.segment = sealed;
            self.unsent.ecn = route.ecn_of(packet);
        }
        self.unsent.packets += 1;
        self.unsent.inner_bytes += packet.len();
        self.unsent.at.end = self.datagrams.len();
        Ok(())
    }

    fn flush(&mut self, outlet: &mut Outlet<impl DatagramSocket>) -> SendOutcome {
        let Some(to) = &self.to else { return SendOutcome::Finished };
        let outcome = self.unsent.send(to.session.carriers(), &to.route, &self.datagrams, outlet);
        self.is_held = outcome == SendOutcome::SocketFull;
        if outcome == SendOutcome::Finished {
            self.to = None;
            self.datagrams.clear();
            self.unsent = SealedPackets::default();
        }
        outcome
    }
}

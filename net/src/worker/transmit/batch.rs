//! Packets that come one by one, sealed and collected until a call's worth is there.

use std::sync::Arc;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};
use adit_proto::packet::ecn;

use super::outcome::account;
use crate::carrier::{Carriers, EspRoute};
use crate::udp::{EspSocket, MAX_BYTES, MAX_SEGMENTS};

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
    segment: usize,
    count: usize,
    /// Bytes of the packets inside.
    inner: usize,
    ecn: u8,
}

impl<S> Default for Batches<S> {
    fn default() -> Self {
        Self { batches: std::array::from_fn(|_| Batch::default()), next: 0 }
    }
}

impl<S> Default for Batch<S> {
    fn default() -> Self {
        Self { to: None, datagrams: Vec::with_capacity(MAX_BYTES), segment: 0, count: 0, inner: 0, ecn: 0 }
    }
}

impl<S: AsRef<Carriers>> Batches<S> {
    /// Seals a packet and adds it to the batch of its session.
    ///
    /// # Errors
    /// It could not be sealed.
    pub(in crate::worker) fn push(
        &mut self,
        session: &Arc<S>,
        route: &Arc<EspRoute>,
        packet: &[u8],
        next_header: NextHeader,
        sockets: &[Arc<EspSocket>],
    ) -> Result<(), DropReason> {
        let number = self.place(session, sockets);
        let Some(batch) = self.batches.get_mut(number) else { return Err(DropReason::QueueFull) };
        if !batch.takes(route, packet) {
            batch.flush(sockets);
        }
        batch.push(session, route, packet, next_header)?;
        if batch.is_complete() {
            batch.flush(sockets);
        }
        Ok(())
    }

    /// Sends what a session has waiting.
    pub(in crate::worker) fn flush_session(&mut self, session: &Arc<S>, sockets: &[Arc<EspSocket>]) {
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.is_of(session)) {
            batch.flush(sockets);
        }
    }

    /// Sends all that waits.
    pub(in crate::worker) fn flush_all(&mut self, sockets: &[Arc<EspSocket>]) {
        for batch in &mut self.batches {
            batch.flush(sockets);
        }
    }

    /// The batch of a session: its own, a free one, or one that is sent for it.
    fn place(&mut self, session: &Arc<S>, sockets: &[Arc<EspSocket>]) -> usize {
        let own = self.batches.iter().position(|batch| batch.is_of(session));
        if let Some(number) = own.or_else(|| self.batches.iter().position(|batch| batch.to.is_none())) {
            return number;
        }
        let number = self.next % BATCHES;
        self.next = number + 1;
        if let Some(batch) = self.batches.get_mut(number) {
            batch.flush(sockets);
        }
        number
    }
}

impl<S: AsRef<Carriers>> Batch<S> {
    fn is_of(&self, session: &Arc<S>) -> bool {
        self.to.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, session))
    }

    /// Whether a packet can go in the same call as what is there.
    fn takes(&self, route: &Arc<EspRoute>, packet: &[u8]) -> bool {
        let sealed = sealed_len(packet.len());
        match &self.to {
            None => true,
            Some((_, known)) => {
                Arc::ptr_eq(known, route)
                    && sealed <= self.segment
                    && self.datagrams.len() + sealed <= MAX_BYTES
                    && ecn::of_packet(packet) == self.ecn
            }
        }
    }

    /// Whether nothing more can follow.
    fn is_complete(&self) -> bool {
        self.count >= MAX_SEGMENTS || self.datagrams.len() < self.count * self.segment
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
            self.segment = sealed;
            self.ecn = ecn::of_packet(packet);
        }
        self.count += 1;
        self.inner += packet.len();
        Ok(())
    }

    fn flush(&mut self, sockets: &[Arc<EspSocket>]) {
        let Some((session, route)) = self.to.take() else { return };
        let carriers = (*session).as_ref();
        if let Some(socket) = sockets.get(route.origin.socket) {
            let sent = socket.send(route.to, route.origin.local, &self.datagrams, self.segment, self.ecn);
            account(carriers, &sent, self.count, self.inner, self.segment);
        } else {
            for _ in 0..self.count {
                carriers.counters().count_drop(DropReason::SendFailed);
            }
        }
        self.datagrams.clear();
        (self.count, self.inner) = (0, 0);
    }
}

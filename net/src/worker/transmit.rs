//! From the kernel to the peers.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::NextHeader;
use adit_proto::offload::superpacket::Superpacket;
use adit_proto::packet::icmp::TooBigAnswers;
use adit_proto::queue::patience::Patience;

use super::Routing;
use super::ends::{DatagramSocket, PacketQueue};
use crate::carrier::counters::Counters;
use crate::carrier::{Carried, EspRoute};
use crate::packet_buffer::{Arena, PacketBuffer};
use crate::tun::{LARGEST_PACKET, take_apart};
use crate::udp::MAX_BYTES;

pub(super) mod batch;
pub(super) mod outcome;
mod sending;
mod taken;

use batch::Batches;
use outcome::Progress;
use sending::Sending;
use taken::Taken;

/// "Too big" answers of one worker per second, and at once; see [`TooBigAnswers`].
const TOO_BIG_RATE: (u32, u32) = (200, 50);
/// Reads that may fail in a row before the device counts as broken.
const MOST_FAILURES: u32 = 1000;
/// Packets collected for the carrier of a connection before it gets them.
const FOR_CONNECTION: usize = 64;

/// What was read and waits for a socket that is full.
#[expect(clippy::large_enum_variant, reason = "a worker holds one at most, and a box would be an allocation")]
enum Held<S> {
    Superpacket(Sending<S>),
    /// A single packet of that many bytes, finished but for the seal.
    Packet(Arc<S>, Arc<EspRoute>, usize, NextHeader),
}

/// The transmit side of one worker.
pub(super) struct Transmit<S> {
    taken: Taken,
    /// Sealed segments of a superpacket, as many as one call sends.
    sealed: Box<[u8]>,
    batches: Batches<S>,
    held: Option<Held<S>>,
    patience: Patience,
    /// The session of the destination seen last.
    last: Option<(IpAddr, Arc<S>)>,
    /// Packets that go by the carrier of a connection, and the session they are of.
    for_connection: (Option<Arc<S>>, Vec<PacketBuffer>),
    arena: Arena,
    too_big: TooBigAnswers,
    /// Reads that failed in a row.
    failures: u32,
}

impl<S: Carried> Transmit<S> {
    /// `too_big_parts` is [`Routing::TOO_BIG_PARTS`].
    pub(super) fn new(too_big_parts: u32) -> Self {
        let (per_second, burst) = TOO_BIG_RATE;
        let seed = RandomState::new().build_hasher().finish();
        Self {
            taken: Taken::new(),
            sealed: vec![0; MAX_BYTES].into_boxed_slice(),
            batches: Batches::default(),
            held: None,
            patience: Patience::default(),
            last: None,
            for_connection: (None, Vec::with_capacity(FOR_CONNECTION)),
            arena: Arena::new(LARGEST_PACKET),
            too_big: TooBigAnswers::new(per_second, burst, too_big_parts, seed),
            failures: 0,
        }
    }

    /// Takes one packet or superpacket and returns its segments; `None` if there is none, or while one before waits for
    /// a socket that is full. Single packets may wait until [`Self::flush`].
    ///
    /// # Errors
    /// The TUN device is gone.
    pub(super) fn step<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        queue: &impl PacketQueue,
        sockets: &[Arc<impl DatagramSocket>],
    ) -> io::Result<Option<usize>> {
        if self.resume(sockets) == Progress::Waits {
            return Ok(None);
        }
        let len = match self.taken.read(queue) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Some(0)),
            Err(error) => return self.pass_over(routing.counters(), error),
        };
        self.failures = 0;
        let handled = self.handle(routing, queue, sockets, len);
        Ok(Some(handled.unwrap_or_else(|reason| {
            routing.counters().count_drop(reason);
            1
        })))
    }

    /// A read failed: of one packet that the kernel cannot describe (`EINVAL` from `tun_put_user`), which is lost then, or because the
    /// device is gone.
    fn pass_over(&mut self, counters: &Counters, error: io::Error) -> io::Result<Option<usize>> {
        self.failures += 1;
        let is_gone = matches!(error.raw_os_error(), Some(libc::EBADF | libc::EBADFD | libc::EFAULT | libc::ENODEV));
        if is_gone || self.failures >= MOST_FAILURES {
            return Err(error);
        }
        counters.count_drop(DropReason::BadOffload);
        Ok(Some(0))
    }

    /// Sends what is collected; what a full socket refuses stays.
    pub(super) fn flush(&mut self, sockets: &[Arc<impl DatagramSocket>]) {
        if self.batches.flush_all(sockets, &mut self.patience) == Progress::Done && self.held.is_none() {
            self.patience.stop_waiting();
        }
        self.flush_connection();
    }

    /// Whether something waits for a socket that is full, so that nothing is read from the TUN device.
    pub(super) const fn is_waiting(&self) -> bool {
        self.patience.is_waiting()
    }

    /// Sends what waits, in the order it was read.
    fn resume(&mut self, sockets: &[Arc<impl DatagramSocket>]) -> Progress {
        if !self.patience.is_waiting() {
            return Progress::Done;
        }
        let mut progress = self.batches.resume(sockets, &mut self.patience);
        if progress == Progress::Done
            && let Some(held) = self.held.take()
        {
            progress = self.send_held(held, sockets);
        }
        if progress == Progress::Done {
            self.patience.stop_waiting();
        }
        progress
    }

    fn send_held(&mut self, mut held: Held<S>, sockets: &[Arc<impl DatagramSocket>]) -> Progress {
        let Self { taken, sealed, batches, patience, .. } = self;
        let progress = match &mut held {
            Held::Superpacket(sending) => sending.advance(taken, sealed, sockets, patience),
            Held::Packet(session, route, len, next_header) => {
                let pushed = batches.push(session, route, taken.packet(*len), *next_header, sockets, patience);
                pushed.unwrap_or_else(|reason| {
                    session.carriers().counters().count_drop(reason);
                    Progress::Done
                })
            }
        };
        if progress == Progress::Waits {
            self.held = Some(held);
        }
        progress
    }

    /// Lets go of sessions, which may end while nothing is sent.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    fn handle<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        queue: &impl PacketQueue,
        sockets: &[Arc<impl DatagramSocket>],
        len: usize,
    ) -> Result<usize, DropReason> {
        let superpacket = Superpacket::parse(self.taken.header(), self.taken.packet(len), len)?;
        let Some(session) = self.session_of(routing, &superpacket) else {
            routing.counters().count_drops(superpacket.segments, DropReason::NoRoute);
            return Ok(superpacket.segments);
        };
        let carriers = session.carriers();
        let sent = match &*carriers.esp() {
            Some(route) => self.send_by_esp(&session, route, queue, sockets, &superpacket),
            None if carriers.is_closed() => Err(DropReason::NotConnected),
            None => self.send_by_connection(&session, queue, sockets, &superpacket),
        };
        if let Err(reason) = sent {
            carriers.counters().count_drops(superpacket.segments, reason);
        }
        Ok(superpacket.segments)
    }

    fn session_of<R: Routing<Session = S>>(&mut self, routing: &R, superpacket: &Superpacket) -> Option<Arc<S>> {
        let destination = superpacket.ip.destination;
        if let Some((known, session)) = &self.last
            && *known == destination
            && !session.carriers().is_closed()
        {
            return Some(Arc::clone(session));
        }
        let session = routing.session_of(&superpacket.ip)?;
        self.last = Some((destination, Arc::clone(&session)));
        Some(session)
    }

    fn send_by_esp(
        &mut self,
        session: &Arc<S>,
        route: &Arc<EspRoute>,
        queue: &impl PacketQueue,
        sockets: &[Arc<impl DatagramSocket>],
        superpacket: &Superpacket,
    ) -> Result<(), DropReason> {
        if superpacket.largest_packet() > usize::from(route.mtu) {
            return self.refuse_too_big(queue, superpacket.ip.len, route.mtu);
        }
        self.flush_connection();
        if superpacket.segments > 1 {
            return self.send_segments(session, route, sockets, superpacket);
        }
        let vouched = route.vouched && superpacket.may_vouch();
        let len = superpacket.ip.len;
        let packet = self.taken.packet_mut(len);
        if let Some(partial) = superpacket.partial.filter(|_| !vouched) {
            partial.complete(packet)?;
        }
        let next_header = NextHeader::of_packet(packet, vouched).ok_or(DropReason::BadVersion)?;
        if self.batches.push(session, route, packet, next_header, sockets, &mut self.patience)? == Progress::Waits {
            self.held = Some(Held::Packet(Arc::clone(session), Arc::clone(route), len, next_header));
        }
        Ok(())
    }

    /// Seals the segments of a superpacket and sends them, behind what was read earlier.
    fn send_segments(
        &mut self,
        session: &Arc<S>,
        route: &Arc<EspRoute>,
        sockets: &[Arc<impl DatagramSocket>],
        superpacket: &Superpacket,
    ) -> Result<(), DropReason> {
        let Self { taken, sealed, batches, patience, .. } = self;
        let mut sending = Sending::new(Arc::clone(session), Arc::clone(route), superpacket, taken)?;
        let mut progress = batches.flush_session(session, sockets, patience);
        if progress == Progress::Done {
            progress = sending.advance(taken, sealed, sockets, patience);
        }
        if progress == Progress::Waits {
            self.held = Some(Held::Superpacket(sending));
        }
        Ok(())
    }

    /// Hands a superpacket's packets, with complete checksums, to the carrier of the connection.
    fn send_by_connection(
        &mut self,
        session: &Arc<S>,
        queue: &impl PacketQueue,
        sockets: &[Arc<impl DatagramSocket>],
        superpacket: &Superpacket,
    ) -> Result<(), DropReason> {
        if !self.for_connection.0.as_ref().is_some_and(|known| Arc::ptr_eq(known, session)) {
            self.flush_connection();
            self.for_connection.0 = Some(Arc::clone(session));
        }
        // What is collected was read earlier, but what finds its socket full is overtaken: this is another path anyway.
        let (Progress::Done | Progress::Waits) = self.batches.flush_session(session, sockets, &mut self.patience);
        if let Err(mtu) = session.carriers().connection().takes(superpacket.largest_packet()) {
            return self.refuse_too_big(queue, superpacket.ip.len, mtu);
        }
        let header = self.taken.header();
        take_apart(header, self.taken.packet_mut(superpacket.ip.len), &mut self.arena, &mut self.for_connection.1)?;
        if self.for_connection.1.len() >= FOR_CONNECTION {
            self.flush_connection();
        }
        Ok(())
    }

    fn flush_connection(&mut self) {
        if let (Some(session), packets) = (self.for_connection.0.take(), &mut self.for_connection.1) {
            let carriers = session.carriers();
            carriers.connection().send(packets);
        }
    }

    /// Tells the sender of a packet what fits (RFC 1191, RFC 4443 section 3.2); it is dropped.
    fn refuse_too_big(&mut self, queue: &impl PacketQueue, len: usize, mtu: u16) -> Result<(), DropReason> {
        if let Some(answer) = self.too_big.answer(self.taken.packet(len), mtu, Instant::now()) {
            queue.send(&[answer]);
        }
        Err(DropReason::TooBig)
    }
}

//! From the kernel to the peers.

pub(super) mod batch;
mod last_read;
pub(super) mod outlet;
mod sealed;
mod sending;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::NextHeader;
use adit_proto::offload::superpacket::Superpacket;
use adit_proto::packet::icmp::TooBigAnswers;

use super::Routing;
use crate::carrier::counters::Counters;
use crate::carrier::{Carried, DatagramRoute};
use crate::packet_buffer::{Arena, PacketBuffer};
use crate::tun::{LARGEST_PACKET, PacketQueue, take_apart};
use crate::udp::DatagramSocket;

use batch::{Batches, Unsealed};
use last_read::LastRead;
use outlet::{Outlet, SendOutcome};
use sending::Sending;

/// "Too big" answers of one worker per second, and at once; see [`TooBigAnswers`].
const TOO_BIG_RATE: (u32, u32) = (200, 50);
/// Reads that may fail in a row before the device counts as broken.
const MOST_FAILURES: u32 = 1000;
/// Packets collected for the carrier of a connection before it gets them.
const FOR_CONNECTION: usize = 64;

/// What was read last and could not be sent, because a socket is full.
#[expect(clippy::large_enum_variant, reason = "a worker has one at most, and a box would be an allocation")]
enum Unsent<S> {
    Superpacket(Sending<S>),
    /// A single packet of `len` bytes that is complete and only has to be sealed.
    Packet {
        session: Arc<S>,
        route: Arc<DatagramRoute>,
        len: usize,
        next_header: NextHeader,
    },
}

/// The session that the last packet went to.
struct LastDestination<S> {
    address: IpAddr,
    session: Arc<S>,
}

/// Packets that go by the carrier of a connection. All are of one session.
struct QueueForConnection<S> {
    /// Whose packets these are; none while there are no packets.
    session: Option<Arc<S>>,
    packets: Vec<PacketBuffer>,
}

impl<S: Carried> QueueForConnection<S> {
    fn new() -> Self {
        Self { session: None, packets: Vec::with_capacity(FOR_CONNECTION) }
    }

    /// Makes it the queue of this session; the packets of another session are sent before.
    fn begin(&mut self, session: &Arc<S>) {
        if !self.session.as_ref().is_some_and(|known| Arc::ptr_eq(known, session)) {
            self.flush();
            self.session = Some(Arc::clone(session));
        }
    }

    /// Hands all packets to the carrier.
    fn flush(&mut self) {
        if let Some(session) = self.session.take() {
            session.carriers().connection().send(&mut self.packets);
        }
    }
}

/// The transmit side of one worker.
pub(super) struct Transmit<S, D> {
    read: LastRead,
    batches: Batches<S>,
    unsent: Option<Unsent<S>>,
    outlet: Outlet<D>,
    last: Option<LastDestination<S>>,
    for_connection: QueueForConnection<S>,
    arena: Arena,
    too_big: TooBigAnswers,
    /// Reads that failed in a row.
    failures: u32,
}

impl<S: Carried, D: DatagramSocket> Transmit<S, D> {
    /// `too_big_parts` is [`Routing::TOO_BIG_PARTS`].
    pub(super) fn new(too_big_parts: u32, sockets: Vec<Arc<D>>) -> Self {
        let (per_second, burst) = TOO_BIG_RATE;
        let seed = RandomState::new().build_hasher().finish();
        Self {
            read: LastRead::new(),
            batches: Batches::default(),
            unsent: None,
            outlet: Outlet::new(sockets),
            last: None,
            for_connection: QueueForConnection::new(),
            arena: Arena::new(LARGEST_PACKET),
            too_big: TooBigAnswers::new(per_second, burst, too_big_parts, seed),
            failures: 0,
        }
    }

    /// Has another clock say how long a full socket was waited for.
    #[cfg(test)]
    pub(super) fn set_clock(&mut self, clock: fn() -> Instant) {
        self.outlet.clock = clock;
    }

    /// The sockets that datagrams leave by.
    pub(super) fn sockets(&self) -> &[Arc<D>] {
        &self.outlet.sockets
    }

    /// Takes one packet or superpacket and returns its segments; `None` if there is none, or while one before waits for
    /// a socket that is full. What does not fill a call may wait until [`Self::flush`].
    ///
    /// # Errors
    /// The TUN device is gone.
    pub(super) fn step<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        queue: &impl PacketQueue,
    ) -> io::Result<Option<usize>> {
        if self.resume() == SendOutcome::SocketFull {
            return Ok(None);
        }
        let len = match self.read.read(queue) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Some(0)),
            Err(error) => return self.pass_over(routing.counters(), error),
        };
        self.failures = 0;
        let handled = self.handle(routing, queue, len);
        Ok(Some(handled.unwrap_or_else(|reason| {
            routing.counters().count_drop(reason);
            1
        })))
    }

    /// A read failed: of one packet that the kernel cannot describe (`EINVAL` from `tun_put_user`), which is lost then,
    /// or because the device is gone.
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
    pub(super) fn flush(&mut self) {
        if self.batches.flush_all(&mut self.outlet) == SendOutcome::Finished && self.unsent.is_none() {
            self.outlet.patience.stop_waiting();
        }
        self.for_connection.flush();
    }

    /// Whether something waits for a socket that is full, so that nothing is read from the TUN device.
    pub(super) const fn is_waiting(&self) -> bool {
        self.outlet.patience.is_waiting()
    }

    /// Sends what waits, in the order it was read.
    fn resume(&mut self) -> SendOutcome {
        if !self.outlet.patience.is_waiting() {
            return SendOutcome::Finished;
        }
        let mut outcome = self.batches.resume(&mut self.outlet);
        if outcome == SendOutcome::Finished
            && let Some(unsent) = self.unsent.take()
        {
            outcome = self.send_again(unsent);
        }
        if outcome == SendOutcome::Finished {
            self.outlet.patience.stop_waiting();
        }
        outcome
    }

    /// Tries what was read last again.
    fn send_again(&mut self, mut unsent: Unsent<S>) -> SendOutcome {
        let Self { read, batches, outlet, .. } = self;
        let outcome = match &mut unsent {
            Unsent::Superpacket(sending) => sending.advance(read, batches, outlet),
            Unsent::Packet { session, route, len, next_header } => {
                let unsealed = Unsealed { packet: read.packet(*len), next_header: *next_header };
                batches.push(session, route, unsealed, outlet).unwrap_or_else(|reason| {
                    session.carriers().counters().count_drop(reason);
                    SendOutcome::Finished
                })
            }
        };
        if outcome == SendOutcome::SocketFull {
            self.unsent = Some(unsent);
        }
        outcome
    }

    /// Lets go of sessions, which may end while nothing is sent.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    fn handle<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        queue: &impl PacketQueue,
        len: usize,
    ) -> Result<usize, DropReason> {
        let superpacket = Superpacket::parse(self.read.header(), self.read.packet(len), len)?;
        let Some(session) = self.session_of(routing, &superpacket) else {
            routing.counters().count_drops(superpacket.segments, DropReason::NoRoute);
            return Ok(superpacket.segments);
        };
        let carriers = session.carriers();
        if let Err(reason) = routing.admit_to(&session, superpacket.ip.len) {
            carriers.counters().count_drops(superpacket.segments, reason);
            return Ok(superpacket.segments);
        }
        let sent = match &*carriers.route() {
            Some(route) => self.send_in_datagrams(&session, route, queue, &superpacket),
            None if carriers.is_closed() => Err(DropReason::NotConnected),
            None => self.send_by_connection(&session, queue, &superpacket),
        };
        if let Err(reason) = sent {
            carriers.counters().count_drops(superpacket.segments, reason);
        }
        Ok(superpacket.segments)
    }

    fn session_of<R: Routing<Session = S>>(&mut self, routing: &R, superpacket: &Superpacket) -> Option<Arc<S>> {
        let destination = superpacket.ip.destination;
        if let Some(last) = &self.last
            && last.address == destination
            && !last.session.carriers().is_closed()
        {
            return Some(Arc::clone(&last.session));
        }
        let session = routing.session_of(&superpacket.ip)?;
        self.last = Some(LastDestination { address: destination, session: Arc::clone(&session) });
        Some(session)
    }

    fn send_in_datagrams(
        &mut self,
        session: &Arc<S>,
        route: &Arc<DatagramRoute>,
        queue: &impl PacketQueue,
        superpacket: &Superpacket,
    ) -> Result<(), DropReason> {
        if superpacket.largest_packet() > usize::from(route.mtu) {
            return self.refuse_too_big(queue, superpacket.ip.len, route.mtu);
        }
        // What is collected for a connection was read earlier.
        self.for_connection.flush();
        if superpacket.segments > 1 {
            return self.send_segments(session, route, superpacket);
        }
        let vouched = route.vouched && superpacket.may_vouch();
        let len = superpacket.ip.len;
        let packet = self.read.packet_mut(len);
        if let Some(partial) = superpacket.partial.filter(|_| !vouched) {
            partial.complete(packet)?;
        }
        let next_header = NextHeader::of_packet(packet, vouched).ok_or(DropReason::BadVersion)?;
        let unsealed = Unsealed { packet, next_header };
        if self.batches.push(session, route, unsealed, &mut self.outlet)? == SendOutcome::SocketFull {
            let (session, route) = (Arc::clone(session), Arc::clone(route));
            self.unsent = Some(Unsent::Packet { session, route, len, next_header });
        }
        Ok(())
    }

    /// Seals the segments of a superpacket behind what was read earlier, and sends them as far as they fill calls.
    fn send_segments(
        &mut self,
        session: &Arc<S>,
        route: &Arc<DatagramRoute>,
        superpacket: &Superpacket,
    ) -> Result<(), DropReason> {
        let Self { read, batches, outlet, .. } = self;
        let mut sending = Sending::new(Arc::clone(session), Arc::clone(route), superpacket, read)?;
        if sending.advance(read, batches, outlet) == SendOutcome::SocketFull {
            self.unsent = Some(Unsent::Superpacket(sending));
        }
        Ok(())
    }

    /// Hands a superpacket's packets, with complete checksums, to the carrier of the connection.
    fn send_by_connection(
        &mut self,
        session: &Arc<S>,
        queue: &impl PacketQueue,
        superpacket: &Superpacket,
    ) -> Result<(), DropReason> {
        self.for_connection.begin(session);
        // What is collected was read earlier, but what finds its socket full is overtaken: this is another path anyway.
        let (SendOutcome::Finished | SendOutcome::SocketFull) = self.batches.flush_session(session, &mut self.outlet);
        if let Err(mtu) = session.carriers().connection().takes(superpacket.largest_packet()) {
            return self.refuse_too_big(queue, superpacket.ip.len, mtu);
        }
        let (header, packet) = (self.read.header(), self.read.packet_mut(superpacket.ip.len));
        take_apart(header, packet, &mut self.arena, &mut self.for_connection.packets)?;
        if self.for_connection.packets.len() >= FOR_CONNECTION {
            self.for_connection.flush();
        }
        Ok(())
    }

    /// Tells the sender of a packet what fits (RFC 1191, RFC 4443 section 3.2); it is dropped.
    fn refuse_too_big(&mut self, queue: &impl PacketQueue, len: usize, mtu: u16) -> Result<(), DropReason> {
        if let Some(answer) = self.too_big.answer(self.read.packet(len), mtu, Instant::now()) {
            queue.send(&[answer]);
        }
        Err(DropReason::TooBig)
    }
}

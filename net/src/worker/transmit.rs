//! From the kernel to the peers.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN};
use adit_proto::offload::MAX_SUPERPACKET_LEN;
use adit_proto::offload::split::{Checksums, Split};
use adit_proto::offload::superpacket::Superpacket;
use adit_proto::packet::ecn;
use adit_proto::packet::icmp::TooBigAnswers;

use super::Routing;
use crate::carrier::{Carriers, EspRoute};
use crate::counters::Counters;
use crate::packet_buffer::{Arena, PacketBuffer};
use crate::tun::{LARGEST_PACKET, Queue, take_apart};
use crate::udp::EspSocket;

pub(super) mod batch;
mod outcome;
mod slots;

use batch::Batches;
use outcome::account;
use slots::Slots;

/// "Too big" answers per second, and at once.
const TOO_BIG_RATE: (u32, u32) = (200, 50);
/// Reads that may fail in a row before the device counts as broken.
const MOST_FAILURES: u32 = 1000;
/// Packets collected for the carrier of a connection before it gets them.
const FOR_CONNECTION: usize = 64;

/// How the segments of one superpacket are sealed.
struct Sealing {
    split: Split,
    /// They were read into their places.
    in_place: bool,
    checksums: Checksums,
    next_header: NextHeader,
    /// Bytes of the largest.
    largest: usize,
}

/// The transmit side of one worker.
pub(super) struct Transmit<S> {
    slots: Slots,
    /// A superpacket in one piece, where it was not read into its place.
    linear: Box<[u8]>,
    batches: Batches<S>,
    /// The session of the destination seen last.
    last: Option<(IpAddr, Arc<S>)>,
    /// Packets that go by the carrier of a connection, and the session they are of.
    for_connection: (Option<Arc<S>>, Vec<PacketBuffer>),
    arena: Arena,
    too_big: TooBigAnswers,
    /// Reads that failed in a row.
    failures: u32,
}

impl<S: AsRef<Carriers> + Send + Sync + 'static> Transmit<S> {
    pub(super) fn new() -> Self {
        Self {
            slots: Slots::new(),
            linear: vec![0; MAX_SUPERPACKET_LEN].into_boxed_slice(),
            batches: Batches::default(),
            last: None,
            for_connection: (None, Vec::with_capacity(FOR_CONNECTION)),
            arena: Arena::new(LARGEST_PACKET),
            too_big: TooBigAnswers::new(TOO_BIG_RATE.0, TOO_BIG_RATE.1),
            failures: 0,
        }
    }

    /// Takes one packet or superpacket and returns its segments; `None` if there is none. Single packets may wait until
    /// [`Self::flush`].
    ///
    /// # Errors
    /// The TUN device is gone.
    pub(super) fn step<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        queue: &Queue,
        sockets: &[Arc<EspSocket>],
    ) -> io::Result<Option<usize>> {
        let len = match self.slots.read(queue) {
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

    /// Sends what waits.
    pub(super) fn flush(&mut self, sockets: &[Arc<EspSocket>]) {
        self.batches.flush_all(sockets);
        self.flush_connection();
    }

    /// Lets go of sessions, which may end while nothing is sent.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    fn handle<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        queue: &Queue,
        sockets: &[Arc<EspSocket>],
        len: usize,
    ) -> Result<usize, DropReason> {
        let superpacket = match Superpacket::parse(self.slots.header(), self.slots.head(len), len) {
            // Headers that go beyond the first slot: looked at again in one piece.
            Err(_) if len > self.slots.head(len).len() => {
                Superpacket::parse(self.slots.header(), self.slots.gather(len, &mut self.linear), len)?
            }
            parsed => parsed?,
        };
        let Some(session) = self.session_of(routing, &superpacket) else {
            count_drops(routing.counters(), superpacket.segments, DropReason::NoRoute);
            return Ok(superpacket.segments);
        };
        let carriers = (*session).as_ref();
        let sent = match &*carriers.esp() {
            Some(route) => self.send_by_esp(&session, route, queue, sockets, &superpacket),
            None if carriers.is_closed() => Err(DropReason::NotConnected),
            None => self.send_by_connection(&session, queue, sockets, &superpacket),
        };
        if let Err(reason) = sent {
            count_drops(carriers.counters(), superpacket.segments, reason);
        }
        Ok(superpacket.segments)
    }

    fn session_of<R: Routing<Session = S>>(&mut self, routing: &R, superpacket: &Superpacket) -> Option<Arc<S>> {
        let destination = superpacket.ip.destination;
        if let Some((known, session)) = &self.last
            && *known == destination
            && !(**session).as_ref().is_closed()
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
        queue: &Queue,
        sockets: &[Arc<EspSocket>],
        superpacket: &Superpacket,
    ) -> Result<(), DropReason> {
        if largest(superpacket) > usize::from(route.mtu) {
            return self.refuse_too_big(queue, superpacket.ip.len, route.mtu);
        }
        self.flush_connection();
        if superpacket.segments > 1 {
            // What waits was read earlier.
            self.batches.flush_session(session, sockets);
            return self.send_segments(session, route, sockets, superpacket);
        }
        let vouched = route.vouched && superpacket.may_vouch();
        let packet = self.slots.whole_mut(superpacket.ip.len, &mut self.linear);
        if let Some(partial) = superpacket.partial.filter(|_| !vouched) {
            partial.complete(packet)?;
        }
        let next_header = NextHeader::of_packet(packet, vouched).ok_or(DropReason::BadVersion)?;
        self.batches.push(session, route, packet, next_header, sockets)
    }

    /// Seals the segments of a superpacket, as many at a time as fit one call, and sends them.
    fn send_segments(
        &mut self,
        session: &Arc<S>,
        route: &EspRoute,
        sockets: &[Arc<EspSocket>],
        superpacket: &Superpacket,
    ) -> Result<(), DropReason> {
        let socket = sockets.get(route.origin.socket).ok_or(DropReason::SendFailed)?;
        let in_place = self.slots.holds(superpacket);
        let len = superpacket.ip.len;
        let head = if in_place { self.slots.head(len) } else { self.slots.gather(len, &mut self.linear) };
        let vouched = route.vouched && superpacket.may_vouch();
        let sealing = Sealing {
            split: Split::new(superpacket, head)?,
            in_place,
            checksums: if vouched { Checksums::Partial } else { Checksums::Full },
            next_header: NextHeader::of_packet(head, vouched).ok_or(DropReason::BadVersion)?,
            largest: largest(superpacket),
        };
        let outer_ecn = ecn::of_packet(head);
        if !in_place {
            self.slots.reshape(superpacket.shape());
        }
        let mut next = 0;
        while next < superpacket.segments {
            let packets = self.slots.at_once().min(superpacket.segments - next);
            let first_slot = if in_place { next } else { 0 };
            let (bytes, inner) = match self.seal(&sealing, route, next..next + packets, first_slot) {
                Ok(sealed) => sealed,
                Err(reason) => {
                    // What went before is accounted for.
                    count_drops((**session).as_ref().counters(), superpacket.segments - next, reason);
                    return Ok(());
                }
            };
            let datagrams = self.slots.datagrams(first_slot, bytes);
            let sent = socket.send(route.to, route.origin.local, datagrams, self.slots.stride(), outer_ecn);
            account((**session).as_ref(), &sent, packets, inner, self.slots.stride());
            next += packets;
        }
        Ok(())
    }

    /// Seals some segments into slots from `slot` on: where they lie, or where they are copied to. Returns the bytes of the
    /// datagrams, and of the packets in them.
    fn seal(
        &mut self,
        sealing: &Sealing,
        route: &EspRoute,
        segments: Range<usize>,
        slot: usize,
    ) -> Result<(usize, usize), DropReason> {
        let Sealing { split, in_place, checksums, next_header, largest } = sealing;
        let packets = u32::try_from(segments.len()).unwrap_or(u32::MAX);
        let mut numbers = route.sa.reserve(packets, *largest)?;
        let (mut bytes, mut inner) = (0, 0);
        for (slot, segment) in (slot..).zip(segments.filter_map(|index| split.segment(index))) {
            let slot = self.slots.slot_mut(slot);
            let packet = slot.get_mut(PREFIX_LEN..).ok_or(DropReason::TooBig)?;
            if *in_place {
                split.write_header(&segment, packet)?;
                if *checksums == Checksums::Full {
                    split.complete(&segment, packet)?;
                }
            } else {
                split.write_packet(&segment, &self.linear, packet, *checksums)?;
            }
            bytes += numbers.seal(slot, segment.len(), *next_header)?;
            inner += segment.len();
        }
        Ok((bytes, inner))
    }

    /// Hands a superpacket's packets, with complete checksums, to the carrier of the connection.
    fn send_by_connection(
        &mut self,
        session: &Arc<S>,
        queue: &Queue,
        sockets: &[Arc<EspSocket>],
        superpacket: &Superpacket,
    ) -> Result<(), DropReason> {
        if !self.for_connection.0.as_ref().is_some_and(|known| Arc::ptr_eq(known, session)) {
            self.flush_connection();
            self.for_connection.0 = Some(Arc::clone(session));
        }
        // What waits was read earlier.
        self.batches.flush_session(session, sockets);
        let mtu = (**session).as_ref().connection().mtu();
        if largest(superpacket) > usize::from(mtu) {
            return self.refuse_too_big(queue, superpacket.ip.len, mtu);
        }
        let header = self.slots.header();
        self.slots.gather(superpacket.ip.len, &mut self.linear);
        let packet = self.linear.get_mut(..superpacket.ip.len).ok_or(DropReason::BadLength)?;
        take_apart(header, packet, &mut self.arena, &mut self.for_connection.1)?;
        if self.for_connection.1.len() >= FOR_CONNECTION {
            self.flush_connection();
        }
        Ok(())
    }

    fn flush_connection(&mut self) {
        if let (Some(session), packets) = (self.for_connection.0.take(), &mut self.for_connection.1) {
            let carriers = (*session).as_ref();
            carriers.connection().send(packets, carriers.counters());
        }
    }

    /// Tells the sender of a packet what fits (RFC 1191, RFC 4443 section 3.2); it is dropped.
    fn refuse_too_big(&mut self, queue: &Queue, len: usize, mtu: u16) -> Result<(), DropReason> {
        let packet = self.slots.gather(len, &mut self.linear);
        if let Some(answer) = self.too_big.answer(packet, mtu, Instant::now()) {
            queue.send(&[answer]);
        }
        Err(DropReason::TooBig)
    }
}

fn count_drops(counters: &Counters, packets: usize, reason: DropReason) {
    for _ in 0..packets {
        counters.count_drop(reason);
    }
}

/// Bytes of the largest packet in a superpacket.
fn largest(superpacket: &Superpacket) -> usize {
    superpacket.ip.len.min(superpacket.header_len.saturating_add(superpacket.gso_size))
}

//! From the peers to the kernel.

mod associations;
mod table;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN};
use adit_proto::esp::probe::Probe;
use adit_proto::offload::coalesce::{Coalescer, Limits};
use adit_proto::packet::{IpPacket, ecn};
use adit_proto::queue::standing_queue::{StandingQueue, Verdict};
use adit_proto::sealing::replay::Arrival;

use super::mailbox::{Command, Mailbox};
use super::{MAX_SOCKETS, Report, Routing};
use crate::carrier::{Carried, Origin};
use crate::tun::{Lost, PacketQueue, write_runs};
use crate::udp::{DatagramSocket, Message};

use associations::{Associations, Inside, is_dtls};
use table::{Entry, Table};

/// Bytes of one message: UDP_GRO hands over no more.
const MESSAGE: usize = 65_535;
/// Room for messages that are held until their packets are written together. A sender fills its calls regardless of
/// where its superpackets end, so most messages begin in the middle of one: what they hold of it joins only across
/// messages. Other senders, such as openconnect, make a call for each datagram, and have no superpackets at all.
const ROOM: usize = 4 * MESSAGE;
/// Messages that are held at most, however short they are.
const HELD: usize = 64;
/// Packets collected before they are written: what the coalescer takes.
const BATCH: usize = 512;
/// How often at most the control side hears of packets without probes from an address that is not the proven one.
const REPORT_PAUSE: Duration = Duration::from_millis(5);

/// The receive side of one worker.
pub(super) struct Receive<S> {
    /// The messages whose packets were not written yet, one behind the other.
    buffer: Box<[u8]>,
    /// Where each of them ends, and who sent it.
    held: Vec<(usize, SocketAddr)>,
    coalescer: Coalescer,
    /// How many more packets the coalescer takes.
    room: usize,
    table: Table<u32, Entry<S>>,
    associations: Associations<S>,
    /// One in front of each socket.
    queues: [StandingQueue; MAX_SOCKETS],
    /// The next packet is to tell its sender of congestion.
    sign_due: bool,
}

/// What the receive side works with and the worker owns.
pub(super) struct Surroundings<'a, R: Routing, Q> {
    pub(super) routing: &'a R,
    pub(super) mailbox: &'a Mailbox<R::Session>,
    pub(super) queue: &'a Q,
}

/// Where a message came from.
#[derive(Clone, Copy)]
struct Source {
    address: SocketAddr,
    /// Where it arrived.
    origin: Origin,
    ecn: u8,
}

/// Consecutive datagrams of one message that have the same SPI, and what they brought. Records of DTLS have type,
/// version and the beginning of the epoch where others have the SPI: those of one run are of one type.
struct Run {
    spi: u32,
    /// The place of the SA in the table, or of the association among those.
    place: usize,
    source: Source,
    /// Datagrams without probes that were authenticated.
    datagrams: u64,
    /// Bytes of these datagrams.
    len: usize,
    /// Whether one of them has the highest sequence number so far.
    newest: bool,
    /// Datagrams that came after one that was sent later.
    late: u64,
    /// Packets that may pass.
    packets: u64,
    /// Bytes of these packets.
    bytes: u64,
}

impl Run {
    const fn new(spi: u32, place: usize, source: Source) -> Self {
        Self { spi, place, source, datagrams: 0, len: 0, newest: false, late: 0, packets: 0, bytes: 0 }
    }
}

impl<S: Carried> Receive<S> {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; ROOM].into_boxed_slice(),
            held: Vec::with_capacity(HELD),
            coalescer: Coalescer::new(Limits { packets: BATCH, ..Limits::default() }),
            room: BATCH,
            table: Table::default(),
            associations: Associations::default(),
            queues: Default::default(),
            sign_due: false,
        }
    }

    /// Does what the control side asked for.
    pub(super) fn apply(&mut self, commands: Vec<Command<S>>) {
        for command in commands {
            match command {
                Command::Install(installation) => {
                    self.table.insert(installation.sa.spi().get(), Entry::new(*installation));
                }
                Command::Retire(spi) => self.table.remove(&spi.get()),
                Command::Associate(association) => self.associations.insert(*association),
                Command::Dissociate(peer, records) => self.associations.remove(peer, &records),
                Command::HandOver(strays) => self.associations.set_strays(strays),
            }
        }
    }

    /// Takes one message from the socket with this number and returns how many datagrams it had; `None` if there was
    /// none. Its packets may wait for those of the next, or for [`Self::flush`].
    pub(super) fn step<R: Routing<Session = S>>(
        &mut self,
        around: &Surroundings<'_, R, impl PacketQueue>,
        number: usize,
        socket: &impl DatagramSocket,
    ) -> Option<usize> {
        if self.held.len() >= HELD || ROOM - self.held_len() < MESSAGE {
            self.flush(around);
        }
        let start = self.held_len();
        let free = self.buffer.get_mut(start..).expect("messages end within the buffer");
        let message = match socket.receive(free) {
            Ok(message) => message,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Some(0),
            // Nothing is there, or an error of an earlier send is told. In the latter case the next turn finds the
            // message.
            Err(_) => return None,
        };
        let counters = around.routing.counters();
        let datagrams = message.len.div_ceil(message.segment.max(1));
        let queue = self.queues.get_mut(number).expect("no worker has more than MAX_SOCKETS sockets");
        let verdict = queue.judge(message.len, message.waited, Instant::now);
        self.sign_due = verdict == Verdict::Mark;
        if message.truncated {
            counters.count_drop(DropReason::Truncated);
        } else if verdict == Verdict::Discard {
            counters.count_drops(datagrams, DropReason::QueueFull);
        } else {
            self.held.push((start + message.len, message.from));
            self.handle_message(around, number, start, &message);
        }
        Some(datagrams)
    }

    /// Bytes of the messages that are held.
    fn held_len(&self) -> usize {
        self.held.last().map_or(0, |(end, _)| *end)
    }

    fn handle_message<R: Routing<Session = S>>(
        &mut self,
        around: &Surroundings<'_, R, impl PacketQueue>,
        number: usize,
        mut start: usize,
        message: &Message,
    ) {
        let counters = around.routing.counters();
        let origin = Origin { socket: number, local: message.local };
        let source = Source { address: message.from, origin, ecn: message.ecn };
        if message.len == 0 {
            counters.count_drop(DropReason::Truncated);
        }
        let mut current: Option<Run> = None;
        let end = start + message.len;
        while start < end {
            let at = start..end.min(start.saturating_add(message.segment.max(1)));
            start = at.end;
            // The SA is looked up once for all datagrams of a run.
            let spi = spi_at(&self.buffer, &at);
            if current.as_ref().map(|run| run.spi) != spi {
                self.settle(current.take());
                current =
                    spi.and_then(|spi| Some(Run::new(spi, self.find(spi, source.address, around.mailbox)?, source)));
            }
            let Some(run) = &mut current else {
                let reason = if spi.is_none() { DropReason::Truncated } else { DropReason::UnknownSpi };
                counters.count_drop(reason);
                continue;
            };
            // The coalescer takes no more than `BATCH` packets at a time.
            if self.room == 0 {
                self.write(around);
            }
            self.room -= 1;
            self.handle_datagram(around.routing, at, run);
        }
        self.settle(current);
    }

    /// The place of an SA. One that is being installed right now counts: its peer may already send.
    fn find(&mut self, spi: u32, from: SocketAddr, mailbox: &Mailbox<S>) -> Option<usize> {
        if let Some(place) = self.table.place(&spi) {
            return Some(place);
        }
        if is_dtls(spi) {
            if self.associations.with(from).is_none() {
                self.apply(mailbox.take());
            }
            // What is of no association is for the control side.
            return Some(self.associations.place(from));
        }
        let commands = mailbox.take();
        if commands.is_empty() {
            return None;
        }
        self.apply(commands);
        self.table.place(&spi)
    }

    fn handle_datagram<R: Routing<Session = S>>(&mut self, routing: &R, at: Range<usize>, run: &mut Run) {
        if is_dtls(run.spi) {
            if let Err(reason) = self.open_record(routing, at, run) {
                let known = self.associations.at(run.place);
                let counters = known.map_or_else(|| routing.counters(), |known| known.session.carriers().counters());
                counters.count_drop(reason);
            }
            return;
        }
        let handled = self.open(routing, at, run);
        if let (Err(reason), Some(entry)) = (handled, self.table.entry(run.place)) {
            entry.session.carriers().counters().count_drop(reason);
        }
    }

    /// Opens one datagram and hands what is in it to the coalescer, or to the control side if it is a probe.
    fn open<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        at: Range<usize>,
        run: &mut Run,
    ) -> Result<(), DropReason> {
        let entry = self.table.entry_mut(run.place).ok_or(DropReason::UnknownSpi)?;
        if entry.session.carriers().is_closed() {
            return Err(DropReason::NotConnected);
        }
        let datagram = self.buffer.get_mut(at.clone()).ok_or(DropReason::Truncated)?;
        let opened = entry.sa.open(datagram)?;
        let newest = opened.arrival == Arrival::Newest;
        run.late += u64::from(!newest);
        let inside = opened.range();
        let inside = at.start + inside.start..at.start + inside.end;
        let packet = self.buffer.get_mut(inside.clone()).ok_or(DropReason::Truncated)?;
        let is_dummy = opened.next_header == NextHeader::Nothing;
        if let Some(probe) = Probe::decode(packet).filter(|_| is_dummy) {
            // Its bytes are reported here and nowhere else: as many may be sent to an address that is not proven.
            entry.report(run.source, at.len(), newest, Some(probe));
            return Ok(());
        }
        run.datagrams += 1;
        run.len += at.len();
        run.newest |= newest;
        if is_dummy {
            return Ok(());
        }
        let Self { buffer, coalescer, sign_due, .. } = self;
        let is_vouched = opened.next_header.is_vouched();
        OpenedPacket { buffer, at: inside, is_vouched }.collect(routing, &entry.session, coalescer, sign_due, run)
    }

    /// Opens one record of DTLS and hands the packet in it to the coalescer.
    fn open_record<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        at: Range<usize>,
        run: &mut Run,
    ) -> Result<(), DropReason> {
        let Self { buffer, coalescer, sign_due, associations, .. } = self;
        let datagram = buffer.get_mut(at.clone()).ok_or(DropReason::Truncated)?;
        let (inside, arrival) = match associations.open(run.place, &run.source, datagram)? {
            Inside::Packet(inside, arrival) => (Some(inside), arrival),
            Inside::Told(arrival) => (None, arrival),
            Inside::HandedOver => return Ok(()),
        };
        run.datagrams += 1;
        run.late += u64::from(arrival == Arrival::Late);
        let (Some(inside), Some(known)) = (inside, associations.at(run.place)) else { return Ok(()) };
        if known.session.carriers().is_closed() {
            return Err(DropReason::NotConnected);
        }
        let inside = at.start + inside.start..at.start + inside.end;
        let arrived = OpenedPacket { buffer, at: inside, is_vouched: false };
        arrived.collect(routing, &known.session, coalescer, sign_due, run)
    }

    /// Counts what a run brought, and tells the control side if it has to know.
    fn settle(&mut self, run: Option<Run>) {
        let Some(run) = run else { return };
        if is_dtls(run.spi) {
            return self.settle_records(&run);
        }
        let Some(entry) = self.table.entry_mut(run.place) else { return };
        let carriers = entry.session.carriers();
        carriers.counters().count_reordered(run.late);
        if !entry.wants_rekey && entry.sa.wants_rekey() {
            entry.wants_rekey = true;
            carriers.note_rekey();
        }
        if run.datagrams == 0 {
            return;
        }
        carriers.counters().count_rx(run.packets, run.bytes);
        let address = run.source.address;
        let is_proven = carriers.route().as_ref().is_some_and(|route| route.to == address);
        if !entry.announced || !is_proven && entry.is_worth_reporting(address) {
            entry.report(run.source, run.len, run.newest, None);
        }
    }

    fn settle_records(&self, run: &Run) {
        let Some(known) = self.associations.at(run.place).filter(|_| run.datagrams > 0) else { return };
        let carriers = known.session.carriers();
        carriers.counters().count_reordered(run.late);
        carriers.counters().count_rx(run.packets, run.bytes);
        known.note(run.datagrams, carriers.route().as_ref().is_some_and(|route| route.to == run.source.address));
    }

    /// Writes what waits for more messages to the TUN device.
    pub(super) fn flush<R: Routing<Session = S>>(&mut self, around: &Surroundings<'_, R, impl PacketQueue>) {
        self.write(around);
        self.held.clear();
    }

    /// Writes everything collected to the TUN device.
    fn write<R: Routing<Session = S>>(&mut self, around: &Surroundings<'_, R, impl PacketQueue>) {
        self.room = BATCH;
        let Self { buffer, held, coalescer, table, associations, .. } = self;
        let lost = |lost: Lost<'_>| {
            let from = held.iter().find(|(end, _)| lost.start < *end).map(|(_, from)| *from);
            let associated = from.and_then(|from| associations.with(from)).map(|known| &*known.session);
            let session = associated.or_else(|| session_at(table, lost.buffer, lost.start));
            let counters = session.map_or_else(|| around.routing.counters(), |session| session.carriers().counters());
            counters.count_drops(lost.packets, DropReason::TunWriteFailed);
        };
        if let Some(error) = write_runs(coalescer, buffer, |pieces| around.queue.write_vectored(pieces), lost) {
            tracing::warn!(%error, "this kernel refuses superpackets; packets go to it one by one from now on");
            coalescer.set_segments(1, 1);
        }
    }
}

/// A packet that was opened where it lies.
struct OpenedPacket<'a> {
    buffer: &'a mut [u8],
    at: Range<usize>,
    is_vouched: bool,
}

impl OpenedPacket<'_> {
    /// Brings the ECN bits of its datagram in, checks whether it may pass, and hands it to the coalescer.
    #[inline]
    fn collect<R: Routing>(
        self,
        routing: &R,
        session: &R::Session,
        coalescer: &mut Coalescer,
        sign_due: &mut bool,
        run: &mut Run,
    ) -> Result<(), DropReason> {
        let Self { buffer, at, is_vouched } = self;
        let packet = buffer.get_mut(at.clone()).ok_or(DropReason::Truncated)?;
        let congested = std::mem::take(sign_due);
        ecn::decapsulate(packet, if congested { ecn::CE } else { run.source.ecn })?;
        let ip = IpPacket::parse(packet)?;
        if let Err(reason) = routing.admit(session, &ip) {
            routing.refused(session, packet, reason);
            return Err(reason);
        }
        coalescer.handle_packet(buffer, at, &ip, is_vouched)?;
        run.packets += 1;
        run.bytes += ip.len as u64;
        Ok(())
    }
}

/// The SPI of the datagram that is there.
fn spi_at(buffer: &[u8], at: &Range<usize>) -> Option<u32> {
    buffer.get(at.clone())?.first_chunk().map(|spi| u32::from_be_bytes(*spi))
}

/// The session whose packet begins at `start`. A packet lies behind its ESP header, of which the virtio-net header
/// overwrites only the end, so the SPI still stands there. A run is of one source, so of one session.
fn session_at<'a, S>(table: &'a Table<u32, Entry<S>>, buffer: &[u8], start: usize) -> Option<&'a S> {
    let spi = spi_at(buffer, &(start.checked_sub(PREFIX_LEN)?..start))?;
    table.entry(table.place(&spi)?).map(|entry| &*entry.session)
}

impl<S> Entry<S> {
    fn report(&mut self, source: Source, len: usize, newest: bool, probe: Option<Probe>) {
        let Source { address, origin, .. } = source;
        let report = Report { epoch: self.epoch, from: address, origin, len, newest, probe };
        if self.reports.try_send(report).is_ok() {
            self.announced = true;
        }
    }

    /// At once for another address than before, else now and then.
    fn is_worth_reporting(&mut self, from: SocketAddr) -> bool {
        let now = Instant::now();
        let is_new = self.reported.is_none_or(|(known, at)| known != from || now.duration_since(at) >= REPORT_PAUSE);
        if is_new {
            self.reported = Some((from, now));
        }
        is_new
    }
}

//! From the peers to the kernel.

mod table;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN};
use adit_proto::esp::probe::Probe;
use adit_proto::esp::replay::Arrival;
use adit_proto::offload::coalesce::{Coalescer, Limits};
use adit_proto::packet::{IpPacket, ecn};
use adit_proto::queue::standing_queue::{StandingQueue, Verdict};

use super::mailbox::{Command, Mailbox};
use super::{MAX_SOCKETS, Report, Routing};
use crate::carrier::{Carried, Origin};
use crate::tun::{Lost, PacketQueue, write_runs};
use crate::udp::{DatagramSocket, Message};

use table::{Entry, Table};

/// Bytes of one message: UDP_GRO hands over no more.
const MESSAGE: usize = 65_535;
/// Packets collected before they are written: what the coalescer takes.
const BATCH: usize = 512;
/// How often at most the control side hears of packets without probes from an address that is not the proven one.
const REPORT_PAUSE: Duration = Duration::from_millis(5);

/// The receive side of one worker.
pub(super) struct Receive<S> {
    buffer: Box<[u8]>,
    coalescer: Coalescer,
    table: Table<S>,
    /// In front of each socket.
    queues: [StandingQueue; MAX_SOCKETS],
    /// The next packet is to tell its sender of congestion.
    sign_due: bool,
}

/// Where a message came from.
#[derive(Clone, Copy)]
struct Arrived {
    from: SocketAddr,
    origin: Origin,
    ecn: u8,
}

/// What one message brought for one SA.
#[derive(Default)]
struct Tally {
    /// Datagrams without probes that were authenticated, and their bytes.
    datagrams: u64,
    len: usize,
    newest: bool,
    /// Datagrams that came after one that was sent later.
    late: u64,
    /// Packets that may pass, and their bytes.
    packets: u64,
    bytes: u64,
}

impl<S: Carried> Receive<S> {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; MESSAGE].into_boxed_slice(),
            coalescer: Coalescer::new(Limits { packets: BATCH, ..Limits::default() }),
            table: Table::default(),
            queues: Default::default(),
            sign_due: false,
        }
    }

    /// Does what the control side asked for.
    pub(super) fn apply(&mut self, commands: Vec<Command<S>>) {
        for command in commands {
            match command {
                Command::Install(installation) => self.table.insert(*installation),
                Command::Retire(spi) => self.table.remove(spi.get()),
            }
        }
    }

    /// Moves one message and returns its datagrams; `None` if there was none.
    pub(super) fn step<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        mailbox: &Mailbox<S>,
        queue: &impl PacketQueue,
        number: usize,
        socket: &impl DatagramSocket,
    ) -> Option<usize> {
        let message = match socket.receive(&mut self.buffer) {
            Ok(message) => message,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Some(0),
            // Nothing there, or an error of an earlier send: the next turn tells.
            Err(_) => return None,
        };
        let datagrams = message.len.div_ceil(message.segment.max(1));
        let verdict = self.queues.get_mut(number).map(|queue| queue.judge(message.len, message.waited, Instant::now));
        self.sign_due = verdict == Some(Verdict::Mark);
        if message.truncated {
            routing.counters().count_drop(DropReason::Truncated);
        } else if verdict == Some(Verdict::Discard) {
            routing.counters().count_drops(datagrams, DropReason::QueueFull);
        } else {
            self.handle_message(routing, mailbox, queue, number, &message);
        }
        Some(datagrams)
    }

    fn handle_message<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        mailbox: &Mailbox<S>,
        queue: &impl PacketQueue,
        number: usize,
        message: &Message,
    ) {
        let arrived =
            Arrived { from: message.from, origin: Origin { socket: number, local: message.local }, ecn: message.ecn };
        if message.len == 0 {
            routing.counters().count_drop(DropReason::Truncated);
        }
        let mut tally = Tally::default();
        let mut current = None;
        let mut start = 0;
        let mut room = BATCH;
        while start < message.len {
            let at = start..message.len.min(start.saturating_add(message.segment.max(1)));
            start = at.end;
            let spi = spi_at(&self.buffer, &at);
            if current.map(|(known, _)| known) != spi {
                self.settle(current.take(), &mut tally, arrived);
                current = spi.and_then(|spi| Some((spi, self.find(spi, mailbox)?)));
            }
            let Some((_, place)) = current else {
                let reason = if spi.is_none() { DropReason::Truncated } else { DropReason::UnknownSpi };
                routing.counters().count_drop(reason);
                continue;
            };
            if room == 0 {
                self.write(queue, routing);
                room = BATCH;
            }
            room -= 1;
            self.handle_datagram(routing, place, at, arrived, &mut tally);
        }
        self.settle(current, &mut tally, arrived);
        self.write(queue, routing);
    }

    /// The place of an SA. One that is being installed right now counts: its peer may already send.
    fn find(&mut self, spi: u32, mailbox: &Mailbox<S>) -> Option<usize> {
        if let Some(place) = self.table.place(spi) {
            return Some(place);
        }
        let commands = mailbox.take();
        if commands.is_empty() {
            return None;
        }
        self.apply(commands);
        self.table.place(spi)
    }

    fn handle_datagram<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        place: usize,
        at: Range<usize>,
        arrived: Arrived,
        tally: &mut Tally,
    ) {
        let handled = self.open(routing, place, at, arrived, tally);
        if let (Err(reason), Some(entry)) = (handled, self.table.entry(place)) {
            entry.session.carriers().counters().count_drop(reason);
        }
    }

    /// Opens one datagram and hands what is in it to the coalescer, or to the control side if it is a probe.
    fn open<R: Routing<Session = S>>(
        &mut self,
        routing: &R,
        place: usize,
        at: Range<usize>,
        arrived: Arrived,
        tally: &mut Tally,
    ) -> Result<(), DropReason> {
        let entry = self.table.entry_mut(place).ok_or(DropReason::UnknownSpi)?;
        if entry.session.carriers().is_closed() {
            return Err(DropReason::NotConnected);
        }
        let datagram = self.buffer.get_mut(at.clone()).ok_or(DropReason::Truncated)?;
        let opened = entry.sa.open(datagram)?;
        let newest = opened.arrival == Arrival::Newest;
        tally.late += u64::from(!newest);
        let inside = opened.range();
        let inside = at.start + inside.start..at.start + inside.end;
        let packet = self.buffer.get_mut(inside.clone()).ok_or(DropReason::Truncated)?;
        let is_dummy = opened.next_header == NextHeader::Nothing;
        if let Some(probe) = Probe::decode(packet).filter(|_| is_dummy) {
            // Its bytes count once: they allow as many to an address that is not proven.
            entry.report(arrived, at.len(), newest, Some(probe));
            return Ok(());
        }
        tally.datagrams += 1;
        tally.len += at.len();
        tally.newest |= newest;
        if is_dummy {
            return Ok(());
        }
        let congested = std::mem::take(&mut self.sign_due);
        ecn::decapsulate(packet, if congested { ecn::CE } else { arrived.ecn })?;
        let ip = IpPacket::parse(packet)?;
        routing.admit(&entry.session, &ip)?;
        self.coalescer.handle_packet(&self.buffer, inside, &ip, opened.next_header.is_vouched())?;
        tally.packets += 1;
        tally.bytes += ip.len as u64;
        Ok(())
    }

    /// Counts what one message brought for one SA, and tells the control side if it has to know.
    fn settle(&mut self, current: Option<(u32, usize)>, tally: &mut Tally, arrived: Arrived) {
        let tally = std::mem::take(tally);
        let Some(entry) = current.and_then(|(_, place)| self.table.entry_mut(place)) else { return };
        let carriers = entry.session.carriers();
        carriers.counters().count_reordered(tally.late);
        if !entry.wants_rekey && entry.sa.wants_rekey() {
            entry.wants_rekey = true;
            carriers.note_rekey();
        }
        if tally.datagrams == 0 {
            return;
        }
        carriers.counters().count_rx(tally.packets, tally.bytes);
        let proven = carriers.esp().as_ref().is_some_and(|route| route.to == arrived.from);
        if !entry.announced || !proven && entry.is_worth_reporting(arrived.from) {
            entry.report(arrived, tally.len, tally.newest, None);
        }
    }

    /// Writes everything collected to the TUN device.
    fn write<R: Routing<Session = S>>(&mut self, queue: &impl PacketQueue, routing: &R) {
        let Self { buffer, coalescer, table, .. } = self;
        let lost = |lost: Lost<'_>| {
            let session = session_at(table, lost.buffer, lost.start);
            let counters = session.map_or_else(|| routing.counters(), |session| session.carriers().counters());
            counters.count_drops(lost.packets, DropReason::TunWriteFailed);
        };
        if let Some(error) = write_runs(coalescer, buffer, |pieces| queue.write_vectored(pieces), lost) {
            tracing::warn!(%error, "this kernel refuses superpackets; packets go to it one by one from now on");
            coalescer.set_segments(1, 1);
        }
    }
}

/// The SPI of the datagram that is there.
fn spi_at(buffer: &[u8], at: &Range<usize>) -> Option<u32> {
    buffer.get(at.clone())?.first_chunk().map(|spi| u32::from_be_bytes(*spi))
}

/// The session whose packet begins at `start`. A packet lies behind its ESP header, of which the virtio-net header overwrites
/// only the end, so the SPI still stands there. A run is of one source, so of one session.
fn session_at<'a, S>(table: &'a Table<S>, buffer: &[u8], start: usize) -> Option<&'a S> {
    let spi = spi_at(buffer, &(start.checked_sub(PREFIX_LEN)?..start))?;
    table.entry(table.place(spi)?).map(|entry| &*entry.session)
}

impl<S> Entry<S> {
    fn report(&mut self, arrived: Arrived, len: usize, newest: bool, probe: Option<Probe>) {
        let Arrived { from, origin, .. } = arrived;
        let report = Report { epoch: self.epoch, from, origin, len, newest, probe };
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

//! The whole path of one worker in both directions, with memory where the system's descriptors would be.
//!
//! What a packet meets is what it meets on a gateway, but for the kernel: reading, finding the session, splitting,
//! sealing, handing to a socket; or taking a message, opening, checking, joining, writing. The copying that a kernel
//! does is done here towards the worker alone.

use std::hint::black_box;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_net::carrier::counters::Counters;
use adit_net::carrier::{Carried, Carrier, Carriers, DatagramRoute, Origin, OutboundSa};
use adit_net::cipher::Cipher;
use adit_net::packet_buffer::PacketBuffer;
use adit_net::tun::PacketQueue;
use adit_net::udp::{DatagramSocket, MAX_BYTES, MAX_SEGMENTS, Message, Sent};
use adit_net::worker::{Installation, Report, Routing, Worker};
use adit_proto::drop_reason::DropReason;
use adit_proto::esp::packet::{NextHeader, sealed_len};
use adit_proto::esp::sa::Outbound;
use adit_proto::offload::virtio::VirtioHeader;
use adit_proto::packet::IpPacket;
use adit_proto::route_table::RouteTable;
use adit_proto::sealing::suite::Suite;
use tokio::sync::mpsc;

use super::esp::{Batch, sas};
use super::packets::{DESTINATION_V4, FULL, SOURCE_V4, Sum, Transport, udp};
use super::policy::Policy;
use super::{Prepared, SEGMENTS, Subject, Work};

/// Superpackets or messages of one round: as many as a worker moves before it looks elsewhere.
const AT_ONCE: usize = 8;
/// Single packets of one round, for the same reason.
const SINGLES: usize = 64;
/// Bytes of a small packet: a voice frame, or an acknowledgement with all its options.
const SMALL: usize = 100;
/// What the cipher's part of the figures is of.
const SUITE: Suite = Suite::Aes256Gcm;
/// Where the peer is.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 4433);

pub(super) fn subjects() -> Vec<Subject> {
    let both = [Transport::Tcp, Transport::Udp];
    let vouched = both.into_iter().flat_map(|transport| [transmit(transport, true), receive(transport, true)]);
    let summed = [transmit(Transport::Tcp, false), receive(Transport::Tcp, false)];
    vouched.chain(summed).chain([transmit_small(), receive_small()]).collect()
}

/// Where the packets of this host come from: the same one again and again, so many times.
struct MemoryQueue {
    /// With its virtio-net header.
    packet: Vec<u8>,
    left: AtomicUsize,
}

impl MemoryQueue {
    fn new(header: VirtioHeader, packet: &[u8]) -> Self {
        Self { packet: [&header.encode(), packet].concat(), left: AtomicUsize::new(0) }
    }

    fn fill(&self, packets: usize) {
        self.left.store(packets, Ordering::Relaxed);
    }
}

impl PacketQueue for MemoryQueue {
    fn read_vectored(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let Some(left) = self.left.load(Ordering::Relaxed).checked_sub(1) else {
            return Err(ErrorKind::WouldBlock.into());
        };
        self.left.store(left, Ordering::Relaxed);
        let mut rest = &self.packet[..];
        for piece in pieces {
            let (now, later) = rest.split_at(piece.len().min(rest.len()));
            piece[..now.len()].copy_from_slice(now);
            rest = later;
        }
        Ok(self.packet.len() - rest.len())
    }

    fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(black_box(pieces).iter().map(|piece| piece.len()).sum())
    }

    fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> usize {
        black_box(packets.iter().map(|packet| packet.as_ref().len()).sum::<usize>());
        packets.len()
    }
}

/// Where the datagrams of the peer come from: the same message, sealed anew, so many times.
#[derive(Default)]
struct MemorySocket {
    messages: Mutex<Vec<Batch>>,
    /// Of those, the ones that were not taken.
    left: AtomicUsize,
}

impl MemorySocket {
    fn messages(&self) -> MutexGuard<'_, Vec<Batch>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals every message with new numbers.
    fn fill(&self, sealing: &Outbound<Cipher>) {
        let mut messages = self.messages();
        // The last one is taken first.
        for message in messages.iter_mut().rev() {
            message.restore();
            message.seal(sealing, MAX_SEGMENTS);
        }
        self.left.store(messages.len(), Ordering::Relaxed);
    }
}

impl DatagramSocket for MemorySocket {
    fn send(&self, to: SocketAddr, _: Option<IpAddr>, datagrams: &[u8], segment: usize, _: u8) -> Sent {
        black_box((to, datagrams));
        Sent { datagrams: datagrams.len().div_ceil(segment), error: None }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<Message> {
        let Some(left) = self.left.load(Ordering::Relaxed).checked_sub(1) else {
            return Err(ErrorKind::WouldBlock.into());
        };
        self.left.store(left, Ordering::Relaxed);
        let messages = self.messages();
        let message = &messages[left];
        let len = message.datagrams().len();
        buffer[..len].copy_from_slice(message.datagrams());
        Ok(Message {
            len,
            segment: message.stride(),
            from: PEER,
            local: None,
            ecn: 0,
            waited: Duration::ZERO,
            truncated: false,
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(ErrorKind::AddrNotAvailable.into())
    }
}

/// The connection of a session, which has nothing to carry while ESP passes.
#[derive(Default)]
struct NoConnection {
    counters: Arc<Counters>,
}

impl Carrier for NoConnection {
    fn name(&self) -> &'static str {
        "none"
    }

    fn mtu(&self) -> u16 {
        u16::try_from(FULL).unwrap_or(u16::MAX)
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn send(&self, packets: &mut Vec<PacketBuffer>) {
        for _ in packets.drain(..) {
            self.counters.count_drop(DropReason::NotConnected);
        }
    }
}

struct Session {
    carriers: Carriers,
}

impl Carried for Session {
    fn carriers(&self) -> &Carriers {
        &self.carriers
    }
}

/// Finds sessions and admits packets as a gateway does: by route, by policy, and to networks it offers.
struct Gateway {
    sessions: RouteTable<Arc<Session>>,
    policy: Policy,
    offered: RouteTable<()>,
    counters: Counters,
}

impl Routing for Gateway {
    type Session = Session;

    fn session_of(&self, packet: &IpPacket) -> Option<Arc<Session>> {
        self.sessions.lookup(packet.destination).map(Arc::clone)
    }

    fn admit(&self, _: &Session, packet: &IpPacket) -> Result<(), DropReason> {
        self.policy.check(packet)?;
        self.offered.lookup(packet.destination).copied().ok_or(DropReason::NoRoute)
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}

/// A worker, its ends, and what the peer seals with.
struct Pipeline {
    worker: Worker<Gateway, MemoryQueue, MemorySocket>,
    queue: Arc<MemoryQueue>,
    socket: Arc<MemorySocket>,
    sealing: Outbound<Cipher>,
    session: Arc<Session>,
    /// Kept open, as a session's control side does.
    _reports: mpsc::Receiver<Report>,
}

impl Pipeline {
    /// A worker with one session, which takes partial checksums if it is `vouched`.
    fn new(queue: MemoryQueue, messages: Vec<Batch>, vouched: bool) -> Self {
        let session = Arc::new(Session { carriers: Carriers::new(Arc::new(NoConnection::default())) });
        let (mut sessions, mut offered) = (RouteTable::new(), RouteTable::new());
        for address in [SOURCE_V4, DESTINATION_V4] {
            sessions.insert(IpAddr::from(address).into(), Arc::clone(&session));
            offered.insert(IpAddr::from(address).into(), ());
        }
        let gateway = Gateway { sessions, policy: Policy::new(), offered, counters: Counters::default() };
        let (queue, socket) =
            (Arc::new(queue), Arc::new(MemorySocket { messages: messages.into(), ..Default::default() }));
        let worker = Worker::alone(Arc::new(gateway), Arc::clone(&queue), Arc::clone(&socket));
        let mut worker = worker.expect("a process may have one event descriptor more");
        let ((near, _), (sealing, opening)) = (sas(SUITE), sas(SUITE));
        let mtu = u16::try_from(FULL).unwrap_or(u16::MAX);
        let route = DatagramRoute {
            sa: OutboundSa::Esp(Arc::new(near)),
            to: PEER,
            origin: Origin::default(),
            mtu,
            vouched,
            marked: true,
        };
        session.carriers.set_route(Some(route));
        let (reports, kept) = mpsc::channel(1);
        worker.install(Installation { sa: opening, epoch: 0, session: Arc::clone(&session), reports });
        Self { worker, queue, socket, sealing, session, _reports: kept }
    }

    /// The host has so many packets or superpackets to send.
    fn offer(&mut self, packets: usize) {
        self.check();
        self.queue.fill(packets);
    }

    /// The peer has sent its messages.
    fn arrive(&mut self) {
        self.check();
        self.socket.fill(&self.sealing);
    }

    /// Every packet of the round before came through.
    fn check(&self) {
        assert_eq!(self.session.carriers.counters().traffic().drops, [], "packets that are dropped cost less");
    }

    /// Moves all there is: what a worker moves before it looks elsewhere.
    fn run(&mut self) {
        self.worker.step().expect("memory can always be read");
    }
}

fn transmit(transport: Transport, vouched: bool) -> Subject {
    let packets = AT_ONCE * SEGMENTS;
    Subject::new(format!("transmit/{}/{}", transport.label(), how(vouched)), packets, packets * FULL, move || {
        let (header, packet) = transport.superpacket(SEGMENTS, FULL);
        Prepared {
            state: Pipeline::new(MemoryQueue::new(header, &packet), Vec::new(), vouched),
            prepare: |pipeline: &mut Pipeline| pipeline.offer(AT_ONCE),
            run: Pipeline::run,
        }
    })
}

fn transmit_small() -> Subject {
    Subject::new("transmit/small", SINGLES, SINGLES * SMALL, || Prepared {
        state: Pipeline::new(MemoryQueue::new(VirtioHeader::default(), &udp(SMALL)), Vec::new(), true),
        prepare: |pipeline: &mut Pipeline| pipeline.offer(SINGLES),
        run: Pipeline::run,
    })
}

fn receive(transport: Transport, vouched: bool) -> Subject {
    let each = at_once(FULL);
    let name = format!("receive/{}/{}", transport.label(), how(vouched));
    Subject::new(name, AT_ONCE * each, AT_ONCE * each * FULL, move || {
        let sum = if vouched { Sum::Partial } else { Sum::Complete };
        receiving(&transport.flow(each, FULL, sum), vouched)
    })
}

fn receive_small() -> Subject {
    let each = at_once(SMALL);
    Subject::new("receive/small", AT_ONCE * each, AT_ONCE * each * SMALL, move || {
        // Each of another flow, so that none joins its neighbour.
        let mut packets = vec![udp(SMALL); each];
        for (packet, port) in packets.iter_mut().zip(50_000_u16..) {
            packet[20..22].copy_from_slice(&port.to_be_bytes());
        }
        receiving(&packets, false)
    })
}

fn receiving(packets: &[Vec<u8>], vouched: bool) -> impl Work + use<> {
    let next_header = if vouched { NextHeader::VouchedIpv4 } else { NextHeader::Ipv4 };
    let messages = (0..AT_ONCE).map(|_| Batch::new(packets, next_header)).collect();
    Prepared {
        state: Pipeline::new(MemoryQueue::new(VirtioHeader::default(), &[]), messages, vouched),
        prepare: Pipeline::arrive,
        run: Pipeline::run,
    }
}

/// Datagrams in one message that hold packets of `len` bytes.
fn at_once(len: usize) -> usize {
    MAX_SEGMENTS.min(MAX_BYTES / sealed_len(len))
}

/// What becomes of checksums: the peer vouches, or they are computed and verified.
fn how(vouched: bool) -> &'static str {
    if vouched { "vouched" } else { "summed" }
}

#[cfg(test)]
mod tests {
    use adit_net::carrier::counters::Traffic;

    use super::*;

    /// Rounds of each test.
    const ROUNDS: usize = 3;

    /// What a session's counters say after some rounds.
    fn moved(mut pipeline: Pipeline, prepare: impl Fn(&mut Pipeline)) -> Traffic {
        for _ in 0..ROUNDS {
            prepare(&mut pipeline);
            pipeline.run();
        }
        pipeline.session.carriers.counters().traffic()
    }

    #[test]
    fn every_packet_of_a_round_goes_out() {
        for (transport, vouched) in [(Transport::Tcp, true), (Transport::Udp, true), (Transport::Tcp, false)] {
            let (header, packet) = transport.superpacket(SEGMENTS, FULL);
            let pipeline = Pipeline::new(MemoryQueue::new(header, &packet), Vec::new(), vouched);
            let traffic = moved(pipeline, |pipeline| pipeline.offer(AT_ONCE));
            let packets = (ROUNDS * AT_ONCE * SEGMENTS) as u64;
            assert_eq!(
                (traffic.tx_packets, traffic.tx_bytes, traffic.drops.len()),
                (packets, packets * FULL as u64, 0)
            );
        }
    }

    #[test]
    fn single_packets_of_a_round_go_out() {
        let queue = MemoryQueue::new(VirtioHeader::default(), &udp(SMALL));
        let traffic = moved(Pipeline::new(queue, Vec::new(), true), |pipeline| pipeline.offer(SINGLES));
        assert_eq!((traffic.tx_packets, traffic.drops.len()), ((ROUNDS * SINGLES) as u64, 0));
    }

    #[test]
    fn every_packet_of_a_round_comes_in() {
        for (sum, next_header) in [(Sum::Partial, NextHeader::VouchedIpv4), (Sum::Complete, NextHeader::Ipv4)] {
            let each = at_once(FULL);
            let messages = (0..AT_ONCE).map(|_| Batch::new(&Transport::Tcp.flow(each, FULL, sum), next_header));
            let queue = MemoryQueue::new(VirtioHeader::default(), &[]);
            let pipeline = Pipeline::new(queue, messages.collect(), sum == Sum::Partial);
            let traffic = moved(pipeline, Pipeline::arrive);
            let packets = (ROUNDS * AT_ONCE * each) as u64;
            assert_eq!((traffic.rx_packets, traffic.rx_reordered, traffic.drops.len()), (packets, 0, 0));
        }
    }
}

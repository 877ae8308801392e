//! What a full socket refuses stays in hand. Memory is where descriptors would be, so that a test says when there is
//! room.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_proto::esp::packet::sealed_len;
use adit_proto::offload::virtio::{GSO_UDP_L4, NEEDS_CSUM, VirtioHeader};
use adit_proto::queue::patience::PATIENCE as HELD;

use super::super::transmit::Transmit;
use super::*;
use crate::udp::{MAX_BYTES, Message, Sent};

/// Bytes of each payload and, with its headers, of each packet: as much as the route takes.
const PAYLOAD: u16 = MTU - 28;
/// Segments of a superpacket: more than one call takes.
const SEGMENTS: usize = 47;
/// What one call takes.
const AT_ONCE: usize = MAX_BYTES / sealed_len(MTU as usize);

thread_local! {
    /// The time of a test, which runs on one thread.
    static NOW: Cell<Instant> = Cell::new(Instant::now());
}

/// So much time passes.
fn pass(time: Duration) {
    NOW.set(NOW.get() + time);
}

/// What this host has to send.
#[derive(Default)]
struct Packets(Mutex<VecDeque<Vec<u8>>>);

impl PacketQueue for Packets {
    fn read_vectored(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let packet = self.0.lock().unwrap().pop_front().ok_or(ErrorKind::WouldBlock)?;
        let mut rest = &packet[..];
        for piece in pieces {
            let (now, later) = rest.split_at(piece.len().min(rest.len()));
            piece[..now.len()].copy_from_slice(now);
            rest = later;
        }
        Ok(packet.len() - rest.len())
    }

    fn write_vectored(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn send<P: AsRef<[u8]>>(&self, _: &[P]) -> usize {
        0
    }
}

/// A socket with room for so many datagrams, and those it took.
#[derive(Default)]
struct Narrow {
    room: AtomicUsize,
    taken: Mutex<Vec<Vec<u8>>>,
}

impl DatagramSocket for Narrow {
    fn send(&self, _: SocketAddr, _: Option<IpAddr>, datagrams: &[u8], segment: usize, _: u8) -> Sent {
        let room = self.room.load(Ordering::Relaxed);
        let taken: Vec<_> = datagrams.chunks(segment).take(room).map(<[u8]>::to_vec).collect();
        let count = taken.len();
        self.room.store(room - count, Ordering::Relaxed);
        self.taken.lock().unwrap().extend(taken);
        let is_full = count < datagrams.len().div_ceil(segment);
        Sent { datagrams: count, error: is_full.then(|| ErrorKind::WouldBlock.into()) }
    }

    fn receive(&self, _: &mut [u8]) -> io::Result<Message> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(ErrorKind::AddrNotAvailable.into())
    }
}

/// The transmit side of a worker, its ends, and what the peer opens with.
struct Scene {
    transmit: Transmit<Session, Narrow>,
    router: Router,
    queue: Packets,
    socket: Arc<Narrow>,
    session: Arc<Session>,
    opening: Inbound<Cipher>,
}

impl Scene {
    fn new() -> Self {
        let (session, _keeper) = session();
        let [near, far] = [1, 2].map(|random| Spi::new(0, random).unwrap());
        let sas = sas(near, far, false);
        session.carriers.set_route(Some(route(sas.near.0, "192.0.2.9:4500".parse().unwrap(), false)));
        let socket = Arc::new(Narrow::default());
        let sessions = vec![("10.9.0.1".parse().unwrap(), Arc::clone(&session))];
        let mut transmit = Transmit::new(1, vec![Arc::clone(&socket)]);
        transmit.set_clock(|| NOW.get());
        Self {
            transmit,
            router: Router { sessions, counters: Counters::default() },
            queue: Packets::default(),
            socket,
            session,
            opening: sas.far.1,
        }
    }

    /// The host sends so many datagrams at once; returns the packets that they are.
    fn offer(&self, segments: usize) -> Vec<Vec<u8>> {
        let mut queue = self.queue.0.lock().unwrap();
        let payload = content(segments * usize::from(PAYLOAD), queue.len());
        let superpacket = VirtioHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_UDP_L4,
            hdr_len: 28,
            gso_size: PAYLOAD,
            csum_start: 20,
            csum_offset: 6,
        };
        let single = (VirtioHeader::default(), Checksums::Full);
        let (header, checksum) = if segments == 1 { single } else { (superpacket, Checksums::Partial) };
        queue.push_back([&header.encode()[..], &Udp::to(53, checksum).build(&payload)].concat());
        let payloads: Vec<_> = payload.chunks(PAYLOAD.into()).map(<[u8]>::to_vec).collect();
        flow(Udp::to(53, Checksums::Full), &payloads)
    }

    /// One packet or superpacket is read, if nothing waits, while the socket has so much room.
    fn step(&mut self, room: usize) -> Option<usize> {
        self.socket.room.store(room, Ordering::Relaxed);
        let segments = self.transmit.step(&self.router, &self.queue).unwrap();
        self.transmit.flush();
        segments
    }

    /// Fails unless the socket took these packets since it was last asked, in this order.
    fn check_taken(&mut self, packets: &[Vec<u8>]) {
        let taken = std::mem::take(&mut *self.socket.taken.lock().unwrap());
        let open = |mut datagram: Vec<u8>| {
            let opened = self.opening.open(&mut datagram).unwrap();
            datagram[opened.range()].to_vec()
        };
        let opened: Vec<_> = taken.into_iter().map(open).collect();
        assert!(opened == packets, "{} packets instead of {}, or others", opened.len(), packets.len());
    }

    /// Fails unless so many packets were sent and all others lost for one reason.
    fn check_counters(&self, sent: usize, lost: &[(&'static str, u64)]) {
        let traffic = self.session.carriers.counters().traffic();
        let sent = sent as u64;
        assert_eq!((traffic.tx_packets, traffic.tx_bytes), (sent, sent * u64::from(MTU)));
        assert_eq!(traffic.drops, lost);
    }
}

#[test]
fn held_superpacket_goes_on_where_it_stopped() {
    for room in [0, 10, AT_ONCE, AT_ONCE + 2] {
        let mut scene = Scene::new();
        let packets: Vec<_> = (0..3).flat_map(|_| scene.offer(SEGMENTS)).collect();
        // The first is of another shape than expected and is gathered; the others lie in their places. Each finds as
        // much room as the one before has left to send, and `room`.
        for room in [room, SEGMENTS, SEGMENTS] {
            assert_eq!(scene.step(room), Some(SEGMENTS));
            assert!(scene.transmit.is_waiting());
        }
        assert_eq!(scene.step(usize::MAX), None);
        assert!(!scene.transmit.is_waiting());
        scene.check_taken(&packets);
        scene.check_counters(3 * SEGMENTS, &[]);
    }
}

#[test]
fn superpacket_of_which_a_part_is_sent_is_counted_to_the_packet() {
    for sent in [0, 10, AT_ONCE, AT_ONCE + 2] {
        let mut scene = Scene::new();
        let packets = scene.offer(SEGMENTS);
        scene.step(sent);
        scene.check_counters(sent, &[]);
        pass(HELD);
        assert_eq!(scene.step(0), None);
        assert!(!scene.transmit.is_waiting());
        scene.check_taken(&packets[..sent]);
        scene.check_counters(sent, &[(DropReason::QueueFull.label(), (SEGMENTS - sent) as u64)]);
    }
}

#[test]
fn session_that_ends_while_packets_are_held_sends_nothing_more() {
    // Superpackets, and a packet of a batch.
    for (segments, sent) in [(SEGMENTS, 10), (SEGMENTS, AT_ONCE), (SEGMENTS, AT_ONCE + 2), (1, 0)] {
        let mut scene = Scene::new();
        let packets = scene.offer(segments);
        scene.step(sent);
        assert!(scene.transmit.is_waiting());
        scene.session.carriers.close();
        for _ in 0..2 {
            assert_eq!(scene.step(usize::MAX), None);
            assert!(!scene.transmit.is_waiting());
        }
        scene.check_taken(&packets[..sent]);
        scene.check_counters(sent, &[(DropReason::NotConnected.label(), (segments - sent) as u64)]);
    }
}

#[test]
fn what_goes_at_the_end_of_a_turn_leaves_nothing_waiting() {
    let mut scene = Scene::new();
    let packets = scene.offer(1);
    scene.step(0);
    assert!(scene.transmit.is_waiting());
    scene.socket.room.store(1, Ordering::Relaxed);
    scene.transmit.flush();
    assert!(!scene.transmit.is_waiting(), "or the worker would not hear of the next packet");
    scene.check_taken(&packets);
    scene.check_counters(1, &[]);
}

//! The packet path allocates nothing once it is warm: counted in the whole process, in which nothing else runs.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use adit_net::testing::world::{PATIENCE, Peer, Udp, World, flow};
use adit_net::udp::{DatagramSocket as _, EspSocket, bind_any};
use adit_proto::esp::packet::{NextHeader, PREFIX_LEN, sealed_len};
use adit_proto::offload::split::Checksums;
use adit_testing::counting_allocator::{CountingAllocator, allocations};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Uid;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Where packets into the tunnel go. Parsing it would allocate.
const BEYOND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)), 53);
/// Packets each way.
const PACKETS: usize = 10_000;
/// Payload of large packets and of small ones.
const SIZES: [usize; 2] = [1368, 100];
/// Packets in one message and in one superpacket.
const AT_ONCE: usize = 40;

/// Everything the test itself needs, made beforehand.
struct Traffic {
    world: World,
    /// Sends superpackets, and sends small packets.
    sockets: [UdpSocket; 2],
    payload: Vec<u8>,
    /// Receives inside the tunnel.
    inside: EspSocket,
    buffer: Vec<u8>,
    /// Packets of each size for the socket inside, and room to seal them.
    packets: [Vec<Vec<u8>>; 2],
    datagrams: Vec<u8>,
}

impl Traffic {
    fn new(queues: usize, vouched: bool) -> Self {
        let world = World::new(queues, vouched);
        let sockets = [(); 2].map(|()| UdpSocket::bind("10.9.0.1:0").unwrap());
        setsockopt(&sockets[0], sockopt::UdpGsoSegment, &i32::try_from(SIZES[0]).unwrap()).unwrap();
        let inside = bind_any(false, None, true).unwrap();
        let checksum = if vouched { Checksums::Partial } else { Checksums::Full };
        let to = Udp::to(inside.local_addr().unwrap().port(), checksum);
        let packets = SIZES.map(|size| flow(to, &vec![vec![7; size]; AT_ONCE]));
        let payload = vec![7; SIZES[0] * AT_ONCE];
        Self { world, sockets, payload, inside, buffer: vec![0; 65_536], packets, datagrams: vec![0; 65_536] }
    }

    /// Sends a superpacket and as many small packets, and waits for them at the peer.
    fn transmit(&mut self) -> usize {
        let [large, small] = &self.sockets;
        large.send_to(&self.payload, BEYOND).unwrap();
        for _ in 0..AT_ONCE {
            small.send_to(&self.payload[..SIZES[1]], BEYOND).unwrap();
        }
        let peer = &mut self.world.peer;
        wait_for(2 * AT_ONCE, || {
            let mut packets = 0;
            peer.receive(|_, _, _| packets += 1).then_some(packets)
        })
    }

    /// Has the peer send large packets and small ones, and waits for them inside.
    fn receive(&mut self, vouched: bool) -> usize {
        for packets in &self.packets {
            let len = seal(&self.world.peer, packets, vouched, &mut self.datagrams);
            self.world.peer.send(&self.datagrams[..len], sealed_len(packets[0].len()), 0);
        }
        let (inside, buffer) = (&self.inside, &mut self.buffer);
        wait_for(2 * AT_ONCE, || inside.receive(buffer).ok().map(|message| message.len.div_ceil(message.segment)))
    }
}

/// Seals packets into `space`; returns the bytes of all datagrams.
fn seal(peer: &Peer, packets: &[Vec<u8>], vouched: bool, space: &mut [u8]) -> usize {
    let mut end = 0;
    for packet in packets {
        let slot = &mut space[end..end + sealed_len(packet.len())];
        slot[PREFIX_LEN..PREFIX_LEN + packet.len()].copy_from_slice(packet);
        let next_header = NextHeader::of_packet(packet, vouched).unwrap();
        end += peer.sealing.reserve(1, packet.len()).unwrap().seal(slot, packet.len(), next_header).unwrap();
    }
    end
}

/// Takes until there are `wanted` packets.
fn wait_for(wanted: usize, mut take: impl FnMut() -> Option<usize>) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut packets = 0;
    while packets < wanted {
        match take() {
            Some(more) => packets += more,
            None => {
                assert!(Instant::now() < deadline, "{packets} of {wanted} packets");
                thread::sleep(Duration::from_micros(100));
            }
        }
    }
    packets
}

fn measure(queues: usize, vouched: bool) {
    let mut traffic = Traffic::new(queues, vouched);
    for _ in 0..10 {
        traffic.transmit();
        traffic.receive(vouched);
    }
    let before = allocations();
    let (mut sent, mut received) = (0, 0);
    while sent < PACKETS || received < PACKETS {
        sent += traffic.transmit();
        received += traffic.receive(vouched);
    }
    // Workers go to sleep and wake, too.
    thread::sleep(Duration::from_millis(20));
    sent += traffic.transmit();
    let allocations = allocations() - before;
    assert_eq!(allocations, 0, "for {sent} packets sent and {received} received");
    let counted = traffic.world.counters().traffic();
    assert!(counted.tx_packets as usize >= sent && counted.rx_packets as usize >= received, "{counted:?}");
    assert_eq!(counted.drops, []);
}

#[test]
fn packets_cost_no_allocation() {
    if !Uid::effective().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs root to make a network namespace");
        std::io::stderr().write_all(b"*** SKIPPED: needs root to make a network namespace ***\n").unwrap();
        return;
    }
    // In turn, on one thread: a namespace each.
    for (queues, vouched) in [(1, true), (1, false), (2, true)] {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        measure(queues, vouched);
    }
}

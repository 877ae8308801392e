//! Packets of the AnyConnect family cost no allocation in records of DTLS: neither sealing and opening, nor the way of
//! the workers from the TUN device to the socket and back. In frames, where TLS takes a buffer for each record, what is
//! ours takes one for many. Counted in the whole process, in which nothing else runs.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use adit_net::carrier::cstp::Cstp;
use adit_net::carrier::stream::Framing as _;
use adit_net::carrier::{DatagramRoute, Origin, OutboundSa};
use adit_net::cipher::Cipher;
use adit_net::packet_buffer::Arena;
use adit_net::testing::world::{MTU, PATIENCE, Udp, World, flow, outer};
use adit_net::udp::{DatagramSocket as _, EspSocket, bind_any};
use adit_net::worker::{Association, AssociationPlane as _};
use adit_proto::anyconnect::record::{HEAD_LEN, seal_packet};
use adit_proto::dtls::record::ContentType;
use adit_proto::dtls::sa::{Inbound, Outbound};
use adit_proto::dtls::secret::{BothKeys, MasterSecret, Randoms};
use adit_proto::dtls::suite::CipherSuite;
use adit_proto::offload::split::Checksums;
use adit_testing::counting_allocator::{CountingAllocator, allocations, await_quiet};
use bytes::BytesMut;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Uid;
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Bytes of plaintext in a record, records in one buffer, and how often the buffer is filled.
const PLAINTEXT: usize = 1400;
const AT_ONCE: usize = 40;
const ROUNDS: usize = 250;

/// Where packets into the tunnel go. Parsing it would allocate.
const BEYOND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)), 53);
/// Payload of packets through the workers.
const PAYLOAD: usize = 1200;

fn keys(suite: CipherSuite) -> BothKeys {
    let randoms = Randoms { client: [1; 32], server: [2; 32] };
    MasterSecret::new([3; 48]).keys(suite, &randoms).unwrap()
}

#[test]
fn records_cost_no_allocation() {
    await_quiet();
    CipherSuite::PSK.into_iter().for_each(seal_and_open);
    frame_and_read();
    if !Uid::effective().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs root to make a network namespace");
        std::io::stderr().write_all(b"*** SKIPPED: needs root to make a network namespace ***\n").unwrap();
        return;
    }
    // In turn, on one thread: a namespace each.
    for suite in CipherSuite::PSK {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        pass_through_workers(suite);
    }
}

fn seal_and_open(suite: CipherSuite) {
    let outbound = Outbound::<Cipher>::new(keys(suite).client_to_server).unwrap();
    let mut inbound = Inbound::<Cipher>::new(keys(suite).client_to_server).unwrap();
    let sealed = suite.sealed_len(PLAINTEXT);
    let mut buffer = vec![0x45; AT_ONCE * sealed];
    let before = allocations();
    for _ in 0..ROUNDS {
        let mut numbers = outbound.reserve(u32::try_from(AT_ONCE).unwrap(), PLAINTEXT).unwrap();
        for slot in buffer.chunks_exact_mut(sealed) {
            assert_eq!(numbers.seal(slot, PLAINTEXT, ContentType::ApplicationData), Ok(sealed));
        }
        for record in buffer.chunks_exact_mut(sealed) {
            assert_eq!(inbound.open(record).map(|opened| opened.range.len()), Ok(PLAINTEXT));
        }
    }
    assert_eq!(allocations() - before, 0, "{}", suite.name());
    assert_eq!(inbound.counters().opened, (AT_ONCE * ROUNDS) as u64);
}

/// Puts packets into frames, and takes them out of what was read at a time.
fn frame_and_read() {
    /// Packets in one chunk of the arena, about.
    const IN_A_CHUNK: usize = 8;
    let (mut arena, mut frames) = (Arena::new(MTU.into()), Vec::with_capacity(AT_ONCE));
    let (mut packets, mut others) = (Vec::with_capacity(AT_ONCE), Vec::new());
    let before = allocations();
    for _ in 0..AT_ONCE {
        let packet = arena.fill_with(|space| {
            space[..PLAINTEXT].fill(0x45);
            Ok::<_, Infallible>(PLAINTEXT)
        });
        frames.push(Cstp::frame(packet.unwrap()));
    }
    let framed = allocations() - before;
    assert!(framed <= 2 * AT_ONCE.div_ceil(IN_A_CHUNK), "{framed} allocations for {AT_ONCE} packets");
    let mut stream = BytesMut::from(&frames.concat()[..]);
    let before = allocations();
    Cstp.read(&mut stream, &mut packets, &mut others).unwrap();
    let read = allocations() - before;
    assert!(read <= 1 && packets.len() == AT_ONCE, "{read} allocations for {} packets", packets.len());
}

/// Superpackets to a client and records from it, and everything that they need, made beforehand.
fn pass_through_workers(suite: CipherSuite) {
    let world = World::new(1, true);
    let (client, peer) = outer();
    let (sender, _reports) = mpsc::channel(8);
    let session = Arc::clone(&world.session);
    let (sa, records) = (Inbound::new(keys(suite).client_to_server).unwrap(), Arc::default());
    world.workers.handle().associate(Association { peer, sa, session, records, reports: sender });
    let sa = OutboundSa::Dtls(Arc::new(Outbound::new(keys(suite).server_to_client).unwrap()));
    let origin = Origin::default();
    let route = DatagramRoute { sa, to: peer, origin, mtu: MTU, vouched: false, marked: false };
    world.session.carriers.set_route(Some(route));

    let local = UdpSocket::bind("10.9.0.1:0").unwrap();
    setsockopt(&local, sockopt::UdpGsoSegment, &i32::try_from(PAYLOAD).unwrap()).unwrap();
    let inside = bind_any(false, None, true).unwrap();
    let to = Udp::to(inside.local_addr().unwrap().port(), Checksums::Full);
    let packets = flow(to, &vec![vec![7; PAYLOAD]; AT_ONCE]);
    let sealing = Outbound::<Cipher>::new(keys(suite).client_to_server).unwrap();
    let plaintext = HEAD_LEN + packets[0].len();
    let (stride, payload) = (suite.sealed_len(plaintext), vec![7; PAYLOAD * AT_ONCE]);
    let (mut sealed, mut buffer) = (vec![0; stride * AT_ONCE], vec![0; 65_536]);
    let mut round = || {
        local.send_to(&payload, BEYOND).unwrap();
        wait_for_all(&client, &mut buffer);
        let mut numbers = sealing.reserve(u32::try_from(AT_ONCE).unwrap(), plaintext).unwrap();
        for (slot, packet) in sealed.chunks_exact_mut(stride).zip(&packets) {
            slot[suite.prefix_len() + HEAD_LEN..][..packet.len()].copy_from_slice(packet);
            assert_eq!(seal_packet(&mut numbers, slot, packet.len()), Ok(stride));
        }
        assert!(client.send(world.peer.to(), None, &sealed, stride, 0).error.is_none());
        wait_for_all(&inside, &mut buffer);
    };
    (0..10).for_each(|_| round());
    let before = allocations();
    (0..ROUNDS).for_each(|_| round());
    // Workers go to sleep and wake, too.
    thread::sleep(Duration::from_millis(20));
    round();
    assert_eq!(allocations() - before, 0, "{}", suite.name());
    let counted = world.counters().traffic();
    let packets = ((ROUNDS + 11) * AT_ONCE) as u64;
    assert_eq!((counted.tx_packets, counted.rx_packets, counted.drops), (packets, packets, vec![]));
}

/// Takes messages until there was all that was sent at once.
fn wait_for_all(socket: &EspSocket, buffer: &mut [u8]) {
    let deadline = Instant::now() + PATIENCE;
    let mut packets = 0;
    while packets < AT_ONCE {
        match socket.receive(buffer) {
            Ok(message) => packets += message.len.div_ceil(message.segment),
            Err(_) => {
                assert!(Instant::now() < deadline, "{packets} of {AT_ONCE} packets");
                thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

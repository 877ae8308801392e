//! From the kernel to the peer.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc as channel;

use adit_proto::esp::packet::sealed_len;
use nix::sched::{CloneFlags, unshare};
use socket2::SockRef;

use super::super::transmit::batch::{Batches, Unsealed};
use super::super::transmit::outlet::{Outlet, SendOutcome};
use super::*;
use crate::carrier::DatagramRoute;
use crate::tun::Tun;
use crate::udp::{MAX_BYTES, MAX_SEGMENTS};

/// Largest payload of a UDP packet in IPv4.
const FULL: usize = MTU as usize - 28;

/// Sends datagrams of `size` bytes, `len` bytes in all, in one call.
fn send(socket: &UdpSocket, to: &str, payload: &[u8], size: usize) {
    segment(socket, if payload.len() > size { size } else { 0 });
    assert_eq!(socket.send_to(payload, to).unwrap(), payload.len());
}

/// Fails unless the next packets at the peer hold these payloads, each as `next_header`.
fn expect(peer: &mut Peer, payload: &[u8], size: usize, next_header: NextHeader) -> Vec<Arrived> {
    let mut all = Vec::new();
    for (number, part) in payload.chunks(size).enumerate() {
        let arrived = peer.next(PATIENCE).unwrap_or_else(|| panic!("datagram {number} of {size} bytes is missing"));
        assert_eq!(arrived.next_header, next_header);
        let start = check(&arrived.packet, next_header);
        assert_eq!(arrived.packet[start + 4..start + 6], u16::try_from(8 + part.len()).unwrap().to_be_bytes());
        assert!(arrived.packet[start + 8..] == *part, "datagram {number} of {size} bytes");
        all.push(arrived);
    }
    all
}

/// Bytes of a segment and of a superpacket, in turn: singles in between, more segments than one call takes, and more
/// bytes.
const SHAPES: [(usize, usize); 19] = [
    (1368, 20 * 1368),
    (1368, 20 * 1368 + 1),
    (500, 60 * 500),
    (500, 59 * 500 + 499),
    (FULL, 1),
    (1000, 30_500),
    (FULL, 700),
    (1368, 2 * 1368),
    (FULL, 47 * FULL),
    (FULL, 46 * FULL + 5),
    (100, 100 * 100),
    (10, 128 * 10),
    (10, 67 * 10),
    (1, 65),
    (1, 64),
    (500, 501),
    (1000, 65_000),
    (501, 64 * 501),
    (501, 66 * 501),
];

#[test]
fn superpackets_of_all_shapes_reach_the_peer_byte_for_byte() {
    for (queues, vouched) in [(1, true), (1, false), (2, true)] {
        in_namespace(move || {
            let mut world = World::new(queues, vouched);
            let next_headers = if vouched {
                [NextHeader::VouchedIpv4, NextHeader::VouchedIpv6]
            } else {
                [NextHeader::Ipv4, NextHeader::Ipv6]
            };
            for (local, to, next_header) in
                [("10.9.0.1:0", "10.9.0.2:53", next_headers[0]), ("[fd09::1]:0", "[fd09::2]:53", next_headers[1])]
            {
                let socket = UdpSocket::bind(local).unwrap();
                let mut packets = 0;
                for (number, (size, len)) in SHAPES.into_iter().cycle().take(3 * SHAPES.len()).enumerate() {
                    let size = size.min(FULL - (local.len() - 10) * 20);
                    let payload = content(len, number);
                    send(&socket, to, &payload, size);
                    let arrived = expect(&mut world.peer, &payload, size, next_header);
                    packets += arrived.len();
                    if next_header.version() == Some(4) && arrived.len() > 1 {
                        let id = |arrived: &Arrived| u16::from_be_bytes([arrived.packet[4], arrived.packet[5]]);
                        let follows = |pair: &[Arrived]| id(&pair[1]) == id(&pair[0]).wrapping_add(1);
                        assert!(arrived.windows(2).all(follows), "identifications grow by one");
                    }
                }
                assert!(packets > 500);
            }
            let traffic = world.counters().traffic();
            assert_eq!(traffic.drops, []);
            assert!(traffic.tx_packets > 1000);
        });
    }
}

#[test]
fn superpacket_goes_in_as_few_calls_as_it_fits() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        let socket = local_v4();
        for (size, segments) in [(1368, 45), (FULL, 47), (500, 64), (500, 66), (100, 100)] {
            let payload = content(size * segments, 1);
            for _ in 0..3 {
                send(&socket, "10.9.0.2:53", &payload, size);
                let arrived = expect(&mut world.peer, &payload, size, NextHeader::VouchedIpv4);
                let messages = arrived[segments - 1].message + 1 - arrived[0].message;
                let at_once = (MAX_BYTES / sealed_len(28 + size)).min(MAX_SEGMENTS);
                assert_eq!(messages, segments.div_ceil(at_once), "{segments} segments of {size}");
            }
        }
    });
}

#[test]
fn superpackets_of_one_turn_fill_each_others_calls() {
    in_namespace(|| {
        let tun = device(1, 1);
        let ((socket, to), (session, _keeper)) = (outer(), session());
        let sas = sas(Spi::new(0, 1).unwrap(), Spi::new(0, 2).unwrap(), true);
        let mut peer = Peer::new(to, sas.far);
        session.carriers.set_route(Some(route(sas.near.0, peer.address(), true)));
        let sessions = vec![("10.9.0.2".parse().unwrap(), Arc::clone(&session))];
        let router = Arc::new(Router { sessions, counters: Counters::default() });
        let mut worker = Worker::alone(router, Arc::clone(&tun.queues()[0]), Arc::new(socket)).unwrap();
        let (inside, payload) = (local_v4(), content(47 * FULL, 1));
        for _ in 0..3 {
            send(&inside, "10.9.0.2:53", &payload, FULL);
        }
        assert!(worker.step().unwrap());
        let mut calls = 0;
        for _ in 0..3 {
            let arrived = expect(&mut peer, &payload, FULL, NextHeader::VouchedIpv4);
            calls = arrived[46].message + 1;
        }
        let at_once = MAX_BYTES / sealed_len(28 + FULL);
        assert!(at_once < 47);
        assert_eq!(calls, (3 * 47_usize).div_ceil(at_once));
    });
}

#[test]
fn single_packets_of_every_size_stay_in_order() {
    for vouched in [true, false] {
        in_namespace(move || {
            let mut world = World::new(1, vouched);
            let socket = local_v4();
            let payloads: Vec<_> = (0..=FULL).map(|len| content(len, len)).collect();
            let next_header = if vouched { NextHeader::VouchedIpv4 } else { NextHeader::Ipv4 };
            // Ever longer ones, which cannot share a call, and ever shorter ones; no more at once than the device's
            // queue holds.
            let all: Vec<_> = payloads.iter().chain(payloads.iter().rev()).collect();
            for some in all.chunks(200) {
                for payload in some {
                    socket.send_to(payload, "10.9.0.2:53").unwrap();
                }
                for payload in some {
                    let arrived = world.peer.next(PATIENCE).expect("a packet is missing");
                    assert_eq!(arrived.next_header, next_header);
                    check(&arrived.packet, next_header);
                    assert!(arrived.packet[28..] == payload[..], "{} bytes", payload.len());
                }
            }
            let traffic = world.counters().traffic();
            let bytes: usize = payloads.iter().map(|payload| 2 * (28 + payload.len())).sum();
            assert_eq!((traffic.tx_packets, traffic.tx_bytes), (2 * payloads.len() as u64, bytes as u64));
        });
    }
}

#[test]
fn burst_of_equal_small_packets_shares_calls() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        let socket = local_v4();
        for number in 0..400 {
            socket.send_to(&content(64, number), "10.9.0.2:53").unwrap();
        }
        let arrived: Vec<_> = (0..400).map(|_| world.peer.next(PATIENCE).unwrap()).collect();
        for (number, arrived) in arrived.iter().enumerate() {
            assert!(arrived.packet[28..] == content(64, number));
        }
        assert!(arrived[399].message < 399, "no two shared a call");
    });
}

#[test]
fn sessions_that_take_turns_keep_their_order() {
    let (mut batches, mut outlet) = (Batches::default(), Outlet::new(vec![Arc::new(outer().0)]));
    // More sessions than collect at the same time.
    let mut ends: Vec<_> = (0..7)
        .map(|number| {
            let [near, far] = [number, 100 + number].map(|random| Spi::new(0, random).unwrap());
            let sas = sas(near, far, true);
            let peer = Peer::new(outlet.sockets[0].local_addr().unwrap(), sas.far);
            let route = Arc::new(route(sas.near.0, peer.address(), true));
            (session().0, route, peer)
        })
        .collect();
    let packet = |round: usize, number: usize| {
        Udp::to(53, Checksums::Full).build(&content([100, 100, 100, 60, 200, 1, 1][round % 7], round + 10 * number))
    };
    for round in 0..100 {
        for (number, (session, route, _)) in ends.iter().enumerate() {
            // Some send more than others.
            for _ in 0..=number % 3 {
                let packet = packet(round, number);
                let unsealed = Unsealed { packet: &packet, next_header: NextHeader::Ipv4 };
                assert_eq!(batches.push(session, route, unsealed, &mut outlet), Ok(SendOutcome::Finished));
            }
        }
        if round % 10 == 9 {
            assert_eq!(batches.flush_all(&mut outlet), SendOutcome::Finished);
        }
    }
    for (number, (session, _, peer)) in ends.iter_mut().enumerate() {
        for round in 0..100 {
            for _ in 0..=number % 3 {
                assert!(peer.next(PATIENCE).unwrap().packet == packet(round, number), "{number}: {round}");
            }
        }
        let traffic = session.carriers.counters().traffic();
        assert_eq!((traffic.tx_packets, traffic.drops), (100 * (1 + number as u64 % 3), vec![]));
    }
}

#[test]
fn flows_of_many_sockets_stay_in_order_over_two_workers() {
    const FLOWS: u16 = 16;
    const ROUNDS: u16 = 150;
    in_namespace(|| {
        let mut world = World::new(2, true);
        let (took, taken) = channel::sync_channel(4 * usize::from(FLOWS) * usize::from(ROUNDS));
        let sending = thread::spawn(move || {
            let sockets: Vec<_> = (0..FLOWS).map(|_| local_v4()).collect();
            for round in 0..ROUNDS {
                // No more on the way than the device's queue holds.
                for _ in 0..if round < 2 { 0 } else { 4 * FLOWS } {
                    taken.recv_timeout(PATIENCE).unwrap();
                }
                for (number, socket) in (0..FLOWS).zip(&sockets) {
                    // Three packets at once, then one.
                    let size = 200 + usize::from(number);
                    let datagram = |at: u16| {
                        let mut datagram = [number, 4 * round + at].map(u16::to_be_bytes).concat();
                        datagram.resize(size, 0);
                        datagram
                    };
                    send(socket, "10.9.0.2:53", &[0, 1, 2].map(datagram).concat(), size);
                    send(socket, "10.9.0.2:53", &datagram(3), size);
                }
            }
        });
        let mut next = [0_u16; FLOWS as usize];
        for _ in 0..4 * u32::from(FLOWS) * u32::from(ROUNDS) {
            let Arrived { packet, .. } = world.peer.next(PATIENCE).expect("a packet is missing");
            let number = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            let flow = usize::from(number(28));
            assert_eq!(number(30), next[flow], "flow {flow}");
            next[flow] += 1;
            // The last rounds need no leave.
            took.send(()).ok();
        }
        sending.join().unwrap();
        assert_eq!(next, [4 * ROUNDS; FLOWS as usize]);
    });
}

#[test]
fn congestion_bits_go_into_the_outer_header_of_a_path_that_passes_them() {
    for marked in [true, false] {
        in_namespace(move || {
            let mut world = World::new(1, true);
            let near = sas(world.near, Spi::new(0, 1).unwrap(), true).near.0;
            let route = DatagramRoute { marked, ..route(near, world.peer.address(), true) };
            world.session.carriers.set_route(Some(route));
            let socket = local_v4();
            for bits in [2, 0, 1, 3, 0] {
                SockRef::from(&socket).set_tos_v4(bits).unwrap();
                for len in [100, 5000] {
                    let payload = content(len, 3);
                    send(&socket, "10.9.0.2:53", &payload, 1000);
                    let arrived = expect(&mut world.peer, &payload, 1000, NextHeader::VouchedIpv4);
                    let outer = if marked { bits } else { 0 };
                    assert!(
                        arrived.iter().all(|arrived| u32::from(arrived.ecn) == outer),
                        "{bits}: {}",
                        arrived[0].ecn
                    );
                }
            }
        });
    }
}

#[test]
fn without_esp_the_connection_gets_finished_packets_in_order() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        world.session.carriers.set_route(None);
        let socket = local_v4();
        let mut payloads = Vec::new();
        for (number, (size, len)) in SHAPES.into_iter().enumerate() {
            let payload = content(len, number);
            send(&socket, "10.9.0.2:53", &payload, size);
            payloads.extend(payload.chunks(size).map(<[u8]>::to_vec));
        }
        eventually("all packets", || world.keeper.packets.lock().unwrap().len() >= payloads.len());
        let packets = world.keeper.packets.lock().unwrap();
        assert_eq!(packets.len(), payloads.len());
        for (packet, payload) in packets.iter().zip(&payloads) {
            check(packet, NextHeader::Ipv4);
            assert!(packet[28..] == payload[..]);
        }
        assert!(world.peer.next(Duration::from_millis(20)).is_none());
        assert_eq!(world.counters().traffic().drops, []);
    });
}

/// A socket that fragments nothing and hears what is too big.
fn stubborn() -> UdpSocket {
    #[derive(Clone, Copy)]
    struct Discover;
    nix::setsockopt_impl!(
        Discover,
        libc::IPPROTO_IP,
        libc::IP_MTU_DISCOVER,
        libc::c_int,
        sockopt::SetStruct<libc::c_int>
    );
    let socket = local_v4();
    setsockopt(&socket, Discover, &libc::IP_PMTUDISC_DO).unwrap();
    socket.connect("10.9.0.2:53").unwrap();
    socket
}

#[test]
fn sender_of_too_large_packets_learns_the_size_on_both_carriers() {
    for esp in [true, false] {
        in_namespace(move || {
            let mut world = World::new(1, true);
            let mtu = 1300;
            if esp {
                let near = sas(world.near, Spi::new(0, 1).unwrap(), true).near.0;
                let route = DatagramRoute { mtu, ..route(near, world.peer.address(), true) };
                world.session.carriers.set_route(Some(route));
            } else {
                world.keeper.mtu.store(mtu, Ordering::Relaxed);
                world.session.carriers.set_route(None);
            }
            let socket = stubborn();
            let fits = usize::from(mtu) - 28;
            segment(&socket, FULL);
            socket.send(&content(3 * FULL, 1)).unwrap();
            eventually("superpacket is counted", || drops(world.counters(), DropReason::TooBig) == 3);
            segment(&socket, 0);
            // The answer is an error of the socket, and what the kernel knows of the path from now on.
            let mut error = None;
            eventually("answer", || {
                error = socket.take_error().unwrap();
                error.is_some()
            });
            let refused = socket.send(&content(fits + 1, 1)).unwrap_err();
            assert_eq!([error.unwrap(), refused].map(|error| error.raw_os_error()), [Some(libc::EMSGSIZE); 2]);
            assert_eq!(socket.send(&content(fits, 2)).unwrap(), fits);
            if esp {
                expect(&mut world.peer, &content(fits, 2), fits, NextHeader::VouchedIpv4);
                assert!(world.keeper.packets.lock().unwrap().is_empty());
            } else {
                eventually("packet that fits", || world.keeper.packets.lock().unwrap().len() == 1);
                assert!(world.peer.next(Duration::from_millis(20)).is_none());
            }
        });
    }
}

#[test]
fn packets_to_nobody_are_counted() {
    in_namespace(|| {
        let world = World::new(1, true);
        let before = drops(&world.router.counters, DropReason::NoRoute);
        send(&local_v4(), "10.9.0.99:53", &content(5000, 1), 1000);
        eventually("five segments", || drops(&world.router.counters, DropReason::NoRoute) >= before + 5);
    });
}

#[test]
fn refused_datagrams_are_counted_and_make_doubt() {
    in_namespace(|| {
        let world = World::new(1, true);
        let near = sas(world.near, Spi::new(0, 1).unwrap(), true).near.0;
        // The namespace has no route there.
        world.session.carriers.set_route(Some(route(near, "203.0.113.1:443".parse().unwrap(), true)));
        let socket = local_v4();
        send(&socket, "10.9.0.2:53", &content(5000, 1), 1000);
        send(&socket, "10.9.0.2:53", b"alone", 1000);
        eventually("six packets", || drops(world.counters(), DropReason::SendFailed) == 6);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let hints =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, world.session.carriers.hinted()).await.unwrap() });
        assert_eq!((hints.doubt, hints.sent), (true, false));
    });
}

#[test]
fn path_that_is_too_narrow_is_told_to_the_control_side() {
    in_namespace(|| {
        let world = World::new(1, true);
        ip("link set lo mtu 1300");
        send(&local_v4(), "10.9.0.2:53", &content(5 * FULL, 1), FULL);
        eventually("five packets", || drops(world.counters(), DropReason::TooBig) == 5);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let hints =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, world.session.carriers.hinted()).await.unwrap() });
        assert!(hints.too_big.is_some() && !hints.sent);
    });
}

/// The far end of a TCP connection, in a namespace of its own: its device, and what it received.
fn far_end() -> (Tun, JoinHandle<Vec<u8>>) {
    let (ready, tun) = channel::sync_channel(1);
    let receiving = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let tun = device(1, 2);
        let listener = TcpListener::bind("10.9.0.2:80").unwrap();
        ready.send(tun).unwrap();
        let (mut stream, mut received) = (listener.accept().unwrap().0, Vec::new());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(&received).unwrap();
        received
    });
    (tun.recv_timeout(PATIENCE).unwrap(), receiving)
}

#[test]
fn tcp_passes_through_two_workers_both_ways() {
    for vouched in [true, false] {
        in_namespace(move || {
            let near = device(1, 1);
            let (far, receiving) = far_end();
            let (sockets, addresses): (Vec<_>, Vec<_>) = (0..2).map(|_| outer()).unzip();
            let spis = [11, 12].map(|random| Spi::new(0, random).unwrap());
            let sas = sas(spis[0], spis[1], vouched);
            let mut ends = Vec::new();
            let there = [
                (near.queues(), "10.9.0.2", addresses[1], sas.near),
                (far.queues(), "10.9.0.1", addresses[0], sas.far),
            ];
            for ((queues, beyond, to, (sealing, opening)), socket) in there.into_iter().zip(sockets) {
                let (session, _keeper) = session();
                let sessions = vec![(beyond.parse().unwrap(), Arc::clone(&session))];
                let router = Arc::new(Router { sessions, counters: Counters::default() });
                let sockets = vec![vec![Arc::new(socket)]];
                let workers = Workers::start(&router, queues, sockets, Settings::default()).unwrap();
                session.carriers.set_route(Some(route(sealing, to, vouched)));
                let (reports, _) = mpsc::channel(1);
                let session_too = Arc::clone(&session);
                workers.handle().install(Installation { sa: opening, epoch: 0, session: session_too, reports });
                ends.push((workers, session));
            }
            let sent = content(3_000_000, 5);
            let mut stream = TcpStream::connect_timeout(&"10.9.0.2:80".parse().unwrap(), PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut back = Vec::new();
            stream.read_to_end(&mut back).unwrap();
            assert!(receiving.join().unwrap() == sent, "to the far end");
            assert!(back == sent, "and back");
            for (_, session) in &ends {
                let traffic = session.carriers.counters().traffic();
                assert!(traffic.tx_packets > 2000 && traffic.rx_packets > 2000, "{traffic:?}");
                assert_eq!(traffic.rx_reordered, 0);
            }
        });
    }
}

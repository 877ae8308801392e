//! From the peer to the kernel.

use adit_proto::esp::packet::sealed_len;

use super::super::mailbox::Command;
use super::super::receive::{Receive, Surroundings};
use super::*;

const KINDS: [(bool, Checksums); 2] = [(true, Checksums::Partial), (false, Checksums::Full)];

fn payloads(count: usize, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| content(len, number)).collect()
}

#[test]
fn packets_of_one_flow_reach_a_socket_in_one_piece() {
    for (vouched, checksum) in KINDS {
        in_namespace(move || {
            let world = World::new(1, true);
            let (socket, port) = joined();
            for (count, len) in [(20, 1000), (44, 1392), (64, 500), (1, 1392), (2, 1)] {
                let sent = payloads(count, len);
                world.peer.send_packets(&flow(Udp::to(port, checksum), &sent), vouched);
                let (received, messages) = datagrams(&socket, count);
                assert!(received == sent, "{count} of {len}");
                assert_eq!(messages, 1, "{count} of {len}");
            }
            let traffic = world.counters().traffic();
            assert_eq!((traffic.rx_packets, traffic.rx_reordered, traffic.drops), (131, 0, vec![]));
        });
    }
}

#[test]
fn packets_of_all_sizes_reach_a_socket_byte_for_byte() {
    for (vouched, checksum) in KINDS {
        in_namespace(move || {
            let world = World::new(2, true);
            let (socket, port) = joined();
            for len in (0..=1392).step_by(3) {
                // The last one is shorter.
                let mut sent = payloads(3, len);
                sent[2].truncate(len / 2);
                world.peer.send_packets(&flow(Udp::to(port, checksum), &sent), vouched);
                let mut received = Vec::new();
                // Empty datagrams come alone, and look like nothing.
                let mut next = || {
                    let (message, parts) = message(&socket, PATIENCE).expect("a datagram is missing");
                    received.extend(if message.len == 0 { vec![vec![]] } else { parts });
                    received.len() >= 3
                };
                while !next() {}
                assert!(received == sent, "{len} bytes");
            }
            assert_eq!(world.counters().traffic().drops, []);
        });
    }
}

#[test]
fn flows_that_take_turns_stay_in_order() {
    for (vouched, checksum) in KINDS {
        in_namespace(move || {
            let world = World::new(1, true);
            let sockets: Vec<_> = (0..3).map(|_| joined()).collect();
            let sent = payloads(20, 700);
            for _ in 0..10 {
                let mut packets = Vec::new();
                for (id, payload) in (1..).zip(&sent) {
                    let to = |port| Udp { id, ..Udp::to(port, checksum) }.build(payload);
                    packets.extend(sockets.iter().map(|(_, port)| to(*port)));
                }
                world.peer.send_packets(&packets, vouched);
                for (socket, _) in &sockets {
                    let (received, messages) = datagrams(socket, sent.len());
                    assert!(received == sent);
                    assert_eq!(messages, 1, "taking turns does not keep a flow apart");
                }
            }
        });
    }
}

#[test]
fn one_message_may_hold_packets_of_two_sessions() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (spi, mut reports) = (world.workers.handle().claim_spi(None).unwrap(), mpsc::channel(8));
        let others = sas(spi, Spi::new(0, 2).unwrap(), true);
        let session = Arc::clone(&world.other);
        world.workers.handle().install(Installation { sa: others.near.1, epoch: 3, session, reports: reports.0 });
        let (socket, port) = joined();
        let mut sealed = Vec::new();
        for (id, payload) in (1..).zip(payloads(30, 600)) {
            // Two of one, then one of the other.
            let (host, sa) = if id % 3 == 0 { (3, &others.far.0) } else { (2, &world.peer.sealing) };
            let packet = Udp { host, id, ..Udp::to(port, Checksums::Full) }.build(&payload);
            sealed.extend(seal(sa, &packet, NextHeader::Ipv4));
        }
        world.peer.send(&sealed, sealed_len(628), 0);
        let mut received = datagrams(&socket, 30).0;
        received.sort_unstable();
        let mut sent = payloads(30, 600);
        sent.sort_unstable();
        assert!(received == sent);
        let of = |session: &Session| session.carriers.counters().traffic();
        assert_eq!((of(&world.session).rx_packets, of(&world.other).rx_packets), (20, 10));
        assert_eq!((of(&world.session).rx_bytes, of(&world.other).rx_bytes), (20 * 628, 10 * 628));
        let report = reports.1.try_recv().unwrap();
        assert_eq!((report.epoch, report.from), (3, world.peer.address()));
    });
}

/// What a test sends, and for which reason it must be dropped.
struct Bad {
    datagram: Vec<u8>,
    reason: DropReason,
    /// It is counted for the session, not for nobody.
    known: bool,
}

fn bad_datagrams(peer: &Peer, port: u16) -> Vec<Bad> {
    let good = Udp::to(port, Checksums::Full).build(b"good");
    let sealed = |packet: &[u8], next_header| peer.seal_one(packet, next_header);
    let changed = |at: usize, bit: u8| {
        let mut datagram = sealed(&good, NextHeader::Ipv4);
        let at = at.min(datagram.len() - 1);
        datagram[at] ^= bit;
        datagram
    };
    let mut garbage = sealed(&good, NextHeader::Ipv4);
    garbage[4..].fill(0xa5);
    let icmp = {
        let mut packet = good.clone();
        packet[9] = 1;
        packet
    };
    let with = |datagram, reason, known| Bad { datagram, reason, known };
    vec![
        with(vec![0x80, 0, 0], DropReason::Truncated, false),
        with(sealed(&good, NextHeader::Ipv4)[..20].to_vec(), DropReason::Truncated, true),
        with([&sealed(&good, NextHeader::Ipv4)[..], &[0]].concat(), DropReason::BadLength, true),
        with(garbage, DropReason::SequenceMismatch, true),
        with(changed(3, 1), DropReason::UnknownSpi, false),
        with(changed(7, 1), DropReason::SequenceMismatch, true),
        with(changed(20, 0x10), DropReason::AuthenticationFailed, true),
        with(changed(usize::MAX, 1), DropReason::AuthenticationFailed, true),
        with(sealed(&good, NextHeader::Ipv6), DropReason::BadVersion, true),
        with(sealed(&good[..19], NextHeader::Ipv4), DropReason::Truncated, true),
        with(sealed(&good[..25], NextHeader::Ipv4), DropReason::BadLength, true),
        with(sealed(&icmp, NextHeader::VouchedIpv4), DropReason::BadVouched, true),
        with(
            sealed(&Udp { host: 3, ..Udp::to(port, Checksums::Full) }.build(b"foreign"), NextHeader::Ipv4),
            DropReason::SourceNotLeased,
            true,
        ),
    ]
}

#[test]
fn what_must_not_pass_is_counted_by_its_reason() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (socket, port) = joined();
        for Bad { datagram, reason, known } in bad_datagrams(&world.peer, port) {
            let counters = if known { world.counters() } else { &world.router.counters };
            let before = drops(counters, reason);
            world.peer.send(&datagram, datagram.len(), 0);
            eventually(reason.label(), || drops(counters, reason) == before + 1);
        }
        let good = world.peer.seal(&[Udp::to(port, Checksums::Full).build(b"good")], false);
        for _ in 0..3 {
            world.peer.send(&good, good.len(), 0);
        }
        eventually("replays", || drops(world.counters(), DropReason::Replayed) == 2);
        assert_eq!(datagrams(&socket, 1).0, [b"good"]);
        nothing_comes(&socket);
        assert_eq!(world.counters().traffic().rx_packets, 1);
    });
}

#[test]
fn bad_ones_in_a_message_do_not_harm_the_others() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (socket, port) = joined();
        let sent = payloads(12, 500);
        let mut sealed = world.peer.seal(&flow(Udp::to(port, Checksums::Full), &sent), false);
        let stride = sealed_len(528);
        sealed[3] ^= 1;
        sealed[4 * stride + 100] ^= 1;
        sealed[8 * stride + 2] ^= 1;
        world.peer.send(&sealed, stride, 0);
        let received = datagrams(&socket, 9).0;
        let rest: Vec<_> = (0..12).filter(|number| number % 4 != 0).map(|number| sent[number].clone()).collect();
        assert!(received == rest);
        assert_eq!(drops(&world.router.counters, DropReason::UnknownSpi), 2);
        assert_eq!(drops(world.counters(), DropReason::AuthenticationFailed), 1);
    });
}

#[test]
fn vouched_packets_that_were_not_negotiated_are_dropped() {
    in_namespace(|| {
        let world = World::new(1, false);
        let (socket, port) = joined();
        world.peer.send_packets(&[Udp::to(port, Checksums::Partial).build(b"vouched")], true);
        eventually("drop", || drops(world.counters(), DropReason::UnknownNextHeader) == 1);
        nothing_comes(&socket);
    });
}

#[test]
fn wrong_checksum_is_the_receiving_kernels_business() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (socket, port) = joined();
        let mut packets = flow(Udp::to(port, Checksums::Full), &payloads(4, 100));
        packets[1][50] ^= 1;
        world.peer.send_packets(&packets, false);
        let sent = payloads(4, 100);
        assert_eq!(datagrams(&socket, 3).0, [&sent[0], &sent[2], &sent[3]].map(Clone::clone));
        nothing_comes(&socket);
    });
}

#[test]
fn nothing_passes_once_the_session_is_closed() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        let (socket, port) = joined();
        let packet = || Udp::to(port, Checksums::Full).build(b"packet");
        world.peer.send_packets(&[packet()], false);
        assert_eq!(datagrams(&socket, 1).0, [b"packet"]);
        let local = local_v4();
        local.send_to(b"before", "10.9.0.2:53").unwrap();
        assert!(world.peer.next(PATIENCE).is_some());

        world.session.carriers.close();
        world.peer.send_packets(&[packet(), packet()], false);
        local.send_to(b"after", "10.9.0.2:53").unwrap();
        eventually("drops", || drops(world.counters(), DropReason::NotConnected) == 3);
        assert!(world.peer.next(Duration::from_millis(50)).is_none());
        assert!(world.keeper.packets.lock().unwrap().is_empty());
        nothing_comes(&socket);
        assert_eq!(world.counters().traffic().rx_packets, 1);
    });
}

#[test]
fn retired_index_is_unknown_and_can_be_used_anew() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (socket, port) = joined();
        world.workers.handle().retire(world.near);
        world.peer.send_packets(&[Udp::to(port, Checksums::Full).build(b"late")], false);
        eventually("drop", || drops(&world.router.counters, DropReason::UnknownSpi) == 1);
        let again = sas(world.near, Spi::new(0, 1).unwrap(), true);
        let (reports, _) = mpsc::channel(1);
        let session = Arc::clone(&world.session);
        world.workers.handle().install(Installation { sa: again.near.1, epoch: 1, session, reports });
        world.peer.send_packets(&[Udp::to(port, Checksums::Full).build(b"new")], false);
        assert_eq!(datagrams(&socket, 1).0, [b"new"]);
        nothing_comes(&socket);
    });
}

#[test]
fn indexes_are_spread_over_the_workers() {
    in_namespace(|| {
        let world = World::new(3, true);
        let handle = world.workers.handle();
        // The world has one on the first.
        let claimed: Vec<_> = (0..8).map(|_| handle.claim_spi(None).unwrap()).collect();
        let of = |worker| claimed.iter().filter(|spi| spi.worker() == worker).count();
        assert_eq!([0, 1, 2].map(of), [2, 3, 3]);
        for spi in claimed.iter().filter(|spi| spi.worker() == 1) {
            handle.retire(*spi);
        }
        assert_eq!([(); 3].map(|()| handle.claim_spi(None).unwrap().worker()), [1; 3]);
        // New keys of a session stay with its worker, however many that has.
        assert_eq!([(); 3].map(|()| handle.claim_spi(Some(claimed[2])).unwrap().worker()), [claimed[2].worker(); 3]);
    });
}

#[test]
fn each_worker_opens_what_names_it() {
    in_namespace(|| {
        let world = World::new(3, true);
        let (socket, port) = joined();
        for random in 0..6 {
            let spi = world.workers.handle().claim_spi(None).unwrap();
            let sas = sas(spi, Spi::new(0, 10 + random).unwrap(), true);
            let (reports, _) = mpsc::channel(1);
            let session = Arc::clone(&world.session);
            world.workers.handle().install(Installation { sa: sas.near.1, epoch: 0, session, reports });
            // Its first packet may be there before the worker knows of it.
            let packet = Udp::to(port, Checksums::Full).build(&random.to_be_bytes());
            let sealed = seal(&sas.far.0, &packet, NextHeader::Ipv4);
            world.peer.send(&sealed, sealed.len(), 0);
            assert_eq!(datagrams(&socket, 1).0, [random.to_be_bytes()]);
        }
    });
}

#[test]
fn first_packets_of_new_keys_are_never_lost() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (socket, port) = joined();
        // The worker is kept busy, so that commands wait.
        for number in 0..300_u32 {
            let noise = flow(Udp::to(9, Checksums::Full), &payloads(10, 900));
            world.peer.send_packets(&noise, false);
            let spi = world.workers.handle().claim_spi(None).unwrap();
            let sas = sas(spi, Spi::new(0, 10).unwrap(), true);
            let (reports, _) = mpsc::channel(1);
            let session = Arc::clone(&world.session);
            world.workers.handle().install(Installation { sa: sas.near.1, epoch: 0, session, reports });
            let packet = Udp::to(port, Checksums::Full).build(&number.to_be_bytes());
            let sealed = seal(&sas.far.0, &packet, NextHeader::Ipv4);
            world.peer.send(&sealed, sealed.len(), 0);
            assert_eq!(datagrams(&socket, 1).0, [number.to_be_bytes()]);
            world.workers.handle().retire(spi);
        }
        assert_eq!(drops(&world.router.counters, DropReason::UnknownSpi), 0);
    });
}

#[test]
fn command_that_still_waits_counts_for_the_packet_that_needs_it() {
    in_namespace(|| {
        let tun = device(1, 1);
        let (socket, address) = outer();
        let spis = [1, 2].map(|random| Spi::new(0, random).unwrap());
        let sas = sas(spis[0], spis[1], true);
        let peer = Peer::new(address, sas.far);
        let (session, _keeper) = session();
        let sessions = vec![("10.9.0.2".parse().unwrap(), Arc::clone(&session))];
        let router = Router { sessions, counters: Counters::default() };
        let (mailbox, mut receive) = (Mailbox::new().unwrap(), Receive::new());
        let around = Surroundings { routing: &router, mailbox: &mailbox, queue: &*tun.queues()[0] };
        let (reports, mut heard) = mpsc::channel(1);
        let (inside, port) = joined();
        peer.send_packets(&flow(Udp::to(port, Checksums::Full), &payloads(3, 9)), false);
        let installation = Installation { sa: sas.near.1, epoch: 0, session: Arc::clone(&session), reports };
        mailbox.put(Command::Install(Box::new(installation)));
        assert!(receive.step(&around, 0, &socket).is_some());
        receive.flush(&around);
        assert_eq!(datagrams(&inside, 3).0, payloads(3, 9));
        assert!(heard.try_recv().is_ok());
        // Nor does it wait longer to be told otherwise.
        mailbox.put(Command::Retire(spis[0]));
        receive.apply(mailbox.take());
        peer.send_packets(&flow(Udp::to(port, Checksums::Full), &payloads(3, 9)), false);
        assert!(receive.step(&around, 0, &socket).is_some());
        assert!(receive.step(&around, 0, &socket).is_none());
        assert_eq!(drops(&router.counters, DropReason::UnknownSpi), 3);
    });
}

#[test]
fn congestion_of_the_outer_path_comes_in() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (socket, port) = joined();
        for (vouched, checksum) in KINDS {
            // RFC 6040 figure 4.
            for (inner, outer, expected) in
                [(2, 3, 3), (1, 3, 3), (2, 0, 2), (0, 2, 0), (2, 1, 1), (3, 0, 3), (0, 0, 0)]
            {
                let sent = payloads(5, 300);
                let packets = flow(Udp { ecn: inner, ..Udp::to(port, checksum) }, &sent);
                world.peer.send(&world.peer.seal(&packets, vouched), sealed_len(328), outer);
                let (message, received) = message(&socket, PATIENCE).unwrap();
                assert_eq!((message.ecn, received), (expected, sent), "{inner} {outer}");
            }
        }
        let packets = flow(Udp::to(port, Checksums::Full), &payloads(5, 300));
        world.peer.send(&world.peer.seal(&packets, false), sealed_len(328), 3);
        eventually("drops", || drops(world.counters(), DropReason::CongestionExperienced) == 5);
        nothing_comes(&socket);
    });
}

#[test]
fn packets_that_the_device_refuses_are_counted_at_the_sessions_they_came_from() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (spi, reports) = (world.workers.handle().claim_spi(None).unwrap(), mpsc::channel(8).0);
        let others = sas(spi, Spi::new(0, 2).unwrap(), true);
        let session = Arc::clone(&world.other);
        world.workers.handle().install(Installation { sa: others.near.1, epoch: 0, session, reports });
        // Two runs of one session and single packets of the other, in one message.
        let mut sealed = Vec::new();
        for id in 1..=20 {
            let (host, sa) = if id % 4 == 0 { (3, &others.far.0) } else { (2, &world.peer.sealing) };
            let packet = Udp { host, id, ..Udp::to(9 + id % 2, Checksums::Full) }.build(&[1; 600]);
            sealed.extend(seal(sa, &packet, NextHeader::Ipv4));
        }
        ip("link set adit0 down");
        world.peer.send(&sealed, sealed_len(628), 0);
        let refused = |counters: &Counters| drops(counters, DropReason::TunWriteFailed);
        let seen = || [world.counters(), world.other.carriers.counters()].map(refused);
        eventually("drops", || seen() == [15, 5]);
        assert_eq!(refused(&world.router.counters), 0, "nobody else is blamed");
    });
}

#[test]
fn device_that_was_down_takes_superpackets_again() {
    in_namespace(|| {
        let world = World::new(1, true);
        let (socket, port) = joined();
        let sent = payloads(10, 800);
        let packets = flow(Udp::to(port, Checksums::Full), &sent);
        ip("link set adit0 down");
        world.peer.send_packets(&packets, false);
        eventually("drops", || drops(world.counters(), DropReason::TunWriteFailed) == 10);
        ip("link set adit0 up");
        world.peer.send_packets(&packets, false);
        let (received, messages) = datagrams(&socket, 10);
        assert!(received == sent);
        assert_eq!(messages, 1, "the kernel refused nothing but a device that is down");
    });
}

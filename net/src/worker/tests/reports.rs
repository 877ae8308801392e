//! What the control side hears.

use adit_proto::esp::packet::sealed_len;
use adit_proto::esp::probe::{self, Kind, Probe};

use super::*;

const PROBE: Probe = Probe { kind: Kind::Request, nonce: [5; probe::NONCE_LEN] };
/// Ends what a test looks at: its report comes behind all that went before.
const MARKER: Probe = Probe { kind: Kind::Request, nonce: [9; probe::NONCE_LEN] };
/// Of the packets of these tests.
const DATAGRAM: usize = sealed_len(28 + 100);

fn packets(count: u8) -> Vec<Vec<u8>> {
    let payloads: Vec<_> = (0..count).map(|number| vec![number; 100]).collect();
    // Nobody listens there.
    flow(Udp::to(9, Checksums::Full), &payloads)
}

/// The next report, which has to come.
fn report(world: &mut World) -> Option<Report> {
    let mut report = None;
    within(PATIENCE, || {
        report = world.reports.try_recv().ok();
        report.is_some()
    });
    report
}

/// Sends packets and waits until the worker had them.
fn pass(world: &World, from: &EspSocket, packets: &[Vec<u8>]) {
    let before = world.counters().traffic().rx_packets;
    let sealed = world.peer.seal(packets, false);
    let to = world.peer.to();
    assert!(from.send(to, None, &sealed, DATAGRAM, 0).error.is_none());
    eventually("packets", || world.counters().traffic().rx_packets == before + packets.len() as u64);
}

/// What is reported of all that was sent until now. The channel must have room for it.
fn rest(world: &mut World) -> Vec<Report> {
    let marker = world.peer.seal_one(&MARKER.encode(), NextHeader::Nothing);
    world.peer.send(&marker, marker.len(), 0);
    let next = || Some(report(world).expect("probes are always reported"));
    std::iter::from_fn(next).take_while(|report| report.probe != Some(MARKER)).collect()
}

/// Whether nothing is reported of what was sent until now.
fn is_quiet(world: &mut World) -> bool {
    rest(world).is_empty()
}

#[test]
fn proven_address_is_heard_of_once_per_epoch() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        pass(&world, &world.peer.socket, &packets(5));
        let Report { epoch, from, origin, len, newest, probe } = report(&mut world).unwrap();
        assert_eq!((epoch, from, len, newest), (0, world.peer.address(), 5 * DATAGRAM, true));
        assert!(probe.is_none() && origin.socket == 0);
        for _ in 0..10 {
            pass(&world, &world.peer.socket, &packets(5));
        }
        assert!(is_quiet(&mut world));
    });
}

#[test]
fn probes_are_always_reported_and_nothing_but_them() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        let dummy = |content: &[u8]| world.peer.seal_one(content, NextHeader::Nothing);
        let probes = [dummy(&PROBE.encode()), dummy(&PROBE.answer().unwrap().encode())];
        let no_probe = dummy(&[0; probe::LEN]);
        let stride = probes[0].len();
        for _ in 0..3 {
            let probes = [PROBE, PROBE.answer().unwrap()].map(|probe| probe.encode());
            let sealed = probes.map(|probe| world.peer.seal_one(&probe, NextHeader::Nothing)).concat();
            world.peer.send(&sealed, stride, 0);
            for kind in [Kind::Request, Kind::Answer] {
                let report = report(&mut world).unwrap();
                assert_eq!(report.probe, Some(Probe { kind, ..PROBE }));
                assert_eq!((report.len, report.newest), (stride, true));
            }
        }
        world.peer.send(&probes.concat(), stride, 0);
        for _ in 0..2 {
            let late = report(&mut world).unwrap();
            assert!(late.probe.is_some() && !late.newest, "sealed before the others");
        }
        world.peer.send(&no_probe, stride, 0);
        assert!(is_quiet(&mut world));
        let traffic = world.counters().traffic();
        assert_eq!((traffic.rx_packets, traffic.rx_reordered, traffic.drops), (0, 3, vec![]));
    });
}

#[test]
fn bytes_beside_a_probe_are_reported_once() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        world.session.carriers.set_route(None);
        let probe = world.peer.seal_one(&PROBE.encode(), NextHeader::Nothing);
        // A probe that is padded to the size of the packets.
        let mut padded = vec![0; 128];
        PROBE.encode_padded(&mut padded).unwrap();
        let padded = world.peer.seal_one(&padded, NextHeader::Nothing);
        world.peer.send(&probe, probe.len(), 0);
        assert_eq!(report(&mut world).unwrap().len, probe.len());
        assert!(is_quiet(&mut world), "the probe alone is one report");
        world.peer.send(&[padded, world.peer.seal(&packets(3), false)].concat(), DATAGRAM, 0);
        let lens = [report(&mut world).unwrap(), report(&mut world).unwrap()].map(|report| report.len);
        assert_eq!(lens, [DATAGRAM, 3 * DATAGRAM]);
    });
}

#[test]
fn new_address_is_heard_of_at_once_and_then_now_and_then() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        pass(&world, &world.peer.socket, &packets(1));
        assert!(report(&mut world).is_some());
        let (elsewhere, from) = outer();
        let begun = Instant::now();
        for _ in 0..50 {
            pass(&world, &elsewhere, &packets(2));
        }
        let most = 2 + begun.elapsed().as_millis() / 5;
        let first = report(&mut world).unwrap();
        assert_eq!((first.from, first.len, first.newest), (from, 2 * DATAGRAM, true));
        let mut more = 0;
        while let Ok(next) = world.reports.try_recv() {
            assert_eq!(next.from, from);
            more += 1;
        }
        for last in rest(&mut world) {
            assert_eq!(last.from, from);
            more += 1;
        }
        assert!(more < most, "{more} reports");
        // The proven one is still of no interest.
        pass(&world, &world.peer.socket, &packets(2));
        assert!(is_quiet(&mut world));
    });
}

#[test]
fn unproven_path_is_heard_of_while_packets_come() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        world.session.carriers.set_route(None);
        for _ in 0..3 {
            eventually("report", || {
                pass(&world, &world.peer.socket, &packets(1));
                world.reports.try_recv().is_ok()
            });
        }
    });
}

#[test]
fn reports_nobody_takes_hold_up_no_packet() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        for _ in 0..100 {
            let sealed = world.peer.seal_one(&PROBE.encode(), NextHeader::Nothing);
            world.peer.send(&sealed, sealed.len(), 0);
        }
        pass(&world, &world.peer.socket, &packets(5));
        let mut heard = 0;
        while world.reports.try_recv().is_ok() {
            heard += 1;
        }
        assert_eq!(heard, 16, "as many as the channel holds");
        world.reports.close();
        pass(&world, &world.peer.socket, &packets(5));
    });
}

#[test]
fn first_packet_is_reported_again_if_the_channel_was_full() {
    in_namespace(|| {
        let mut world = World::new(1, true);
        let spi = world.workers.handle().claim_spi(None).unwrap();
        let sas = sas(spi, Spi::new(0, 10).unwrap(), true);
        let (reports, mut heard) = mpsc::channel(1);
        let other = Report {
            epoch: 9,
            from: world.peer.address(),
            origin: Origin::default(),
            len: 0,
            newest: false,
            probe: None,
        };
        reports.try_send(other).unwrap();
        let session = Arc::clone(&world.session);
        world.workers.handle().install(Installation { sa: sas.near.1, epoch: 1, session, reports });
        for taken in 0..3 {
            let sealed = seal(&sas.far.0, &packets(1)[0], NextHeader::Ipv4);
            world.peer.send(&sealed, sealed.len(), 0);
            assert!(is_quiet(&mut world), "the control side of the world's own SA");
            assert_eq!(world.counters().traffic().rx_packets, taken + 1);
            if taken < 2 {
                assert_eq!(heard.try_recv().unwrap().epoch, if taken == 0 { 9 } else { 1 });
            }
        }
        assert!(heard.try_recv().is_err());
    });
}

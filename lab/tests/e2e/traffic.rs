//! Real traffic through a real tunnel to a host behind the gateway.

use std::net::IpAddr;
use std::time::Duration;

use adit_lab::traffic::{
    Capture, Direction, EchoReport, PingOutcome, TcpServer, UdpEcho, echo, ping_with_ttl, transfer,
};
use adit_lab::{INTERNET_V4, INTERNET_V6, OUTSIDE_V4, OUTSIDE_V6};
use adit_testing::{PATIENCE, alone, eventually};

use crate::harness::{INTERNET, Options, Tunnel, reach};

const TRANSFER: u64 = 100 << 20;

/// What the cable between client and gateway takes in [`replies_too_big_for_the_path_arrive_once_their_sender_knows`].
const NARROW: u32 = 1_400;
/// UDP payload that fits the gateway's TUN device, but not a tunnel through a narrow cable.
const TOO_BIG: usize = 1_360;

#[test]
fn hundred_mebibytes_arrive_intact_each_way_over_both_families() {
    let _turn = alone();
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    let client = tunnel.client().host();
    for (address, outside) in [(INTERNET[0], IpAddr::V4(OUTSIDE_V4)), (INTERNET[1], IpAddr::V6(OUTSIDE_V6))] {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let done = transfer(client, server.address(), direction, TRANSFER).unwrap();
            println!("{direction:?} with {address}: {:.0} Mbit/s", done.megabits_per_second());
            assert_eq!(done.bytes, TRANSFER);
            assert!(done.is_intact(), "{direction:?} with {address}");
        }
        assert!(server.peers().iter().all(|peer| peer.ip() == outside), "sources are translated: {:?}", server.peers());
    }
}

#[test]
fn ten_thousand_echoes_come_back_in_order() {
    let _turn = alone();
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    for address in INTERNET {
        let server = UdpEcho::start(&tunnel.internet, address).unwrap();
        let report = echo(tunnel.client().host(), server.address(), 10_000, 2_000, 200).unwrap();
        assert_eq!(report, EchoReport { sent: 10_000, received: 10_000, reordered: 0, duplicated: 0 }, "{address}");
    }
}

#[test]
fn gateway_and_internet_answer_pings_of_both_families() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    let gateways = tunnel.gateway.inner_addresses().unwrap();
    assert_eq!(gateways.len(), 2, "one address of each family: {gateways:?}");
    for target in gateways.into_iter().chain(INTERNET) {
        reach(tunnel.client().host(), target);
    }
}

#[test]
fn hop_limit_decreases_by_exactly_one_on_the_way_through_the_gateway() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    let client = tunnel.client().host();
    let capture = Capture::start(&tunnel.internet).unwrap();
    for (target, source) in
        [(IpAddr::V4(INTERNET_V4), IpAddr::V4(OUTSIDE_V4)), (IpAddr::V6(INTERNET_V6), IpAddr::V6(OUTSIDE_V6))]
    {
        reach(client, target);
        assert!(matches!(ping_with_ttl(client, target, 42, PATIENCE).unwrap(), PingOutcome::Reply { .. }));
        let seen = capture.wait_for(PATIENCE, |packet| packet.source == source && packet.ttl == 41);
        assert!(seen.is_some(), "42 became {:?}", capture.packets(|packet| packet.source == source));
        assert!(capture.packets(|packet| packet.source == source && packet.ttl == 42).is_empty());
        let expired = ping_with_ttl(client, target, 1, Duration::from_secs(5)).unwrap();
        assert!(matches!(expired, PingOutcome::TimeExceeded { .. }), "{expired:?}");
        assert!(matches!(ping_with_ttl(client, target, 2, PATIENCE).unwrap(), PingOutcome::Reply { .. }));
    }
}

#[test]
fn replies_too_big_for_the_path_arrive_once_their_sender_knows() {
    let _turn = alone();
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    // The cable is the first of both hosts.
    for host in [tunnel.client().host(), tunnel.gateway.host()] {
        host.set_mtu("eth0", NARROW).unwrap();
    }
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    let client = tunnel.client().host();
    let own = tunnel.client().inner_addresses().unwrap();
    let mut counted = 0;
    for address in INTERNET {
        reach(client, address);
        let server = UdpEcho::start(&tunnel.internet, address).unwrap();
        eventually("the internet host learns what fits", || {
            let report = echo(client, server.address(), 5, 50, TOO_BIG).unwrap();
            (report.lost() == 0).then_some(())
        });
        let drops = tunnel.session_of(own[0]).unwrap().drops;
        let now = drops.get("too_big").copied().unwrap_or_default();
        assert!(now > counted, "the first replies to {address} are too big: {drops:?}");
        counted = now;
        let report = echo(client, server.address(), 100, 200, TOO_BIG).unwrap();
        assert_eq!(report, EchoReport { sent: 100, received: 100, reordered: 0, duplicated: 0 }, "{address}");
    }
}

//! Packets with sources a client does not own: none passes, and each is counted.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed expectation ends a test")]

mod harness;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_bench::lab::{INTERNET_V4, INTERNET_V6};
use adit_bench::programs::TUN;
use adit_bench::traffic::{Capture, inject, udp_packet};
use harness::{INTERNET, Options, PATIENCE, Tunnel, eventually, reach};

/// Packets of each forged source.
const EACH: u64 = 7;
const FORGED: &[u8] = b"adit-forged-source";
const HONEST: &[u8] = b"adit-honest-source";
/// Drops of what a kernel sends by itself from its link-local address.
const KERNELS_OWN: &str = "source_link_local";

/// A packet for `internet`, whichever family the source is of.
fn packet(source: IpAddr, payload: &[u8]) -> Vec<u8> {
    let target = if source.is_ipv4() { IpAddr::V4(INTERNET_V4) } else { IpAddr::V6(INTERNET_V6) };
    udp_packet(SocketAddr::new(source, 40_000), SocketAddr::new(target, 9), 64, payload)
}

/// What the gateway dropped of the session that holds `address`, by reason.
fn drops(tunnel: &Tunnel, address: IpAddr) -> BTreeMap<String, u64> {
    let session = tunnel.session_of(address).expect("the client has a session");
    session.drops.into_iter().filter(|(reason, _)| reason != KERNELS_OWN).collect()
}

#[test]
fn forged_sources_never_pass_and_are_counted_exactly() {
    let Some(tunnel) = Tunnel::start(Options { clients: 2, settings: &[] }) else { return };
    let client = tunnel.client();
    let own = client.inner_addresses().unwrap();
    let other = tunnel.clients[1].inner_addresses().unwrap();
    let gateway = tunnel.gateway.inner_addresses().unwrap();
    for target in INTERNET {
        reach(client.host(), target);
    }

    let outside = ["10.255.254.253", "198.51.100.77", "224.0.0.9", "127.0.0.9", "2001:db8:bad::9", "ff02::9", "::1"];
    let mut forged: Vec<IpAddr> = outside.iter().map(|text| text.parse().unwrap()).collect();
    forged.extend(other);
    forged.extend(gateway);
    // Within the client's own /64, but not its address.
    forged.extend(own.iter().filter_map(|address| match address {
        IpAddr::V6(v6) => Some(IpAddr::from((v6.to_bits() ^ 0xdead_0000).to_be_bytes())),
        IpAddr::V4(_) => None,
    }));

    let behind = Capture::start(&tunnel.internet).unwrap();
    let inside = Capture::start(tunnel.gateway.host()).unwrap();
    let before = drops(&tunnel, own[0]);
    for source in &forged {
        let packets = (0..EACH).map(|_| packet(*source, FORGED)).collect();
        inject(client.host(), TUN, packets).unwrap();
    }
    // The positive control: the same way, the same shape, an honest source; and behind the forged ones in the queue.
    for source in &own {
        inject(client.host(), TUN, vec![packet(*source, HONEST)]).unwrap();
    }
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let arrived = behind.wait_for(PATIENCE, |seen| seen.contains(HONEST) && family(&seen.destination));
        assert!(arrived.is_some(), "an honest packet arrives");
    }

    let sent = EACH * u64::try_from(forged.len()).unwrap();
    let count = |now: &BTreeMap<String, u64>| now.values().sum::<u64>() - before.values().sum::<u64>();
    let after = eventually("all forged packets are counted", || {
        let now = drops(&tunnel, own[0]);
        (count(&now) >= sent).then_some(now)
    });
    assert_eq!(count(&after), sent, "{before:?} became {after:?}");
    for reason in ["source_not_leased", "source_multicast", "source_loopback"] {
        assert!(after.contains_key(reason), "{reason} is among {after:?}");
    }
    assert!(behind.packets(|seen| seen.contains(FORGED)).is_empty(), "nothing forged arrives");
    assert!(inside.packets(|seen| seen.contains(FORGED)).is_empty(), "nothing forged leaves the gateway's TUN");
    let other = tunnel.clients[1].inner_addresses().unwrap();
    assert_eq!(drops(&tunnel, other[0]).values().sum::<u64>(), 0, "nobody else is blamed");
    reach(client.host(), INTERNET[0]);
    assert!(behind.wait_for(Duration::ZERO, |seen| seen.contains(FORGED)).is_none());
}

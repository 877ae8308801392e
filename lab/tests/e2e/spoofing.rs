//! Packets with sources a client does not own, or to where none may go: over either carrier none passes, and each is
//! counted.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_lab::programs::TUN;
use adit_lab::traffic::{Capture, inject, udp_packet};
use adit_lab::{INTERNET_V4, INTERNET_V6};
use adit_testing::{PATIENCE, eventually};

use crate::harness::{Carrier, INTERNET, Options, Tunnel, filter, reach};

/// Packets of each forged source, and to each forbidden destination.
const EACH: usize = 7;
const FORGED: &[u8] = b"adit-forged-source";
const HONEST: &[u8] = b"adit-honest-source";
const FORBIDDEN: &[u8] = b"adit-forbidden-destination";
/// The port whose packets go to the first forbidden destination; the next is for the second.
const FIRST_PORT: u16 = 1_000;
/// Drops of what a kernel sends by itself from its link-local address.
const KERNELS_OWN: &str = "source_link_local";

/// A packet for `internet`, whichever family the source is of.
fn packet(source: IpAddr, payload: &[u8]) -> Vec<u8> {
    packet_to(source, 9, payload)
}

fn packet_to(source: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    let target = if source.is_ipv4() { IpAddr::V4(INTERNET_V4) } else { IpAddr::V6(INTERNET_V6) };
    udp_packet(SocketAddr::new(source, 40_000), SocketAddr::new(target, port), 64, payload)
}

/// What the gateway dropped of the session that holds `address`, by reason.
fn drops(tunnel: &Tunnel, address: IpAddr) -> BTreeMap<String, u64> {
    let session = tunnel.session_of(address).expect("the client has a session");
    session.drops.into_iter().filter(|(reason, _)| reason != KERNELS_OWN).collect()
}

/// Waits until the gateway dropped `sent` more packets of the session of `address` than `before`; panics if it is not
/// exactly that. Returns the drops.
fn assert_counted(
    tunnel: &Tunnel,
    address: IpAddr,
    before: &BTreeMap<String, u64>,
    sent: usize,
) -> BTreeMap<String, u64> {
    let sent = u64::try_from(sent).unwrap();
    let count = |now: &BTreeMap<String, u64>| now.values().sum::<u64>() - before.values().sum::<u64>();
    let after = eventually("all packets are counted", || {
        let now = drops(tunnel, address);
        (count(&now) >= sent).then_some(now)
    });
    assert_eq!(count(&after), sent, "{before:?} became {after:?}");
    after
}

#[test]
fn forged_sources_never_pass_by_esp_and_are_counted_exactly() {
    forged_sources_never_pass(Carrier::Esp);
}

#[test]
fn forged_sources_never_pass_by_quic_and_are_counted_exactly() {
    forged_sources_never_pass(Carrier::Quic);
}

fn forged_sources_never_pass(carrier: Carrier) {
    let Some(tunnel) = Tunnel::start_over(carrier, Options { clients: 2, settings: &[] }) else { return };
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

    let after = assert_counted(&tunnel, own[0], &before, EACH * forged.len());
    for reason in ["source_not_leased", "source_multicast", "source_loopback"] {
        assert!(after.contains_key(reason), "{reason} is among {after:?}");
    }
    assert!(behind.packets(|seen| seen.contains(FORGED)).is_empty(), "nothing forged arrives");
    assert!(inside.packets(|seen| seen.contains(FORGED)).is_empty(), "nothing forged leaves the gateway's TUN");
    let other = tunnel.clients[1].inner_addresses().unwrap();
    assert_eq!(drops(&tunnel, other[0]).values().sum::<u64>(), 0, "nobody else is blamed");
    reach(client.host(), INTERNET[0]);
    assert!(behind.wait_for(Duration::ZERO, |seen| seen.contains(FORGED)).is_none());
    tunnel.travels_by(carrier);
}

#[test]
fn forbidden_destinations_are_not_reached_by_esp_and_are_counted_exactly() {
    forbidden_destinations_are_not_reached(Carrier::Esp);
}

#[test]
fn forbidden_destinations_are_not_reached_by_quic_and_are_counted_exactly() {
    forbidden_destinations_are_not_reached(Carrier::Quic);
}

fn forbidden_destinations_are_not_reached(carrier: Carrier) {
    let routes = &format!(r#"["{INTERNET_V4}/32", "{INTERNET_V6}/128"]"#);
    let Some(tunnel) = Tunnel::start_over(carrier, Options { clients: 2, settings: &[("routes", routes)] }) else {
        return;
    };
    let client = tunnel.client();
    let own = client.inner_addresses().unwrap();
    for target in INTERNET {
        reach(client.host(), target);
    }
    let forbidden = forbidden(&tunnel);
    redirect(&tunnel, &forbidden);

    let behind = Capture::start(&tunnel.internet).unwrap();
    let inside = Capture::start(tunnel.gateway.host()).unwrap();
    let beside = Capture::start(tunnel.clients[1].host()).unwrap();
    let before = drops(&tunnel, own[0]);
    for (port, (destination, _)) in (FIRST_PORT..).zip(&forbidden) {
        let source = own.iter().find(|address| address.is_ipv4() == destination.is_ipv4()).unwrap();
        inject(client.host(), TUN, (0..EACH).map(|_| packet_to(*source, port, FORBIDDEN)).collect()).unwrap();
    }
    // The positive control, behind the others in the queue: a destination that nothing is done to.
    for source in &own {
        inject(client.host(), TUN, vec![packet(*source, HONEST)]).unwrap();
        let arrived =
            behind.wait_for(PATIENCE, |seen| seen.contains(HONEST) && seen.destination.is_ipv4() == source.is_ipv4());
        assert!(arrived.is_some(), "an honest packet arrives");
    }

    let after = assert_counted(&tunnel, own[0], &before, EACH * forbidden.len());
    let mut wanted = BTreeMap::new();
    for (_, reason) in &forbidden {
        *wanted.entry((*reason).to_owned()).or_insert(0) += u64::try_from(EACH).unwrap();
    }
    assert_eq!(after, wanted);
    for (where_to, capture) in
        [("behind the gateway", &behind), ("beyond the gateway", &inside), ("at the other client", &beside)]
    {
        let seen = capture.packets(|seen| seen.contains(FORBIDDEN));
        assert!(seen.is_empty(), "{where_to}, these arrived: {seen:?}");
    }
    tunnel.travels_by(carrier);
}

/// Where no packet of the first client may go, and why.
fn forbidden(tunnel: &Tunnel) -> Vec<(IpAddr, &'static str)> {
    let fixed = [
        ("0.0.0.0", "destination_unspecified"),
        ("127.0.0.9", "destination_loopback"),
        ("224.0.0.9", "destination_multicast"),
        ("255.255.255.255", "destination_broadcast"),
        ("169.254.7.7", "destination_link_local"),
        ("203.0.113.9", "no_route"),
        ("198.51.100.1", "no_route"),
        ("::", "destination_unspecified"),
        ("::1", "destination_loopback"),
        ("ff02::9", "destination_multicast"),
        ("fe80::9", "destination_link_local"),
        ("2001:db8:bad::9", "no_route"),
    ];
    let others = tunnel.clients[1].inner_addresses().unwrap();
    let isolated = others.into_iter().map(|address| (address, "destination_isolated"));
    fixed.into_iter().map(|(text, reason)| (text.parse().unwrap(), reason)).chain(isolated).collect()
}

/// Has the client's kernel rewrite the destination of packets to [`FIRST_PORT`] and on, one port for each address, when
/// it has decided already that they go into the tunnel: it would not route them there.
fn redirect(tunnel: &Tunnel, destinations: &[(IpAddr, &str)]) {
    let rule = |(port, (destination, _)): (u16, &(IpAddr, &str))| {
        let (family, field) = if destination.is_ipv4() { ("ipv4", "ip") } else { ("ipv6", "ip6") };
        format!("meta nfproto {family} udp dport {port} {field} daddr set {destination}")
    };
    let rules = (FIRST_PORT..).zip(destinations).map(rule).collect::<Vec<_>>().join("; ");
    filter(tunnel.client().host(), "forbidden", &[("postrouting priority 0", &rules)]);
}

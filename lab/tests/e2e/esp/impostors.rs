//! Clients that bear each other's inner addresses, each sealed by its own keys.

use std::net::{IpAddr, SocketAddr};

use adit_lab::programs::TUN;
use adit_lab::traffic::UdpEcho;
use adit_lab::traffic::{Capture, echo, inject, udp_packet};
use adit_lab::{INTERNET_V4, INTERNET_V6};
use adit_testing::eventually;

use super::observe::stands;
use crate::harness::{INTERNET, Options, Tunnel};

/// Forged packets of each client and family.
const EACH: usize = 50;
const FORGED: &[u8] = b"adit-forged-source";
const HONEST: &[u8] = b"adit-honest-source";

fn packet(source: IpAddr, payload: &[u8]) -> Vec<u8> {
    let target = if source.is_ipv4() { IpAddr::V4(INTERNET_V4) } else { IpAddr::V6(INTERNET_V6) };
    udp_packet(SocketAddr::new(source, 40_000), SocketAddr::new(target, 9), 64, payload)
}

#[test]
fn clients_that_bear_each_others_addresses_get_nothing_through() {
    let Some(tunnel) = Tunnel::start(Options { clients: 2, settings: &[] }) else { return };
    let own = [0, 1].map(|number| {
        stands(&tunnel, number, "esp");
        tunnel.clients[number].inner_addresses().unwrap()
    });
    let forged = |number: usize| {
        let session = tunnel.session_of(own[number][0]).unwrap();
        session.drops.get("source_not_leased").copied().unwrap_or_default()
    };
    let before = [forged(0), forged(1)];
    let behind = Capture::start(&tunnel.internet).unwrap();
    let inside = Capture::start(tunnel.gateway.host()).unwrap();
    for _ in 0..EACH {
        for (number, client) in tunnel.clients.iter().enumerate() {
            let packets = own[1 - number].iter().map(|stolen| packet(*stolen, FORGED)).collect();
            inject(client.host(), TUN, packets).unwrap();
        }
    }
    // The positive control, behind them in the same queues.
    for (number, client) in tunnel.clients.iter().enumerate() {
        let packets = own[number].iter().map(|source| packet(*source, HONEST)).collect();
        inject(client.host(), TUN, packets).unwrap();
    }
    let honest = own.iter().map(Vec::len).sum();
    eventually("honest packets arrive", || {
        (behind.packets(|seen| seen.contains(HONEST)).len() >= honest).then_some(())
    });
    for number in [0, 1] {
        let sent = u64::try_from(EACH * own[1 - number].len()).unwrap();
        let refused = eventually("forged packets are counted", || {
            Some(forged(number) - before[number]).filter(|refused| *refused >= sent)
        });
        assert_eq!(refused, sent, "client {number} is blamed for its own, and for nothing else");
    }
    assert_eq!(behind.packets(|seen| seen.contains(FORGED)).len(), 0, "nothing forged arrives");
    // What came out of a client's device is seen nowhere else at the gateway: its own device shows no packet but
    // admitted ones.
    eventually("the gateway's capture has them as well", || {
        (inside.packets(|seen| seen.contains(HONEST)).len() >= honest).then_some(())
    });
    assert_eq!(inside.packets(|seen| seen.contains(FORGED)).len(), 0, "nothing forged leaves the gateway's device");
    // Both go on as they were.
    let server = UdpEcho::start(&tunnel.internet, INTERNET[0]).unwrap();
    for (number, client) in tunnel.clients.iter().enumerate() {
        let report = echo(client.host(), server.address(), 200, 500, 100).unwrap();
        assert_eq!(report.received, report.sent, "client {number}");
        stands(&tunnel, number, "esp");
    }
}

//! Several clients of one gateway: isolation, and addresses that stay.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_lab::programs::Client;
use adit_lab::traffic::{PingOutcome, ping};
use adit_testing::eventually;

use crate::harness::{INTERNET, Options, Tunnel, answers, reach};

fn two_clients<'a>(settings: &'a [(&'a str, &'a str)]) -> Option<Tunnel> {
    Tunnel::start(Options { clients: 2, settings })
}

fn addresses(client: &Client) -> Vec<IpAddr> {
    let mut addresses = client.inner_addresses().unwrap();
    addresses.sort();
    assert_eq!(addresses.len(), 2, "one address of each family: {addresses:?}");
    addresses
}

#[test]
fn clients_are_isolated_by_default() {
    let Some(tunnel) = two_clients(&[]) else { return };
    let [first, second] = [&tunnel.clients[0], &tunnel.clients[1]];
    for client in [first, second] {
        reach(client.host(), INTERNET[0]);
        reach(client.host(), INTERNET[1]);
    }
    for (from, to) in [(first, second), (second, first)] {
        for target in addresses(to) {
            let answer = ping(from.host(), target, Duration::from_millis(500)).unwrap();
            assert!(matches!(answer, PingOutcome::Silence | PingOutcome::Refused { .. }), "{target}: {answer:?}");
        }
    }
}

#[test]
fn clients_reach_each_other_where_the_gateway_allows_it() {
    let Some(tunnel) = two_clients(&[("client_to_client", "true")]) else { return };
    let [first, second] = [&tunnel.clients[0], &tunnel.clients[1]];
    for (from, to) in [(first, second), (second, first)] {
        for target in addresses(to) {
            reach(from.host(), target);
        }
    }
}

#[test]
fn addresses_survive_reconnects() {
    let Some(mut tunnel) = two_clients(&[]) else { return };
    let before: Vec<_> = tunnel.clients.iter().map(addresses).collect();
    assert!(before[0].iter().all(|address| !before[1].contains(address)));
    for client in &mut tunnel.clients {
        assert_eq!(client.stop().unwrap(), 0);
    }
    // In the other order, so that keeping them is not luck.
    for client in tunnel.clients.iter_mut().rev() {
        client.up().unwrap();
    }
    let after: Vec<_> = tunnel.clients.iter().map(addresses).collect();
    assert_eq!(after, before);
    assert_eq!(tunnel.gateway.sessions().unwrap().len(), 2, "a device that comes back replaces its session");
}

#[test]
fn device_that_reconnects_after_a_crash_replaces_its_session() {
    let Some(mut tunnel) = Tunnel::start(Options::default()) else { return };
    let before = addresses(tunnel.client());
    tunnel.clients[0].kill();
    tunnel.clients[0].up().unwrap();
    assert_eq!(addresses(tunnel.client()), before);
    eventually("one session is left", || (tunnel.gateway.sessions().unwrap().len() == 1).then_some(()));
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn clients_are_back_with_their_addresses_after_the_gateway_restarted() {
    let Some(mut tunnel) = two_clients(&[]) else { return };
    let before: Vec<_> = tunnel.clients.iter().map(addresses).collect();
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    eventually("the tunnel is down", || (!answers(tunnel.client().host(), INTERNET[0])).then_some(()));
    for way in ["stopped", "killed"] {
        tunnel.gateway.kill();
        tunnel.gateway.start().unwrap();
        let ready = Instant::now();
        for client in &tunnel.clients {
            eventually("the client is back", || {
                ping(client.host(), INTERNET[0], Duration::from_millis(100)).unwrap().rtt()
            });
        }
        println!("{way}: clients were back after {:?}", ready.elapsed());
        assert_eq!(tunnel.clients.iter().map(addresses).collect::<Vec<_>>(), before, "{way}");
    }
}

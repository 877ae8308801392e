//! Gateways that restart, announced or killed: clients are back by themselves, with their addresses.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::programs::Client;
use adit_lab::traffic::ping;
use adit_testing::eventually;

use crate::harness::{Carrier, INTERNET, Options, Tunnel, reach};

/// The goal is a second after the gateway listens. What a busy machine adds comes on top.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// So long that no client believes any more in its connection: attempts at another one are under way.
const LONG_OUTAGE: Duration = Duration::from_secs(12);

fn addresses(tunnel: &Tunnel) -> Vec<Vec<IpAddr>> {
    tunnel.clients.iter().map(|client| client.inner_addresses().unwrap()).collect()
}

/// How long after `since` a client gets the first answer.
fn back_after(client: &Client, since: Instant) -> Duration {
    eventually("the client is back", || ping(client.host(), INTERNET[0], Duration::from_millis(100)).unwrap().rtt());
    since.elapsed()
}

#[test]
fn clients_that_send_are_back_at_once_after_a_long_outage_of_a_killed_gateway() {
    for carrier in [Carrier::Esp, Carrier::Quic] {
        let Some(mut tunnel) = Tunnel::start_over(carrier, Options { clients: 3, settings: &[] }) else { return };
        tunnel.clients.iter().for_each(|client| reach(client.host(), INTERNET[0]));
        let before = addresses(&tunnel);
        tunnel.gateway.kill();
        let killed = Instant::now();
        while killed.elapsed() < LONG_OUTAGE {
            for client in &tunnel.clients {
                assert!(ping(client.host(), INTERNET[0], Duration::from_millis(200)).unwrap().rtt().is_none());
            }
        }
        tunnel.gateway.start().unwrap();
        let ready = Instant::now();
        let back: Vec<Duration> = thread::scope(|scope| {
            let waits: Vec<_> = tunnel.clients.iter().map(|client| scope.spawn(|| back_after(client, ready))).collect();
            waits.into_iter().map(|wait| wait.join().unwrap()).collect()
        });
        println!("{}: clients were back {back:?} after the gateway was ready", carrier.name());
        assert!(back.iter().all(|after| *after <= BACK_WITHIN), "{}: {back:?}", carrier.name());
        assert_eq!(addresses(&tunnel), before);
    }
}

#[test]
fn client_that_sent_nothing_meanwhile_is_back_when_it_sends() {
    let Some(mut tunnel) = Tunnel::start_over(Carrier::Esp, Options::default()) else { return };
    reach(tunnel.client().host(), INTERNET[0]);
    let before = addresses(&tunnel);
    // ESP is proven for as long as packets are sent.
    thread::sleep(Duration::from_secs(4));
    tunnel.gateway.kill();
    tunnel.gateway.start().unwrap();
    thread::sleep(Duration::from_secs(2));
    assert!(tunnel.gateway.sessions().unwrap().is_empty(), "nobody has told the client, and it has not asked");
    let after = back_after(tunnel.client(), Instant::now());
    println!("an idle client was back {after:?} after it sent");
    assert!(after <= BACK_WITHIN, "{after:?}");
    assert_eq!(addresses(&tunnel), before);
}

#[test]
fn announced_restart_is_told_with_its_time_and_waited_for() {
    let Some(mut tunnel) = Tunnel::start(Options::default()) else { return };
    reach(tunnel.client().host(), INTERNET[0]);
    let before = addresses(&tunnel);
    let said = tunnel.gateway.admin(&["announce", "--back-in", "8s"]).unwrap().success().unwrap();
    assert!(said.contains("back in 8s"), "{said}");
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    let status = eventually("the client is told", || {
        let status = tunnel.client().status().unwrap();
        (status.state == "reconnecting").then_some(status)
    });
    let reason = status.reason.unwrap_or_default();
    assert!(reason.starts_with("the gateway restarts, back at "), "{reason}");
    tunnel.gateway.start().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(addresses(&tunnel), before);

    // Another stop is one like any other.
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    let reason = eventually("the client notices", || {
        let status = tunnel.client().status().unwrap();
        (status.state == "reconnecting").then_some(status.reason.unwrap_or_default())
    });
    assert!(!reason.contains("back at"), "{reason}");
}

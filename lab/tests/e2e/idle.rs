//! What a client costs a battery while nothing is to be sent.

use std::thread;
use std::time::Duration;

use adit_lab::Host;
use adit_lab::traffic::ping;
use adit_testing::eventually;

use crate::harness::{Carrier, INTERNET, Options, Tunnel, filter, nft, reach};

/// Long enough for what a new session has still to find out about its path.
const SETTLING: Duration = Duration::from_secs(6);
/// How long nothing is sent.
const IDLE: Duration = Duration::from_secs(30);
/// Most datagrams that may pass each way meanwhile: one in 25 s.
const MOST: u64 = 2;

/// Datagrams between a host and the gateway so far, each way.
fn counted(host: &Host) -> Vec<u64> {
    let text = nft(host, "list table inet counted");
    let counts = text.split("packets ").skip(1).map(|rest| rest.split(' ').next().unwrap().parse().unwrap());
    counts.collect()
}

#[test]
fn idle_client_sends_and_gets_a_datagram_in_25_seconds() {
    let tunnels: Option<Vec<Tunnel>> = [Carrier::Esp, Carrier::Quic]
        .into_iter()
        .map(|carrier| Tunnel::start_over(carrier, Options::default()))
        .collect();
    let Some(tunnels) = tunnels else { return };
    let hosts: Vec<&Host> = tunnels.iter().map(|tunnel| tunnel.client().host()).collect();
    for host in &hosts {
        reach(host, INTERNET[0]);
        let rules = [("output priority 0", "udp dport 443 counter"), ("input priority 0", "udp sport 443 counter")];
        filter(host, "counted", &rules);
        // The counters count.
        eventually("something is counted", || {
            ping(host, INTERNET[0], Duration::from_secs(1)).unwrap();
            counted(host).iter().all(|count| *count > 0).then_some(())
        });
    }
    thread::sleep(SETTLING);
    let before: Vec<_> = hosts.iter().map(|host| counted(host)).collect();
    thread::sleep(IDLE);
    for ((host, before), carrier) in hosts.iter().zip(before).zip([Carrier::Esp, Carrier::Quic]) {
        let passed: Vec<u64> = counted(host).iter().zip(before).map(|(now, before)| now - before).collect();
        println!("{}: {passed:?} datagrams in {IDLE:?}", carrier.name());
        assert!(passed.len() == 2 && passed.iter().all(|count| *count <= MOST), "{}: {passed:?}", carrier.name());
        reach(host, INTERNET[0]);
    }
}

//! What a client costs a battery while nothing is to be sent, and whether it is reached then.

use std::thread;
use std::time::Duration;

use adit_lab::Host;
use adit_lab::traffic::ping;
use adit_testing::eventually;

use crate::harness::{Carrier, INTERNET, Options, Tunnel, filter, nft, reach, sysctl};

/// Long enough for what a new session has still to find out about its path.
const SETTLING: Duration = Duration::from_secs(6);
/// How long nothing is sent.
const IDLE: Duration = Duration::from_secs(30);
/// Most datagrams that may pass each way meanwhile: one in 25 s.
const MOST: u64 = 2;
/// The clients: the last one is behind a NAT that forgets soon.
const CARRIERS: [Carrier; 3] = [Carrier::Esp, Carrier::Quic, Carrier::Esp];
const NAMES: [&str; 3] = ["esp", "quic", "esp behind a NAT"];
/// How long a NAT remembers a flow, in seconds: less than it should (RFC 4787 section 4.3), and than a client is quiet.
const REMEMBERED: &str = "20";
/// What a NAT does with what comes back by a flow that it has forgotten.
const FORGOTTEN: (&str, &str) = ("input priority 0", "udp sport 443 ct state new counter drop");

/// Datagrams between a host and the gateway so far, each way.
fn counted(host: &Host) -> Vec<u64> {
    let text = nft(host, "list table inet counted");
    let counts = text.split("packets ").skip(1).map(|rest| rest.split(' ').next().unwrap().parse().unwrap());
    counts.collect()
}

/// Puts a client behind a NAT that forgets soon.
fn put_behind_nat(host: &Host) {
    for kind in ["timeout", "timeout_stream"] {
        sysctl(host, &format!("net/netfilter/nf_conntrack_udp_{kind}"), REMEMBERED);
    }
    filter(host, "nat", &[FORGOTTEN]);
}

#[test]
fn idle_client_sends_and_gets_a_datagram_in_25_seconds_and_stays_reachable() {
    let start = |carrier| Tunnel::start_over(carrier, Options::default());
    let Some(tunnels) = CARRIERS.into_iter().map(start).collect::<Option<Vec<Tunnel>>>() else { return };
    let forgetful = &tunnels[2];
    put_behind_nat(forgetful.client().host());
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
    let after: Vec<_> = hosts.iter().map(|host| counted(host)).collect();
    for ((before, after), name) in before.iter().zip(&after).zip(NAMES) {
        let passed: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        println!("{name}: {passed:?} datagrams in {IDLE:?}");
        assert!(passed.len() == 2 && passed.iter().all(|count| *count <= MOST), "{name}: {passed:?}");
    }
    // The flow of ESP is forgotten, but QUIC has pinged since, and brings what the gateway's side has to say.
    let inner = forgetful.client().inner_addresses().unwrap()[0];
    reach(forgetful.gateway.host(), inner);
    assert!(!nft(hosts[2], "list table inet nat").contains("packets 0 "), "the NAT had forgotten the flow of ESP");
    hosts.iter().for_each(|host| reach(host, INTERNET[0]));
    forgetful.travels_by(Carrier::Esp);
}

//! What is exempt from connection tracking, and until when.

use std::process::Command;

use nix::sys::socket::{setsockopt, sockopt};

use super::super::exemption::others_ask_for_connections;
use super::*;

/// A firewall of the host that asks for connections, and counts what is not tracked.
const ASKS: &str = "table inet counting { chain in { type filter hook input priority 0; \
    udp dport 7000 ct state untracked counter; udp dport 7000 ct state new counter; }; }";
/// One that does not.
const ASKS_NOT: &str = "table inet counting { chain in { type filter hook input priority 0; udp dport 9 drop; }; }";

fn nft(commands: &str) -> String {
    let done = Command::new("nft").arg(commands).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

/// Loads a firewall that counts, and tells of what comes then whether it is tracked.
fn is_tracked(come: impl FnOnce()) -> bool {
    nft(ASKS);
    come();
    let counts = eventually("the packet is counted", || {
        let listing = nft("list table inet counting");
        let packets = |state| {
            let rule = listing.lines().find(|line| line.contains(state)).unwrap().to_owned();
            rule.contains("packets 1")
        };
        Some([packets("untracked"), packets("new")]).filter(|counts| counts.contains(&true))
    });
    nft("delete table inet counting");
    counts[1]
}

#[test]
fn packets_of_the_tunnel_and_of_the_client_are_exempt_and_no_others() {
    in_namespace_async(|| async {
        let host = Host::new().await;
        let mut loaded = load(&rules()).unwrap();
        let through_tunnel = || give(&host.tunnel, &udp((OUTSIDE, 53), (TUNNEL_ADDRESS, 7_000)));
        let beside = || give(&host.outside, &udp((OUTSIDE, 443), (OWN_ADDRESS, 7_000)));
        assert!(!is_tracked(through_tunnel));
        assert!(is_tracked(beside), "it is for nobody");
        let socket = service(7_000);
        assert!(is_tracked(beside), "it is for a program that is not the client");
        setsockopt(&socket, sockopt::Mark, &Mark::CLIENT.value).unwrap();
        assert!(!is_tracked(beside));

        // Once another firewall asks for connections all is tracked, and no longer.
        nft(ASKS);
        assert!(loaded.are_outdated());
        loaded.put_back().unwrap();
        assert!(!loaded.are_outdated() && loaded.are_intact().unwrap());
        nft("delete table inet counting");
        assert!(is_tracked(through_tunnel) && is_tracked(beside));
        assert!(loaded.are_outdated());
        loaded.put_back().unwrap();
        assert!(!is_tracked(through_tunnel) && !is_tracked(beside));
    });
}

#[test]
fn firewalls_that_ask_for_connections_are_told_from_those_that_do_not() {
    in_namespace(|| {
        let asks = || others_ask_for_connections(&Socket::open().unwrap());
        assert!(!asks());
        load(&rules()).unwrap();
        nft(ASKS_NOT);
        assert!(!asks(), "these tables themselves, and one that does not");
        for table in [
            "table ip t { chain nat { type nat hook postrouting priority 100; }; }",
            "table ip6 t { chain c { ct mark set 1; }; }",
            "table inet t { chain c { type filter hook forward priority 0; ct state established accept; }; }",
            "table inet t { set s { type ipv4_addr; flags dynamic; }; chain c { add @s { ip saddr ct count 9 }; }; }",
        ] {
            nft(table);
            assert!(asks(), "{table}");
            let name: Vec<&str> = table.split_whitespace().take(3).collect();
            nft(&format!("delete {}", name.join(" ")));
            assert!(!asks());
        }
    });
}

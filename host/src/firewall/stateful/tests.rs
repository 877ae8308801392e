//! Foreign firewalls as people write them, loaded by nft(8) and iptables(8).

use std::process::Command;

use adit_testing::namespace::in_namespace;
use adit_testing::skip;

use super::*;

const PORT: u16 = 443;

/// The chains that want tracking in a namespace with this ruleset; `None`, loudly, without nft(8).
fn found(ruleset: &str) -> Option<Vec<String>> {
    let Ok(output) = Command::new("nft").arg(ruleset).output() else {
        skip("needs the program nft");
        return None;
    };
    assert!(output.status.success(), "{ruleset}\n{}", String::from_utf8_lossy(&output.stderr));
    Some(chains_that_want_tracking(&Socket::open().unwrap(), PORT).unwrap())
}

fn input(policy: &str, rules: &str) -> String {
    format!("table inet h {{ chain i {{ type filter hook input priority 10; policy {policy}; {rules} }}; }};")
}

/// Asserts for each chain of the hook "input" whether it wants tracking.
fn assert_input(policy: &'static str, rules: &'static str, wanted: bool) {
    in_namespace(move || {
        let expected = if wanted { vec!["inet h i".to_owned()] } else { Vec::new() };
        if let Some(found) = found(&input(policy, rules)) {
            assert_eq!(found, expected, "policy {policy}; {rules}");
        }
    });
}

#[test]
fn chain_that_knows_tracked_datagrams_only_wants_tracking() {
    for rules in [
        "iif lo accept; ct state established,related accept; ct state new udp dport 443 accept; meta l4proto icmp accept;",
        "ct state { established, related } accept; udp dport { 443, 51820 } ct state new accept;",
        "ct state vmap { established : accept, related : accept, new : jump n, invalid : drop }; }; chain n { udp dport 400-500 accept;",
        "ct state established accept; iifname \"eth*\" jump n; }; chain n { ip saddr 10.0.0.0/8 drop; ct state new accept;",
        "ct state new,established meta l4proto udp accept; reject;",
        "ct status assured accept; ct state new goto n; drop; }; chain n { meta l4proto { tcp, udp } th dport 1-1023 accept;",
    ] {
        assert_input("drop", rules, true);
    }
    assert_input("accept", "ct state established,new accept; drop;", true);
    assert_input("accept", "udp dport 443 ct state != { new, established } drop;", true);
    assert_input("accept", "udp dport 443 ct state untracked counter drop;", true);
}

#[test]
fn chain_that_passes_datagrams_of_any_state_wants_none() {
    for rules in [
        "ct state established,related accept; ct state invalid drop; udp dport 443 accept; ct state new tcp dport 22 accept;",
        "ct state { established, related } accept; udp dport { 443, 51820 } accept; ct state new tcp dport 22 accept;",
        "ct state vmap { established : accept, related : accept, invalid : drop }; udp dport 400-500 accept;",
        "ct state established accept; jump n; }; chain n { ct state new,untracked udp dport 443 accept;",
        "meta l4proto vmap { tcp : jump n, udp : jump u }; }; chain n { ct state new accept; }; chain u { accept;",
    ] {
        assert_input("drop", rules, false);
    }
    assert_input("accept", "ct state invalid drop; ct state new tcp dport 22 accept; tcp dport 1-1024 drop;", false);
    assert_input("accept", "", false);
}

#[test]
fn chain_that_drops_tracked_datagrams_too_wants_none() {
    for rules in [
        "",
        "ct state new udp dport 80 accept;",
        "udp dport 443 drop; ct state new accept;",
        "ct state new tcp dport 443 accept;",
    ] {
        assert_input("drop", rules, false);
    }
}

#[test]
fn chains_of_other_hooks_are_read_by_the_direction_of_their_datagrams() {
    in_namespace(|| {
        let chain = |name, hook, rules| {
            format!("table inet h {{ chain {name} {{ type filter hook {hook}; policy drop; {rules}; }}; }};")
        };
        let rulesets = [
            chain(
                "o",
                "output priority 0",
                "oif lo accept; ct state established,related accept; ct state new udp dport 53 accept",
            ),
            chain("open", "output priority 0", "ct state established accept; udp sport 443 accept"),
            chain("p", "prerouting priority -150", "ct state established,new accept"),
            chain("before", "prerouting priority -250", "ct state established,new accept"),
            chain("f", "forward priority 0", "ct state established,new accept"),
        ];
        if let Some(mut found) = found(&rulesets.concat()) {
            found.sort();
            assert_eq!(found, ["inet h o", "inet h p"]);
        }
    });
}

#[test]
fn rules_of_iptables_are_read_too() {
    for (rules, wanted) in [
        (["-m conntrack --ctstate NEW -p udp --dport 443 -j ACCEPT"].as_slice(), true),
        (&["-m state --state NEW -m udp -p udp --dport 443 -j ACCEPT"], true),
        (&["-m conntrack --ctstate NEW -p udp -m multiport --dports 443,80 -j ACCEPT"], true),
        (&["-p udp --dport 443 -j ACCEPT", "-m conntrack --ctstate NEW -p tcp --dport 22 -j ACCEPT"], false),
        (&["-m conntrack --ctstate NEW -p udp --dport 51820 -j ACCEPT"], false),
        (&["-m conntrack --ctstate NEW,UNTRACKED -p udp --dport 443 -j ACCEPT"], false),
        (&["-m conntrack --ctstate INVALID -j DROP", "-p udp --dport 400:500 -j ACCEPT"], false),
    ] {
        in_namespace(move || {
            let iptables = |rule: &str| Command::new("iptables-nft").args(rule.split(' ')).status().ok();
            if iptables("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT").is_none() {
                return skip("needs the program iptables-nft");
            }
            for rule in rules {
                assert!(iptables(&format!("-A INPUT {rule}")).is_some_and(|status| status.success()), "{rule}");
            }
            assert!(iptables("-P INPUT DROP").is_some_and(|status| status.success()));
            let found = chains_that_want_tracking(&Socket::open().unwrap(), PORT).unwrap();
            assert_eq!(found, if wanted { vec!["ip filter INPUT".to_owned()] } else { Vec::new() }, "{rules:?}");
        });
    }
}

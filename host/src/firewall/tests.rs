use std::io;
use std::process::Command;

use adit_testing::namespace::in_namespace;
use adit_testing::skip;

use super::*;
use crate::error::HostError;
use crate::nft::{FAMILY_INET, ListedRule, Socket};

const CHAINS: [&str; 7] = [RAW_PREROUTING, RAW_OUTPUT, BEFORE_NAT, INPUT, FORWARD, POSTROUTING, REFUSED];

/// The table of the link `adit0`.
const TABLE: &str = "adit";

/// Loads a table of whatever instance; it stays loaded when the value is dropped, or, before Linux 6.9, as long as not.
pub(super) fn load(rules: &GatewayRules) -> Result<Table, HostError> {
    Table::load(&TableRecord::new(&rules.tun)?, rules.clone())
}

pub(super) fn rules() -> GatewayRules {
    GatewayRules {
        tun: "adit0".into(),
        pool_v4: Some("10.64.3.0/24".parse().unwrap()),
        pool_v6: Some("fd12:3456:789a::/64".parse().unwrap()),
        gateway_v4: Some("10.64.3.1".parse().unwrap()),
        gateway_v6: Some("fd12:3456:789a::1".parse().unwrap()),
        masquerade: true,
        client_to_client: false,
        connections_per_client: 2000,
        resolvers: vec!["198.51.100.53".parse().unwrap(), "2001:db8::53".parse().unwrap()],
        local_services: vec![LocalService::Tcp(22), LocalService::Udp(123)],
        listen_ports: vec![443, 8443],
        tracked_ports: vec![8443],
        forwarded_before_v4: ForwardedBefore::FromOnly(vec!["lan0".into()]),
        forwarded_before_v6: ForwardedBefore::FromAllBut(vec!["wan0".into()]),
    }
}

fn loaded_rules() -> Vec<(String, Vec<String>)> {
    let socket = Socket::open().unwrap();
    let listed = CHAINS.iter().flat_map(|chain| socket.rules(FAMILY_INET, TABLE, chain).unwrap());
    let names = |rule: ListedRule| rule.expressions.into_iter().map(|expression| expression.name).collect();
    listed.map(|rule| (rule.chain.clone(), names(rule))).collect()
}

#[test]
fn the_kernel_takes_every_rule_as_it_was_built() {
    in_namespace(|| {
        for variant in [
            rules(),
            GatewayRules { masquerade: false, client_to_client: true, connections_per_client: 0, ..rules() },
            GatewayRules { pool_v4: None, gateway_v4: None, listen_ports: Vec::new(), ..rules() },
            GatewayRules { pool_v6: None, gateway_v6: None, ..rules() },
            GatewayRules {
                forwarded_before_v4: ForwardedBefore::FromAll,
                forwarded_before_v6: ForwardedBefore::FromAll,
                ..rules()
            },
        ] {
            let table = load(&variant).unwrap();
            let mut built = variant.rules();
            let mut expected = Vec::new();
            for chain in CHAINS {
                let (here, rest): (Vec<_>, Vec<_>) = built.into_iter().partition(|rule| rule.chain() == chain);
                built = rest;
                expected.extend(here.iter().map(|rule| {
                    (chain.to_owned(), rule.expression_names().into_iter().map(str::to_owned).collect::<Vec<_>>())
                }));
            }
            assert!(built.is_empty());
            assert_eq!(loaded_rules(), expected);
            table.unload().unwrap();
            assert_eq!(Socket::open().unwrap().chains().unwrap(), []);
            table.unload().unwrap();
        }
    });
}

#[test]
fn the_loaded_table_reads_as_intended() {
    in_namespace(|| {
        let _table = load(&rules()).unwrap();
        let Ok(output) = Command::new("nft").args(["list", "ruleset"]).output() else {
            return skip("needs the program nft");
        };
        let listing = String::from_utf8(output.stdout).unwrap();
        for line in [
            "iifname \"adit0\" ip saddr != 10.64.3.0/24 counter packets 0 bytes 0 drop comment \"source outside the IPv4 pool\"",
            "iifname != \"adit0\" iifname != \"lo\" ip6 saddr fd12:3456:789a::/64 counter",
            "iifname != \"adit0\" fib daddr type local udp dport 443 notrack",
            "oifname != \"adit0\" udp sport 443 notrack",
            "iifname != \"adit0\" fib daddr type local udp dport 8443 ct state new limit rate over 500/second burst 500",
            "iifname \"adit0\" ip daddr 10.64.3.1 icmp type echo-request accept",
            "iifname \"adit0\" ip6 daddr fd12:3456:789a::1 icmpv6 type packet-too-big accept",
            "iifname \"adit0\" ip6 daddr fd12:3456:789a::1 tcp dport 53 accept",
            "iifname \"adit0\" tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
            "type filter hook prerouting priority -199; policy accept;",
            "iifname \"adit0\" oifname \"adit0\" counter packets 0 bytes 0 goto refused comment \"client to client\"",
            "iifname \"adit0\" ip daddr 169.254.0.0/16 counter packets 0 bytes 0 goto refused",
            "\t\tip daddr 169.254.0.0/16 counter packets 0 bytes 0 goto refused",
            "\t\tip daddr 198.51.100.53 udp dport 53 accept",
            "iifname \"adit0\" ip6 daddr 2001:db8::53 tcp dport 53 accept",
            "\t\tfib daddr type local tcp dport 22 accept",
            "iifname \"adit0\" fib daddr type local udp dport 123 accept",
            "\t\tfib daddr type local counter packets 0 bytes 0 goto refused comment \"not for clients\"",
            "\t\tip6 daddr fd12:3456:789a::/64 counter packets 0 bytes 0 goto refused comment \"client to client\"",
            "limit rate over 200/second burst 200 packets counter packets 0 bytes 0 drop",
            "meta l4proto tcp reject with tcp reset",
            "reject with icmpx admin-prohibited",
            "iifname \"adit0\" oifname != \"adit0\" ct state invalid counter",
            "ct state established,related accept",
            "iifname \"adit0\" ip daddr 168.63.129.16 counter packets 0 bytes 0 goto refused",
            "iifname \"adit0\" ip6 daddr fd00:ec2::254 counter packets 0 bytes 0 goto refused",
            "oifname \"adit0\" icmpv6 type nd-redirect counter packets 0 bytes 0 drop",
            "iifname \"adit0\" ct state new add @connections_v4 { ip saddr ct count over 2000 } counter",
            "iifname \"adit0\" ct state new add @connections_v6 { ip6 saddr ct count over 2000 } counter",
            "iifname \"lan0\" iifname != \"adit0\" oifname != \"adit0\" meta nfproto ipv4 accept",
            "iifname != \"adit0\" oifname != \"adit0\" meta nfproto ipv4 iifgroup != 44311 oifgroup != 44311 counter",
            "iifname \"wan0\" iifname != \"adit0\" oifname != \"adit0\" meta nfproto ipv6 iifgroup != 44311 oifgroup",
            "ip saddr 10.64.3.0/24 oifname != \"adit0\" meta l4proto tcp masquerade to :8444-65535 fully-random",
            "ip6 saddr fd12:3456:789a::/64 oifname != \"adit0\" masquerade fully-random",
        ] {
            assert!(listing.contains(line), "{line}\nis not in\n{listing}");
        }
        let limit = "add @connections_v4 { ip saddr ct count over 2000 }";
        assert_eq!(listing.matches(limit).count(), 2, "in input and forward of\n{listing}");
    });
}

#[test]
fn a_refused_batch_leaves_the_earlier_table() {
    in_namespace(|| {
        let table = load(&rules()).unwrap();
        let before = loaded_rules();
        let mut batch = Batch::new("other");
        batch.create_table();
        batch.append_rule(&Rule::new("no_such_chain").accept());
        let refusal = Socket::open().unwrap().apply(batch).unwrap_err();
        assert_eq!(refusal.step, "append rule 2 to chain no_such_chain");
        assert_eq!(Socket::open().unwrap().table(FAMILY_INET, "other").unwrap(), None, "nothing of the batch was done");
        assert_eq!(table.fault().unwrap(), None);
        assert_eq!(refusal.source.kind(), io::ErrorKind::NotFound);
        assert_eq!(loaded_rules(), before);
    });
}

#[test]
fn masquerade_has_the_most_ports_in_a_row_without_the_gateways_own() {
    for (listen_ports, expected) in [
        (vec![], (1024, 65_535)),
        (vec![443, 53], (1024, 65_535)),
        (vec![8443], (8444, 65_535)),
        (vec![51_820, 443], (1024, 51_819)),
        (vec![1024], (1025, 65_535)),
        (vec![65_535], (1024, 65_534)),
        (vec![60_000, 1024, 20_000, 20_001], (20_002, 59_999)),
    ] {
        let rules = GatewayRules { listen_ports: listen_ports.clone(), ..rules() };
        assert_eq!(rules.masquerade_ports(), expected, "{listen_ports:?}");
    }
}

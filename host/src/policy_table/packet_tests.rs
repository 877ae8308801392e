//! The loaded table against real packets: one TUN device is the tunnel, another leads to the internet.

mod random;

use std::net::IpAddr;

use adit_proto::policy::{Action, Destinations, PolicyDocument, Rule as PolicyRule, Who};
use adit_testing::namespace::in_namespace_async;

use super::*;
use crate::GatewayRules;
use crate::firewall::packet_tests::{CLIENT, INTERNET, OTHER_CLIENT, Router, next, source, unwanted, v6};
use crate::test_packets::{ACK, SYN, TCP, UDP, give, packet, ping, transport, udp};

/// Further hosts that clients may want to reach.
const OFFICE: [u8; 4] = [203, 0, 113, 99];
const OFFICE_V6: &str = "2001:db8:2::9";

/// A rule for everybody; `to` are networks or names, `ports` services, both apart by spaces.
fn rule(action: Action, to: &str, ports: &str) -> PolicyRule {
    let (mut networks, mut names) = (Vec::new(), Vec::new());
    for place in to.split_whitespace() {
        match place.parse() {
            Ok(net) => networks.push(net),
            Err(_) => names.push(place.to_owned()),
        }
    }
    let ports = ports.split_whitespace().map(|service| service.parse().unwrap()).collect();
    PolicyRule { who: Who::Everybody, action, to: Destinations::new(&networks, names), ports, line: 1 }
}

fn allow(to: &str, ports: &str) -> PolicyRule {
    rule(Action::Allow, to, ports)
}

fn deny(to: &str, ports: &str) -> PolicyRule {
    rule(Action::Deny, to, ports)
}

fn class(number: u32, rules: Vec<PolicyRule>) -> Arc<PolicyClass> {
    let document = PolicyDocument::new(Vec::new(), rules, Vec::new()).unwrap();
    Arc::new(PolicyClass { number, rules: document.compiled(&document.class_in("alice", &[])) })
}

fn load() -> PolicyTable {
    PolicyTable::load(&TableRecord::new("adit0").unwrap()).unwrap()
}

fn v4(address: [u8; 4]) -> IpAddr {
    address.into()
}

fn admit(table: &PolicyTable, addresses: &[IpAddr], class: &Arc<PolicyClass>) {
    let admit = |address: &IpAddr| MemberChange::Admit(*address, Arc::clone(class));
    table.change(&addresses.iter().map(admit).collect::<Vec<_>>()).unwrap();
}

async fn plain_router() -> Router {
    Router::new(|rules| GatewayRules { masquerade: false, ..rules }).await
}

/// Asserts that a client's packet is forwarded.
async fn assert_allowed(router: &Router, packet: &[u8]) {
    give(&router.tunnel, packet);
    let passed = if packet[0] >> 4 == 4 { next(&router.internet).await } else { v6::next(&router.internet).await };
    assert!(passed.is_some(), "{packet:?}");
}

/// Asserts that a client's packet is not forwarded, and that its sender hears so.
async fn assert_denied(router: &Router, packet: &[u8]) {
    give(&router.tunnel, packet);
    let is_v4 = packet[0] >> 4 == 4;
    let answer = if is_v4 { next(&router.tunnel).await } else { v6::next(&router.tunnel).await };
    let answer = answer.expect("an answer");
    match is_v4 {
        true if packet[9] == 6 => assert_eq!((answer[9], answer[33] & 4), (6, 4), "a reset"),
        true => assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 13), "{packet:?}"),
        false => assert_eq!((answer[6], answer[40], answer[41]), (58, 1, 1), "{packet:?}"),
    }
    let passed = if is_v4 { unwanted(&router.internet).await } else { v6::unwanted(&router.internet).await };
    assert_eq!(passed, None);
}

/// Asserts that a client's packet vanishes.
async fn assert_dropped(router: &Router, packet: &[u8]) {
    give(&router.tunnel, packet);
    assert_eq!((unwanted(&router.internet).await, unwanted(&router.tunnel).await), (None, None));
}

/// A TCP segment of a connection that is open, or to be opened.
fn tcp(source: ([u8; 4], u16), destination: ([u8; 4], u16), flags: u8, sequence: u32, acknowledged: u32) -> Vec<u8> {
    let mut segment = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    transport(source.0.into(), destination.0.into(), TCP, segment, 16)
}

/// Opens a TCP connection of a client, both ways.
async fn connect(router: &Router, port: u16, host: [u8; 4]) {
    assert_allowed(router, &tcp((CLIENT, port), (host, 443), SYN, 100, 0)).await;
    give(&router.internet, &tcp((host, 443), (CLIENT, port), SYN | ACK, 500, 101));
    assert!(next(&router.tunnel).await.is_some());
    assert_allowed(router, &tcp((CLIENT, port), (host, 443), ACK, 101, 501)).await;
}

#[test]
fn first_rule_that_matches_decides_and_without_one_nothing_passes() {
    in_namespace_async(|| async {
        let (router, table) = (plain_router().await, load());
        let rules = vec![
            deny("203.0.113.0/24", "udp/5000-5009 tcp/22"),
            allow("203.0.113.5/32 198.51.100.0/24", "udp tcp/22 tcp/443"),
            allow("203.0.113.99/32", "icmp"),
            allow("2001:db8:1::/48", "udp/53"),
            allow("2001:db8:2::/64", "icmp"),
        ];
        admit(&table, &[v4(CLIENT), v6::CLIENT.parse().unwrap()], &class(7, rules));
        assert_denied(&router, &udp((CLIENT, 1000), (INTERNET, 5009))).await;
        assert_allowed(&router, &udp((CLIENT, 1001), (INTERNET, 5010))).await;
        assert_denied(&router, &tcp((CLIENT, 1002), (INTERNET, 22), SYN, 1, 0)).await;
        assert_allowed(&router, &tcp((CLIENT, 1003), (INTERNET, 443), SYN, 1, 0)).await;
        assert_denied(&router, &tcp((CLIENT, 1004), (INTERNET, 444), SYN, 1, 0)).await;
        assert_denied(&router, &ping(CLIENT, INTERNET)).await;
        assert_allowed(&router, &ping(CLIENT, OFFICE)).await;
        assert_allowed(&router, &v6::udp((v6::CLIENT, 1005), (v6::INTERNET, 53))).await;
        assert_denied(&router, &v6::udp((v6::CLIENT, 1006), (v6::INTERNET, 54))).await;
        assert_allowed(&router, &v6::ping(v6::CLIENT, OFFICE_V6)).await;
        assert_denied(&router, &v6::ping(v6::CLIENT, v6::INTERNET)).await;
    });
}

#[test]
fn address_without_a_class_reaches_nothing() {
    in_namespace_async(|| async {
        let (router, table) = (plain_router().await, load());
        let everything = class(1, vec![allow("0.0.0.0/0 ::/0", "")]);
        assert_dropped(&router, &udp((CLIENT, 1000), (INTERNET, 53))).await;
        admit(&table, &[v4(CLIENT)], &everything);
        assert_allowed(&router, &udp((CLIENT, 1001), (INTERNET, 53))).await;
        assert_dropped(&router, &udp((OTHER_CLIENT, 1002), (INTERNET, 53))).await;
        table.change(&[MemberChange::Dismiss(v4(CLIENT)), MemberChange::Dismiss(v4(OTHER_CLIENT))]).unwrap();
        assert_dropped(&router, &udp((CLIENT, 1003), (INTERNET, 53))).await;
        give(&router.tunnel, &v6::udp((v6::CLIENT, 1004), (v6::INTERNET, 53)));
        assert_eq!(v6::unwanted(&router.internet).await, None);
    });
}

#[test]
fn client_answers_whoever_opened_a_connection_to_it() {
    in_namespace_async(|| async {
        let (router, table) = (plain_router().await, load());
        admit(&table, &[v4(CLIENT)], &class(1, vec![deny("0.0.0.0/0 ::/0", "")]));
        assert_denied(&router, &udp((CLIENT, 5000), (INTERNET, 54))).await;
        give(&router.internet, &udp((INTERNET, 53), (CLIENT, 5000)));
        assert!(next(&router.tunnel).await.is_some());
        assert_allowed(&router, &udp((CLIENT, 5000), (INTERNET, 53))).await;
    });
}

#[test]
fn clients_that_may_reach_each_other_still_have_their_policy() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| GatewayRules { client_to_client: true, ..rules }).await;
        let table = load();
        let (open, closed) =
            (class(1, vec![allow("10.64.3.0/24", "udp/53")]), class(2, vec![allow("192.0.2.0/24", "")]));
        admit(&table, &[v4(CLIENT)], &open);
        admit(&table, &[v4(OTHER_CLIENT)], &closed);
        give(&router.tunnel, &udp((CLIENT, 5000), (OTHER_CLIENT, 53)));
        assert_eq!(next(&router.tunnel).await.map(|packet| (source(&packet), packet[9])), Some((CLIENT, 17)));
        give(&router.tunnel, &udp((OTHER_CLIENT, 53), (CLIENT, 5000)));
        assert_eq!(next(&router.tunnel).await.map(|packet| (source(&packet), packet[9])), Some((OTHER_CLIENT, 17)));
        assert_denied(&router, &udp((OTHER_CLIENT, 5001), (CLIENT, 53))).await;
        assert_denied(&router, &udp((CLIENT, 5000), (OTHER_CLIENT, 54))).await;
    });
}

#[test]
fn policy_change_stops_a_forbidden_connection_and_leaves_an_allowed_one() {
    in_namespace_async(|| async {
        let (router, table) = (plain_router().await, load());
        admit(&table, &[v4(CLIENT)], &class(1, vec![allow("203.0.113.0/24", "tcp/443")]));
        connect(&router, 1000, INTERNET).await;
        connect(&router, 1001, OFFICE).await;
        // Often enough that each number of a policy comes again.
        for round in 0..9 {
            let only_office = class(round, vec![allow("203.0.113.99/32", "tcp/443")]);
            table.replace(HashMap::from([(v4(CLIENT), only_office)])).unwrap();
            assert_denied(&router, &tcp((CLIENT, 1000), (INTERNET, 443), ACK, 101, 501)).await;
            assert_allowed(&router, &tcp((CLIENT, 1001), (OFFICE, 443), ACK, 101, 501)).await;
            give(&router.internet, &tcp((OFFICE, 443), (CLIENT, 1001), ACK, 501, 101));
            assert!(next(&router.tunnel).await.is_some());
        }
    });
}

#[test]
fn policy_that_comes_judges_what_stands_and_lets_all_pass_until_then() {
    in_namespace_async(|| async {
        let router = plain_router().await;
        let table = PolicyTable::load_idle(&TableRecord::new("adit0").unwrap()).unwrap();
        connect(&router, 1000, INTERNET).await;
        connect(&router, 1001, OFFICE).await;
        table.put_back().unwrap();
        assert_allowed(&router, &udp((OTHER_CLIENT, 5000), (INTERNET, 53))).await;
        let only_office = class(1, vec![allow("203.0.113.99/32", "tcp/443")]);
        table.replace(HashMap::from([(v4(CLIENT), only_office)])).unwrap();
        assert_denied(&router, &tcp((CLIENT, 1000), (INTERNET, 443), ACK, 101, 501)).await;
        assert_allowed(&router, &tcp((CLIENT, 1001), (OFFICE, 443), ACK, 101, 501)).await;
        assert_dropped(&router, &udp((OTHER_CLIENT, 5001), (INTERNET, 53))).await;
        assert_eq!(table.fault().unwrap(), None);
        table.unload().unwrap();
        assert_allowed(&router, &udp((OTHER_CLIENT, 5002), (INTERNET, 53))).await;
    });
}

#[test]
fn connection_that_slept_through_policies_is_judged_by_the_present_one() {
    in_namespace_async(|| async {
        let (router, table) = (plain_router().await, load());
        admit(&table, &[v4(CLIENT)], &class(1, vec![allow("203.0.113.0/24", "tcp/443")]));
        connect(&router, 1000, INTERNET).await;
        // The last of them has the first one's number again.
        for _ in Generation::all() {
            table.replace(HashMap::from([(v4(CLIENT), class(1, vec![allow("203.0.113.99/32", "")]))])).unwrap();
        }
        assert_denied(&router, &tcp((CLIENT, 1000), (INTERNET, 443), ACK, 101, 501)).await;
    });
}

#[test]
fn connections_of_a_gateway_before_this_one_are_judged_anew() {
    in_namespace_async(|| async {
        let (router, table) = (plain_router().await, load());
        let open = class(1, vec![allow("203.0.113.0/24", "tcp/443")]);
        admit(&table, &[v4(CLIENT)], &open);
        connect(&router, 1000, INTERNET).await;
        table.unload().unwrap();
        let table = load();
        admit(&table, &[v4(CLIENT)], &class(1, vec![allow("203.0.113.99/32", "")]));
        assert_denied(&router, &tcp((CLIENT, 1000), (INTERNET, 443), ACK, 101, 501)).await;
    });
}

#[test]
fn address_that_comes_to_another_class_keeps_what_that_allows_only() {
    in_namespace_async(|| async {
        let (router, table) = (plain_router().await, load());
        let (wide, narrow) =
            (class(1, vec![allow("203.0.113.0/24", "")]), class(2, vec![allow("203.0.113.99/32", "")]));
        for dismissed_between in [false, true] {
            admit(&table, &[v4(CLIENT)], &wide);
            let (first, second) = if dismissed_between { (1000, 1001) } else { (1002, 1003) };
            connect(&router, first, INTERNET).await;
            connect(&router, second, OFFICE).await;
            if dismissed_between {
                table.change(&[MemberChange::Dismiss(v4(CLIENT))]).unwrap();
            }
            admit(&table, &[v4(CLIENT)], &narrow);
            assert_denied(&router, &tcp((CLIENT, first), (INTERNET, 443), ACK, 101, 501)).await;
            assert_allowed(&router, &tcp((CLIENT, second), (OFFICE, 443), ACK, 101, 501)).await;
        }
    });
}

#[test]
fn name_is_reached_at_its_addresses_for_as_long_as_they_are_known() {
    in_namespace_async(|| async {
        let (router, table) = (plain_router().await, load());
        let by_name = class(1, vec![allow("wiki.example.org", "udp/53")]);
        admit(&table, &[v4(CLIENT), v6::CLIENT.parse().unwrap()], &by_name);
        assert_eq!(table.names(), ["wiki.example.org"]);
        assert_denied(&router, &udp((CLIENT, 1000), (INTERNET, 53))).await;
        let addresses = [v4(INTERNET), v6::INTERNET.parse().unwrap(), v4(INTERNET)];
        table.resolved("wiki.example.org", &addresses, Duration::from_secs(3600)).unwrap();
        table.resolved("other.example.org", &[v4(OFFICE)], Duration::from_secs(3600)).unwrap();
        assert_allowed(&router, &udp((CLIENT, 1001), (INTERNET, 53))).await;
        assert_denied(&router, &udp((CLIENT, 1002), (INTERNET, 54))).await;
        assert_denied(&router, &udp((CLIENT, 1003), (OFFICE, 53))).await;
        assert_allowed(&router, &v6::udp((v6::CLIENT, 1004), (v6::INTERNET, 53))).await;
        // It keeps them over a new policy, and loses them when they are no longer said.
        table.replace(HashMap::from([(v4(CLIENT), by_name)])).unwrap();
        assert_allowed(&router, &udp((CLIENT, 1005), (INTERNET, 53))).await;
        table.resolved("wiki.example.org", &[v4(OFFICE)], Duration::from_secs(3600)).unwrap();
        assert_allowed(&router, &udp((CLIENT, 1006), (OFFICE, 53))).await;
        assert_denied(&router, &udp((CLIENT, 1007), (INTERNET, 53))).await;
        table.resolved("wiki.example.org", &[v4(OFFICE)], Duration::from_millis(1)).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_denied(&router, &udp((CLIENT, 1008), (OFFICE, 53))).await;
    });
}

#[test]
fn a_fragmented_datagram_is_judged_as_a_whole() {
    in_namespace_async(|| async {
        let (router, table) = (plain_router().await, load());
        admit(&table, &[v4(CLIENT)], &class(1, vec![allow("203.0.113.0/24", "udp/53")]));
        for (port, allowed) in [(53, true), (54, false)] {
            let [first, last] = random::fragments_v4(&udp_of((CLIENT, 1000), (INTERNET, port), 64), port);
            give(&router.tunnel, &last);
            give(&router.tunnel, &first);
            assert_eq!(next_or_none(&router, allowed).await, allowed, "port {port}");
            if allowed {
                assert!(next(&router.internet).await.is_some(), "the other fragment");
            }
        }
    });
}

async fn next_or_none(router: &Router, expected: bool) -> bool {
    let passed = if expected { next(&router.internet).await } else { unwanted(&router.internet).await };
    passed.is_some()
}

/// A datagram with so many bytes of payload.
fn udp_of(source: ([u8; 4], u16), destination: ([u8; 4], u16), payload: u16) -> Vec<u8> {
    let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes(), (8 + payload).to_be_bytes(), [0, 0]].concat();
    packet(source.0.into(), destination.0.into(), UDP, &[ports, vec![0; payload.into()]].concat())
}

//! The IPv6 twins.

use std::net::Ipv6Addr;
use std::time::Instant;

use adit_testing::namespace::in_namespace_async;

use super::{CONNECTIONS, GatewayRules, LOWEST_MASQUERADE_PORT, PATIENCE, QUIET, Router, Tun, give, next_where};
use crate::test_packets::{self, ICMPV6, UDP};

pub(crate) const CLIENT: &str = "fd12:3456:789a::7";
pub(crate) const OTHER_CLIENT: &str = "fd12:3456:789a::8";
pub(crate) const GATEWAY: &str = "fd12:3456:789a::1";
pub(crate) const PUBLIC: &str = "2001:db8::1";
pub(crate) const INTERNET: &str = "2001:db8:1::5";
const ECHO_REPLY: u8 = 129;
/// First of the types by which the kernel speaks to neighbours of its own accord.
const FIRST_NEIGHBOUR_TYPE: u8 = 130;

pub(crate) fn udp(source: (&str, u16), destination: (&str, u16)) -> Vec<u8> {
    test_packets::udp((address(source.0), source.1), (address(destination.0), destination.1))
}

pub(crate) fn ping(source: &str, destination: &str) -> Vec<u8> {
    test_packets::ping(address(source), address(destination))
}

fn is_ipv6_but_about_neighbours(packet: &[u8]) -> bool {
    let about_neighbours = packet[6] == 0 || packet[6] == ICMPV6 && packet[40] >= FIRST_NEIGHBOUR_TYPE;
    packet[0] >> 4 == 6 && !about_neighbours
}

/// The next IPv6 packet that is not about neighbours, which has to come.
pub(crate) async fn next(tun: &Tun) -> Option<Vec<u8>> {
    next_where(tun, PATIENCE, is_ipv6_but_about_neighbours).await
}

/// Such a packet that the kernel sends although it should not.
pub(crate) async fn unwanted(tun: &Tun) -> Option<Vec<u8>> {
    next_where(tun, QUIET, is_ipv6_but_about_neighbours).await
}

/// What the kernel answers a client's packet. It is given again while there is no answer: a busy kernel takes its time
/// until an address is its own.
pub(crate) async fn answer_to(router: &Router, packet: &[u8]) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        give(&router.tunnel, packet);
        if let Some(answer) = unwanted(&router.tunnel).await {
            return answer;
        }
        assert!(Instant::now() < deadline, "no answer to {packet:?}");
    }
}

/// Gives a client's packet to the kernel and asserts that it is answered as prohibited (RFC 4443 section 3.1).
pub(crate) async fn assert_refused(router: &Router, packet: &[u8]) {
    give(&router.tunnel, packet);
    let answer = next(&router.tunnel).await.expect("an answer");
    assert_eq!((answer[6], answer[40], answer[41]), (ICMPV6, 1, 1), "{packet:?}");
    assert_eq!(&answer[48..88], &packet[..40], "about the packet");
}

fn source(packet: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(&packet[8..24]).unwrap().into()
}

fn destination(packet: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(&packet[24..40]).unwrap().into()
}

pub(crate) fn port(packet: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([packet[40 + offset], packet[41 + offset]])
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn clients_reach_the_gateway_by_ping_and_dns_only() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        give(&router.tunnel, &ping(CLIENT, GATEWAY));
        let reply = next(&router.tunnel).await.expect("a reply to ping");
        assert_eq!((source(&reply), destination(&reply), reply[40]), (address(GATEWAY), address(CLIENT), ECHO_REPLY));
        give(&router.tunnel, &udp((CLIENT, 5353), (GATEWAY, 53)));
        // Nobody serves DNS here: "port unreachable" shows that the query was let in.
        assert_eq!(next(&router.tunnel).await.map(|reply| (reply[40], reply[41])), Some((1, 4)));
        for refused in [
            udp((CLIENT, 5353), (GATEWAY, 123)),
            ping(CLIENT, PUBLIC),
            udp((CLIENT, 5353), (PUBLIC, 53)),
            udp((CLIENT, 5353), (PUBLIC, 443)),
        ] {
            assert_refused(&router, &refused).await;
        }
    });
}

#[test]
fn spoofed_sources_pass_in_neither_direction() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        for spoofed in ["2001:db8:9::9", "::1", "ff02::1", "::", "fe80::9", GATEWAY, PUBLIC] {
            give(&router.tunnel, &udp((spoofed, 5000), (INTERNET, 5000)));
            assert_eq!(unwanted(&router.internet).await, None, "{spoofed}");
        }
        give(&router.internet, &ping(OTHER_CLIENT, PUBLIC));
        give(&router.internet, &udp((OTHER_CLIENT, 53), (CLIENT, 5000)));
        assert_eq!(unwanted(&router.tunnel).await, None);
    });
}

#[test]
fn clients_leave_masqueraded_and_get_answers() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        give(&router.tunnel, &udp((CLIENT, 443), (INTERNET, 443)));
        let sent = next(&router.internet).await.expect("a forwarded datagram");
        assert_eq!((source(&sent), destination(&sent), port(&sent, 2)), (address(PUBLIC), address(INTERNET), 443));
        let public_port = port(&sent, 0);
        assert!(public_port >= LOWEST_MASQUERADE_PORT, "{public_port}");
        give(&router.internet, &udp((INTERNET, 443), (PUBLIC, public_port)));
        let answer = next(&router.tunnel).await.expect("the answer");
        assert_eq!(
            (source(&answer), destination(&answer), port(&answer, 2)),
            (address(INTERNET), address(CLIENT), 443)
        );
    });
}

#[test]
fn the_internet_cannot_open_connections_to_clients() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        give(&router.internet, &udp((INTERNET, 53), (CLIENT, 5000)));
        assert_eq!(unwanted(&router.tunnel).await, None);
    });
}

#[test]
fn clients_are_isolated_unless_allowed() {
    for allowed in [false, true] {
        in_namespace_async(move || async move {
            let router = Router::new(|rules| GatewayRules { client_to_client: allowed, ..rules }).await;
            if allowed {
                give(&router.tunnel, &udp((CLIENT, 5000), (OTHER_CLIENT, 5000)));
                assert_eq!(next(&router.tunnel).await.map(|packet| packet[6]), Some(UDP));
            } else {
                assert_refused(&router, &udp((CLIENT, 5000), (OTHER_CLIENT, 5000))).await;
            }
        });
    }
}

#[test]
fn link_local_and_metadata_addresses_are_out_of_reach() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        assert_refused(&router, &udp((CLIENT, 5000), ("fd00:ec2::254", 80))).await;
        for target in ["fd00:ec2::254", "fe80::1", "::1"] {
            give(&router.tunnel, &udp((CLIENT, 5000), (target, 80)));
            assert_eq!(unwanted(&router.internet).await, None, "{target}");
        }
    });
}

#[test]
fn one_client_cannot_fill_the_connection_table() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        for connection in 0..4u16 {
            let target = if connection % 2 == 0 { GATEWAY } else { INTERNET };
            give(&router.tunnel, &udp((CLIENT, 6000 + connection), (target, 53)));
            let side = if target == GATEWAY { &router.tunnel } else { &router.internet };
            let passed = if u32::from(connection) < CONNECTIONS { next(side).await } else { unwanted(side).await };
            assert_eq!(passed.is_some(), u32::from(connection) < CONNECTIONS, "connection {connection}");
        }
        give(&router.tunnel, &udp((OTHER_CLIENT, 6000), (INTERNET, 5000)));
        assert!(next(&router.internet).await.is_some());
    });
}

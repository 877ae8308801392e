//! The loaded rules against real packets: one TUN device is the tunnel, another leads to the internet.

mod flows;
mod other_links;
mod reach;
pub(crate) mod v6;

use std::io::{self, IoSliceMut};
use std::time::{Duration, Instant};

use adit_net::packet_buffer::Arena;
use adit_net::tun::{LARGEST_PACKET, PacketQueue as _, Tun, take_apart};
use adit_proto::offload::MAX_SUPERPACKET_LEN;
use adit_proto::offload::virtio::{self, VirtioHeader};
use adit_testing::eventually;
use adit_testing::namespace::in_namespace_async;
use tokio::time::sleep;

use super::tests::load;
use super::*;
use crate::netlink::{LinkSettings, Netlink, Route, RouteTarget};
use crate::test_packets::{give, has_no_tentative_address, ping, udp};
use crate::{sysctl, test_packets};

pub(crate) const CLIENT: [u8; 4] = [10, 64, 3, 7];
pub(crate) const OTHER_CLIENT: [u8; 4] = [10, 64, 3, 8];
const GATEWAY: [u8; 4] = [10, 64, 3, 1];
const PUBLIC: [u8; 4] = [198, 51, 100, 1];
pub(crate) const INTERNET: [u8; 4] = [203, 0, 113, 5];
/// Time for a packet that has to come, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Time for one that must not come. The kernel forwards a packet, or drops it, within the call that writes it; a
/// machine too busy for that lets a fault pass unseen, and invents none.
pub(crate) const QUIET: Duration = Duration::from_millis(150);
const CONNECTIONS: u32 = 3;

pub(crate) struct Router {
    pub(crate) tunnel: Tun,
    pub(crate) internet: Tun,
    table: Table,
}

impl Router {
    pub(crate) async fn new(change: impl FnOnce(GatewayRules) -> GatewayRules) -> Self {
        let tunnel = Tun::create("adit0", 1, true).unwrap();
        let internet = Tun::create("out0", 1, true).unwrap();
        let netlink = Netlink::open().unwrap();
        for (link, v4, v6, mtu) in [
            ("adit0", "10.64.3.1/24", "fd12:3456:789a::1/64", 1500),
            ("out0", "198.51.100.1/24", "2001:db8::1/64", 1400),
        ] {
            netlink.set_link(link, LinkSettings { mtu: Some(mtu), up: Some(true), gso_max_segs: None }).await.unwrap();
            netlink.add_address(link, v4.parse().unwrap()).await.unwrap();
            netlink.add_address(link, v6.parse().unwrap()).await.unwrap();
        }
        eventually("the IPv6 addresses take packets", || has_no_tentative_address().then_some(()));
        for prefix in ["0.0.0.0/0", "::/0"] {
            let target = RouteTarget::Link("out0".into());
            let default = Route { table: 254, prefix: prefix.parse().unwrap(), target, metric: None };
            netlink.add_route(&default).await.unwrap();
        }
        sysctl::write("net.ipv4.ip_forward", "1").unwrap();
        sysctl::write("net.ipv6.conf.all.forwarding", "1").unwrap();
        // Each refusal is to be answered, as fast as a test may ask.
        sysctl::write("net.ipv4.icmp_ratelimit", "0").unwrap();
        sysctl::write("net.ipv6.icmp.ratelimit", "0").unwrap();
        let table = load(&change(GatewayRules {
            tun: "adit0".into(),
            pool_v4: Some("10.64.3.0/24".parse().unwrap()),
            pool_v6: Some("fd12:3456:789a::/64".parse().unwrap()),
            gateway_v4: Some(GATEWAY.into()),
            gateway_v6: Some(v6::GATEWAY.parse().unwrap()),
            masquerade: true,
            client_to_client: false,
            connections_per_client: CONNECTIONS,
            resolvers: Vec::new(),
            local_services: Vec::new(),
            listen_ports: vec![443],
            tracked_ports: Vec::new(),
            forwarded_before_v4: ForwardedBefore::FromAll,
            forwarded_before_v6: ForwardedBefore::FromAll,
        }))
        .unwrap();
        Self { tunnel, internet, table }
    }
}

fn is_ipv4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

/// The next IPv4 packet the kernel sends out of a device, which has to come.
pub(crate) async fn next(tun: &Tun) -> Option<Vec<u8>> {
    next_where(tun, PATIENCE, is_ipv4).await
}

/// An IPv4 packet that the kernel sends out of a device although it should not.
pub(crate) async fn unwanted(tun: &Tun) -> Option<Vec<u8>> {
    next_where(tun, QUIET, is_ipv4).await
}

pub(crate) async fn next_where(tun: &Tun, within: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let deadline = Instant::now() + within;
    loop {
        let (mut header, mut packet) = ([0; virtio::LEN], vec![0; MAX_SUPERPACKET_LEN]);
        let read = tun.queues()[0].read_vectored(&mut [IoSliceMut::new(&mut header), IoSliceMut::new(&mut packet)]);
        match read {
            Ok(length) => {
                let (mut arena, mut batch) = (Arena::new(LARGEST_PACKET), Vec::new());
                let packet = &mut packet[..length - virtio::LEN];
                take_apart(VirtioHeader::decode(&header), packet, &mut arena, &mut batch).unwrap();
                let [packet] = &batch[..] else { panic!("not a single packet") };
                if wanted(packet.packet()) {
                    return Some(packet.packet().to_vec());
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                if Instant::now() > deadline {
                    return None;
                }
                sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Asserts that a packet comes out of a device, or that none does.
async fn assert_passes(tun: &Tun, expected: bool) {
    let passed = if expected { next(tun).await } else { unwanted(tun).await };
    assert_eq!(passed.is_some(), expected);
}

/// Gives a client's packet to the kernel and asserts that it is answered as prohibited (RFC 1812 section 5.2.7.1), and
/// by nothing else.
async fn assert_refused(router: &Router, packet: &[u8]) {
    give(&router.tunnel, packet);
    let answer = next(&router.tunnel).await.expect("an answer");
    assert_eq!((source(&answer), answer[9], answer[20], answer[21]), (GATEWAY, 1, 3, 13), "{packet:?}");
    assert_eq!(&answer[28..48], &packet[..20], "about the packet");
}

fn tcp_syn(source: [u8; 4], destination: [u8; 4], segment_size: u16) -> Vec<u8> {
    test_packets::tcp_syn((source, 12_345), (destination, 443), segment_size)
}

pub(crate) fn source(packet: &[u8]) -> [u8; 4] {
    packet[12..16].try_into().unwrap()
}

pub(crate) fn destination(packet: &[u8]) -> [u8; 4] {
    packet[16..20].try_into().unwrap()
}

pub(crate) fn port(packet: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([packet[20 + offset], packet[21 + offset]])
}

#[test]
fn clients_reach_the_gateway_by_ping_and_dns_only() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        give(&router.tunnel, &ping(CLIENT, GATEWAY));
        let reply = next(&router.tunnel).await.expect("a reply to ping");
        assert_eq!((source(&reply), destination(&reply), reply[20]), (GATEWAY, CLIENT, 0));
        // Nobody serves DNS here: "port unreachable" shows that the query was let in.
        give(&router.tunnel, &udp((CLIENT, 5353), (GATEWAY, 53)));
        assert_eq!(next(&router.tunnel).await.map(|reply| (reply[20], reply[21])), Some((3, 3)));
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
        for spoofed in [[10, 99, 0, 1], [127, 0, 0, 1], [224, 0, 0, 1], [0, 0, 0, 0], GATEWAY, PUBLIC] {
            give(&router.tunnel, &udp((spoofed, 5000), (INTERNET, 5000)));
            assert_eq!(unwanted(&router.internet).await, None, "{spoofed:?}");
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
        assert_eq!((source(&sent), destination(&sent), port(&sent, 2)), (PUBLIC, INTERNET, 443));
        let public_port = port(&sent, 0);
        assert!(public_port >= LOWEST_MASQUERADE_PORT, "{public_port}");
        give(&router.internet, &udp((INTERNET, 443), (PUBLIC, public_port)));
        let answer = next(&router.tunnel).await.expect("the answer");
        assert_eq!((source(&answer), destination(&answer), port(&answer, 2)), (INTERNET, CLIENT, 443));
        give(&router.tunnel, &ping(CLIENT, INTERNET));
        assert_eq!(next(&router.internet).await.map(|ping| source(&ping)), Some(PUBLIC));
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
fn a_plain_router_forwards_both_ways_unchanged() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| GatewayRules { masquerade: false, ..rules }).await;
        give(&router.internet, &udp((INTERNET, 53), (CLIENT, 5000)));
        assert_eq!(next(&router.tunnel).await.map(|packet| source(&packet)), Some(INTERNET));
        give(&router.tunnel, &udp((CLIENT, 5001), (INTERNET, 53)));
        assert_eq!(next(&router.internet).await.map(|packet| source(&packet)), Some(CLIENT));
    });
}

#[test]
fn clients_are_isolated_unless_allowed() {
    for allowed in [false, true] {
        in_namespace_async(move || async move {
            let router = Router::new(|rules| GatewayRules { client_to_client: allowed, ..rules }).await;
            if allowed {
                give(&router.tunnel, &udp((CLIENT, 5000), (OTHER_CLIENT, 5000)));
                assert_eq!(next(&router.tunnel).await.map(|packet| packet[9]), Some(17));
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
        let metadata = [[168, 63, 129, 16], [100, 100, 100, 200], [192, 0, 0, 192]];
        for target in [[169, 254, 169, 254], [127, 0, 0, 1]].into_iter().chain(metadata) {
            assert_refused(&router, &udp((CLIENT, 5000), (target, 80))).await;
            assert_eq!(unwanted(&router.internet).await, None, "{target:?}");
        }
    });
}

#[test]
fn a_handshake_is_clamped_to_the_route() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        give(&router.tunnel, &tcp_syn(CLIENT, INTERNET, 1460));
        let syn = next(&router.internet).await.expect("a forwarded handshake");
        // 1400 bytes of the link's MTU, less 20 of IPv4 and 20 of TCP header.
        assert_eq!((port(&syn, 20), port(&syn, 22)), (0x0204, 1360));
    });
}

#[test]
fn one_client_cannot_fill_the_connection_table() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        for connection in 0..5u16 {
            give(&router.tunnel, &udp((CLIENT, 6000 + connection), (INTERNET, 5000)));
            assert_passes(&router.internet, u32::from(connection) < CONNECTIONS).await;
        }
        give(&router.tunnel, &udp((OTHER_CLIENT, 6000), (INTERNET, 5000)));
        assert!(next(&router.internet).await.is_some());
    });
}

#[test]
fn connections_to_the_gateway_count_too() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        for connection in 0..5u16 {
            give(&router.tunnel, &udp((CLIENT, 6000 + connection), (GATEWAY, 53)));
            assert_passes(&router.tunnel, u32::from(connection) < CONNECTIONS).await;
        }
        give(&router.tunnel, &ping(CLIENT, GATEWAY));
        assert_eq!(unwanted(&router.tunnel).await, None, "ping is a connection as well");
        give(&router.tunnel, &udp((CLIENT, 7000), (INTERNET, 5000)));
        assert_eq!(unwanted(&router.internet).await, None, "the share is one for both ways");
        give(&router.tunnel, &ping(OTHER_CLIENT, GATEWAY));
        assert!(next(&router.tunnel).await.is_some());
    });
}

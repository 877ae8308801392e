//! What clients reach on the gateway's host, whatever its other rules do to destinations.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;

use adit_testing::namespace::in_namespace_async;
use adit_testing::skip;

use super::{
    CLIENT, GATEWAY, INTERNET, OTHER_CLIENT, PATIENCE, PUBLIC, Router, assert_refused, destination, give, next, ping,
    port, source, tcp_syn, udp, unwanted, v6,
};
use crate::firewall::{GatewayRules, LocalService};

/// Where another program of the host publishes a port.
const PUBLISHED: u16 = 8080;
/// The container behind it, which lies beyond the link to the internet here.
const CONTAINER: [u8; 4] = [203, 0, 113, 80];
const CONTAINER_V6: &str = "2001:db8:1::80";

/// Has another program's table send what is for `from` to `to`, and nothing else, at the earliest moment that NAT
/// allows. Tells, loudly, where there is no nft(8) to do so.
fn publish(from: &str, to: &str) -> bool {
    let family = if from.contains(':') { "ip6" } else { "ip" };
    let chain =
        format!("chain publish {{ type nat hook prerouting priority -190; {family} daddr {from} dnat to {to}; }}");
    let table = format!("{family} stranger");
    nft(&format!("table {table}; delete table {table}; table {table} {{ {chain}; }};"))
}

fn nft(commands: &str) -> bool {
    let Ok(status) = Command::new("nft").arg(commands).status() else {
        skip("needs the program nft");
        return false;
    };
    assert!(status.success(), "{commands}");
    true
}

#[test]
fn published_port_of_the_host_is_no_way_round() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        if !publish("198.51.100.1", "203.0.113.80") || !publish("2001:db8::1", CONTAINER_V6) {
            return;
        }
        assert_refused(&router, &udp((CLIENT, 5000), (PUBLIC, PUBLISHED))).await;
        assert_eq!(unwanted(&router.internet).await, None);
        v6::assert_refused(&router, &v6::udp((v6::CLIENT, 5000), (v6::PUBLIC, PUBLISHED))).await;
        assert_eq!(v6::unwanted(&router.internet).await, None);
    });
}

#[test]
fn published_port_that_is_a_service_for_clients_is_reached() {
    in_namespace_async(|| async {
        let services = vec![LocalService::Udp(PUBLISHED)];
        let router = Router::new(|rules| GatewayRules { local_services: services, ..rules }).await;
        if !publish("198.51.100.1", "203.0.113.80") || !publish("2001:db8::1", CONTAINER_V6) {
            return;
        }
        give(&router.tunnel, &udp((CLIENT, 5000), (PUBLIC, PUBLISHED)));
        assert_eq!(next(&router.internet).await.map(|packet| destination(&packet)), Some(CONTAINER));
        give(&router.tunnel, &v6::udp((v6::CLIENT, 5000), (v6::PUBLIC, PUBLISHED)));
        assert!(v6::next(&router.internet).await.is_some());
        assert_refused(&router, &udp((CLIENT, 5000), (PUBLIC, PUBLISHED + 1))).await;
    });
}

#[test]
fn other_clients_and_metadata_stay_out_of_reach_wherever_they_are_sent_to() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        let metadata = [169, 254, 169, 254];
        for (from, sent_to) in [("10.64.3.8", OTHER_CLIENT), ("169.254.169.254", metadata)] {
            if !publish(from, "203.0.113.80") {
                return;
            }
            assert_refused(&router, &udp((CLIENT, 5000), (sent_to, 80))).await;
            assert_eq!(unwanted(&router.internet).await, None, "{from}");
        }
        // By where it ended up: what goes to the internet by itself is sent to another client, and to the host.
        for to in ["10.64.3.8", "198.51.100.1", "169.254.169.254"] {
            publish("203.0.113.5", to);
            give(&router.tunnel, &udp((CLIENT, 5000), (INTERNET, 80)));
            let answer = next(&router.tunnel).await.expect("an answer");
            assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 13), "{to}");
        }
        nft("delete table ip stranger");
        give(&router.tunnel, &udp((CLIENT, 5000), (INTERNET, 80)));
        assert!(next(&router.internet).await.is_some(), "by itself it passes");
    });
}

/// What a socket of the host has been sent.
fn received(socket: &UdpSocket) -> Option<SocketAddr> {
    socket.recv_from(&mut [0; 64]).ok().map(|(_, from)| from)
}

#[test]
fn service_that_is_taken_from_clients_ends_for_connections_that_stand() {
    const SERVICE: u16 = 5123;
    in_namespace_async(|| async {
        let services = vec![LocalService::Udp(SERVICE)];
        let mut router = Router::new(|rules| GatewayRules { local_services: services, ..rules }).await;
        let [service, program] = [SERVICE, 5124].map(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        for socket in [&service, &program] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let asked = udp((CLIENT, 5000), (GATEWAY, SERVICE));
        let answered = udp((CLIENT, 6000), (GATEWAY, 5124));
        let client = |port| SocketAddr::from((CLIENT, port));
        // A connection of the client's that has been answered, and one of the host's own.
        give(&router.tunnel, &asked);
        service.send_to(b"answer", received(&service).unwrap()).unwrap();
        program.send_to(b"question", client(6000)).unwrap();
        for _ in 0..2 {
            assert!(next(&router.tunnel).await.is_some());
        }
        for _ in 0..2 {
            give(&router.tunnel, &asked);
            give(&router.tunnel, &answered);
            assert_eq!([&service, &program].map(received), [Some(client(5000)), Some(client(6000))]);
        }

        let rules = GatewayRules { local_services: Vec::new(), ..router.table.rules().clone() };
        router.table.replace(rules).unwrap();
        // Also when the host has just sent something on it.
        service.send_to(b"more", client(5000)).unwrap();
        assert!(next(&router.tunnel).await.is_some());
        assert_refused(&router, &asked).await;
        give(&router.tunnel, &answered);
        assert_eq!(received(&program), Some(client(6000)), "what the host asked is answered");
        service.set_nonblocking(true).unwrap();
        assert_eq!(received(&service), None);
    });
}

#[test]
fn named_services_are_reached_at_every_address_of_the_host_and_others_are_not() {
    in_namespace_async(|| async {
        let services = vec![LocalService::Tcp(443), LocalService::Udp(123)];
        let change = |rules| GatewayRules { local_services: services, connections_per_client: 100, ..rules };
        let router = Router::new(change).await;
        for address in [GATEWAY, PUBLIC] {
            // Nobody serves them here: "port unreachable" and a reset of the host's own show that they were let in.
            give(&router.tunnel, &udp((CLIENT, 5000), (address, 123)));
            assert_eq!(next(&router.tunnel).await.map(|answer| (answer[20], answer[21])), Some((3, 3)));
            assert_refused(&router, &udp((CLIENT, 5000), (address, 443))).await;
            give(&router.tunnel, &tcp_syn(CLIENT, address, 1400));
            let answer = next(&router.tunnel).await.expect("an answer");
            assert_eq!((source(&answer), answer[9], port(&answer, 0)), (address, 6, 443));
        }
        assert_refused(&router, &udp((CLIENT, 5000), ([127, 0, 0, 1], 123))).await;
        assert_refused(&router, &ping(CLIENT, PUBLIC)).await;
        let answer = v6::answer_to(&router, &v6::udp((v6::CLIENT, 5000), (v6::PUBLIC, 123))).await;
        assert_eq!((answer[40], answer[41]), (1, 4));
        v6::assert_refused(&router, &v6::udp((v6::CLIENT, 5000), (v6::PUBLIC, 124))).await;
    });
}

#[test]
fn refused_tcp_is_reset() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        for target in [GATEWAY, PUBLIC, OTHER_CLIENT, [169, 254, 169, 254]] {
            give(&router.tunnel, &tcp_syn(CLIENT, target, 1400));
            let answer = next(&router.tunnel).await.expect("an answer");
            // RST and ACK.
            assert_eq!((source(&answer), answer[9], answer[33]), (target, 6, 0x14), "{target:?}");
        }
    });
}

#[test]
fn refusals_are_answered_so_often_and_no_more() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        let mut answers = 0;
        for _ in 0..1000 {
            give(&router.tunnel, &tcp_syn(CLIENT, PUBLIC, 1400));
        }
        while unwanted(&router.tunnel).await.is_some() {
            answers += 1;
        }
        assert!((200..1000).contains(&answers), "{answers}");
    });
}

#[test]
fn resolver_on_the_host_itself_answers_clients() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| GatewayRules { resolvers: vec![PUBLIC.into()], ..rules }).await;
        give(&router.tunnel, &udp((CLIENT, 5000), (PUBLIC, 53)));
        assert_eq!(next(&router.tunnel).await.map(|answer| (answer[20], answer[21])), Some((3, 3)));
        assert_refused(&router, &udp((CLIENT, 5000), (PUBLIC, 853))).await;
        if !publish("198.51.100.1", "203.0.113.80") {
            return;
        }
        give(&router.tunnel, &udp((CLIENT, 5001), (PUBLIC, 53)));
        let sent = next(&router.internet).await.expect("published by a container, it is reached there");
        assert_eq!(destination(&sent), CONTAINER);
    });
}

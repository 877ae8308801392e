//! What is left of the connections of an address once they are forgotten.

use std::collections::HashSet;
use std::net::IpAddr;

use adit_testing::namespace::in_namespace_async;

use super::{CLIENT, INTERNET, OTHER_CLIENT, PUBLIC, Router, give, next, port, udp, unwanted, v6};
use crate::conntrack::{addresses_with_connections, forget_connections};
use crate::firewall::GatewayRules;

/// Opens a masqueraded connection of a client, and returns the port it has outside.
async fn open(router: &Router, client: [u8; 4], local: u16) -> u16 {
    give(&router.tunnel, &udp((client, local), (INTERNET, 53)));
    port(&next(&router.internet).await.expect("a forwarded datagram"), 0)
}

/// Whether an answer to that port still reaches a client.
async fn is_answered(router: &Router, port: u16) -> bool {
    give(&router.internet, &udp((INTERNET, 53), (PUBLIC, port)));
    unwanted(&router.tunnel).await.is_some()
}

#[test]
fn masqueraded_connections_of_an_address_end_and_those_of_others_go_on() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        let (first, second) = (open(&router, CLIENT, 5000).await, open(&router, CLIENT, 5001).await);
        let of_another = open(&router, OTHER_CLIENT, 5000).await;
        for port in [first, second, of_another] {
            assert!(is_answered(&router, port).await, "the positive control");
        }
        assert_eq!(forget_connections(IpAddr::from(CLIENT)).unwrap(), 2);
        for port in [first, second] {
            assert!(!is_answered(&router, port).await);
        }
        assert!(is_answered(&router, of_another).await);
        assert_eq!(forget_connections(IpAddr::from(CLIENT)).unwrap(), 0);
    });
}

#[test]
fn masqueraded_connections_of_an_ipv6_address_end() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        give(&router.tunnel, &v6::udp((v6::CLIENT, 5000), (v6::INTERNET, 53)));
        let outside = v6::port(&v6::next(&router.internet).await.expect("a forwarded datagram"), 0);
        let answer = v6::udp((v6::INTERNET, 53), (v6::PUBLIC, outside));
        give(&router.internet, &answer);
        assert!(v6::next(&router.tunnel).await.is_some(), "the positive control");
        assert_eq!(forget_connections(v6::CLIENT.parse().unwrap()).unwrap(), 1);
        give(&router.internet, &answer);
        assert_eq!(v6::unwanted(&router.tunnel).await, None);
    });
}

#[test]
fn connections_that_others_opened_to_an_address_end_too() {
    in_namespace_async(|| async {
        let change = |rules| GatewayRules { masquerade: false, client_to_client: true, ..rules };
        let router = Router::new(change).await;
        // From the internet, and from another client.
        give(&router.internet, &udp((INTERNET, 53), (CLIENT, 5000)));
        assert!(next(&router.tunnel).await.is_some());
        give(&router.tunnel, &udp((OTHER_CLIENT, 6000), (CLIENT, 5000)));
        assert!(next(&router.tunnel).await.is_some());
        assert_eq!(forget_connections(IpAddr::from(CLIENT)).unwrap(), 2);
        assert_eq!(forget_connections(IpAddr::from(OTHER_CLIENT)).unwrap(), 0);
    });
}

#[test]
fn address_with_hundreds_of_connections_has_none_left() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| GatewayRules { connections_per_client: 0, ..rules }).await;
        for local in 0..500 {
            open(&router, CLIENT, 5000 + local).await;
        }
        assert_eq!(forget_connections(IpAddr::from(CLIENT)).unwrap(), 500);
    });
}

#[test]
fn addresses_with_connections_are_those_of_both_ends_and_families() {
    in_namespace_async(|| async {
        let router = Router::new(|rules| rules).await;
        open(&router, CLIENT, 5000).await;
        give(&router.tunnel, &v6::udp((v6::CLIENT, 5000), (v6::INTERNET, 53)));
        assert!(v6::next(&router.internet).await.is_some());
        let v6_ends = [v6::CLIENT, v6::INTERNET].map(|address| address.parse().unwrap());
        let ends: HashSet<IpAddr> = [CLIENT, INTERNET].map(IpAddr::from).into_iter().chain(v6_ends).collect();
        let found = addresses_with_connections().unwrap();
        assert!(found.is_superset(&ends), "{found:?}");
        assert!(!found.contains(&IpAddr::from(OTHER_CLIENT)));
        forget_connections(IpAddr::from(CLIENT)).unwrap();
        assert!(!addresses_with_connections().unwrap().contains(&IpAddr::from(CLIENT)));
    });
}

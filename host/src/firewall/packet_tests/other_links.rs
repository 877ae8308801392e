//! Packets between two links of which neither is the tunnel.

use adit_net::tun::Tun;
use adit_testing::namespace::in_namespace_async;

use super::{CLIENT, INTERNET, LinkSettings, Netlink, Router, assert_passes, give, next, udp, unwanted, v6};
use crate::firewall::{ForwardedBefore, GATEWAY_LINKS, GatewayRules};
use crate::netlink::Family;

/// A host behind the further link, as every router says that has one.
const BEHIND: [u8; 4] = [192, 0, 2, 9];

/// A router with a further link, to which IPv4 and IPv6 packets may be forwarded from `before` only.
async fn router(before: ForwardedBefore) -> (Router, Tun) {
    let lan = Tun::create("lan0", 1, true).unwrap();
    let closed = before.clone();
    let router =
        Router::new(|rules| GatewayRules { forwarded_before_v4: closed, forwarded_before_v6: before, ..rules });
    let router = router.await;
    let netlink = Netlink::open().unwrap();
    netlink.set_link("lan0", LinkSettings { up: Some(true), ..LinkSettings::default() }).await.unwrap();
    netlink.add_address("lan0", "192.0.2.1/24".parse().unwrap()).await.unwrap();
    netlink.add_address("lan0", "2001:db8:2::1/64".parse().unwrap()).await.unwrap();
    (router, lan)
}

/// Whether IPv4 packets pass from the link to the internet to the other one, and the other way.
async fn passes(router: &Router, lan: &Tun) -> (bool, bool) {
    give(&router.internet, &udp((INTERNET, 53), (BEHIND, 5000)));
    let inwards = unwanted(lan).await.is_some();
    give(lan, &udp((BEHIND, 5000), (INTERNET, 53)));
    (inwards, unwanted(&router.internet).await.is_some())
}

#[test]
fn host_that_forwarded_nothing_forwards_nothing_between_other_links() {
    in_namespace_async(|| async {
        let (router, lan) = router(ForwardedBefore::FromOnly(Vec::new())).await;
        assert_eq!(passes(&router, &lan).await, (false, false));
        give(&router.internet, &v6::udp(("2001:db8:1::5", 53), ("2001:db8:2::9", 5000)));
        assert_eq!(v6::unwanted(&lan).await, None);
        give(&router.tunnel, &udp((CLIENT, 5000), (INTERNET, 53)));
        assert!(next(&router.internet).await.is_some(), "clients pass all the same");
        give(&router.tunnel, &udp((CLIENT, 5000), (BEHIND, 53)));
        assert!(next(&lan).await.is_some(), "to either link");
    });
}

#[test]
fn host_that_forwarded_from_one_link_still_does() {
    in_namespace_async(|| async {
        let (router, lan) = router(ForwardedBefore::FromOnly(vec!["lan0".into()])).await;
        assert_eq!(passes(&router, &lan).await, (false, true));
    });
    in_namespace_async(|| async {
        let (router, lan) = router(ForwardedBefore::FromAllBut(vec!["lan0".into()])).await;
        assert_eq!(passes(&router, &lan).await, (true, false));
    });
}

#[test]
fn router_stays_a_router() {
    in_namespace_async(|| async {
        let (router, lan) = router(ForwardedBefore::FromAll).await;
        assert_eq!(passes(&router, &lan).await, (true, true));
        give(&router.internet, &v6::udp(("2001:db8:1::5", 53), ("2001:db8:2::9", 5000)));
        assert!(v6::next(&lan).await.is_some());
    });
}

#[test]
fn tunnel_of_another_gateway_is_no_other_link() {
    in_namespace_async(|| async {
        let (router, lan) = router(ForwardedBefore::FromOnly(Vec::new())).await;
        Netlink::open().unwrap().set_group("lan0", GATEWAY_LINKS).await.unwrap();
        give(&lan, &udp((BEHIND, 5000), (INTERNET, 53)));
        assert_passes(&router.internet, true).await;
        give(&router.internet, &udp((INTERNET, 53), (BEHIND, 5000)));
        assert_passes(&lan, true).await;
    });
}

#[test]
fn what_was_forwarded_before_is_known_from_the_journal_too() {
    in_namespace_async(|| async {
        let _lan = Tun::create("lan0", 1, true).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut changes = crate::HostChanges::open(&directory.path().join("journal")).await.unwrap();
        crate::sysctl::write("net/ipv4/conf/lan0/forwarding", "1").unwrap();
        for family in [Family::V4, Family::V6] {
            let open = if family == Family::V4 { vec!["lan0".to_owned()] } else { Vec::new() };
            let before = ForwardedBefore::FromOnly(open);
            assert_eq!(changes.forwarded_before(family).unwrap(), before);
            changes.enable_forwarding(family).await.unwrap();
            assert_eq!(changes.forwarded_before(family).unwrap(), before, "switched on by this process");
        }
        changes.undo().await.unwrap();
        crate::sysctl::write("net/ipv4/conf/default/forwarding", "1").unwrap();
        changes.enable_forwarding(Family::V4).await.unwrap();
        let ForwardedBefore::FromAllBut(closed) = changes.forwarded_before(Family::V4).unwrap() else {
            panic!("links to come would be forwarded from")
        };
        assert!(closed.contains(&"lo".to_owned()) && !closed.contains(&"lan0".to_owned()), "{closed:?}");
        changes.undo().await.unwrap();
        crate::sysctl::write("net/ipv4/ip_forward", "1").unwrap();
        assert_eq!(changes.forwarded_before(Family::V4).unwrap(), ForwardedBefore::FromAll);
    });
}

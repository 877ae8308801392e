//! By which link the client's own datagrams leave this host. One that is a tunnel itself, and above all the client's
//! own, may carry them round in a circle: what each tunnel takes in, the other takes out.

use std::net::SocketAddr;

use crate::host_plan::{HostHooks, HostPlan};
use crate::ways::{link_with, source_address};

/// What is wrong with the way of datagrams with `mark` to a gateway, in words for the user; `None` if nothing is, or if
/// there is no way at all. `host` knows the session's own device and which other links are tunnels.
pub(super) fn fault(gateway: SocketAddr, mark: Option<u32>, host: &dyn HostHooks) -> Option<String> {
    let link = link_with(source_address(gateway, mark).ok()?)?;
    let gateway = gateway.ip().to_canonical();
    let look = match mark {
        Some(mark) => format!("`ip route get {gateway} mark {mark:#x}` shows the way"),
        None => format!("`ip route get {gateway}` shows the way"),
    };
    if Some(link.as_str()) == host.device() {
        return Some(format!(
            "the client's own datagrams to {gateway} are routed into its tunnel ({link}), so that none leaves this host; \
             take away the route or rule that leads them there: {look}"
        ));
    }
    host.is_tunnel(&link).then(|| {
        format!(
            "the client's own datagrams to {gateway} go through {link}, which is a tunnel itself; if that one's go \
             through this one, none leaves this host: {look}"
        )
    })
}

/// What a route of a gateway to its own address means, in words for the user; `None` if it has none. That a full tunnel
/// takes that address, too, needs no word.
pub(super) fn covered(gateway: SocketAddr, plan: &HostPlan) -> Option<String> {
    let address = gateway.ip().to_canonical();
    let route = plan.tunnelled().find(|route| route.prefix_len() > 0 && route.contains(&address))?;
    Some(format!(
        "the gateway's own address {address} lies in its route {route}: other programs reach it through the tunnel only"
    ))
}

#[cfg(test)]
mod tests {
    use adit_net::tun::Tun;
    use adit_testing::namespace::{in_namespace_async, ip};

    use adit_program::exit::Failure;

    use super::*;
    use adit_proto::range::RouteRange;
    use ipnet::IpNet;

    use crate::host_plan::HostFault;
    use crate::packet_source::BoxFuture;
    use crate::protocols::NetworkSettings;

    /// A host whose tunnels have the names `adit0`, the session's own, and `wg0`.
    struct TwoTunnels;

    impl HostHooks for TwoTunnels {
        fn apply<'a>(&'a mut self, _settings: &'a NetworkSettings) -> BoxFuture<'a, Result<(), HostFault>> {
            Box::pin(async { Ok(()) })
        }

        fn set_mtu(&mut self, _mtu: u16) -> BoxFuture<'_, Result<(), HostFault>> {
            Box::pin(async { Ok(()) })
        }

        fn undo(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
            Box::pin(async { Ok(()) })
        }

        fn device(&self) -> Option<&str> {
            Some("adit0")
        }

        fn is_tunnel(&self, link: &str) -> bool {
            link == "wg0"
        }
    }

    #[test]
    fn route_to_the_gateways_own_address_is_told_unless_it_is_to_everything() {
        let told = |route: &str| {
            let settings = NetworkSettings {
                addresses: vec!["10.64.3.2/32".parse().unwrap()],
                routes: vec![RouteRange::from(route.parse::<IpNet>().unwrap())],
                ..NetworkSettings::default()
            };
            covered("203.0.113.1:443".parse().unwrap(), &HostPlan::new(&settings, true).unwrap())
        };
        assert!(told("203.0.113.0/24").unwrap().contains("203.0.113.1 lies in its route 203.0.113.0/24"));
        assert_eq!((told("203.0.114.0/24"), told("0.0.0.0/0")), (None, None));
    }

    #[test]
    fn way_through_a_tunnel_is_told_and_one_through_a_cable_is_not() {
        in_namespace_async(|| async {
            let gateway = "203.0.113.1:443".parse().unwrap();
            let way = || fault(gateway, Some(0x16), &TwoTunnels);
            ip("link add eth0 type veth peer name router0");
            ip("address add 192.0.2.9/24 dev eth0");
            ip("link set eth0 up");
            assert_eq!(way(), None, "there is no way yet");
            ip("route add default via 192.0.2.1");
            assert_eq!(way(), None);

            let _own = Tun::create("adit0", 1, true).unwrap();
            let _other = Tun::create("wg0", 1, true).unwrap();
            ip("link set adit0 up");
            ip("link set wg0 up");
            ip("address add 10.64.3.2/32 dev adit0");
            ip("address add 10.8.0.2/32 dev wg0");
            ip("route add 203.0.113.0/24 dev wg0 src 10.8.0.2");
            let nested = way().unwrap();
            assert!(nested.contains("go through wg0, which is a tunnel itself"), "{nested}");
            ip("route add 203.0.113.1/32 dev adit0 src 10.64.3.2");
            let circle = way().unwrap();
            assert!(circle.contains("into its tunnel (adit0)") && circle.contains("mark 0x16"), "{circle}");
        });
    }
}

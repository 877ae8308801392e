//! The networks that this host itself makes for its containers and virtual machines. They go on working beside a tunnel
//! that claims their addresses, because they are part of this host.
//!
//! What counts is what a link is, never what it is called or what the local network says of it (TunnelCrack): a hostile
//! network gives addresses and routes to a physical link, or to the one that leads to a router. So a network is this
//! host's own only if its link
//! - is a virtual cable, or a bridge between such cables and devices of virtual machines,
//! - is one this host forwards packets of, as whoever makes such networks sets it up,
//! - has no route to a router, and no address with a lifetime, which DHCP or a router would have given,
//!
//! and if its addresses are private ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use adit_host::{Family, LinkKind, MAIN_TABLE, SeenLink, Survey};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};

/// A network of this host's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OwnNetwork {
    /// Name of the link that leads to it.
    pub(super) link: String,
    /// The link's index: one that is made anew under its name has another.
    pub(super) index: u32,
    /// Its addresses.
    pub(super) prefix: IpNet,
}

/// Picks the networks of this host's own; `forwards` tells whether packets of a link are forwarded.
pub(super) fn own_networks(survey: &Survey, forwards: impl Fn(&str, Family) -> bool) -> BTreeSet<OwnNetwork> {
    let mut found = BTreeSet::new();
    for route in survey.routes.iter().filter(|route| route.table == MAIN_TABLE && !route.by_router) {
        let Some(link) = survey.links.get(&route.link) else { continue };
        let family = if route.prefix.addr().is_ipv4() { Family::V4 } else { Family::V6 };
        if is_private(route.prefix) && is_inside(survey, route.link, link) && forwards(&link.name, family) {
            found.insert(OwnNetwork { link: link.name.clone(), index: route.link, prefix: route.prefix });
        }
    }
    found
}

/// Whether the link to a network is still the same one, and up.
pub(super) fn stands(own: &OwnNetwork) -> bool {
    let is_same = if_nametoindex(own.link.as_str()) == Ok(own.index);
    let is_up =
        |found: &InterfaceAddress| found.interface_name == own.link && found.flags.contains(InterfaceFlags::IFF_UP);
    is_same && getifaddrs().is_ok_and(|mut found| found.any(|found| is_up(&found)))
}

/// Whether this host forwards the packets that come by a link.
pub(super) fn forwards(link: &str, family: Family) -> bool {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let setting = Path::new("/proc/sys/net").join(family).join("conf").join(link).join("forwarding");
    fs::read_to_string(setting).is_ok_and(|value| value.trim() != "0")
}

/// Whether what is behind a link is inside this host.
fn is_inside(survey: &Survey, index: u32, link: &SeenLink) -> bool {
    let mut members = survey.links.values().filter(|member| member.controller == Some(index));
    let is_made_here = match link.kind {
        LinkKind::VirtualCable => link.controller.is_none(),
        LinkKind::Bridge => members.all(|member| matches!(member.kind, LinkKind::VirtualCable | LinkKind::Tun)),
        LinkKind::Tun | LinkKind::KernelTunnel | LinkKind::Other => false,
    };
    let leads_to_router = survey.routes.iter().any(|route| {
        // A default route needs no router's address where the link has only one other end.
        route.link == index && (route.by_router || route.prefix.prefix_len() == 0)
    });
    let is_given = survey.addresses.iter().any(|seen| seen.link == index && !seen.permanent);
    link.up && is_made_here && !leads_to_router && !is_given
}

/// Whether all addresses of a network are private: RFC 1918, RFC 6598 or RFC 4193.
fn is_private(prefix: IpNet) -> bool {
    let v4 = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16), ([100, 64, 0, 0], 10)];
    let v4 = v4.map(|(address, length)| IpNet::V4(Ipv4Net::new_assert(address.into(), length)));
    let v6 = IpNet::V6(Ipv6Net::new_assert([0xfc00, 0, 0, 0, 0, 0, 0, 0].into(), 7));
    v4.into_iter().chain([v6]).any(|private| private.contains(&prefix))
}

#[cfg(test)]
mod tests {
    use adit_host::{SeenAddress, SeenRoute};

    use super::*;

    /// A host with a router behind link 1, and a bridge to containers, link 2, whose member is link 3.
    fn docker() -> Survey {
        let link = |name: &str, kind, controller| SeenLink { name: name.into(), kind, up: true, controller };
        let route = |prefix: &str, link, by_router| SeenRoute {
            table: MAIN_TABLE,
            prefix: prefix.parse().unwrap(),
            link,
            by_router,
        };
        let address = |address: &str, link| SeenAddress { link, address: address.parse().unwrap(), permanent: true };
        Survey {
            links: [
                (1, link("eth0", LinkKind::VirtualCable, None)),
                (2, link("docker0", LinkKind::Bridge, None)),
                (3, link("veth7", LinkKind::VirtualCable, Some(2))),
            ]
            .into(),
            addresses: vec![address("192.168.7.9/24", 1), address("172.17.0.1/16", 2)],
            routes: vec![
                route("0.0.0.0/0", 1, true),
                route("192.168.7.0/24", 1, false),
                route("172.17.0.0/16", 2, false),
            ],
        }
    }

    fn own(survey: &Survey) -> Vec<String> {
        own_networks(survey, |_, _| true).iter().map(|own| format!("{} {}", own.link, own.prefix)).collect()
    }

    #[test]
    fn bridge_to_containers_is_own_and_the_way_to_the_router_is_not() {
        assert_eq!(own(&docker()), ["docker0 172.17.0.0/16"]);
        assert!(own_networks(&docker(), |_, _| false).is_empty(), "a host that forwards nothing makes no networks");
    }

    #[test]
    fn virtual_cable_to_a_container_is_own() {
        let mut host = docker();
        host.links.remove(&3);
        host.links.get_mut(&2).unwrap().kind = LinkKind::VirtualCable;
        assert_eq!(own(&host), ["docker0 172.17.0.0/16"]);
        for kind in [LinkKind::Other, LinkKind::Tun, LinkKind::KernelTunnel] {
            host.links.get_mut(&2).unwrap().kind = kind;
            assert!(own(&host).is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn what_a_hostile_network_can_do_makes_no_network_own() {
        type Change = fn(&mut Survey);
        let untouched = docker();
        let changes: [(&str, Change); 6] = [
            ("a bridge with a physical member", |host| host.links.get_mut(&3).unwrap().kind = LinkKind::Other),
            ("an address by DHCP", |host| host.addresses[1].permanent = false),
            ("a router behind it", |host| host.routes.push(SeenRoute { by_router: true, ..host.routes[2] })),
            ("a default route out of it", |host| {
                host.routes.push(SeenRoute { prefix: "0.0.0.0/0".parse().unwrap(), ..host.routes[2] });
            }),
            ("public addresses", |host| host.routes[2].prefix = "198.51.100.0/24".parse().unwrap()),
            ("more than the private addresses", |host| host.routes[2].prefix = "172.0.0.0/8".parse().unwrap()),
        ];
        for (what, change) in changes {
            let mut host = untouched.clone();
            change(&mut host);
            assert!(own(&host).is_empty(), "{what}");
        }
    }
}

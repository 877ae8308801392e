//! Networks of this host that a tunnel takes over, in words for its user.

use std::collections::BTreeSet;
use std::net::IpAddr;

use adit_host::{LinkKind, MAIN_TABLE, SeenLink, SeenRoute, Survey};
use ipnet::IpNet;

use super::own_networks::OwnNetwork;
use crate::host_plan::HostPlan;

/// Most overlaps that are told.
const MOST_TOLD: usize = 8;

/// What a plan takes away from the networks that this host is connected to. That a full tunnel takes everything needs
/// no word; `device` is the tunnel's own link, and `own` goes on working beside it.
pub(super) fn overlaps(survey: &Survey, plan: &HostPlan, device: &str, own: &BTreeSet<OwnNetwork>) -> Vec<String> {
    let mut told = Vec::new();
    for (network, link) in connected(survey, device) {
        let is_own = own.iter().any(|own| own.link == link && own.prefix == network);
        let overlapping = plan.tunnelled().filter(|claim| claim.prefix_len() > 0 && overlap(*claim, network));
        if let Some(claim) = overlapping.max_by_key(IpNet::prefix_len) {
            told.push(what_becomes_of(network, link, claim, is_own));
        }
        let inside = plan.addresses.iter().map(IpNet::addr).find(|address| network.contains(address));
        if let Some(address) = inside {
            told.push(format!("the tunnel's address {address} lies in the network {network} of {link}"));
        }
    }
    told.truncate(MOST_TOLD);
    told
}

fn overlap(claim: IpNet, network: IpNet) -> bool {
    claim.contains(&network) || network.contains(&claim)
}

/// Who gets the packets for a connected network that a route of the gateway overlaps. This host's own networks give way
/// only to a route that is as narrow as they are.
fn what_becomes_of(network: IpNet, link: &str, claim: IpNet, is_own: bool) -> String {
    if is_own && claim.prefix_len() < network.prefix_len() {
        return format!(
            "the network {network} of {link} stays on this host, although the gateway has a route to {claim}: hosts \
             behind the gateway that have its addresses are out of reach"
        );
    }
    let part = if claim.contains(&network) { "" } else { "part of " };
    format!("{part}the network {network} of {link} goes through the tunnel: the gateway has a route to {claim}")
}

/// The networks that this host reaches without a router, with their links. Other tunnels are not among them.
fn connected<'a>(survey: &'a Survey, device: &str) -> Vec<(IpNet, &'a str)> {
    let network = |route: &SeenRoute| {
        let link = survey.links.get(&route.link)?;
        let is_tunnel = is_tunnel(link) || link.name == device;
        let is_connected = route.table == MAIN_TABLE && !route.by_router && route.prefix.prefix_len() > 0;
        (is_connected && !is_tunnel && link.name != "lo").then_some((route.prefix, link.name.as_str()))
    };
    survey.routes.iter().filter_map(network).collect()
}

/// Names of the links that are tunnels.
pub(super) fn tunnels(survey: &Survey) -> BTreeSet<String> {
    survey.links.values().filter(|link| is_tunnel(link)).map(|link| link.name.clone()).collect()
}

fn is_tunnel(link: &SeenLink) -> bool {
    matches!(link.kind, LinkKind::Tun | LinkKind::KernelTunnel)
}

/// The link on which this host has one of the plan's addresses already.
pub(super) fn taken_address<'a>(survey: &'a Survey, plan: &HostPlan, device: &str) -> Option<(IpAddr, &'a str)> {
    plan.addresses.iter().map(IpNet::addr).find_map(|address| {
        let holders = survey.addresses.iter().filter(|seen| seen.address.addr() == address);
        let links = holders.filter_map(|seen| survey.links.get(&seen.link));
        let other = links.map(|link| link.name.as_str()).find(|name| *name != device)?;
        Some((address, other))
    })
}

#[cfg(test)]
mod tests {
    use adit_host::SeenAddress;
    use adit_proto::range::RouteRange;

    use super::*;
    use crate::protocols::NetworkSettings;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn host() -> Survey {
        let link = |name: &str, kind| SeenLink { name: name.into(), kind, up: true, controller: None };
        let route = |prefix, link| SeenRoute { table: MAIN_TABLE, prefix: net(prefix), link, by_router: false };
        let address = |address, link| SeenAddress { link, address: net(address), permanent: true };
        Survey {
            links: [
                (1, link("eth0", LinkKind::Other)),
                (2, link("docker0", LinkKind::Bridge)),
                (3, link("wg0", LinkKind::KernelTunnel)),
                (4, link("adit0", LinkKind::Tun)),
            ]
            .into(),
            addresses: vec![address("192.168.7.9/24", 1), address("10.8.0.2/24", 3), address("10.64.3.2/32", 4)],
            routes: vec![route("192.168.7.0/24", 1), route("172.17.0.0/16", 2), route("10.8.0.0/24", 3)],
        }
    }

    fn plan(addresses: &[&str], routes: &[&str]) -> HostPlan {
        let settings = NetworkSettings {
            addresses: addresses.iter().map(|text| net(text)).collect(),
            routes: routes.iter().map(|text| RouteRange::from(net(text))).collect(),
            ..NetworkSettings::default()
        };
        HostPlan::new(&settings, true).unwrap()
    }

    fn told(plan: &HostPlan) -> Vec<String> {
        let own = [OwnNetwork { link: "docker0".into(), index: 2, prefix: net("172.17.0.0/16") }].into();
        overlaps(&host(), plan, "adit0", &own)
    }

    #[test]
    fn route_that_covers_a_connected_network_is_told_with_both_names() {
        let covered = told(&plan(&["10.64.3.2/32"], &["192.168.0.0/16"]));
        assert_eq!(covered.len(), 1, "{covered:?}");
        assert!(covered[0].contains("192.168.7.0/24 of eth0") && covered[0].contains("192.168.0.0/16"), "{covered:?}");
        let part = told(&plan(&["10.64.3.2/32"], &["192.168.7.128/25"]));
        assert!(part[0].starts_with("part of the network 192.168.7.0/24"), "{part:?}");
    }

    #[test]
    fn what_every_tunnel_does_is_not_told() {
        for routes in [&["0.0.0.0/0", "::/0"][..], &["10.0.0.0/8"]] {
            assert_eq!(told(&plan(&["10.64.3.2/32"], routes)), Vec::<String>::new(), "{routes:?}");
        }
    }

    #[test]
    fn networks_of_containers_stay_unless_a_route_is_as_narrow() {
        let wider = told(&plan(&["10.64.3.2/32"], &["172.16.0.0/12"]));
        assert!(wider[0].contains("172.17.0.0/16 of docker0 stays on this host"), "{wider:?}");
        let as_narrow = told(&plan(&["10.64.3.2/32"], &["172.17.0.0/16"]));
        assert!(as_narrow[0].contains("172.17.0.0/16 of docker0 goes through the tunnel"), "{as_narrow:?}");
    }

    #[test]
    fn tunnel_address_of_another_network_is_told() {
        let told = told(&plan(&["192.168.7.77/32"], &["10.0.0.0/8"]));
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("192.168.7.77 lies in the network 192.168.7.0/24 of eth0"), "{told:?}");
    }

    #[test]
    fn address_of_another_link_is_found_and_the_tunnels_own_is_not() {
        let taken = |address| taken_address(&host(), &plan(&[address], &[]), "adit0").map(|(_, link)| link.to_owned());
        assert_eq!(taken("192.168.7.9/32").as_deref(), Some("eth0"));
        assert_eq!(taken("10.8.0.2/32").as_deref(), Some("wg0"));
        assert_eq!(taken("10.64.3.2/32"), None);
        assert_eq!(taken("192.168.7.10/32"), None);
        assert_eq!(tunnels(&host()), ["adit0".to_owned(), "wg0".to_owned()].into());
    }
}

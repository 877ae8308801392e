//! The host's network as it stands: links, addresses and routes at one look, for decisions that need all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteNextHop, RouteType};

use super::address::listed_address;
use super::route::{destination_of, table_of};
use super::{Netlink, refused};
use crate::error::HostError;

/// The number of the table `main`.
pub const MAIN_TABLE: u32 = 254;

/// What a link is made of, as far as decisions here depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A bridge.
    Bridge,
    /// One end of a virtual cable.
    VirtualCable,
    /// A TUN or TAP device.
    Tun,
    /// A tunnel that the kernel makes by itself, such as WireGuard.
    KernelTunnel,
    /// Hardware, or anything else.
    Other,
}

/// A link at a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenLink {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Whether it is set up.
    pub up: bool,
    /// Index of the bridge or bond it belongs to.
    pub controller: Option<u32>,
}

/// An address at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenAddress {
    /// Index of its link.
    pub link: u32,
    /// The address and its network.
    pub address: IpNet,
    /// Whether it stays until somebody takes it away. What DHCP or router advertisements give has a lifetime.
    pub permanent: bool,
}

/// A route to hosts at a look, one for each way that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRoute {
    /// Its table.
    pub table: u32,
    /// The destinations.
    pub prefix: IpNet,
    /// Index of the link it leads out of.
    pub link: u32,
    /// Whether it leads to a router, not to the destination itself.
    pub by_router: bool,
}

/// Links by their indexes, addresses without IPv6 link-local ones, and routes of all tables but the kernel's own
/// `local`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// The links.
    pub links: BTreeMap<u32, SeenLink>,
    /// The addresses.
    pub addresses: Vec<SeenAddress>,
    /// The routes.
    pub routes: Vec<SeenRoute>,
}

impl Survey {
    /// The link that has an address.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<&SeenLink> {
        let held = self.addresses.iter().find(|held| held.address.addr() == address)?;
        self.links.get(&held.link)
    }
}

impl Netlink {
    /// Looks at all links, addresses and routes.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn survey(&self) -> Result<Survey, HostError> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(|error| refused("list links", error))?;
        let addresses: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| refused("list addresses", error))?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let listed = self.handle.route().get(query).execute();
            let listed: Vec<RouteMessage> =
                listed.try_collect().await.map_err(|error| refused("list routes", error))?;
            routes.extend(listed.iter().flat_map(seen_routes));
        }
        Ok(Survey {
            links: links.iter().filter_map(seen_link).collect(),
            addresses: addresses.iter().filter_map(seen_address).collect(),
            routes,
        })
    }
}

fn seen_link(message: &LinkMessage) -> Option<(u32, SeenLink)> {
    let (mut name, mut kind, mut controller) = (None, LinkKind::Other, None);
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(found) = attribute {
            name = Some(found.clone());
        } else if let LinkAttribute::Controller(index) = attribute {
            controller = Some(*index);
        } else if let LinkAttribute::LinkInfo(information) = attribute {
            kind = kind_of(information);
        }
    }
    let up = message.header.flags.contains(LinkFlags::Up);
    Some((message.header.index, SeenLink { name: name?, kind, up, controller }))
}

fn kind_of(information: &[LinkInfo]) -> LinkKind {
    let kind =
        information.iter().find_map(|piece| if let LinkInfo::Kind(kind) = piece { Some(kind.clone()) } else { None });
    match kind {
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(InfoKind::Veth) => LinkKind::VirtualCable,
        Some(InfoKind::Tun) => LinkKind::Tun,
        Some(
            InfoKind::Wireguard
            | InfoKind::Xfrm
            | InfoKind::IpIp
            | InfoKind::Ip6Tnl
            | InfoKind::SitTun
            | InfoKind::GreTun
            | InfoKind::GreTun6
            | InfoKind::Vti
            | InfoKind::Vti6,
        ) => LinkKind::KernelTunnel,
        _ => LinkKind::Other,
    }
}

fn seen_address(message: &AddressMessage) -> Option<SeenAddress> {
    let listed = listed_address(message).filter(|listed| !super::is_link_local(listed.address.addr()))?;
    Some(SeenAddress { link: message.header.index, address: listed.address, permanent: listed.permanent })
}

fn seen_routes(message: &RouteMessage) -> Vec<SeenRoute> {
    /// The kernel's table of its own addresses and broadcasts.
    const LOCAL_TABLE: u32 = 255;
    let table = table_of(message);
    let Some(prefix) = destination_of(message) else { return Vec::new() };
    if table == LOCAL_TABLE || message.header.kind != RouteType::Unicast || super::is_link_local(prefix.addr()) {
        return Vec::new();
    }
    let is_router =
        |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    let by_router = message.attributes.iter().any(is_router);
    let mut found = Vec::new();
    for attribute in &message.attributes {
        if let RouteAttribute::Oif(link) = attribute {
            found.push(SeenRoute { table, prefix, link: *link, by_router });
        } else if let RouteAttribute::MultiPath(ways) = attribute {
            let each = |way: &RouteNextHop| SeenRoute {
                table,
                prefix,
                link: way.interface_index,
                by_router: way.attributes.iter().any(is_router),
            };
            found.extend(ways.iter().map(each));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use adit_testing::namespace::{in_namespace_async, ip};

    use super::*;

    #[test]
    fn links_addresses_and_routes_are_seen_as_they_are() {
        in_namespace_async(|| async {
            ip("link add br0 type bridge");
            ip("link add in0 type veth peer name out0");
            ip("link set in0 master br0");
            ip("link set br0 up");
            ip("address add 172.17.0.1/16 dev br0");
            ip("address add 192.0.2.9/24 dev out0 valid_lft 600 preferred_lft 600");
            ip("link set out0 up");
            ip("route add default via 192.0.2.1");
            let survey = Netlink::open().unwrap().survey().await.unwrap();
            let index = |name: &str| *survey.links.iter().find(|(_, link)| link.name == name).unwrap().0;
            let (bridge, inside, outside) = (index("br0"), index("in0"), index("out0"));
            let kinds = [bridge, inside, 1].map(|index| survey.links[&index].kind);
            assert_eq!(kinds, [LinkKind::Bridge, LinkKind::VirtualCable, LinkKind::Other]);
            assert_eq!((survey.links[&inside].controller, survey.links[&bridge].controller), (Some(bridge), None));
            let lasting = |link| survey.addresses.iter().find(|seen| seen.link == link).unwrap().permanent;
            assert!(lasting(bridge) && !lasting(outside));
            let route = |prefix: &str, link, by_router| {
                let route = SeenRoute { table: MAIN_TABLE, prefix: prefix.parse().unwrap(), link, by_router };
                assert!(survey.routes.contains(&route), "{route:?} in {:?}", survey.routes);
            };
            route("172.17.0.0/16", bridge, false);
            route("192.0.2.0/24", outside, false);
            route("0.0.0.0/0", outside, true);
            assert_eq!(survey.holder("172.17.0.1".parse().unwrap()).unwrap().name, "br0");
            assert!(survey.holder("172.17.0.2".parse().unwrap()).is_none());
        });
    }
}

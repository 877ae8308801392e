//! Which network this host is in: known by the router that packets go to.

use std::net::IpAddr;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use super::{Netlink, family_of, refused};
use crate::error::HostError;
use crate::journal::RecordedLink;

/// A network that this host is in, by what tells it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNetwork {
    /// The index of the link that leads into it.
    link: u32,
    /// The link's name, and this host's prefix on it.
    prefix: Option<String>,
    /// The link-layer address of the router.
    router: Option<String>,
}

impl SeenNetwork {
    /// What the network is known by: its router's link-layer address, or, where that is not known, the link and its
    /// prefix.
    #[must_use]
    pub fn known_by(&self) -> Option<String> {
        let router = self.router.as_ref().map(|address| format!("router {address}"));
        router.or_else(|| self.prefix.clone())
    }

    /// Whether both may be the same network: nothing that is known of both tells them apart. A router's address is
    /// known once this host has spoken to it.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let routers = self.router.as_ref().zip(other.router.as_ref());
        self.link == other.link && self.prefix == other.prefix && routers.is_none_or(|(one, other)| one == other)
    }
}

impl Netlink {
    /// The network into which this host sends packets with `mark` for `destination`. `None` without a way there.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn network_towards(
        &self,
        destination: IpAddr,
        mark: Option<u32>,
    ) -> Result<Option<SeenNetwork>, HostError> {
        let Some((link, next)) = self.way_to(destination, mark).await? else { return Ok(None) };
        let router = match next {
            Some(router) => self.link_layer_address(link, router).await?,
            None => None,
        };
        let Some(found) = self.link_at(link).await? else { return Ok(None) };
        let recorded = RecordedLink { name: found.name, index: link };
        let addresses = self.listed_addresses(&recorded).await?.into_iter().map(|listed| listed.address);
        let next = next.unwrap_or(destination);
        let prefix = addresses.filter(|prefix| prefix.contains(&next)).max_by_key(|prefix| prefix.prefix_len());
        let prefix = prefix.map(|prefix| format!("{} by {}", prefix.trunc(), recorded.name));
        Ok(Some(SeenNetwork { link, prefix, router }))
    }

    /// The link that packets leave by, and the router they go to, if it is not the destination itself.
    async fn way_to(&self, destination: IpAddr, mark: Option<u32>) -> Result<Option<(u32, Option<IpAddr>)>, HostError> {
        let whole = if destination.is_ipv4() { 32 } else { 128 };
        let mut query = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, whole)
            .expect("a whole address is a prefix")
            .build();
        query.attributes.extend(mark.map(RouteAttribute::Mark));
        let mut routes = std::pin::pin!(self.handle.route().get(query).execute());
        match routes.next().await {
            Some(Ok(route)) => Ok(way_of(&route)),
            Some(Err(error)) => {
                let error = refused("look up a route", error);
                let none = matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES));
                if none { Ok(None) } else { Err(error) }
            }
            None => Ok(None),
        }
    }

    async fn link_layer_address(&self, link: u32, of: IpAddr) -> Result<Option<String>, HostError> {
        let listed = self.handle.neighbours().get().set_address_family(family_of(of)).execute();
        let neighbours: Vec<NeighbourMessage> =
            listed.try_collect().await.map_err(|error| refused("list neighbours", error))?;
        let found =
            neighbours.iter().find(|neighbour| neighbour.header.ifindex == link && address_of(neighbour) == Some(of));
        Ok(found.and_then(link_layer_address_of))
    }
}

fn way_of(route: &RouteMessage) -> Option<(u32, Option<IpAddr>)> {
    let mut link = None;
    let mut router = None;
    for attribute in &route.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            link = Some(*index);
        } else if let RouteAttribute::Gateway(RouteAddress::Inet(v4)) = attribute {
            router = Some(IpAddr::V4(*v4));
        } else if let RouteAttribute::Gateway(RouteAddress::Inet6(v6)) = attribute {
            router = Some(IpAddr::V6(*v6));
        }
    }
    link.map(|link| (link, router))
}

fn address_of(neighbour: &NeighbourMessage) -> Option<IpAddr> {
    neighbour.attributes.iter().find_map(|attribute| {
        let NeighbourAttribute::Destination(address) = attribute else { return None };
        if let NeighbourAddress::Inet(v4) = address {
            Some(IpAddr::V4(*v4))
        } else if let NeighbourAddress::Inet6(v6) = address {
            Some(IpAddr::V6(*v6))
        } else {
            None
        }
    })
}

fn link_layer_address_of(neighbour: &NeighbourMessage) -> Option<String> {
    let bytes = neighbour.attributes.iter().find_map(|attribute| {
        if let NeighbourAttribute::LinkLayerAddress(bytes) = attribute { Some(bytes) } else { None }
    })?;
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Links without such addresses have empty ones.
    (!pairs.is_empty()).then(|| pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use adit_testing::namespace::{in_namespace_async, ip};

    use super::*;

    #[test]
    fn network_is_known_by_its_router_or_else_by_its_prefix() {
        in_namespace_async(|| async {
            let netlink = Netlink::open().unwrap();
            let far = "198.51.100.7".parse().unwrap();
            let seen = async || netlink.network_towards(far, Some(0x16)).await.unwrap();
            let known_by = async || seen().await.and_then(|network| network.known_by());
            assert_eq!(seen().await, None, "there is no way");
            ip("link add in0 type veth peer name out0");
            ip("link set in0 up");
            ip("link set out0 up");
            ip("address add 192.0.2.18/28 dev in0");
            let near = netlink.network_towards("192.0.2.17".parse().unwrap(), None).await.unwrap().unwrap();
            assert_eq!(near.known_by().as_deref(), Some("192.0.2.16/28 by in0"));
            ip("route add default via 192.0.2.17");
            assert_eq!(known_by().await, near.known_by(), "nobody has spoken to the router yet");
            let before = seen().await.unwrap();
            ip("neighbour add 192.0.2.17 lladdr 02:00:00:00:0a:01 dev in0");
            assert_eq!(known_by().await.as_deref(), Some("router 02:00:00:00:0a:01"));
            let home = seen().await.unwrap();
            assert!(home.may_be(&before) && before.may_be(&home));
            ip("neighbour replace 192.0.2.17 lladdr 02:00:00:00:0a:02 dev in0");
            assert!(!seen().await.unwrap().may_be(&home), "another router");
            ip("neighbour del 192.0.2.17 dev in0");
            ip("address add 192.0.2.19/29 dev in0");
            assert!(!seen().await.unwrap().may_be(&before), "another prefix");
        });
    }
}

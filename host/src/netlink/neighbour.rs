//! Which network this host is in: known by the router that packets go to.

use std::net::IpAddr;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use super::{Netlink, family_of, refused};
use crate::error::HostError;
use crate::journal::RecordedLink;

impl Netlink {
    /// What the network is known by into which this host sends packets with `mark` for `destination`: the router's
    /// link-layer address, or, where that is not known, the link and its prefix. `None` without a way there.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn network_towards(&self, destination: IpAddr, mark: Option<u32>) -> Result<Option<String>, HostError> {
        let Some((link, router)) = self.way_to(destination, mark).await? else { return Ok(None) };
        if let Some(router) = router
            && let Some(address) = self.link_layer_address(link, router).await?
        {
            return Ok(Some(format!("router {address}")));
        }
        let Some(found) = self.link_at(link).await? else { return Ok(None) };
        let recorded = RecordedLink { name: found.name, index: link };
        let addresses = self.listed_addresses(&recorded).await?.into_iter().map(|listed| listed.address);
        let next = router.unwrap_or(destination);
        let prefix = addresses.filter(|prefix| prefix.contains(&next)).max_by_key(|prefix| prefix.prefix_len());
        Ok(prefix.map(|prefix| format!("{} by {}", prefix.trunc(), recorded.name)))
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
            let known_by = || netlink.network_towards(far, Some(0x16));
            assert_eq!(known_by().await.unwrap(), None, "there is no way");
            ip("link add in0 type veth peer name out0");
            ip("link set in0 up");
            ip("link set out0 up");
            ip("address add 192.0.2.18/28 dev in0");
            let near = netlink.network_towards("192.0.2.17".parse().unwrap(), None).await.unwrap();
            assert_eq!(near.as_deref(), Some("192.0.2.16/28 by in0"));
            ip("route add default via 192.0.2.17");
            assert_eq!(known_by().await.unwrap(), near, "nobody has spoken to the router yet");
            ip("neighbour add 192.0.2.17 lladdr 02:00:00:00:0a:01 dev in0");
            assert_eq!(known_by().await.unwrap().as_deref(), Some("router 02:00:00:00:0a:01"));
        });
    }
}

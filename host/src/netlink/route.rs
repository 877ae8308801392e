//! Routes.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use serde::{Deserialize, Serialize};

use super::{Netlink, refused};
use crate::error::HostError;

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTarget {
    /// Out of a link, by its name.
    Link(String),
    /// Nowhere: senders get an ICMP "unreachable" at once.
    Unreachable,
}

/// A route in a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// The routing table; 254 is `main`.
    pub table: u32,
    /// The destinations; host bits are ignored.
    pub prefix: IpNet,
    /// Where it leads.
    pub target: RouteTarget,
    /// Preference among routes of the same prefix, lower first; `None` for the kernel's default.
    pub metric: Option<u32>,
}

impl Netlink {
    /// Adds a route.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal (`AlreadyExists` when the table has it).
    pub async fn add_route(&self, route: &Route) -> Result<(), HostError> {
        let message = self.route_message(route).await?;
        let added = self.handle.route().add(message).execute().await;
        added.map_err(|error| refused(format!("add route {} to table {}", route.prefix, route.table), error))
    }

    /// Removes a route.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal (`ESRCH` when the table does not have it).
    pub async fn remove_route(&self, route: &Route) -> Result<(), HostError> {
        let message = self.route_message(route).await?;
        let removed = self.handle.route().del(message).execute().await;
        removed.map_err(|error| refused(format!("remove route {} from table {}", route.prefix, route.table), error))
    }

    /// Lists the routes of a table, v4 and v6, that lead out of a link or are unreachable.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn routes(&self, table: u32) -> Result<Vec<Route>, HostError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            let listed = self.handle.route().get(query).execute();
            let messages: Vec<RouteMessage> =
                listed.try_collect().await.map_err(|error| refused("list routes", error))?;
            for message in messages.iter().filter(|message| table_of(message) == table) {
                found.extend(self.route_of(message, table).await);
            }
        }
        Ok(found)
    }

    async fn route_message(&self, route: &Route) -> Result<RouteMessage, HostError> {
        let mut builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(route.prefix.network(), route.prefix.prefix_len())
            .expect("an IpNet's length fits its family")
            .table_id(route.table);
        builder = match &route.target {
            RouteTarget::Link(name) => builder.output_interface(self.link_index(name).await?),
            RouteTarget::Unreachable => builder.kind(RouteType::Unreachable),
        };
        if let Some(metric) = route.metric {
            builder = builder.priority(metric);
        }
        Ok(builder.build())
    }

    async fn route_of(&self, message: &RouteMessage, table: u32) -> Option<Route> {
        let find = |read: fn(&RouteAttribute) -> Option<u32>| message.attributes.iter().find_map(read);
        let link = find(|attribute| if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None });
        let metric =
            find(|attribute| if let RouteAttribute::Priority(metric) = attribute { Some(*metric) } else { None });
        let target = if message.header.kind == RouteType::Unreachable {
            RouteTarget::Unreachable
        } else {
            RouteTarget::Link(self.link_name(link?).await?)
        };
        Some(Route { table, prefix: destination_of(message)?, target, metric })
    }
}

fn table_of(message: &RouteMessage) -> u32 {
    let wide = message
        .attributes
        .iter()
        .find_map(|attribute| if let RouteAttribute::Table(table) = attribute { Some(*table) } else { None });
    wide.unwrap_or_else(|| u32::from(message.header.table))
}

fn destination_of(message: &RouteMessage) -> Option<IpNet> {
    let named = message.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(destination) = attribute else { return None };
        if let RouteAddress::Inet(v4) = destination {
            Some(IpAddr::V4(*v4))
        } else if let RouteAddress::Inet6(v6) = destination {
            Some(IpAddr::V6(*v6))
        } else {
            None
        }
    });
    let any = if message.header.address_family == AddressFamily::Inet {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    };
    IpNet::new(named.unwrap_or(any), message.header.destination_prefix_length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::LinkSettings;
    use adit_testing::namespace::in_namespace_async;

    #[test]
    fn routes_of_both_families_and_kinds_come_and_go() {
        in_namespace_async(|| async {
            let netlink = Netlink::open().unwrap();
            netlink.set_link("lo", LinkSettings { up: Some(true), ..LinkSettings::default() }).await.unwrap();
            let link = || RouteTarget::Link("lo".into());
            let routes = [
                ("0.0.0.0/0", link(), None),
                ("10.0.0.0/8", link(), Some(7)),
                ("10.1.0.0/16", RouteTarget::Unreachable, None),
                ("::/0", RouteTarget::Unreachable, Some(1024)),
                ("fd00::/8", link(), Some(7)),
            ];
            for (prefix, target, metric) in routes {
                let route = Route { table: 51_820, prefix: prefix.parse().unwrap(), target, metric };
                netlink.add_route(&route).await.unwrap();
                assert_eq!(netlink.routes(51_820).await.unwrap(), std::slice::from_ref(&route), "{prefix}");
                assert!(netlink.add_route(&route).await.is_err(), "{prefix} twice");
                netlink.remove_route(&route).await.unwrap();
                assert_eq!(netlink.routes(51_820).await.unwrap(), [], "{prefix}");
            }
        });
    }
}

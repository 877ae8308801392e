//! Routes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use serde::{Deserialize, Serialize};

use super::{Family, Netlink, refused};
use crate::error::HostError;

/// Metric that the kernel gives an IPv6 route without one (`IP6_RT_PRIO_USER`).
const DEFAULT_METRIC_V6: u32 = 1024;

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteTarget {
    /// Out of a link, by its name.
    Link(String),
    /// Nowhere: senders get an ICMP "unreachable" at once.
    Unreachable,
}

/// A route in a table. It bears the protocol `kernel`, which systemd-networkd leaves alone.
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

/// A route as the kernel lists it: by the index of its link, which no renaming changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ListedRoute {
    pub(crate) prefix: IpNet,
    /// Index of the link; `None` is "unreachable".
    pub(crate) link: Option<u32>,
    pub(crate) metric: Option<u32>,
}

impl ListedRoute {
    /// How the kernel lists a route that leads out of the link with this index.
    pub(crate) fn expected(route: &Route, link: Option<u32>) -> Self {
        let default = route.prefix.addr().is_ipv6().then_some(DEFAULT_METRIC_V6);
        Self { prefix: route.prefix.trunc(), link, metric: route.metric.or(default) }
    }
}

impl Netlink {
    /// Adds a route.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal (`AlreadyExists` when the table has it).
    pub async fn add_route(&self, route: &Route) -> Result<(), HostError> {
        let message = route_message(route, self.link_of(route).await?);
        let added = self.handle.route().add(message).execute().await;
        added.map_err(|error| refused(format!("add route {} to table {}", route.prefix, route.table), error))
    }

    /// Adds a route by its link's index; takes the place of what leads elsewhere with the same prefix and metric.
    pub(crate) async fn put_back_route(&self, route: &Route, link: Option<u32>) -> Result<(), HostError> {
        let put = self.handle.route().add(route_message(route, link)).replace().execute().await;
        put.map_err(|error| refused(format!("add route {} to table {}", route.prefix, route.table), error))
    }

    /// Removes a route.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal (`ESRCH` when the table does not have it).
    pub async fn remove_route(&self, route: &Route) -> Result<(), HostError> {
        self.remove_recorded_route(route, self.link_of(route).await?).await
    }

    /// Removes a route by its link's index.
    pub(crate) async fn remove_recorded_route(&self, route: &Route, link: Option<u32>) -> Result<(), HostError> {
        let removed = self.handle.route().del(route_message(route, link)).execute().await;
        removed.map_err(|error| refused(format!("remove route {} from table {}", route.prefix, route.table), error))
    }

    /// Lists the routes of a table, v4 and v6, that lead out of a link or are unreachable.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn routes(&self, table: u32) -> Result<Vec<Route>, HostError> {
        let mut names = HashMap::new();
        let mut found = Vec::new();
        for family in [Family::V4, Family::V6] {
            for ListedRoute { prefix, link, metric } in self.listed_routes(family, table).await? {
                if let Some(index) = link
                    && let Entry::Vacant(place) = names.entry(index)
                {
                    place.insert(self.link_at(index).await?.map(|link| link.name));
                }
                let target = match link {
                    None => RouteTarget::Unreachable,
                    Some(index) => match names.get(&index).cloned().flatten() {
                        Some(name) => RouteTarget::Link(name),
                        // Deleted since, and the route with it.
                        None => continue,
                    },
                };
                found.push(Route { table, prefix, target, metric });
            }
        }
        Ok(found)
    }

    /// Lists the routes of a family in a table that lead out of a link or are unreachable.
    pub(crate) async fn listed_routes(&self, family: Family, table: u32) -> Result<Vec<ListedRoute>, HostError> {
        let mut query = RouteMessage::default();
        query.header.address_family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let listed = self.handle.route().get(query).execute();
        let messages: Vec<RouteMessage> = listed.try_collect().await.map_err(|error| refused("list routes", error))?;
        Ok(messages.iter().filter(|message| table_of(message) == table).filter_map(listed_route).collect())
    }

    /// The index of the link that this host sends packets for `destination` out of; `None` if it has no route there.
    pub(crate) async fn link_towards(&self, destination: IpAddr) -> Result<Option<u32>, HostError> {
        let whole = if destination.is_ipv4() { 32 } else { 128 };
        let query = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, whole)
            .expect("a whole address is a prefix")
            .build();
        let mut routes = std::pin::pin!(self.handle.route().get(query).execute());
        match routes.next().await {
            Some(Ok(route)) => Ok(listed_route(&route).and_then(|route| route.link)),
            Some(Err(error)) => {
                let error = refused("look up a route", error);
                let none = matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES));
                if none { Ok(None) } else { Err(error) }
            }
            None => Ok(None),
        }
    }

    /// The index of a route's link.
    async fn link_of(&self, route: &Route) -> Result<Option<u32>, HostError> {
        match &route.target {
            RouteTarget::Link(name) => Ok(Some(self.link_index(name).await?)),
            RouteTarget::Unreachable => Ok(None),
        }
    }
}

fn route_message(route: &Route, link: Option<u32>) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.prefix.network(), route.prefix.prefix_len())
        .expect("an IpNet's length fits its family")
        .table_id(route.table)
        .protocol(RouteProtocol::Kernel);
    builder = match link {
        Some(index) => builder.output_interface(index),
        None => builder.kind(RouteType::Unreachable),
    };
    if let Some(metric) = route.metric {
        builder = builder.priority(metric);
    }
    builder.build()
}

fn listed_route(message: &RouteMessage) -> Option<ListedRoute> {
    let find = |read: fn(&RouteAttribute) -> Option<u32>| message.attributes.iter().find_map(read);
    let link = find(|attribute| if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None });
    let metric = find(|attribute| if let RouteAttribute::Priority(metric) = attribute { Some(*metric) } else { None });
    let link = if message.header.kind == RouteType::Unreachable { None } else { Some(link?) };
    Some(ListedRoute { prefix: destination_of(message)?, link, metric })
}

pub(super) fn table_of(message: &RouteMessage) -> u32 {
    let wide = message
        .attributes
        .iter()
        .find_map(|attribute| if let RouteAttribute::Table(table) = attribute { Some(*table) } else { None });
    wide.unwrap_or_else(|| u32::from(message.header.table))
}

pub(super) fn destination_of(message: &RouteMessage) -> Option<IpNet> {
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

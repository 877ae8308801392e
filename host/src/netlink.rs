//! Links, addresses, routes and policy rules, over route netlink.

mod route;
mod rule;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use adit_program::task::{self, Task};
use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkUnspec};
use serde::{Deserialize, Serialize};

pub use route::{Route, RouteTarget};
pub use rule::Rule;

use super::error::HostError;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Settings of a link; `None` leaves a setting alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LinkSettings {
    /// Largest packet, in bytes.
    pub mtu: Option<u32>,
    /// Administrative state.
    pub up: Option<bool>,
    /// Most segments in one superpacket that the host's own TCP makes for the link. A forwarding host leaves it alone:
    /// the kernel would cut larger superpackets into packets.
    #[serde(default)]
    pub gso_max_segs: Option<u32>,
}

/// A route netlink socket, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    _connection: Task,
}

impl Netlink {
    /// Opens a socket, served by a task of the current tokio runtime.
    ///
    /// # Errors
    /// Fails when the kernel gives no netlink socket.
    pub fn open() -> Result<Self, HostError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|source| HostError::system("open a netlink socket", source))?;
        Ok(Self { handle, _connection: task::spawn(connection) })
    }

    /// Finds a link's index by its name.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal.
    pub async fn link_index(&self, name: &str) -> Result<u32, HostError> {
        Ok(self.link(name).await?.header.index)
    }

    /// Reads a link's settings.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal.
    pub async fn link_settings(&self, name: &str) -> Result<LinkSettings, HostError> {
        let link = self.link(name).await?;
        let mut settings =
            LinkSettings { up: Some(link.header.flags.contains(LinkFlags::Up)), ..LinkSettings::default() };
        for attribute in &link.attributes {
            if let LinkAttribute::Mtu(mtu) = attribute {
                settings.mtu = Some(*mtu);
            } else if let LinkAttribute::GsoMaxSegs(segments) = attribute {
                settings.gso_max_segs = Some(*segments);
            }
        }
        Ok(settings)
    }

    /// Changes a link's settings.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal.
    pub async fn set_link(&self, name: &str, settings: LinkSettings) -> Result<(), HostError> {
        let mut change = LinkUnspec::new_with_index(self.link_index(name).await?);
        if let Some(mtu) = settings.mtu {
            change = change.mtu(mtu);
        }
        if let Some(segments) = settings.gso_max_segs {
            change = change.append_extra_attribute(LinkAttribute::GsoMaxSegs(segments));
        }
        change = match settings.up {
            Some(true) => change.up(),
            Some(false) => change.down(),
            None => change,
        };
        let changed = self.handle.link().change(change.build()).execute().await;
        changed.map_err(|error| refused(format!("set link {name} to {settings:?}"), error))
    }

    /// Lists the addresses of a link, without IPv6 link-local ones.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal.
    pub async fn addresses(&self, link: &str) -> Result<Vec<IpNet>, HostError> {
        let index = self.link_index(link).await?;
        let listed = self.handle.address().get().set_link_index_filter(index).execute();
        let messages: Vec<AddressMessage> =
            listed.try_collect().await.map_err(|error| refused(format!("list addresses of {link}"), error))?;
        Ok(messages.iter().filter_map(address_of).filter(|address| !is_link_local(address.addr())).collect())
    }

    /// Adds an address to a link. The kernel adds a route to its prefix, unless the prefix is the address alone.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal (`AlreadyExists` when the link has it).
    pub async fn add_address(&self, link: &str, address: IpNet) -> Result<(), HostError> {
        let index = self.link_index(link).await?;
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len());
        let mut flags = AddressFlags::empty();
        if address.prefix_len() == address.max_prefix_len() {
            flags |= AddressFlags::Noprefixroute;
        }
        let message = request.message_mut();
        if address.addr().is_ipv6() {
            // Nobody on a tunnel could hold the same address: usable at once, without duplicate detection.
            message.header.flags |= AddressHeaderFlags::Nodad;
            flags |= AddressFlags::Nodad;
        }
        message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
        message.attributes.push(AddressAttribute::Flags(flags));
        let added = request.execute().await;
        added.map_err(|error| refused(format!("add address {address} to {link}"), error))
    }

    /// Removes an address from a link.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal (`AddrNotAvailable` when the link does not have it).
    pub async fn remove_address(&self, link: &str, address: IpNet) -> Result<(), HostError> {
        let mut message = AddressMessage::default();
        message.header.index = self.link_index(link).await?;
        message.header.prefix_len = address.prefix_len();
        message.header.family = family_of(address.addr());
        message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
        let removed = self.handle.address().del(message).execute().await;
        removed.map_err(|error| refused(format!("remove address {address} from {link}"), error))
    }

    /// Finds a link's name by its index.
    async fn link_name(&self, index: u32) -> Option<String> {
        let mut links = std::pin::pin!(self.handle.link().get().match_index(index).execute());
        let link = links.next().await?.ok()?;
        link.attributes
            .into_iter()
            .find_map(|attribute| if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None })
    }

    async fn link(&self, name: &str) -> Result<LinkMessage, HostError> {
        let missing = || HostError::NoSuchLink { name: name.to_owned() };
        // The kernel would refuse a longer name with a less telling error.
        if name.is_empty() || name.len() > 15 {
            return Err(missing());
        }
        let mut links = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match links.next().await {
            Some(Ok(link)) => Ok(link),
            Some(Err(error)) => {
                let error = refused(format!("look up link {name}"), error);
                let absent = error.errno() == Some(libc::ENODEV);
                Err(if absent { missing() } else { error })
            }
            None => Err(missing()),
        }
    }
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let pick = |local: bool| {
        message.attributes.iter().find_map(|attribute| {
            let wanted = matches!(attribute, AddressAttribute::Local(_)) == local;
            let (AddressAttribute::Local(address) | AddressAttribute::Address(address)) = attribute else {
                return None;
            };
            wanted.then_some(*address)
        })
    };
    IpNet::new(pick(true).or_else(|| pick(false))?, message.header.prefix_len).ok()
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn family_of(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Turns a netlink failure into an error that says what was refused.
fn refused(doing: impl Into<String>, error: rtnetlink::Error) -> HostError {
    let source = if let rtnetlink::Error::NetlinkError(message) = error {
        message.to_io()
    } else {
        io::Error::other(error.to_string())
    };
    HostError::system(doing, source)
}

/// The addresses from which this host reaches the internet, one per family it has a route for.
///
/// The kernel is asked which source it would choose towards an address set aside for documentation (RFC 5737, RFC
/// 3849); nothing is sent.
#[must_use]
pub fn default_source_addresses() -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let towards = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
    };
    let v4 = match towards("0.0.0.0:0", "192.0.2.1:9") {
        Some(IpAddr::V4(v4)) => Some(v4),
        Some(IpAddr::V6(_)) | None => None,
    };
    let v6 = match towards("[::]:0", "[2001:db8::1]:9") {
        Some(IpAddr::V6(v6)) => Some(v6),
        Some(IpAddr::V4(_)) | None => None,
    };
    (v4, v6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_testing::namespace::in_namespace_async;

    const UP: LinkSettings = LinkSettings { mtu: None, up: Some(true), gso_max_segs: None };

    #[test]
    fn settings_of_an_older_journal_are_read() {
        let older: LinkSettings = serde_json::from_str(r#"{"mtu":1400,"up":true}"#).unwrap();
        assert_eq!(older, LinkSettings { mtu: Some(1400), up: Some(true), gso_max_segs: None });
    }

    #[test]
    fn links_are_found_and_changed_by_name() {
        in_namespace_async(|| async {
            let netlink = Netlink::open().unwrap();
            assert_eq!(netlink.link_index("lo").await.unwrap(), 1);
            let settings = LinkSettings { mtu: Some(1400), up: Some(true), gso_max_segs: Some(45) };
            netlink.set_link("lo", settings).await.unwrap();
            assert_eq!(netlink.link_settings("lo").await.unwrap(), settings);
            for missing in ["adit0", "", "a-name-that-is-far-too-long"] {
                assert!(matches!(netlink.link_index(missing).await, Err(HostError::NoSuchLink { .. })));
            }
        });
    }

    #[test]
    fn addresses_are_added_listed_and_removed() {
        in_namespace_async(|| async {
            let netlink = Netlink::open().unwrap();
            netlink.set_link("lo", UP).await.unwrap();
            for text in ["10.64.3.1/24", "10.9.9.9/32", "fd12::1/64", "fd13::1/128"] {
                let address: IpNet = text.parse().unwrap();
                netlink.add_address("lo", address).await.unwrap();
                assert!(netlink.addresses("lo").await.unwrap().contains(&address), "{text}");
                netlink.remove_address("lo", address).await.unwrap();
                assert!(!netlink.addresses("lo").await.unwrap().contains(&address), "{text}");
            }
        });
    }

    #[test]
    fn source_addresses_are_absent_without_a_default_route() {
        in_namespace_async(|| async {
            assert_eq!(default_source_addresses(), (None, None));
            let netlink = Netlink::open().unwrap();
            netlink.set_link("lo", UP).await.unwrap();
            netlink.add_address("lo", "198.51.100.7/32".parse().unwrap()).await.unwrap();
            let target = RouteTarget::Link("lo".into());
            let route = Route { table: 254, prefix: "0.0.0.0/0".parse().unwrap(), target, metric: None };
            netlink.add_route(&route).await.unwrap();
            assert_eq!(default_source_addresses(), (Some("198.51.100.7".parse().unwrap()), None));
        });
    }
}

//! Links, addresses, routes and policy rules, over route netlink.

mod address;
mod link;
mod neighbour;
mod route;
mod rule;
mod survey;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use adit_program::task::{self, Task};
use futures::StreamExt;
use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkMessage;
use serde::{Deserialize, Serialize};

pub use neighbour::SeenNetwork;
pub use route::{Route, RouteTarget};
pub use rule::Rule;
pub use survey::{LinkKind, MAIN_TABLE, SeenAddress, SeenLink, SeenRoute, Survey};

pub(crate) use address::ListedAddress;
pub(crate) use link::ListedLink;
pub(crate) use route::ListedRoute;

use super::error::HostError;
use super::journal::RecordedLink;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
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
        Ok(link::settings_of(&self.link(name).await?))
    }

    /// Changes a link's settings.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal.
    pub async fn set_link(&self, name: &str, settings: LinkSettings) -> Result<(), HostError> {
        let link = RecordedLink { name: name.to_owned(), index: self.link_index(name).await? };
        self.set_recorded_link(&link, settings).await
    }

    /// Lists the addresses of a link, without IPv6 link-local ones.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal.
    pub async fn addresses(&self, link: &str) -> Result<Vec<IpNet>, HostError> {
        let link = RecordedLink { name: link.to_owned(), index: self.link_index(link).await? };
        let listed = self.listed_addresses(&link).await?.into_iter().map(|listed| listed.address);
        Ok(listed.filter(|address| !is_link_local(address.addr())).collect())
    }

    /// Adds an address to a link. The kernel adds a route to its prefix, unless the prefix is the address alone.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal (`AlreadyExists` when the link has it).
    pub async fn add_address(&self, link: &str, address: IpNet) -> Result<(), HostError> {
        let link = RecordedLink { name: link.to_owned(), index: self.link_index(link).await? };
        let added = self.address_request(&link, address).execute().await;
        added.map_err(|error| refused(format!("add address {address} to {}", link.name), error))
    }

    /// Removes an address from a link.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal (`AddrNotAvailable` when the link does not have it).
    pub async fn remove_address(&self, link: &str, address: IpNet) -> Result<(), HostError> {
        let link = RecordedLink { name: link.to_owned(), index: self.link_index(link).await? };
        self.remove_recorded_address(&link, address).await
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

//! Links, addresses and routes of the calling thread's network namespace.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, RawFd};

use anyhow::{Context, Result, anyhow, bail};
use futures::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::rule::RuleMessage;
use rtnetlink::{Handle, IpVersion, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// Runs netlink requests in the namespace of the calling thread.
pub(super) fn run<T>(work: impl AsyncFnOnce(Handle) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let (connection, handle, _notifications) = rtnetlink::new_connection().context("open a netlink socket")?;
        tokio::select! {
            biased;
            result = work(handle) => result,
            () = connection => bail!("the netlink connection ended"),
        }
    })
}

/// Sets a link up or down, as plugging and pulling its cable would.
pub(super) async fn set_link(handle: &Handle, link: &str, up: bool) -> Result<()> {
    let message = LinkUnspec::new_with_index(link_index(handle, link).await?);
    let message = if up { message.up() } else { message.down() }.build();
    handle.link().set(message).execute().await.with_context(|| format!("set link {link} up={up}"))
}

/// Sets the largest packet a link takes.
pub(super) async fn set_mtu(handle: &Handle, link: &str, mtu: u32) -> Result<()> {
    let message = LinkUnspec::new_with_index(link_index(handle, link).await?).mtu(mtu).build();
    handle.link().set(message).execute().await.with_context(|| format!("set link {link} mtu={mtu}"))
}

/// The largest packet a link takes.
pub(super) async fn mtu(handle: &Handle, link: &str) -> Result<u32> {
    let links = links(handle).await?;
    let found = links.iter().find(|message| link_name(message) == Some(link));
    let attributes = found.map(|message| message.attributes.as_slice()).unwrap_or_default();
    let mtu = attributes.iter().find_map(|a| if let LinkAttribute::Mtu(mtu) = a { Some(*mtu) } else { None });
    mtu.ok_or_else(|| anyhow!("no link is called {link}"))
}

/// Makes a pair of connected links: `name` here and `peer` in the network namespace `peer_namespace`.
pub(super) async fn add_veth(handle: &Handle, name: &str, peer: &str, peer_namespace: &File) -> Result<()> {
    let descriptor: RawFd = peer_namespace.as_raw_fd();
    let far = LinkMessageBuilder::<LinkUnspec>::new().name(peer).setns_by_fd(descriptor).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .build();
    handle.link().add(pair).execute().await.with_context(|| format!("make the link {name}"))
}

/// Gives a link an address that is usable at once (no duplicate address detection).
pub(super) async fn add_address(handle: &Handle, link: &str, address: IpNet) -> Result<()> {
    let index = link_index(handle, link).await?;
    let mut request = handle.address().add(index, address.addr(), address.prefix_len());
    request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    request.execute().await.with_context(|| format!("add {address} to {link}"))
}

/// Takes an address from a link.
pub(super) async fn remove_address(handle: &Handle, link: &str, address: IpNet) -> Result<()> {
    let index = link_index(handle, link).await?;
    let all = addresses(handle).await?;
    let found =
        all.into_iter().find(|message| message.header.index == index && self::address(message) == Some(address));
    let message = found.with_context(|| format!("find {address} on {link}"))?;
    handle.address().del(message).execute().await.with_context(|| format!("take {address} from {link}"))
}

/// Adds the default route of `via`'s family.
pub(super) async fn add_default_route(handle: &Handle, via: IpAddr) -> Result<()> {
    let message = match via {
        IpAddr::V4(via) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(via).build(),
        IpAddr::V6(via) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(via).build(),
    };
    handle.route().add(message).execute().await.with_context(|| format!("add a default route via {via}"))
}

/// Adds a route to a network.
pub(super) async fn add_route(handle: &Handle, to: IpNet, via: IpAddr) -> Result<()> {
    let message = match (to, via) {
        (IpNet::V4(to), IpAddr::V4(via)) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.addr(), to.prefix_len());
            route.gateway(via).build()
        }
        (IpNet::V6(to), IpAddr::V6(via)) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to.addr(), to.prefix_len());
            route.gateway(via).build()
        }
        (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => bail!("{to} and {via} differ in their family"),
    };
    handle.route().add(message).execute().await.with_context(|| format!("add a route to {to} via {via}"))
}

/// All links.
pub(super) async fn links(handle: &Handle) -> Result<Vec<LinkMessage>> {
    handle.link().get().execute().try_collect().await.context("list links")
}

/// All addresses.
pub(super) async fn addresses(handle: &Handle) -> Result<Vec<AddressMessage>> {
    handle.address().get().execute().try_collect().await.context("list addresses")
}

/// The routes of all tables and both families.
pub(super) async fn routes(handle: &Handle) -> Result<Vec<RouteMessage>> {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut routes: Vec<_> = handle.route().get(v4).execute().try_collect().await.context("list IPv4 routes")?;
    let more: Vec<_> = handle.route().get(v6).execute().try_collect().await.context("list IPv6 routes")?;
    routes.extend(more);
    Ok(routes)
}

/// The policy rules of both families.
pub(super) async fn rules(handle: &Handle) -> Result<Vec<RuleMessage>> {
    let mut rules: Vec<_> =
        handle.rule().get(IpVersion::V4).execute().try_collect().await.context("list IPv4 rules")?;
    let more: Vec<_> = handle.rule().get(IpVersion::V6).execute().try_collect().await.context("list IPv6 rules")?;
    rules.extend(more);
    Ok(rules)
}

/// The name a link message bears.
pub(super) fn link_name(message: &LinkMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|attribute| if let LinkAttribute::IfName(name) = attribute { Some(name.as_str()) } else { None })
}

/// The address of an address message, with its prefix length.
pub(super) fn address(message: &AddressMessage) -> Option<IpNet> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| if let AddressAttribute::Local(address) = attribute { Some(*address) } else { None });
    let any = message
        .attributes
        .iter()
        .find_map(|attribute| if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None });
    IpNet::new(local.or(any)?, message.header.prefix_len).ok()
}

/// The destination, table and output link of a route message.
pub(super) fn destination(message: &RouteMessage) -> Option<(IpNet, u32, Option<u32>)> {
    let mut table = u32::from(message.header.table);
    let mut link = None;
    let is_v4 = message.header.address_family == AddressFamily::Inet;
    let mut address = if is_v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(RouteAddress::Inet(v4)) = attribute {
            address = IpAddr::V4(*v4);
        } else if let RouteAttribute::Destination(RouteAddress::Inet6(v6)) = attribute {
            address = IpAddr::V6(*v6);
        } else if let RouteAttribute::Table(number) = attribute {
            table = *number;
        } else if let RouteAttribute::Oif(index) = attribute {
            link = Some(*index);
        }
    }
    Some((IpNet::new(address, message.header.destination_prefix_length).ok()?, table, link))
}

async fn link_index(handle: &Handle, name: &str) -> Result<u32> {
    let links = links(handle).await?;
    let found = links.iter().find(|link| link_name(link) == Some(name));
    found.map(|link| link.header.index).ok_or_else(|| anyhow!("no link is called {name}"))
}

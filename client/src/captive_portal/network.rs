//! What a network told this host of its API, and how that is reached.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use adit_net::resolve::{self, AddressFamily};
use adit_net::tls::{self, KnownBy};
use adit_proto::captive_portal::{PageAddress, api_address};
use tokio::task::JoinSet;

use crate::own_question::LocalResolvers;
use crate::public_roots;
use crate::ways::source_address;

/// Where systemd-networkd keeps what it knows of each link, in a file of its number (`sd_network(3)`).
pub(super) const LINKS: &str = "/run/systemd/netif/links";
/// The line of such a file that has the option of RFC 8910, whether it came by DHCP or by a router's advertisement.
const OPTION: &str = "CAPTIVE_PORTAL=";
/// Most links that are looked at.
const MOST_LINKS: usize = 64;

/// The APIs of the networks this host is in, as far as it was told.
pub(super) fn apis(links: &Path) -> Vec<PageAddress> {
    let files = fs::read_dir(links).into_iter().flatten().flatten().take(MOST_LINKS);
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let mut apis: Vec<PageAddress> = Vec::new();
    for text in texts {
        apis.extend(text.lines().filter_map(|line| api_address(line.strip_prefix(OPTION)?.trim())));
    }
    apis.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    apis.dedup();
    apis
}

/// By whom an API is believed: authorities that this host trusts (RFC 8908 section 4).
pub(super) fn tls() -> Option<Arc<rustls::ClientConfig>> {
    let roots = public_roots::load().ok()?;
    tls::foreign_client_config(KnownBy::Roots(roots), None).ok()
}

/// Whether an API may be asked at this address, which a network chose: it is none of this host, whose services may
/// trust whoever comes from here, and none that counts on one link alone or stands for many hosts, for which no
/// authority vouches.
pub(super) fn may_be_asked(address: SocketAddr, mark: Option<u32>) -> bool {
    let ip = address.ip().to_canonical();
    let is_near = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
    let counts_on_a_link = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    // What this host sends to an address of its own comes from that very address.
    let is_elsewhere = || source_address(SocketAddr::new(ip, address.port()), mark).is_ok_and(|source| source != ip);
    !is_near && !counts_on_a_link && is_elsewhere()
}

/// Asks for a name: the network's resolvers past a closed host, or else this host's own.
pub(super) async fn resolve(name: &str, own_way: Option<&(LocalResolvers, u32)>) -> Vec<IpAddr> {
    if let Some((resolvers, mark)) = own_way {
        return resolvers.ask(name, *mark).await;
    }
    let mut questions = JoinSet::new();
    for family in [AddressFamily::V6, AddressFamily::V4] {
        let name = name.to_owned();
        questions.spawn_blocking(move || resolve::resolve(&name, family).unwrap_or_default());
    }
    let mut found = Vec::new();
    while let Some(answered) = questions.join_next().await {
        found.extend(answered.unwrap_or_default());
    }
    found
}

//! Everything Adit may change on a host, as text.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};

use super::namespace::RESOLV_CONF;
use super::{netlink, nftables};

/// Folders of sysctls that a gateway or a client writes to.
const SYSCTL_FOLDERS: [&str; 4] = ["net/ipv4/conf", "net/ipv6/conf", "net/ipv4", "net/core"];

/// Sysctls directly in `net/ipv4` and `net/core` that count; the others change by themselves.
const SINGLE_SYSCTLS: [&str; 6] =
    ["ip_forward", "ip_default_ttl", "tcp_mtu_probing", "ping_group_range", "rmem_max", "wmem_max"];

/// Describes the calling thread's network namespace, resolver file and nftables.
pub(super) fn take() -> Result<String> {
    let mut text = netlink::run(async |handle| {
        let mut text = String::new();
        section(&mut text, "links", netlink::links(&handle).await?.iter().map(link));
        section(&mut text, "addresses", netlink::addresses(&handle).await?.iter().map(address));
        section(&mut text, "routes", netlink::routes(&handle).await?.iter().map(route));
        section(&mut text, "rules", netlink::rules(&handle).await?.iter().map(|rule| format!("{rule:?}")));
        Ok(text)
    })?;
    section(&mut text, "sysctls", sysctls()?);
    section(&mut text, "nftables", nftables::dump()?);
    let resolver = fs::read(RESOLV_CONF).context("read /etc/resolv.conf")?;
    let _infallible = write!(text, "[resolv.conf]\n{}", String::from_utf8_lossy(&resolver));
    Ok(text)
}

fn section(text: &mut String, name: &str, lines: impl IntoIterator<Item = String>) {
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort();
    let _infallible = writeln!(text, "[{name}]\n{}", lines.join("\n"));
}

/// Index, name, flags set by people, and size of a link.
fn link(message: &LinkMessage) -> String {
    let mut text = format!("{} up={}", message.header.index, message.header.flags.contains(LinkFlags::Up));
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(_) | LinkAttribute::Mtu(_) | LinkAttribute::LinkInfo(_) = attribute {
            let _infallible = write!(text, " {attribute:?}");
        }
    }
    text
}

fn address(message: &AddressMessage) -> String {
    // Only the kernel's time stamps may differ.
    let lasting = message.attributes.iter().filter(|attribute| !matches!(attribute, AddressAttribute::CacheInfo(_)));
    format!("{:?} {:?}", message.header, lasting.collect::<Vec<_>>())
}

fn route(message: &RouteMessage) -> String {
    let lasting = message.attributes.iter().filter(|attribute| !matches!(attribute, RouteAttribute::CacheInfo(_)));
    format!("{:?} {:?}", message.header, lasting.collect::<Vec<_>>())
}

fn sysctls() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for folder in SYSCTL_FOLDERS {
        let folder = Path::new("/proc/sys").join(folder);
        if !folder.exists() {
            continue;
        }
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry.context("read a sysctl folder")?.path();
            if path.is_file() && path.file_name().is_some_and(|n| SINGLE_SYSCTLS.iter().any(|single| n == *single)) {
                lines.extend(sysctl(&path));
            } else if path.is_dir() && folder.ends_with("conf") {
                let files = fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
                lines.extend(files.filter_map(|file| sysctl(&file.ok()?.path())));
            }
        }
    }
    Ok(lines)
}

/// One sysctl; `None` for those that are write-only or hold a secret made at first use.
fn sysctl(path: &Path) -> Option<String> {
    let value = fs::read_to_string(path).ok()?;
    Some(format!("{} = {}", path.display(), value.trim_end()))
}

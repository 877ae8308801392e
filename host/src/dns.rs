//! The host's resolver: systemd-resolved over D-Bus if it runs, else `resolv.conf`.

mod file;
mod resolved;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub(super) use file::SavedFile;
pub(super) use resolved::{Resolved, is_behind};

/// The bus on which systemd-resolved is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SystemBus {
    /// The system bus of this host.
    #[default]
    System,
    /// A bus at a D-Bus address, such as `unix:path=/tmp/bus`.
    Address(String),
    /// None: always use the resolver's file.
    Absent,
}

/// Which names the tunnel's DNS servers answer for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DnsScope {
    /// All names.
    All,
    /// Names in these domains only. A plain `resolv.conf` cannot express this: there, all names go to the tunnel's servers.
    Domains(Vec<String>),
}

/// DNS settings that come with a tunnel.
///
/// Names that are not domain names (letters, digits, `-`, `_`, and dots between) are left out when the settings are applied:
/// they come from another host and go into a file of this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSettings {
    /// The servers, best first.
    pub servers: Vec<IpAddr>,
    /// Domains appended to short names, best first.
    pub search: Vec<String>,
    /// Which names the servers answer for.
    pub scope: DnsScope,
}

impl DnsSettings {
    /// The search domains that are well-formed.
    fn search_domains(&self) -> impl Iterator<Item = &str> {
        self.search.iter().map(String::as_str).filter(|name| is_domain(name))
    }
}

/// Whether a text is a domain name (RFC 1035 section 2.3, with the underscore that some services use).
#[must_use]
pub fn is_domain(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_domain_names_are_domains() {
        for good in ["example.net", "example.net.", "a", "_dmarc.example.net", "xn--bcher-kva.example"] {
            assert!(is_domain(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", ".", "a..b", "a b", "a\nnameserver 198.51.100.1", "-a.net", "é.example", long.as_str()] {
            assert!(!is_domain(bad), "{bad}");
        }
    }
}

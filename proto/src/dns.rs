//! DNS settings that come with a tunnel, and what a domain name is.

pub mod question;

use std::net::IpAddr;

/// Which names the tunnel's DNS servers answer for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsScope {
    /// All names.
    All,
    /// Names in these domains only. A plain `resolv.conf` cannot express this: there, all names go to the tunnel's
    /// servers.
    Domains(Vec<String>),
}

/// DNS settings that come with a tunnel.
///
/// Names that are not domain names (letters, digits, `-`, `_`, and dots between) are left out when the settings are
/// applied: they come from another host and go into a file of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// The servers, best first.
    pub servers: Vec<IpAddr>,
    /// Domains appended to short names, best first.
    pub search: Vec<String>,
    /// Which names the servers answer for.
    pub scope: DnsScope,
    /// Whether no name may be asked anywhere else, whatever servers other links have: so it is in a full tunnel.
    pub exclusive: bool,
}

impl DnsSettings {
    /// The search domains that are well-formed.
    pub fn search_domains(&self) -> impl Iterator<Item = &str> {
        self.search.iter().map(String::as_str).filter(|name| is_domain(name))
    }
}

/// Whether a text is a domain name (RFC 1035 section 2.3, with the underscore that some services use).
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

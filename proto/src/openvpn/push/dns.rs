//! Reading the options `dns` and `dhcp-option`, which profiles and servers have in the same form.

use std::net::{IpAddr, SocketAddr};

use super::Dns;

/// Most resolvers, most domains that they are asked for, and most that are searched.
pub const MAX_NAMES: usize = 64;

/// The port of DNS.
const PORT: u16 = 53;

/// An option makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::openvpn) enum DnsError {
    Value,
    TooMany,
}

/// What was made of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::openvpn) enum Taken {
    /// It counts.
    Whole,
    /// It says something that nothing is made of.
    Unknown,
}

/// What options add up to: as soon as there is one `dns`, no `dhcp-option` counts.
#[derive(Default)]
pub(in crate::openvpn) struct DnsDraft {
    dns: Dns,
    has_dns_option: bool,
}

impl DnsDraft {
    /// `dns server PRIORITY …` and `dns search-domains …`. Of several servers all addresses are used, as if they were
    /// one.
    pub(in crate::openvpn) fn take_dns(&mut self, values: &[&str]) -> Result<Taken, DnsError> {
        if !std::mem::replace(&mut self.has_dns_option, true) {
            self.dns = Dns::default();
        }
        let dns = &mut self.dns;
        match values {
            ["server", _, "address", addresses @ ..] => {
                addresses.iter().try_for_each(|address| add(&mut dns.resolvers, resolver(address)))?;
            }
            ["server", _, "resolve-domains", domains @ ..] => {
                domains.iter().try_for_each(|name| add(&mut dns.domains, domain(name)))?;
            }
            ["search-domains", domains @ ..] => {
                domains.iter().try_for_each(|name| add(&mut dns.search, domain(name)))?;
            }
            // How a resolver is to be asked.
            ["server", _, "dnssec" | "transport" | "sni", ..] => return Ok(Taken::Unknown),
            _ => return Err(DnsError::Value),
        }
        Ok(Taken::Whole)
    }

    /// The older way.
    pub(in crate::openvpn) fn take_dhcp(&mut self, values: &[&str]) -> Result<Taken, DnsError> {
        let dns = &mut self.dns;
        match values {
            ["DNS" | "DNS6" | "DOMAIN" | "DOMAIN-SEARCH" | "ADAPTER_DOMAIN_SUFFIX", _] if self.has_dns_option => {}
            ["DNS" | "DNS6", address] => add(&mut dns.resolvers, address.parse().ok())?,
            ["DOMAIN" | "DOMAIN-SEARCH" | "ADAPTER_DOMAIN_SUFFIX", name] => add(&mut dns.search, domain(name))?,
            _ => return Ok(Taken::Unknown),
        }
        Ok(Taken::Whole)
    }

    pub(in crate::openvpn) fn finish(self) -> Dns {
        self.dns
    }
}

/// An address, and perhaps a port, which has to be that of DNS.
fn resolver(word: &str) -> Option<IpAddr> {
    let in_brackets = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
    let address = in_brackets.unwrap_or(word).parse().ok();
    address.or_else(|| word.parse().ok().filter(|socket: &SocketAddr| socket.port() == PORT).map(|socket| socket.ip()))
}

fn domain(name: &str) -> Option<String> {
    let is_domain = (1..=253).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    is_domain.then(|| name.to_owned())
}

fn add<T>(list: &mut Vec<T>, item: Option<T>) -> Result<(), DnsError> {
    if list.len() >= MAX_NAMES {
        return Err(DnsError::TooMany);
    }
    list.push(item.ok_or(DnsError::Value)?);
    Ok(())
}

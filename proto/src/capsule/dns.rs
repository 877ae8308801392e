//! DNS_ASSIGN (draft-ietf-masque-connect-ip-dns, provisional): the resolvers the sender offers inside the tunnel.
//!
//! ```text
//! DNS configuration:  nameserver count, nameservers, internal domain count, domains, search domain count, domains
//!                     … repeated
//! nameserver:         priority (u16)  v4 count, v4 addresses  v6 count, v6 addresses  name length, name
//!                     parameters length, parameters
//! domain:             length, A-label form
//! ```
//!
//! Counts and lengths are variable-length integers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::value;
use crate::http::fault::Fault;
use crate::varint;

/// Longest domain name in text form (RFC 1035 section 2.3.4).
const MAX_DOMAIN_LEN: usize = 253;

/// All resolvers of the tunnel; a newer capsule replaces an older one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsAssign {
    /// Independent configurations; one is enough for plain use.
    pub configurations: Vec<DnsConfiguration>,
}

/// Resolvers and the domains they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsConfiguration {
    /// Resolvers, each with its addresses.
    pub nameservers: Vec<Nameserver>,
    /// Domains to be resolved by these resolvers only; the empty string means all names.
    pub internal_domains: Vec<String>,
    /// Domains to complete short names with.
    pub search_domains: Vec<String>,
}

/// One resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nameserver {
    /// Smaller is preferred; never 0, which would mean an alias (RFC 9460 section 2.4.1).
    pub priority: u16,
    /// IPv4 addresses.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub v6: Vec<Ipv6Addr>,
    /// Name to authenticate an encrypted resolver by; empty for plain DNS.
    pub authentication_name: String,
    /// SvcParams in wire form (RFC 9460 section 2.2); empty for plain DNS.
    pub service_parameters: Bytes,
}

impl DnsAssign {
    /// Plain DNS at these addresses for these domains; no domain means all names.
    pub fn plain(servers: &[IpAddr], domains: &[String]) -> Self {
        let nameservers = servers.iter().map(|server| Nameserver::plain(*server)).collect();
        let internal_domains = if domains.is_empty() { vec![String::new()] } else { domains.to_vec() };
        let search_domains = domains.iter().filter(|domain| !domain.is_empty()).cloned().collect();
        Self { configurations: vec![DnsConfiguration { nameservers, internal_domains, search_domains }] }
    }

    /// Withdraws all resolvers given before: a single configuration without any.
    pub fn none() -> Self {
        Self { configurations: vec![DnsConfiguration::default()] }
    }

    /// Addresses of the plain-DNS resolvers, best priority first.
    pub fn plain_servers(&self) -> Vec<IpAddr> {
        let mut nameservers: Vec<&Nameserver> = self.configurations.iter().flat_map(|c| &c.nameservers).collect();
        nameservers.retain(|server| server.authentication_name.is_empty() && server.service_parameters.is_empty());
        nameservers.sort_by_key(|server| server.priority);
        nameservers.into_iter().flat_map(Nameserver::addresses).collect()
    }

    /// Internal domains of all configurations; empty if the resolvers are for all names.
    pub fn domains(&self) -> Vec<String> {
        let domains = || self.configurations.iter().flat_map(|configuration| &configuration.internal_domains);
        if domains().any(String::is_empty) { Vec::new() } else { domains().cloned().collect() }
    }
}

impl Nameserver {
    /// A plain-DNS resolver at one address.
    pub fn plain(address: IpAddr) -> Self {
        let (v4, v6) = match address {
            IpAddr::V4(v4) => (vec![v4], Vec::new()),
            IpAddr::V6(v6) => (Vec::new(), vec![v6]),
        };
        Self { priority: 1, v4, v6, authentication_name: String::new(), service_parameters: Bytes::new() }
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.iter().copied().map(IpAddr::from);
        v4.chain(self.v6.iter().copied().map(IpAddr::from))
    }
}

pub(super) fn decode(mut value: &[u8]) -> Result<DnsAssign, Fault> {
    if value.is_empty() {
        return Err(Fault::Malformed("DNS_ASSIGN without a configuration"));
    }
    let mut configurations = Vec::new();
    while !value.is_empty() {
        configurations.push(DnsConfiguration {
            nameservers: list(&mut value, nameserver)?,
            internal_domains: list(&mut value, domain)?,
            search_domains: list(&mut value, domain)?,
        });
    }
    Ok(DnsAssign { configurations })
}

/// Takes a count and that many items off the value; every item takes bytes, so a lying count ends early.
fn list<T>(value: &mut &[u8], item: fn(&mut &[u8]) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    let count = value::varint(value)?;
    (0..count).map(|_| item(value)).collect()
}

fn nameserver(value: &mut &[u8]) -> Result<Nameserver, Fault> {
    let priority = u16::from_be_bytes(value::array(value)?);
    let nameserver = Nameserver {
        priority,
        v4: list(value, |value| Ok(value::array::<4>(value)?.into()))?,
        v6: list(value, |value| Ok(value::array::<16>(value)?.into()))?,
        authentication_name: domain(value)?,
        service_parameters: Bytes::copy_from_slice(value::bytes(value)?),
    };
    if priority == 0 {
        return Err(Fault::Malformed("nameserver with priority 0"));
    }
    if nameserver.authentication_name.is_empty() && nameserver.v4.is_empty() && nameserver.v6.is_empty() {
        return Err(Fault::Malformed("nameserver without address and name"));
    }
    Ok(nameserver)
}

/// A domain as letters, digits, hyphens, underscores and dots; empty stands for all names.
fn domain(value: &mut &[u8]) -> Result<String, Fault> {
    let text = value::bytes(value)?;
    let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match str::from_utf8(text) {
        Ok(domain) if text.len() <= MAX_DOMAIN_LEN && text.iter().all(permitted) => Ok(domain.to_owned()),
        Ok(_) | Err(_) => Err(Fault::Malformed("domain is not a host name")),
    }
}

pub(super) fn encode(assign: &DnsAssign, out: &mut Vec<u8>) {
    for configuration in &assign.configurations {
        varint::encode(configuration.nameservers.len() as u64, out);
        for nameserver in &configuration.nameservers {
            encode_nameserver(nameserver, out);
        }
        for domains in [&configuration.internal_domains, &configuration.search_domains] {
            varint::encode(domains.len() as u64, out);
            domains.iter().for_each(|domain| value::put_bytes(domain.as_bytes(), out));
        }
    }
}

fn encode_nameserver(nameserver: &Nameserver, out: &mut Vec<u8>) {
    out.extend_from_slice(&nameserver.priority.to_be_bytes());
    varint::encode(nameserver.v4.len() as u64, out);
    nameserver.v4.iter().for_each(|address| out.extend_from_slice(&address.octets()));
    varint::encode(nameserver.v6.len() as u64, out);
    nameserver.v6.iter().for_each(|address| out.extend_from_slice(&address.octets()));
    value::put_bytes(nameserver.authentication_name.as_bytes(), out);
    value::put_bytes(&nameserver.service_parameters, out);
}

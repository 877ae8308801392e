//! Decides, without touching anything, what network settings mean for the host.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use adit_program::foreign_text::printable;
use adit_proto::dns::{DnsScope, DnsSettings, is_domain};
use adit_proto::range::{self, RangeError, RouteRange};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::protocols::NetworkSettings;

/// Most prefixes a gateway can make us route.
const MOST_PREFIXES: usize = 4096;
/// Most addresses a gateway can make us take.
const MOST_ADDRESSES: usize = 16;
/// Most resolvers and domains a gateway can make us use.
const MOST_DNS: usize = 16;

/// Where packets to a prefix go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// Into the tunnel.
    Tunnel(IpNet),
    /// Nowhere: they belong in the tunnel, which cannot take them.
    Nowhere(IpNet),
}

/// What one tunnel wants of its host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostPlan {
    /// Addresses of the TUN device, each with the full prefix length.
    pub addresses: BTreeSet<IpNet>,
    /// Destinations this tunnel decides about.
    pub claims: BTreeSet<Claim>,
    /// Resolvers, if the gateway gave any.
    pub dns: Option<DnsSettings>,
    /// Whether everything goes through the tunnel.
    pub full_tunnel: bool,
}

/// Why the gateway's settings cannot be applied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPlanError {
    /// More prefixes than this client accepts.
    #[error("the gateway advertises more than {MOST_PREFIXES} prefixes")]
    TooManyPrefixes,
    /// A range is not valid.
    #[error("the gateway advertises an invalid route")]
    Range(#[source] RangeError),
    /// No address, too many, or one that no host can have.
    #[error("the gateway gave {0}")]
    Addresses(String),
    /// A domain holds other characters than domains do, or there are too many.
    #[error("the gateway gave DNS settings that cannot be used: {0}")]
    Dns(String),
}

impl HostPlan {
    /// This host's addresses in the tunnel.
    pub fn inner_addresses(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }

    /// Makes a plan of the gateway's settings for a host that has IPv6 or not.
    ///
    /// Ranges for a single upper-layer protocol are left out: a host cannot route by protocol alone.
    ///
    /// # Errors
    /// See [`HostPlanError`]; what a gateway sends is bounded and checked here.
    pub fn new(settings: &NetworkSettings, host_has_ipv6: bool) -> Result<Self, HostPlanError> {
        let addresses = addresses(&settings.addresses, host_has_ipv6)?;
        let inside = |address: IpAddr| addresses.iter().any(|own| own.addr().is_ipv4() == address.is_ipv4());
        let advertised = prefixes(&settings.routes)?;
        let full_tunnel = advertised.iter().any(|prefix| prefix.prefix_len() == 0);
        let dns = dns(settings, full_tunnel, inside)?;

        let mut claims = BTreeSet::new();
        for prefix in &advertised {
            claims.insert(if inside(prefix.addr()) { Claim::Tunnel(*prefix) } else { Claim::Nowhere(*prefix) });
        }
        if full_tunnel {
            // Behind the routes into the tunnel, which vanish with its device, these stay until the session ends.
            claims.extend(everything().map(Claim::Nowhere));
        }
        for server in dns.iter().flat_map(|dns| &dns.servers) {
            if !advertised.iter().any(|prefix| prefix.contains(server)) {
                claims.insert(Claim::Tunnel(IpNet::from(*server)));
            }
        }
        claims.retain(|claim| host_has_ipv6 || claim.prefix().addr().is_ipv4());
        Ok(Self { addresses, claims, dns, full_tunnel })
    }

    /// Destinations that go into the tunnel.
    pub fn tunnelled(&self) -> impl Iterator<Item = IpNet> {
        self.claims.iter().filter(|claim| matches!(claim, Claim::Tunnel(_))).map(Claim::prefix)
    }

    /// Whether names are resolved outside the gateway's care although everything else goes through it.
    pub fn lacks_resolver(&self) -> bool {
        self.full_tunnel && self.dns.is_none()
    }

    /// Whether this host's resolver asks through the tunnel, so that without it no name resolves.
    pub fn takes_resolver(&self) -> bool {
        self.full_tunnel || self.dns.as_ref().is_some_and(|dns| dns.scope == DnsScope::All)
    }

    /// Whether the plan claims destinations of IPv6, or of IPv4.
    pub fn claims_family(&self, ipv6: bool) -> bool {
        self.claims.iter().any(|claim| claim.prefix().addr().is_ipv6() == ipv6)
    }
}

impl Claim {
    /// The destinations.
    pub fn prefix(&self) -> IpNet {
        match self {
            Self::Tunnel(prefix) | Self::Nowhere(prefix) => *prefix,
        }
    }
}

/// All destinations, of both families.
fn everything() -> impl Iterator<Item = IpNet> {
    [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].into_iter()
}

/// The addresses of the TUN device: one of each assigned prefix, with the full prefix length.
fn addresses(assigned: &[IpNet], host_has_ipv6: bool) -> Result<BTreeSet<IpNet>, HostPlanError> {
    if assigned.len() > MOST_ADDRESSES {
        return Err(HostPlanError::Addresses(format!("more than {MOST_ADDRESSES} addresses")));
    }
    let mut own = BTreeSet::new();
    for prefix in assigned.iter().filter(|prefix| host_has_ipv6 || prefix.addr().is_ipv4()) {
        let address = first_host(*prefix);
        if is_special(address) {
            return Err(HostPlanError::Addresses(format!("{address}, which no host can have")));
        }
        own.insert(IpNet::from(address));
    }
    if own.is_empty() {
        return Err(HostPlanError::Addresses("no address that this host can use".to_owned()));
    }
    Ok(own)
}

/// The addresses that a host takes of those a gateway assigned: one of each prefix.
#[must_use]
pub fn own_hosts(settings: &NetworkSettings) -> Vec<IpAddr> {
    settings.addresses.iter().copied().map(first_host).collect()
}

/// Whether an address has a meaning of its own, so that no gateway can give it: loopback, link-local, multicast and
/// broadcast, and what is set aside for "this network" or for good (RFC 6890).
fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [0 | 127 | 224..=255, ..] | [169, 254, ..]),
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().is_some();
            mapped || v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local()
        }
    }
}

/// The address itself, or the one after it if a wider prefix names only its network.
fn first_host(prefix: IpNet) -> IpAddr {
    let names_network = prefix.addr() == prefix.network() && prefix.prefix_len() < prefix.max_prefix_len();
    match prefix {
        // A wider prefix has a second address, and its first one is even.
        IpNet::V4(net) if names_network => net.hosts().next().expect("a prefix wider than /32 has a host").into(),
        IpNet::V6(net) if names_network => Ipv6Addr::from_bits(net.addr().to_bits() | 1).into(),
        IpNet::V4(_) | IpNet::V6(_) => prefix.addr(),
    }
}

/// The fewest prefixes that cover the advertised ranges, so that two halves of everything count as everything.
fn prefixes(routes: &[RouteRange]) -> Result<BTreeSet<IpNet>, HostPlanError> {
    let mut every = Vec::new();
    for route in routes.iter().filter(|route| route.protocol == 0) {
        every.extend(within_cap(route, MOST_PREFIXES.saturating_sub(every.len()))?);
    }
    let mut fewest = BTreeSet::new();
    for range in range::from_prefixes(&every) {
        fewest.extend(within_cap(&range, MOST_PREFIXES)?);
    }
    Ok(fewest)
}

fn within_cap(range: &RouteRange, cap: usize) -> Result<Vec<IpNet>, HostPlanError> {
    range::to_prefixes(range.start, range.end, cap).map_err(|error| {
        let too_many = matches!(error, RangeError::TooManyPrefixes { .. });
        if too_many { HostPlanError::TooManyPrefixes } else { HostPlanError::Range(error) }
    })
}

/// The resolvers this host can reach through the tunnel. A full tunnel asks them for all names, so that no query leaves
/// it.
fn dns(
    settings: &NetworkSettings,
    full_tunnel: bool,
    inside: impl Fn(IpAddr) -> bool,
) -> Result<Option<DnsSettings>, HostPlanError> {
    if settings.dns_servers.len() > MOST_DNS || settings.dns_domains.len() > MOST_DNS {
        return Err(HostPlanError::Dns(format!("more than {MOST_DNS} servers or domains")));
    }
    if let Some(domain) = settings.dns_domains.iter().find(|domain| !is_domain(domain)) {
        return Err(HostPlanError::Dns(format!("`{}` is not a domain", printable(domain))));
    }
    let usable = |server: &IpAddr| {
        inside(*server) && !(server.is_loopback() || server.is_multicast() || server.is_unspecified())
    };
    let servers: Vec<IpAddr> = settings.dns_servers.iter().copied().filter(usable).collect();
    if servers.is_empty() {
        return Ok(None);
    }
    let search = settings.dns_domains.clone();
    let all = full_tunnel || search.is_empty();
    let scope = if all { DnsScope::All } else { DnsScope::Domains(search.clone()) };
    Ok(Some(DnsSettings { servers, search, scope, exclusive: full_tunnel }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn settings(addresses: &[&str], routes: &[&str]) -> NetworkSettings {
        NetworkSettings {
            addresses: addresses.iter().map(|text| net(text)).collect(),
            routes: routes.iter().map(|text| RouteRange::from(net(text))).collect(),
            ..NetworkSettings::default()
        }
    }

    fn claims(plan: &HostPlan) -> Vec<Claim> {
        plan.claims.iter().copied().collect()
    }

    fn nowhere() -> [Claim; 2] {
        [Claim::Nowhere(net("0.0.0.0/0")), Claim::Nowhere(net("::/0"))]
    }

    #[test]
    fn split_tunnel_claims_only_what_is_advertised() {
        let plan = HostPlan::new(&settings(&["10.64.3.2/32"], &["10.0.0.0/8", "192.168.7.0/24"]), true).unwrap();
        assert!(!plan.full_tunnel);
        assert_eq!(claims(&plan), [Claim::Tunnel(net("10.0.0.0/8")), Claim::Tunnel(net("192.168.7.0/24"))]);
        assert!(plan.claims_family(false) && !plan.claims_family(true));
    }

    #[test]
    fn full_tunnel_with_both_families_takes_both_defaults_and_blocks_them_behind_itself() {
        let plan = HostPlan::new(&settings(&["10.64.3.2/32", "fd00::2/128"], &["0.0.0.0/0", "::/0"]), true).unwrap();
        assert!(plan.full_tunnel);
        let tunnel = [Claim::Tunnel(net("0.0.0.0/0")), Claim::Tunnel(net("::/0"))];
        assert_eq!(claims(&plan), [tunnel, nowhere()].concat());
    }

    #[test]
    fn full_tunnel_blocks_the_family_without_an_address() {
        let v4_only = HostPlan::new(&settings(&["10.64.3.2/32"], &["0.0.0.0/0"]), true).unwrap();
        assert_eq!(claims(&v4_only), [vec![Claim::Tunnel(net("0.0.0.0/0"))], nowhere().to_vec()].concat());
        let advertised_anyway = HostPlan::new(&settings(&["10.64.3.2/32"], &["0.0.0.0/0", "::/0"]), true).unwrap();
        assert_eq!(claims(&advertised_anyway), claims(&v4_only));
        let v6_only = HostPlan::new(&settings(&["fd00::2/128"], &["::/0"]), true).unwrap();
        assert!(claims(&v6_only).contains(&Claim::Nowhere(net("0.0.0.0/0"))));
    }

    #[test]
    fn full_tunnel_blocks_the_rest_of_a_family_that_is_only_partly_advertised() {
        let plan =
            HostPlan::new(&settings(&["10.64.3.2/32", "fd00::2/128"], &["0.0.0.0/0", "fd00::/8"]), true).unwrap();
        let tunnel = [Claim::Tunnel(net("0.0.0.0/0")), Claim::Tunnel(net("fd00::/8"))];
        assert_eq!(claims(&plan), [tunnel, nowhere()].concat());
    }

    #[test]
    fn two_halves_of_everything_are_a_full_tunnel() {
        let plan = HostPlan::new(&settings(&["10.64.3.2/32"], &["0.0.0.0/1", "128.0.0.0/1"]), true).unwrap();
        assert!(plan.full_tunnel);
    }

    #[test]
    fn split_tunnel_blocks_destinations_of_a_family_without_an_address() {
        let plan = HostPlan::new(&settings(&["10.64.3.2/32"], &["10.0.0.0/8", "fd00::/8"]), true).unwrap();
        assert!(claims(&plan).contains(&Claim::Nowhere(net("fd00::/8"))));
    }

    #[test]
    fn host_without_ipv6_is_asked_for_nothing_of_ipv6() {
        let plan = HostPlan::new(&settings(&["10.64.3.2/32", "fd00::2/128"], &["0.0.0.0/0", "::/0"]), false).unwrap();
        assert!(!plan.claims_family(true));
        assert_eq!(plan.addresses.len(), 1);
    }

    #[test]
    fn addresses_get_the_full_prefix_length() {
        let plan = HostPlan::new(&settings(&["10.64.3.2/24", "2001:db8:1::/64"], &[]), true).unwrap();
        let own: Vec<IpNet> = plan.addresses.into_iter().collect();
        assert_eq!(own, [net("10.64.3.2/32"), net("2001:db8:1::1/128")]);
    }

    #[test]
    fn impossible_addresses_are_refused() {
        let v4 = ["0.0.0.0/0", "0.1.2.3/32", "127.0.0.1/32", "169.254.9.9/32", "224.0.0.1/32", "240.0.0.1/32"];
        let v6 = ["::/0", "::1/128", "ff02::1/128", "fe80::9/128", "::ffff:10.9.0.2/128"];
        for bad in v4.into_iter().chain(v6).chain(["255.255.255.255/32"]) {
            let beside_a_good_one = settings(&["10.64.3.2/32", bad], &[]);
            let refused = HostPlan::new(&beside_a_good_one, true);
            assert!(matches!(refused, Err(HostPlanError::Addresses(_))), "{bad}");
        }
        for good in ["10.64.3.2/32", "100.64.0.1/32", "192.0.2.1/32", "223.255.255.1/32", "fd00::2/128"] {
            HostPlan::new(&settings(&[good], &[]), true).unwrap();
        }
        assert!(matches!(HostPlan::new(&settings(&[], &[]), true), Err(HostPlanError::Addresses(_))));
        assert!(matches!(HostPlan::new(&settings(&["fd00::2/128"], &[]), false), Err(HostPlanError::Addresses(_))));
    }

    #[test]
    fn more_than_4096_prefixes_are_refused() {
        let mut many = settings(&["10.64.3.2/32"], &[]);
        let host = |bits: u32| RouteRange::from(IpNet::from(IpAddr::from(std::net::Ipv4Addr::from_bits(bits))));
        many.routes = (0..4096u32).map(|n| host(0x0b00_0000 + n * 2)).collect();
        assert_eq!(HostPlan::new(&many, true).unwrap().claims.len(), 4096);
        many.routes.push(host(0x0c00_0000));
        assert_eq!(HostPlan::new(&many, true), Err(HostPlanError::TooManyPrefixes));
    }

    #[test]
    fn routes_for_one_protocol_are_left_out() {
        let mut tcp_only = settings(&["10.64.3.2/32"], &["0.0.0.0/0"]);
        for route in &mut tcp_only.routes {
            route.protocol = 6;
        }
        assert!(HostPlan::new(&tcp_only, true).unwrap().claims.is_empty());
    }

    #[test]
    fn resolvers_outside_the_routes_get_a_route_of_their_own() {
        let mut split = settings(&["10.64.3.2/32"], &["192.168.7.0/24"]);
        split.dns_servers =
            vec!["10.64.3.1".parse().unwrap(), "192.168.7.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        split.dns_domains = vec!["corp.example".into()];
        let plan = HostPlan::new(&split, true).unwrap();
        assert_eq!(claims(&plan), [Claim::Tunnel(net("10.64.3.1/32")), Claim::Tunnel(net("192.168.7.0/24"))]);
        let dns = plan.dns.unwrap();
        assert_eq!(dns.servers.len(), 2, "a v6 resolver is useless without a v6 address");
        assert_eq!(dns.scope, DnsScope::Domains(vec!["corp.example".into()]));
    }

    #[test]
    fn full_tunnel_asks_its_resolvers_for_all_names() {
        let mut full = settings(&["10.64.3.2/32"], &["0.0.0.0/0"]);
        assert!(HostPlan::new(&full, true).unwrap().lacks_resolver());
        full.dns_servers = vec!["fd00::1".parse().unwrap()];
        assert!(HostPlan::new(&full, true).unwrap().lacks_resolver(), "a v6 resolver is useless without a v6 address");
        full.dns_servers = vec!["10.64.3.1".parse().unwrap()];
        full.dns_domains = vec!["corp.example".into()];
        assert_eq!(HostPlan::new(&full, true).unwrap().dns.unwrap().scope, DnsScope::All);
    }

    #[test]
    fn domains_cannot_smuggle_lines_into_the_resolver_file() {
        let mut evil = settings(&["10.64.3.2/32"], &["0.0.0.0/0"]);
        evil.dns_servers = vec!["10.64.3.1".parse().unwrap()];
        for domain in [
            "a
nameserver 192.0.2.66",
            "",
            "-x",
            "a b",
            ".x",
        ] {
            evil.dns_domains = vec![domain.into()];
            assert!(matches!(HostPlan::new(&evil, true), Err(HostPlanError::Dns(_))), "{domain:?}");
        }
    }
}

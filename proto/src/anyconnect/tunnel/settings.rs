//! What a gateway gives a client in its answer to a CONNECT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{APP_ID_LEN, PSK_NEGOTIATE};
use crate::anyconnect::frame::MAX_PAYLOAD;
use crate::http::field::{self, Field};
use crate::packet::IPV6_MIN_MTU;
use crate::range::{self, RouteRange};

/// Most prefixes that a gateway names, within and without the tunnel.
const MAX_PREFIXES: usize = 1024;
/// Most resolvers, and most domains that they are asked for.
const MAX_NAMES: usize = 64;
/// Bounds of the intervals that a gateway sets.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// Where everything of IPv6 is that is not on this link (RFC 4291 section 2.4, RFC 4193 section 3.1).
const GLOBAL_V6: [&str; 2] = ["2000::/3", "fc00::/7"];

/// The addresses of a client, and what it does with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// What goes through the tunnel: sorted, and none of it twice.
    pub routes: Vec<RouteRange>,
    /// Who is asked for names.
    pub resolvers: Vec<IpAddr>,
    /// The domains that they are asked for; all names if there are none here.
    pub domains: Vec<String>,
    /// Largest packet, in bytes.
    pub mtu: u16,
    /// How long either side may be silent before it is asked whether it is there.
    pub dpd: Option<Duration>,
    /// How often something is to be sent through whatever is on the way.
    pub keepalive: Option<Duration>,
    /// When the client is to make a new connection; `None` if the gateway wants none, or has another way to new keys.
    pub rekey: Option<Duration>,
    /// How long the session lasts at most, from now on.
    pub lasts: Option<Duration>,
    /// Where packets may be sent in records of DTLS.
    pub dtls: Option<DtlsSettings>,
    /// What is to be told to the user.
    pub banner: Option<String>,
}

/// How a gateway takes packets in records of DTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DtlsSettings {
    /// The UDP port, at the address of the connection.
    pub port: NonZeroU16,
    /// What names the session in a hello.
    pub app_id: [u8; APP_ID_LEN],
    /// How long either side may be silent there before it is asked whether it is there.
    pub dpd: Option<Duration>,
    /// How often something is to be sent there.
    pub keepalive: Option<Duration>,
}

/// Why an answer gives no tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsFault {
    /// It gives no address.
    #[error("the gateway gave no address")]
    NoAddress,
    /// It does not say how large packets may be.
    #[error("the gateway did not say how large packets may be")]
    NoMtu,
    /// Its packets are smaller than IPv6 needs (RFC 8200 section 5).
    #[error("the gateway takes packets of {0} bytes, and a tunnel needs 1280")]
    Narrow(u16),
    /// It says twice what there can be one of.
    #[error("the gateway gave two different values of {0}")]
    Twice(&'static str),
    /// A value is none of its kind.
    #[error("the gateway gave a value of {0} that makes no sense")]
    Senseless(&'static str),
    /// It names more than any client has a use for.
    #[error("the gateway gave too many values of {0}")]
    TooMany(&'static str),
}

impl TunnelSettings {
    /// Reads the fields of an answer, whose names are in lower case.
    ///
    /// # Errors
    /// It gives no tunnel.
    pub fn of(fields: &[Field]) -> Result<Self, SettingsFault> {
        let (v4, v6) = addresses(fields)?;
        let excluded = prefixes(fields, ["x-cstp-split-exclude", "x-cstp-split-exclude-ip6"])?;
        let included = prefixes(fields, ["x-cstp-split-include", "x-cstp-split-include-ip6"])?;
        let inside = [v4.map(IpNet::V4), v6.map(IpNet::V6)].into_iter().flatten().collect::<Vec<_>>();
        let is_for_all = field::value(fields, "x-cstp-tunnel-all-dns") == Some("true");
        Ok(Self {
            v4: v4.map(|v4| v4.addr()),
            v6: v6.map(|v6| v6.addr()),
            routes: without(range::from_prefixes(&through(&inside, included)), &excluded),
            resolvers: resolvers(fields)?,
            domains: if is_for_all { Vec::new() } else { domains(fields)? },
            mtu: mtu(fields)?,
            dpd: interval(fields, "x-cstp-dpd"),
            keepalive: interval(fields, "x-cstp-keepalive"),
            rekey: seconds(fields, "x-cstp-rekey-time")
                .filter(|_| field::value(fields, "x-cstp-rekey-method") == Some("new-tunnel"))
                .map(|rekey| rekey.max(INTERVALS.0)),
            lasts: seconds(fields, "x-cstp-session-timeout"),
            dtls: DtlsSettings::of(fields),
            banner: values(fields, &["x-cstp-banner"]).next().map(str::to_owned),
        })
    }

    /// The addresses, each alone.
    pub fn addresses(&self) -> Vec<IpNet> {
        [self.v4.map(IpAddr::V4), self.v6.map(IpAddr::V6)].into_iter().flatten().map(IpNet::from).collect()
    }
}

impl DtlsSettings {
    /// Reads them; `None` where they are not all there, or make no sense: the tunnel goes without records then.
    fn of(fields: &[Field]) -> Option<Self> {
        only(fields, "x-dtls-ciphersuite").filter(|suite| *suite == PSK_NEGOTIATE)?;
        let app_id = HEXLOWER_PERMISSIVE.decode(only(fields, "x-dtls-app-id")?.as_bytes()).ok()?;
        Some(Self {
            port: only(fields, "x-dtls-port")?.parse().ok()?,
            app_id: app_id.try_into().ok()?,
            dpd: interval(fields, "x-dtls-dpd"),
            keepalive: interval(fields, "x-dtls-keepalive"),
        })
    }
}

/// The values of fields of these names that say something.
fn values<'a>(fields: &'a [Field], names: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let named = fields.iter().filter(|field| names.contains(&field.name.as_str()));
    named.map(|field| field.value.trim()).filter(|value| !value.is_empty())
}

/// The value of a field; `None` if it says nothing, or different things.
fn only<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
    let named = fields.iter().filter(|field| field.name == name);
    let mut values = named.map(|field| field.value.trim()).filter(|value| !value.is_empty());
    values.next().filter(|value| values.all(|other| other == *value))
}

/// The address of each family, with the network that it is in.
fn addresses(fields: &[Field]) -> Result<(Option<Ipv4Net>, Option<Ipv6Net>), SettingsFault> {
    const ADDRESS: &str = "X-CSTP-Address";
    let (mut v4, mut v6) = (None, None);
    for value in values(fields, &["x-cstp-address", "x-cstp-address-ip6"]) {
        let net = value
            .parse::<IpNet>()
            .or_else(|_| value.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| SettingsFault::Senseless(ADDRESS))?;
        let is_new = match net {
            IpNet::V4(net) => v4.replace(net).is_none_or(|known| known == net),
            IpNet::V6(net) => v6.replace(net).is_none_or(|known| known == net),
        };
        if !is_new {
            return Err(SettingsFault::Twice(ADDRESS));
        }
    }
    if v4.is_none() && v6.is_none() {
        return Err(SettingsFault::NoAddress);
    }
    let v4 = v4.map(|v4| with_netmask(v4, fields)).transpose()?;
    Ok((v4, v6))
}

fn with_netmask(v4: Ipv4Net, fields: &[Field]) -> Result<Ipv4Net, SettingsFault> {
    const NETMASK: &str = "X-CSTP-Netmask";
    let mut masks = values(fields, &["x-cstp-netmask"]).filter(|mask| !mask.contains(':'));
    let Some(mask) = masks.next() else { return Ok(v4) };
    if masks.any(|other| other != mask) {
        return Err(SettingsFault::Twice(NETMASK));
    }
    let net = mask.parse().ok().and_then(|mask| Ipv4Net::with_netmask(v4.addr(), mask).ok());
    // All of IPv4 is no network that anybody is in.
    net.filter(|net| net.prefix_len() > 0).ok_or(SettingsFault::Senseless(NETMASK))
}

/// The prefixes that fields of these names give, `ADDRESS/LENGTH` or `ADDRESS/MASK`.
fn prefixes(fields: &[Field], names: [&'static str; 2]) -> Result<Vec<IpNet>, SettingsFault> {
    let said = if names[0].contains("include") { "X-CSTP-Split-Include" } else { "X-CSTP-Split-Exclude" };
    let mut prefixes = Vec::new();
    for value in values(fields, &names) {
        if prefixes.len() >= MAX_PREFIXES {
            return Err(SettingsFault::TooMany(said));
        }
        prefixes.push(prefix(value).ok_or(SettingsFault::Senseless(said))?);
    }
    Ok(prefixes)
}

fn prefix(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix = match length.parse::<u8>() {
        Ok(length) => IpNet::new(address, length).ok()?,
        Err(_) => {
            let mask = length.parse::<IpAddr>().ok().filter(|mask| mask.is_ipv4() == address.is_ipv4())?;
            IpNet::with_netmask(address, mask).ok()?
        }
    };
    Some(prefix.trunc())
}

/// What goes through the tunnel of a client with these addresses. All of a family does of which nothing is named. A
/// gateway that names something of IPv4 alone means no full tunnel, which would close the rest of IPv4, so that all of
/// IPv6 is said in another way then.
fn through(inside: &[IpNet], mut included: Vec<IpNet>) -> Vec<IpNet> {
    let is_named = |v6: bool| included.iter().any(|prefix| prefix.addr().is_ipv6() == v6);
    let (names_v4, names_v6) = (is_named(false), is_named(true));
    for own in inside {
        match own {
            IpNet::V4(_) if !names_v4 => included.push(IpNet::V4(Ipv4Net::default())),
            IpNet::V6(_) if !names_v6 && !names_v4 => included.push(IpNet::V6(Ipv6Net::default())),
            IpNet::V6(_) if !names_v6 => {
                included.extend(GLOBAL_V6.iter().filter_map(|prefix| prefix.parse::<IpNet>().ok()));
            }
            // The others in its network.
            own @ (IpNet::V4(_) | IpNet::V6(_)) => included.push(own.trunc()),
        }
    }
    included
}

/// The ranges without these prefixes. What a gateway excludes as `0.0.0.0/32` stands for the client's local networks,
/// over which the client decides itself.
fn without(ranges: Vec<RouteRange>, excluded: &[IpNet]) -> Vec<RouteRange> {
    let is_local = |prefix: &&IpNet| prefix.addr().is_unspecified() && prefix.prefix_len() == prefix.max_prefix_len();
    let excluded = excluded.iter().filter(|prefix| !is_local(prefix)).map(|prefix| RouteRange::from(*prefix));
    excluded.fold(ranges, |ranges, hole| ranges.into_iter().flat_map(|range| around(range, hole)).collect())
}

/// What is left of a range beside a hole: up to two ranges.
fn around(range: RouteRange, hole: RouteRange) -> impl Iterator<Item = RouteRange> {
    let is_apart = range.start.is_ipv4() != hole.start.is_ipv4() || hole.end < range.start || range.end < hole.start;
    let before = before(hole.start).filter(|end| *end >= range.start).map(|end| RouteRange { end, ..range });
    let after = after(hole.end).filter(|start| *start <= range.end).map(|start| RouteRange { start, ..range });
    let parts = if is_apart { [Some(range), None] } else { [before, after] };
    parts.into_iter().flatten()
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn resolvers(fields: &[Field]) -> Result<Vec<IpAddr>, SettingsFault> {
    const DNS: &str = "X-CSTP-DNS";
    let mut resolvers = Vec::new();
    for value in values(fields, &["x-cstp-dns", "x-cstp-dns-ip6"]) {
        let resolver = value.parse().map_err(|_| SettingsFault::Senseless(DNS))?;
        if resolvers.len() >= MAX_NAMES {
            return Err(SettingsFault::TooMany(DNS));
        }
        // Gateways say one of IPv6 under both names.
        if !resolvers.contains(&resolver) {
            resolvers.push(resolver);
        }
    }
    Ok(resolvers)
}

fn domains(fields: &[Field]) -> Result<Vec<String>, SettingsFault> {
    let said = values(fields, &["x-cstp-split-dns"]).flat_map(|value| value.split([',', ' ']));
    let domains: Vec<String> =
        said.filter(|domain| !domain.is_empty()).take(MAX_NAMES + 1).map(str::to_owned).collect();
    if domains.len() > MAX_NAMES { Err(SettingsFault::TooMany("X-CSTP-Split-DNS")) } else { Ok(domains) }
}

fn mtu(fields: &[Field]) -> Result<u16, SettingsFault> {
    const MTU: &str = "X-CSTP-MTU";
    let mut said = values(fields, &["x-cstp-mtu"]);
    let mtu = said.next().ok_or(SettingsFault::NoMtu)?;
    if said.any(|other| other != mtu) {
        return Err(SettingsFault::Twice(MTU));
    }
    let mtu: u16 = mtu.parse().map_err(|_| SettingsFault::Senseless(MTU))?;
    if mtu < IPV6_MIN_MTU { Err(SettingsFault::Narrow(mtu)) } else { Ok(mtu.min(MAX_PAYLOAD)) }
}

/// The seconds of a field, within bounds.
fn interval(fields: &[Field], name: &str) -> Option<Duration> {
    seconds(fields, name).map(|interval| interval.clamp(INTERVALS.0, INTERVALS.1))
}

/// The seconds of a field; `None` where it says none, or nothing that makes sense.
fn seconds(fields: &[Field], name: &str) -> Option<Duration> {
    let seconds = field::value(fields, name)?.trim().parse::<u32>().ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests;

//! Which services a rule is about.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::packet::protocol;

use super::flow::Flow;
use super::form::FormError;

const NEXT: &str = "write one such as \"tcp/443\", \"tcp/8000-8999\", \"udp/53\", \"tcp\" or \"icmp\"";

/// A service, or several, that a rule names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PortMatch {
    /// Ports of a transport protocol. The range is never empty.
    Ports {
        /// The protocol.
        transport: Transport,
        /// The destination ports.
        ports: RangeInclusive<u16>,
    },
    /// ICMP to IPv4 destinations and ICMPv6 to IPv6 destinations, of every type.
    Icmp,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its number (IANA).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }

    /// Its word in a policy.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The number of ICMP (IANA) towards an address: each family has its own.
pub(super) fn icmp_towards(v4: bool) -> u8 {
    if v4 { protocol::ICMP } else { protocol::ICMPV6 }
}

impl PortMatch {
    /// Tells whether `flow` is to this service. Of a flow whose port is not known, `in_doubt` tells.
    pub fn matches(&self, flow: &Flow, in_doubt: bool) -> bool {
        match self {
            Self::Icmp => flow.protocol == icmp_towards(flow.destination.is_ipv4()),
            Self::Ports { transport, ports } => {
                flow.protocol == transport.number() && flow.port.map_or(in_doubt, |port| ports.contains(&port))
            }
        }
    }

    /// The same services with no port in two of the ranges, in order.
    pub fn merged(services: &[Self]) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::new();
        for wanted in [Transport::Tcp, Transport::Udp] {
            let mut ranges: Vec<_> = services
                .iter()
                .filter_map(|service| match service {
                    Self::Ports { transport, ports } if *transport == wanted => Some((*ports.start(), *ports.end())),
                    Self::Ports { .. } | Self::Icmp => None,
                })
                .collect();
            ranges.sort_unstable();
            let mut joined: Vec<(u16, u16)> = Vec::new();
            for (start, end) in ranges {
                match joined.last_mut() {
                    Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                    Some(_) | None => joined.push((start, end)),
                }
            }
            let ports = |(start, end)| Self::Ports { transport: wanted, ports: start..=end };
            merged.extend(joined.into_iter().map(ports));
        }
        merged.extend(services.contains(&Self::Icmp).then_some(Self::Icmp));
        merged
    }
}

impl FromStr for PortMatch {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let (word, ports) = text.split_once('/').map_or((text, None), |(word, ports)| (word, Some(ports)));
        let transport = match (word, ports) {
            ("tcp", _) => Transport::Tcp,
            ("udp", _) => Transport::Udp,
            ("icmp", None) => return Ok(Self::Icmp),
            ("icmp", Some(_)) => return Err(FormError::new("icmp has no ports", "write \"icmp\"")),
            _ => return Err(FormError::new(format!("{text:?} is no service"), NEXT)),
        };
        let Some(ports) = ports else { return Ok(Self::Ports { transport, ports: 0..=u16::MAX }) };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last) = (port(first, text)?, port(last, text)?);
        if first > last {
            return Err(FormError::new(format!("{text:?} ends before it begins"), "write the lower port first"));
        }
        Ok(Self::Ports { transport, ports: first..=last })
    }
}

/// A port of a service, which is never 0.
pub(super) fn port(digits: &str, whole: &str) -> Result<u16, FormError> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| plain && *port != 0);
    port.ok_or_else(|| FormError::new(format!("{whole:?} has no valid port"), "ports are 1 to 65535"))
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Icmp => f.write_str("icmp"),
            Self::Ports { transport, ports } => match (*ports.start(), *ports.end()) {
                (0, u16::MAX) => f.write_str(transport.word()),
                (first, last) if first == last => write!(f, "{}/{first}", transport.word()),
                (first, last) => write!(f, "{}/{first}-{last}", transport.word()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> PortMatch {
        text.parse().unwrap()
    }

    #[test]
    fn service_is_a_protocol_with_a_port_a_range_or_neither() {
        for text in ["tcp", "udp", "icmp", "tcp/443", "udp/53", "tcp/8000-8999", "udp/1-65535"] {
            assert_eq!(service(text).to_string(), text);
        }
        for text in [
            "",
            "TCP/1",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/9-8",
            "tcp/1-",
            "tcp/+1",
            "sctp/1",
            "icmp/8",
            "443",
            "tcp/ 1",
        ] {
            let refused = text.parse::<PortMatch>().unwrap_err();
            assert!(!refused.reason.is_empty() && !refused.next.is_empty(), "{text}");
        }
    }

    #[test]
    fn ports_of_icmp_are_told_of() {
        assert!("icmp/8".parse::<PortMatch>().unwrap_err().reason.contains("no ports"));
    }

    #[test]
    fn merged_services_overlap_nowhere() {
        let merged = |texts: &[&str]| {
            let services: Vec<_> = texts.iter().map(|text| service(text)).collect();
            PortMatch::merged(&services).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            merged(&["icmp", "udp/53", "tcp/50-200", "tcp/1-100", "icmp", "tcp/443", "tcp/201"]),
            ["tcp/1-201", "tcp/443", "udp/53", "icmp"]
        );
        assert_eq!(merged(&["tcp/1-65535", "tcp"]), ["tcp"]);
        assert_eq!(merged(&[]), [""; 0]);
    }
}

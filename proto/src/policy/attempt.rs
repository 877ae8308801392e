//! What a test of a policy, or an administrator, asks about: `tcp 10.1.2.3:443`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::packet::protocol;

use super::flow::Flow;
use super::form::FormError;
use super::ports::{icmp_towards, port};

const NEXT: &str =
    "write one such as \"tcp 10.1.2.3:443\", \"udp [fd00::53]:53\", \"tcp wiki.example.org:443\" or \"icmp 10.1.2.3\"";

/// One thing that somebody may want to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    service: Service,
    /// Where it is.
    pub to: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Tcp(u16),
    Udp(u16),
    Icmp,
}

/// An address, or a name that has addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The address.
    Address(IpAddr),
    /// The name, in lower case and without a final dot.
    Name(String),
}

impl Attempt {
    /// Reads the two words of an attempt.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(protocol: &str, destination: &str) -> Result<Self, FormError> {
        let refused = |what: &str| FormError::new(format!("{destination:?} {what}"), NEXT);
        let (place, digits) = match destination.parse::<SocketAddr>() {
            Ok(address) => (Place::Address(address.ip()), Some(address.port().to_string())),
            Err(_) => split(destination).ok_or_else(|| refused("is neither an address nor a name"))?,
        };
        let service = match (protocol, digits) {
            ("tcp", Some(digits)) => Service::Tcp(port(&digits, destination)?),
            ("udp", Some(digits)) => Service::Udp(port(&digits, destination)?),
            ("icmp", None) => Service::Icmp,
            ("tcp" | "udp", None) => return Err(refused("has no port")),
            ("icmp", Some(_)) => return Err(refused("has a port, but icmp has none")),
            _ => return Err(FormError::new(format!("{protocol:?} is no protocol"), "write tcp, udp or icmp")),
        };
        Ok(Self { service, to: place })
    }

    /// The flow it makes to an address.
    pub fn flow(&self, destination: IpAddr) -> Flow {
        let (protocol, port) = match self.service {
            Service::Tcp(port) => (protocol::TCP, Some(port)),
            Service::Udp(port) => (protocol::UDP, Some(port)),
            Service::Icmp => (icmp_towards(destination.is_ipv4()), None),
        };
        Flow { protocol, destination, port }
    }
}

/// An address or a name, and the digits behind its colon.
fn split(text: &str) -> Option<(Place, Option<String>)> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse() {
        return Some((Place::Address(address), None));
    }
    let (name, digits) = text.rsplit_once(':').map_or((text, None), |(name, digits)| (name, Some(digits.to_owned())));
    Some((Place::Name(domain(name)?), digits))
}

/// A DNS name in lower case, without a final dot (RFC 1123 section 2.1).
pub fn domain(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        let edges = label.bytes().next().zip(label.bytes().last());
        let edges = edges.is_some_and(|(a, b)| a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric());
        edges && label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let has_letter = name.rsplit('.').next().is_some_and(|last| last.bytes().any(|byte| byte.is_ascii_alphabetic()));
    (name.len() <= 253 && has_letter && name.split('.').all(is_label)).then_some(name)
}

impl FromStr for Attempt {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let (protocol, destination) =
            text.split_once(' ').ok_or_else(|| FormError::new(format!("{text:?} says not what and where"), NEXT))?;
        Self::new(protocol, destination.trim())
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, port) = match self.service {
            Service::Tcp(port) => ("tcp", Some(port)),
            Service::Udp(port) => ("udp", Some(port)),
            Service::Icmp => ("icmp", None),
        };
        match (&self.to, port) {
            (Place::Address(address), Some(port)) => write!(f, "{word} {}", SocketAddr::new(*address, port)),
            (Place::Name(name), Some(port)) => write!(f, "{word} {name}:{port}"),
            (to, None) => write!(f, "{word} {to}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_is_a_protocol_and_a_place_with_its_port() {
        for text in [
            "tcp 10.1.2.3:443",
            "udp [fd00::53]:53",
            "icmp 10.1.2.3",
            "icmp fd00::1",
            "tcp wiki.example.org:443",
            "icmp wiki.example.org",
            "tcp my-wiki.example.org:443",
        ] {
            assert_eq!(text.parse::<Attempt>().unwrap().to_string(), text);
        }
        assert_eq!("icmp [fd00::1]".parse::<Attempt>().unwrap().to_string(), "icmp fd00::1");
        assert_eq!("tcp Wiki.Example.ORG.:1".parse::<Attempt>().unwrap().to_string(), "tcp wiki.example.org:1");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "tcp",
            "tcp 10.1.2.3",
            "tcp 10.1.2.3:0",
            "tcp 10.1.2.3:65536",
            "tcp 10.1.2.3:http",
            "tcp 10.1.2:80",
            "tcp fd00::1",
            "icmp 10.1.2.3:8",
            "icmp wiki.example.org:8",
            "sctp 10.1.2.3:1",
            "TCP 10.1.2.3:1",
            "tcp a..b:1",
            "tcp -a.b:1",
            "tcp a_b.example.org:1",
            "tcp :80",
            "tcp 10.0.0.0/8:80",
        ] {
            let refused = text.parse::<Attempt>().unwrap_err();
            assert!(!refused.reason.is_empty() && !refused.next.is_empty(), "{text}");
        }
    }

    #[test]
    fn icmp_has_the_number_of_its_family() {
        let icmp: Attempt = "icmp 10.1.2.3".parse().unwrap();
        assert_eq!(icmp.flow("10.1.2.3".parse().unwrap()).protocol, 1);
        assert_eq!(icmp.flow("fd00::1".parse().unwrap()).protocol, 58);
    }
}

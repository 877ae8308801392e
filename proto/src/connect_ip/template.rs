//! The request path: the expansion of the URI template `/.well-known/masque/ip/{target}/{ipproto}/` (RFC 9484 section
//! 3).
//!
//! `target` is an address, a prefix with its slash as `%2F`, a host name or `*`; `ipproto` a protocol number or `*`.
//! Variables may be percent-encoded anywhere, and the colons of IPv6 should be.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// The path of a full tunnel: any target, any protocol.
pub const FULL_TUNNEL_PATH: &str = "/.well-known/masque/ip/*/*/";

/// What all paths of the default template begin with (RFC 9484 section 3).
const PREFIX: &str = "/.well-known/masque/ip/";

/// Longest host name in text form (RFC 1035 section 2.3.4), and longest label.
const MAX_NAME_LEN: usize = 253;
const MAX_LABEL_LEN: usize = 63;

/// What a tunnel is to reach (RFC 9484 section 4.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The hosts.
    pub destination: Destination,
    /// The upper-layer protocol (IANA number); `None` is any.
    pub protocol: Option<u8>,
}

/// The hosts a tunnel is to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// All: a VPN.
    Any,
    /// One address or a prefix without host bits.
    Prefix(IpNet),
    /// A host to be resolved by the gateway.
    Name(String),
}

/// Why a path is not that of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It belongs to something else.
    #[error("path is not of the connect-ip template")]
    OtherPath,
    /// It does not have exactly two variables between slashes.
    #[error("path does not have a target and a protocol")]
    Shape,
    /// A percent sign is not followed by two hexadecimal digits, or the octets are not UTF-8.
    #[error("path has a broken percent escape")]
    Escape,
    /// The target is no address, prefix, host name or `*`.
    #[error("target of the path is not an address, prefix or host name")]
    Target,
    /// The prefix is longer than the address.
    #[error("prefix of the path is longer than its address")]
    PrefixLength,
    /// Bits of the address below the prefix are set.
    #[error("address of the path has bits set below its prefix")]
    HostBits,
    /// The protocol is no number from 0 to 255 or `*`.
    #[error("protocol of the path is not a number from 0 to 255")]
    Protocol,
}

impl TemplateError {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::OtherPath => "path is not of the connect-ip template",
            Self::Shape => "path does not have a target and a protocol",
            Self::Escape => "path has a broken percent escape",
            Self::Target => "target of the path is not an address, prefix or host name",
            Self::PrefixLength => "prefix of the path is longer than its address",
            Self::HostBits => "address of the path has bits set below its prefix",
            Self::Protocol => "protocol of the path is not a number from 0 to 255",
        }
    }
}

impl Target {
    /// Any host, any protocol.
    pub const ANY: Self = Self { destination: Destination::Any, protocol: None };

    /// Parses the path of a request.
    ///
    /// # Errors
    /// [`TemplateError::OtherPath`] if it does not begin like the template; others if its variables are not valid,
    /// which makes the request malformed (RFC 9484 section 4.6).
    pub fn parse(path: &str) -> Result<Self, TemplateError> {
        let variables = path.strip_prefix(PREFIX).ok_or(TemplateError::OtherPath)?;
        let (target, rest) = variables.split_once('/').ok_or(TemplateError::Shape)?;
        let protocol = rest.strip_suffix('/').ok_or(TemplateError::Shape)?;
        if target.is_empty() || protocol.is_empty() || protocol.contains('/') {
            return Err(TemplateError::Shape);
        }
        Ok(Self {
            destination: Destination::parse(&percent_decode(target)?)?,
            protocol: parse_protocol(&percent_decode(protocol)?)?,
        })
    }

    /// The path that asks for this target.
    pub fn path(&self) -> String {
        match self.protocol {
            Some(protocol) => format!("{PREFIX}{}/{protocol}/", self.destination),
            None => format!("{PREFIX}{}/*/", self.destination),
        }
    }
}

impl Destination {
    fn parse(text: &str) -> Result<Self, TemplateError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Prefix(address.into()));
        }
        match text.split_once('/') {
            Some((address, length)) => parse_prefix(address, length).map(Self::Prefix),
            None if is_host_name(text) => Ok(Self::Name(text.to_ascii_lowercase())),
            None => Err(TemplateError::Target),
        }
    }
}

/// The variable `target` as in a path, percent-encoded (RFC 9484 section 3).
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Prefix(prefix) => {
                f.write_str(&prefix.addr().to_string().replace(':', "%3A"))?;
                if prefix.prefix_len() == prefix.max_prefix_len() {
                    Ok(())
                } else {
                    write!(f, "%2F{}", prefix.prefix_len())
                }
            }
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn parse_prefix(address: &str, length: &str) -> Result<IpNet, TemplateError> {
    let address: IpAddr = address.parse().map_err(|_no_address| TemplateError::Target)?;
    let length = parse_u8(length).ok_or(TemplateError::PrefixLength)?;
    let prefix = IpNet::new(address, length).map_err(|_too_long| TemplateError::PrefixLength)?;
    if prefix.trunc() == prefix { Ok(prefix) } else { Err(TemplateError::HostBits) }
}

fn parse_protocol(text: &str) -> Result<Option<u8>, TemplateError> {
    match text {
        "*" => Ok(None),
        number => parse_u8(number).map(Some).ok_or(TemplateError::Protocol),
    }
}

/// A decimal number without sign or leading zeros.
fn parse_u8(text: &str) -> Option<u8> {
    text.parse().ok().filter(|number: &u8| number.to_string() == text)
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63, the last not all digits (so that no address is
/// mistaken).
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=MAX_LABEL_LEN).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= MAX_NAME_LEN && name.split('.').all(is_label) && !last_is_number
}

/// Replaces percent escapes by their octets (RFC 3986 section 2.1).
fn percent_decode(text: &str) -> Result<String, TemplateError> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let (&[high, low], after) = rest.split_first_chunk().ok_or(TemplateError::Escape)?;
        rest = after;
        octets.push(hex_digit(high)? << 4 | hex_digit(low)?);
    }
    String::from_utf8(octets).map_err(|_not_text| TemplateError::Escape)
}

fn hex_digit(digit: u8) -> Result<u8, TemplateError> {
    let value = char::from(digit).to_digit(16).ok_or(TemplateError::Escape)?;
    u8::try_from(value).map_err(|_impossible| TemplateError::Escape)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(variables: &str) -> Result<Target, TemplateError> {
        Target::parse(&format!("{PREFIX}{variables}"))
    }

    fn prefix(text: &str) -> Destination {
        Destination::Prefix(text.parse().unwrap())
    }

    #[test]
    fn wildcards_are_accepted_plain_and_encoded() {
        assert_eq!(Target::parse(FULL_TUNNEL_PATH), Ok(Target::ANY));
        for variables in ["%2A/%2a/", "*/%2A/", "%2A/*/"] {
            assert_eq!(parse(variables), Ok(Target::ANY));
        }
    }

    #[test]
    fn addresses_prefixes_and_names_are_accepted() {
        for (variables, destination) in [
            ("192.0.2.1/*/", prefix("192.0.2.1/32")),
            ("192.0.2.0%2F24/*/", prefix("192.0.2.0/24")),
            ("192.0.2.0%2f24/*/", prefix("192.0.2.0/24")),
            ("0.0.0.0%2F0/*/", prefix("0.0.0.0/0")),
            ("2001%3Adb8%3A%3A1/*/", prefix("2001:db8::1/128")),
            ("2001%3Adb8%3A%3A%2F32/*/", prefix("2001:db8::/32")),
            ("2001:db8::1/*/", prefix("2001:db8::1/128")),
            ("Target.Example/*/", Destination::Name("target.example".into())),
            ("a_b.example./*/", Destination::Name("a_b.example.".into())),
        ] {
            assert_eq!(parse(variables), Ok(Target { destination, protocol: None }), "{variables}");
        }
    }

    #[test]
    fn protocol_is_a_number_from_0_to_255() {
        for (text, number) in [("0", 0), ("17", 17), ("255", 255), ("%31%37", 17)] {
            assert_eq!(parse(&format!("*/{text}/")).map(|target| target.protocol), Ok(Some(number)));
        }
        for bad in ["256", "-1", "+1", "017", "1.0", "udp", "**", "%20", "1 "] {
            assert_eq!(parse(&format!("*/{bad}/")), Err(TemplateError::Protocol), "{bad}");
        }
    }

    #[test]
    fn other_paths_are_told_from_broken_ones() {
        for path in
            ["", "/", "/.well-known/masque/udp/a/1/", "/.well-known/masque/ip", "*", "/x/.well-known/masque/ip/*/*/"]
        {
            assert_eq!(Target::parse(path), Err(TemplateError::OtherPath), "{path}");
        }
        for variables in ["", "*", "*/", "*/*", "/*/", "*//", "*/*/x", "*/*//", "*/*/?a=b", "192.0.2.0/24/*/"] {
            assert_eq!(parse(variables), Err(TemplateError::Shape), "{variables}");
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for target in ["%", "%2", "%zz", "a%", "%2", "%+1", "%ff"] {
            assert_eq!(parse(&format!("{target}/*/")), Err(TemplateError::Escape), "{target}");
        }
    }

    #[test]
    fn bad_targets_are_refused() {
        for target in [
            "192.0.2",
            "192.0.2.256",
            "1",
            "a..b",
            ".a",
            "a%20b",
            "%5B%3A%3A1%5D",
            "fe80%3A%3A1%25eth0",
            "a%00",
            "a*",
            "é",
        ] {
            assert_eq!(parse(&format!("{target}/*/")), Err(TemplateError::Target), "{target}");
        }
        let long = format!("{}.example/*/", "a".repeat(64));
        assert_eq!(parse(&long), Err(TemplateError::Target));
        assert_eq!(parse(&format!("{}b/*/", "a.".repeat(127))), Err(TemplateError::Target));
        assert_eq!(parse("host.example%2F24/*/"), Err(TemplateError::Target));
    }

    #[test]
    fn bad_prefixes_are_refused() {
        for length in ["33", "-1", "", "08", "+8", "256", "24%2F8"] {
            assert_eq!(parse(&format!("192.0.2.0%2F{length}/*/")), Err(TemplateError::PrefixLength), "{length}");
        }
        assert_eq!(parse("%3A%3A%2F129/*/"), Err(TemplateError::PrefixLength));
        assert_eq!(parse("192.0.2.1%2F24/*/"), Err(TemplateError::HostBits));
        assert_eq!(parse("2001%3Adb8%3A%3A1%2F64/*/"), Err(TemplateError::HostBits));
    }

    #[test]
    fn reason_is_what_the_error_says() {
        use TemplateError::{Escape, HostBits, OtherPath, PrefixLength, Protocol, Shape, Target};
        for error in [OtherPath, Shape, Escape, Target, PrefixLength, HostBits, Protocol] {
            assert_eq!(error.reason(), error.to_string());
        }
    }

    proptest! {
        #[test]
        fn round_trip_of_prefixes(address: IpAddr, length in 0_u8..=128, protocol: Option<u8>) {
            let length = if address.is_ipv4() { length.min(32) } else { length };
            let destination = Destination::Prefix(IpNet::new(address, length).unwrap().trunc());
            let target = Target { destination, protocol };
            prop_assert_eq!(Target::parse(&target.path()), Ok(target));
        }

        #[test]
        fn round_trip_of_names(name in "[a-z]([a-z0-9-]{0,10}\\.[a-z]){0,4}") {
            let target = Target { destination: Destination::Name(name), protocol: None };
            prop_assert_eq!(Target::parse(&target.path()), Ok(target));
        }

        #[test]
        fn arbitrary_paths_never_panic(variables in "[*/%2FA:.0-9a-z\\PC]{0,24}") {
            if let Ok(target) = parse(&variables) {
                prop_assert_eq!(Target::parse(&target.path()), Ok(target));
            }
        }
    }
}

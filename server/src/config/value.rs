//! From TOML values to checked types, one function for each form of value.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use adit_proto::esp::suite::Suite;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::Value;

use super::{DEFAULT_PORT, PublicAddress};

/// Why a value is refused, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) reason: String,
    pub(super) next: String,
}

/// What parsing a value gives.
pub(super) type Parsed<T> = Result<T, Complaint>;

/// A complaint with its next step.
pub(super) fn complaint<T>(reason: impl Into<String>, next: impl Into<String>) -> Parsed<T> {
    Err(Complaint { reason: reason.into(), next: next.into() })
}

/// A text.
pub(super) fn text(value: &Value) -> Parsed<&str> {
    value.as_str().map_or_else(|| complaint(format!("{value} is not a text"), "put it in quotes"), Ok)
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value) -> Parsed<bool> {
    value.as_bool().map_or_else(|| complaint(format!("{value} is neither true nor false"), "write true or false"), Ok)
}

/// An integer within bounds.
pub(super) fn integer<T>(value: &Value, least: T, most: T) -> Parsed<T>
where
    T: Copy + PartialOrd + TryFrom<i64> + std::fmt::Display,
{
    let number = value.as_integer().and_then(|number| T::try_from(number).ok());
    match number {
        Some(number) if least <= number && number <= most => Ok(number),
        Some(_) | None => {
            complaint(format!("{value} is not in range"), format!("write a number from {least} to {most}"))
        }
    }
}

/// A list; the complaint names the item.
pub(super) fn list<T>(value: &Value, item: impl Fn(&Value) -> Parsed<T>) -> Parsed<Vec<T>> {
    let Some(items) = value.as_array() else {
        return complaint(format!("{value} is not a list"), format!("write [{value}]"));
    };
    items.iter().map(item).collect()
}

/// A length of time such as `"24h"`, within bounds.
pub(super) fn duration(value: &Value, least: Duration, most: Duration) -> Parsed<Duration> {
    let bounds = || format!("write {} to {}", humantime::format_duration(least), humantime::format_duration(most));
    let Some(duration) = value.as_str().and_then(|text| humantime::parse_duration(text).ok()) else {
        return complaint(
            format!("{value} is not a length of time"),
            "write a number with its unit in quotes, such as \"90s\", \"15m\", \"24h\" or \"30d\"",
        );
    };
    if duration < least || duration > most {
        complaint(format!("{value} is not in range"), bounds())
    } else {
        Ok(duration)
    }
}

/// A local socket address; a name is refused, since what it means could change.
pub(super) fn socket_address(value: &Value) -> Parsed<SocketAddr> {
    let text = text(value)?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) => complaint(format!("\"{text}\" has port 0"), "name a port, such as 443"),
        Err(_) => complaint(
            format!("\"{text}\" is not an address with a port"),
            "write one such as \"[::]:443\", \"0.0.0.0:443\" or \"192.0.2.1:443\"",
        ),
    }
}

/// A name or address with an optional port.
pub(super) fn public_address(value: &Value) -> Parsed<PublicAddress> {
    parse_public(text(value)?)
}

/// Parses `HOST[:PORT]`, where HOST is a DNS name, an IPv4 address, or an IPv6 address (in brackets when a port follows).
pub(super) fn parse_public(text: &str) -> Parsed<PublicAddress> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return public_ip(text, address, DEFAULT_PORT);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return public_ip(text, address.ip(), address.port());
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && let Ok(address) = inner.parse::<Ipv6Addr>()
    {
        return public_ip(text, address.into(), DEFAULT_PORT);
    }
    let (name, port) = match text.rsplit_once(':') {
        None => (text, DEFAULT_PORT),
        Some((name, digits)) => match digits.parse::<u16>() {
            Ok(port) if port != 0 => (name, port),
            Ok(_) | Err(_) => {
                return complaint(format!("\"{text}\" has no valid port"), "write HOST:PORT with 1 to 65535");
            }
        },
    };
    Ok(PublicAddress { host: domain_name(name)?, port })
}

/// Parses `HOST[:PORT]` as given on a command line.
///
/// # Errors
/// The reason, and what to write instead.
pub fn parse_public_address(text: &str) -> Result<PublicAddress, String> {
    parse_public(text).map_err(|complaint| format!("{}; {}", complaint.reason, complaint.next))
}

fn public_ip(text: &str, address: IpAddr, port: u16) -> Parsed<PublicAddress> {
    let next = "write the address clients connect to";
    if address.is_unspecified() || address.is_multicast() {
        return complaint(format!("\"{text}\" is no address a client can reach"), next);
    }
    if port == 0 {
        return complaint(format!("\"{text}\" has port 0"), "write HOST:PORT with 1 to 65535");
    }
    Ok(PublicAddress { host: address.to_string(), port })
}

/// A DNS name, lower case, without the final dot.
pub(super) fn domain(value: &Value) -> Parsed<String> {
    domain_name(text(value)?)
}

fn domain_name(text: &str) -> Parsed<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() > 253 || !name.split('.').all(label_ok) || numeric {
        return complaint(
            format!("{text:?} is neither a DNS name nor an IP address"),
            "write a name such as \"vpn.example.org\"; international names in their xn-- form",
        );
    }
    Ok(name.to_ascii_lowercase())
}

/// An IP address to which packets can be sent.
pub(super) fn ip(value: &Value) -> Parsed<IpAddr> {
    let text = text(value)?;
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() => Ok(address),
        Ok(_) => complaint(format!("\"{text}\" is no address a client can reach"), "write a unicast address"),
        Err(_) => complaint(format!("\"{text}\" is not an IP address"), "write one such as \"10.1.0.53\""),
    }
}

/// A prefix without host bits.
pub(super) fn prefix(value: &Value) -> Parsed<IpNet> {
    let text = text(value)?;
    let Ok(net) = text.parse::<IpNet>() else {
        return complaint(format!("\"{text}\" is not a network"), "write ADDRESS/LENGTH, such as \"10.1.0.0/16\"");
    };
    if net.addr() != net.network() {
        return complaint(format!("\"{text}\" has host bits"), format!("write \"{}\"", net.trunc()));
    }
    Ok(net)
}

/// An IPv4 pool: /8 to /29, unicast.
pub(super) fn pool_v4(value: &Value) -> Parsed<Ipv4Net> {
    let IpNet::V4(net) = prefix(value)? else {
        return complaint(format!("{value} is not an IPv4 network"), "write one such as \"10.77.0.0/24\"");
    };
    let address = net.network();
    if address.is_loopback() || address.is_multicast() || address.is_link_local() || address.octets()[0] == 0 {
        return complaint(
            format!("{value} cannot be given to devices"),
            "choose a private network such as \"10.77.0.0/24\"",
        );
    }
    pool_size(value, net.prefix_len(), 8, 29)?;
    Ok(net)
}

/// An IPv6 pool: /48 to /120, unicast.
pub(super) fn pool_v6(value: &Value) -> Parsed<Ipv6Net> {
    let IpNet::V6(net) = prefix(value)? else {
        return complaint(format!("{value} is not an IPv6 network"), "write one such as \"fd00:77::/64\"");
    };
    let address = net.network();
    if address.is_multicast() || address.is_unicast_link_local() || address.segments()[0] == 0 {
        return complaint(
            format!("{value} cannot be given to devices"),
            "choose a unique local network such as \"fd00:77::/64\"",
        );
    }
    pool_size(value, net.prefix_len(), 48, 120)?;
    Ok(net)
}

fn pool_size(value: &Value, length: u8, shortest: u8, longest: u8) -> Parsed<()> {
    if length < shortest {
        return complaint(
            format!("{value} is too large"),
            format!("choose a prefix length from {shortest} to {longest}"),
        );
    }
    if length > longest {
        return complaint(
            format!("{value} is too small"),
            format!("choose a prefix length from {shortest} to {longest}"),
        );
    }
    Ok(())
}

/// A name the kernel takes for a network device.
pub(super) fn device_name(value: &Value) -> Parsed<String> {
    let text = text(value)?;
    let fits = (1..=15).contains(&text.len()) && text != "." && text != ".." && text != "all" && text != "default";
    if fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Ok(text.to_owned());
    }
    complaint(format!("{text:?} cannot name a device"), "write 1 to 15 letters, digits, '-', '_' or '.'")
}

/// A cipher suite of ESP.
pub(super) fn suite(value: &Value) -> Parsed<Suite> {
    let text = text(value)?;
    let found = Suite::ALL.into_iter().find(|suite| suite.label() == text);
    found.map_or_else(
        || {
            complaint(
                format!("\"{text}\" is not a cipher suite"),
                format!("write {}", Suite::ALL.map(Suite::label).join(", ")),
            )
        },
        Ok,
    )
}

/// An absolute path.
pub(super) fn directory(value: &Value) -> Parsed<PathBuf> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() { Ok(path) } else { complaint(format!("{value} is not absolute"), "begin the path with /") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn public_address_takes_names_and_both_families_with_and_without_port() {
        for (text, host, port) in [
            ("VPN.Example.org", "vpn.example.org", 443),
            ("vpn.example.org.:8443", "vpn.example.org", 8443),
            ("192.0.2.1", "192.0.2.1", 443),
            ("192.0.2.1:1443", "192.0.2.1", 1443),
            ("2001:db8::1", "2001:db8::1", 443),
            ("[2001:db8::1]", "2001:db8::1", 443),
            ("[2001:db8::1]:8443", "2001:db8::1", 8443),
        ] {
            assert_eq!(parse_public(text), Ok(PublicAddress { host: host.to_owned(), port }), "{text}");
        }
        for text in [
            "",
            "vpn..org",
            "a b",
            "host:0",
            "host:99999",
            "0.0.0.0",
            "[::]:443",
            "1.2.3.4.5",
            "-a.org",
            "ff02::1",
            "a/b",
        ] {
            assert!(parse_public(text).is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn pool_refuses_host_bits_wrong_family_and_sizes() {
        assert!(pool_v4(&string("10.77.0.0/24")).is_ok());
        for text in
            ["10.77.0.1/24", "10.0.0.0/7", "10.77.0.0/30", "fd00::/64", "127.0.0.0/8", "224.0.0.0/8", "10.77.0.0", "x"]
        {
            assert!(pool_v4(&string(text)).is_err(), "{text}");
        }
        assert!(pool_v6(&string("fd00:77::/64")).is_ok());
        for text in ["fd00:77::1/64", "fd00::/47", "fd00::/121", "10.77.0.0/24", "ff00::/64", "fe80::/64", "::/64"] {
            assert!(pool_v6(&string(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn host_bits_are_answered_with_the_network() {
        assert_eq!(prefix(&string("10.77.0.9/24")).unwrap_err().next, "write \"10.77.0.0/24\"");
    }

    #[test]
    fn duration_needs_a_unit_and_its_bounds() {
        let day = Duration::from_secs(86_400);
        assert_eq!(duration(&string("15m"), Duration::ZERO, day), Ok(Duration::from_secs(900)));
        assert!(duration(&string("25h"), Duration::ZERO, day).is_err());
        assert!(duration(&string("15"), Duration::ZERO, day).is_err());
        assert!(duration(&Value::Integer(15), Duration::ZERO, day).is_err());
    }

    #[test]
    fn integer_out_of_range_or_of_another_type_is_refused() {
        assert_eq!(integer(&Value::Integer(1400), 1280_u16, 65_535), Ok(1400));
        for value in [Value::Integer(1279), Value::Integer(65_536), Value::Integer(-1), string("1400")] {
            assert!(integer(&value, 1280_u16, 65_535).is_err(), "{value}");
        }
    }
}

//! From given values to checked types, one function for each form of value that only a gateway knows.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use adit_host::LocalService;
use adit_program::configuration::{Complaint, Given, Kind};
use adit_program::log;
use adit_proto::sealing::suite::Suite;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{DEFAULT_PORT, PublicAddress};

/// What parsing a value gives.
type Parsed<T> = Result<T, Complaint>;

fn refuse<T>(reason: impl Into<String>, next: impl Into<String>) -> Parsed<T> {
    Err(Complaint::unfit(reason, next))
}

/// A local socket address; a name is refused, since what it means could change.
pub(super) fn socket_address(given: &Given<'_>) -> Parsed<SocketAddr> {
    let text = given.text()?;
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        Ok(_) => refuse(format!("\"{text}\" has port 0"), "name a port, such as 443"),
        Err(_) => refuse(
            format!("\"{text}\" is not an address with a port"),
            "write one such as \"[::]:443\", \"0.0.0.0:443\" or \"192.0.2.1:443\"",
        ),
    }
}

/// What to log.
pub(super) fn log_filter(given: &Given<'_>) -> Parsed<String> {
    let text = given.text()?;
    match log::filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(reason) => refuse(
            format!("\"{text}\" does not say what to log: {reason}"),
            "write a level such as \"info\", or directives such as \"adit_server=debug,info\"",
        ),
    }
}

/// A name or address with an optional port.
pub(super) fn public_address(given: &Given<'_>) -> Parsed<PublicAddress> {
    parse_public(given.text()?)
}

/// Parses `HOST[:PORT]`, where HOST is a DNS name, an IPv4 address, or an IPv6 address (in brackets when a port
/// follows).
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
                return refuse(format!("\"{text}\" has no valid port"), "write HOST:PORT with 1 to 65535");
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
        return refuse(format!("\"{text}\" is no address a client can reach"), next);
    }
    if port == 0 {
        return refuse(format!("\"{text}\" has port 0"), "write HOST:PORT with 1 to 65535");
    }
    Ok(PublicAddress { host: address.to_string(), port })
}

/// A DNS name, lower case, without the final dot.
pub(super) fn domain(given: &Given<'_>) -> Parsed<String> {
    domain_name(given.text()?)
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
        return refuse(
            format!("{text:?} is neither a DNS name nor an IP address"),
            "write a name such as \"vpn.example.org\"; international names in their xn-- form",
        );
    }
    Ok(name.to_ascii_lowercase())
}

/// An IP address to which packets can be sent.
pub(super) fn ip(given: &Given<'_>) -> Parsed<IpAddr> {
    let text = given.text()?;
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() && !address.is_loopback() => Ok(address),
        Ok(_) => refuse(format!("\"{text}\" is no address a client can reach"), "write a unicast address"),
        Err(_) => refuse(format!("\"{text}\" is not an IP address"), "write one such as \"10.1.0.53\""),
    }
}

/// A service of the gateway's host: `tcp/PORT` or `udp/PORT`.
pub(super) fn local_service(given: &Given<'_>) -> Parsed<LocalService> {
    let text = given.text()?;
    let port = |digits: &str| digits.parse::<u16>().ok().filter(|port| *port != 0);
    let service = match text.split_once('/') {
        Some(("tcp", digits)) => port(digits).map(LocalService::Tcp),
        Some(("udp", digits)) => port(digits).map(LocalService::Udp),
        Some(_) | None => None,
    };
    service.map_or_else(
        || {
            let next = "write tcp/PORT or udp/PORT, such as \"tcp/22\"";
            refuse(format!("\"{text}\" is not a protocol with a port"), next)
        },
        Ok,
    )
}

/// A prefix without host bits.
pub(super) fn prefix(given: &Given<'_>) -> Parsed<IpNet> {
    let text = given.text()?;
    let Ok(net) = text.parse::<IpNet>() else {
        return refuse(format!("\"{text}\" is not a network"), "write ADDRESS/LENGTH, such as \"10.1.0.0/16\"");
    };
    if net.addr() != net.network() {
        return refuse(format!("\"{text}\" has host bits"), format!("write \"{}\"", net.trunc()));
    }
    Ok(net)
}

/// An IPv4 pool of unicast addresses.
pub(super) fn pool_v4(given: &Given<'_>) -> Parsed<Ipv4Net> {
    let IpNet::V4(net) = prefix(given)? else {
        return refuse(format!("{given} is not an IPv4 network"), "write one such as \"10.77.0.0/24\"");
    };
    let address = net.network();
    if address.is_loopback() || address.is_multicast() || address.is_link_local() || address.octets()[0] == 0 {
        return refuse(
            format!("{given} cannot be given to devices"),
            "choose a private network such as \"10.77.0.0/24\"",
        );
    }
    pool_size(given, net.prefix_len())?;
    Ok(net)
}

/// An IPv6 pool of unicast addresses.
pub(super) fn pool_v6(given: &Given<'_>) -> Parsed<Ipv6Net> {
    let IpNet::V6(net) = prefix(given)? else {
        return refuse(format!("{given} is not an IPv6 network"), "write one such as \"fd00:77::/64\"");
    };
    let address = net.network();
    if address.is_multicast() || address.is_unicast_link_local() || address.segments()[0] == 0 {
        return refuse(
            format!("{given} cannot be given to devices"),
            "choose a unique local network such as \"fd00:77::/64\"",
        );
    }
    pool_size(given, net.prefix_len())?;
    Ok(net)
}

/// The prefix length of a pool lies within the bounds of its key.
fn pool_size(given: &Given<'_>, length: u8) -> Parsed<()> {
    let Kind::Network { least, most } = given.kind() else { panic!("the rows of pools say how large they may be") };
    let wrong = if length < least {
        "large"
    } else if length > most {
        "small"
    } else {
        return Ok(());
    };
    refuse(format!("{given} is too {wrong}"), format!("choose a prefix length from {least} to {most}"))
}

/// A name the kernel takes for a network device.
pub(super) fn device_name(given: &Given<'_>) -> Parsed<String> {
    let Kind::Name { least, most } = given.kind() else { panic!("the row of a device's name says how long it may be") };
    let text = given.text()?;
    let length_fits = u64::try_from(text.len()).is_ok_and(|length| (least..=most).contains(&length));
    let reserved = matches!(text, "." | ".." | "all" | "default");
    if length_fits && !reserved && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Ok(text.to_owned());
    }
    refuse(
        format!("{text:?} cannot name a device"),
        format!("write {least} to {most} letters, digits, '-', '_' or '.'"),
    )
}

/// A cipher suite of ESP.
pub(super) fn suite(given: &Given<'_>) -> Parsed<Suite> {
    let text = given.text()?;
    let found = Suite::ALL.into_iter().find(|suite| suite.label() == text);
    found.map_or_else(
        || {
            refuse(
                format!("\"{text}\" is not a cipher suite"),
                format!("write {}", Suite::ALL.map(Suite::label).join(", ")),
            )
        },
        Ok,
    )
}

/// An absolute path.
pub(crate) fn directory(given: &Given<'_>) -> Parsed<PathBuf> {
    let path = PathBuf::from(given.text()?);
    if path.is_absolute() { Ok(path) } else { refuse(format!("{given} is not absolute"), "begin the path with /") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Source;
    use super::super::file::interpret;
    use super::*;

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

    /// What a file with one line more than it needs is complained of: the reason and the next step.
    fn complaints(line: &str) -> Vec<(String, String)> {
        let text = format!("public = [\"a.example\"]\npool.v4 = \"10.77.0.0/24\"\n{line}\n");
        let (_, problems) = interpret(&text, &Source::file(Path::new("server.toml")));
        problems.into_iter().map(|problem| (problem.reason, problem.next)).collect()
    }

    fn pool(key: &str, net: &str) -> usize {
        let text = format!("public = [\"a.example\"]\npool.{key} = \"{net}\"\n");
        interpret(&text, &Source::file(Path::new("server.toml"))).1.len()
    }

    #[test]
    fn pool_refuses_host_bits_wrong_family_and_sizes() {
        assert_eq!(pool("v4", "10.77.0.0/24"), 0);
        for text in
            ["10.77.0.1/24", "10.0.0.0/7", "10.77.0.0/30", "fd00::/64", "127.0.0.0/8", "224.0.0.0/8", "10.77.0.0", "x"]
        {
            assert_eq!(pool("v4", text), 1, "{text}");
        }
        assert_eq!(pool("v6", "fd00:77::/64"), 0);
        for text in ["fd00:77::1/64", "fd00::/47", "fd00::/121", "10.77.0.0/24", "ff00::/64", "fe80::/64", "::/64"] {
            assert_eq!(pool("v6", text), 1, "{text}");
        }
    }

    #[test]
    fn host_bits_are_answered_with_the_network() {
        assert_eq!(complaints("routes = [\"10.77.0.9/24\"]")[0].1, "write \"10.77.0.0/24\"");
    }

    #[test]
    fn service_is_a_protocol_with_a_port() {
        assert_eq!(complaints("local_services = [\"tcp/22\", \"udp/123\", \"tcp/65535\"]"), []);
        for bad in ["22", "ssh", "tcp/0", "tcp/65536", "sctp/22", "tcp/ssh", "TCP/22", "tcp/22/udp", "tcp/", ""] {
            let found = complaints(&format!("local_services = [{bad:?}]"));
            assert_eq!(found.len(), 1, "{bad}");
            assert!(found[0].1.contains("tcp/PORT"), "{found:?}");
        }
        let twice = complaints("local_services = [\"tcp/22\", \"tcp/022\"]");
        assert_eq!(twice, [("tcp/22 is named twice".to_owned(), "remove one of them".to_owned())]);
    }

    #[test]
    fn device_name_has_the_length_the_kernel_takes() {
        assert_eq!(complaints("tun.name = \"fifteen-letters\""), []);
        let next = "write 1 to 15 letters, digits, '-', '_' or '.'".to_owned();
        for bad in ["", "sixteen-letters-", "a/b", "..", "all"] {
            assert_eq!(
                complaints(&format!("tun.name = {bad:?}")),
                [(format!("{bad:?} cannot name a device"), next.clone())]
            );
        }
    }
}

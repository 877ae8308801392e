//! The resolvers that a new gateway names to its clients.

use std::net::IpAddr;
use std::path::Path;

use adit_host::is_forbidden_destination;

/// The resolvers this host asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The resolvers systemd-resolved asks, where the host asks systemd-resolved.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// The resolvers of this host that clients can ask through the gateway.
pub(super) fn of_this_host() -> Vec<IpAddr> {
    resolvers(Path::new(RESOLV_CONF), Path::new(RESOLVED_CONF))
}

/// The resolvers in `resolv_conf`, or, where these are a stub on the host itself, those behind it.
fn resolvers(resolv_conf: &Path, behind_stub: &Path) -> Vec<IpAddr> {
    let own = resolvers_in(resolv_conf);
    if own.is_empty() { resolvers_in(behind_stub) } else { own }
}

fn resolvers_in(path: &Path) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten();
        let Some(address) = address else { continue };
        let unfit = address.is_unspecified() || address.is_multicast() || is_forbidden_destination(address);
        if !unfit && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_the_hosts_own_that_clients_can_reach() {
        let directory = tempfile::tempdir().unwrap();
        let (own, behind) = (directory.path().join("resolv.conf"), directory.path().join("behind"));
        let found = |text: &str| {
            std::fs::write(&own, text).unwrap();
            resolvers(&own, &behind).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("nameserver 127.0.0.53\noptions edns0\n"), Vec::<String>::new(), "a stub, nothing behind it");
        std::fs::write(&behind, "nameserver 10.1.0.53\n").unwrap();
        assert_eq!(found("nameserver 127.0.0.53\n"), ["10.1.0.53"]);
        assert_eq!(found(""), ["10.1.0.53"]);
        assert_eq!(
            found(
                "# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.53 # office\nnameserver\t2001:db8::53\n\
                 nameserver fe80::1%eth0\nnameserver fe80::1\nnameserver 169.254.169.253\nnameserver 168.63.129.16\n\
                 nameserver 0.0.0.0\nnameserver ::1\nnameserver nonsense\nnameserver\nnameserver 192.0.2.53\n"
            ),
            ["192.0.2.53", "2001:db8::53"]
        );
        std::fs::remove_file(&own).unwrap();
        std::fs::remove_file(&behind).unwrap();
        assert_eq!(resolvers(&own, &behind), Vec::<IpAddr>::new());
    }
}

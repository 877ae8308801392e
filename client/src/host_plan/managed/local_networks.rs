//! The local networks that a full tunnel leaves alone, if the profile says so.
//!
//! Whoever runs a network says by DHCP or router advertisements which addresses are in it (TunnelCrack,
//! CVE-2023-36672). So only private and link-local ones count, and no more of them than one place has.

use std::collections::BTreeSet;

use adit_host::{LinkKind, Survey};
use ipnet::IpNet;

use super::own_networks::OwnNetwork;

/// Shortest prefixes of a local network.
const SHORTEST_V4: u8 = 16;
const SHORTEST_V6: u8 = 48;

/// The networks that this host has addresses in; `device` is the tunnel's own link.
pub(super) fn local_networks(survey: &Survey, device: &str) -> BTreeSet<OwnNetwork> {
    let network = |seen: &adit_host::SeenAddress| {
        let link = survey.links.get(&seen.link)?;
        let is_tunnel = matches!(link.kind, LinkKind::Tun | LinkKind::KernelTunnel) || link.name == device;
        let prefix = seen.address.trunc();
        let is_local = !is_tunnel && link.name != "lo" && is_local(prefix);
        is_local.then(|| OwnNetwork { link: link.name.clone(), index: seen.link, prefix })
    };
    survey.addresses.iter().filter_map(network).collect()
}

/// Whether packets to a network need a route past the tunnel. To a link-local address of IPv6 a program names the link,
/// which is the same on all of them.
pub(super) fn needs_route(network: &OwnNetwork) -> bool {
    !matches!(network.prefix, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}

/// Of RFC 1918, RFC 3927, RFC 4193 or link-local, and not a large part of these.
fn is_local(prefix: IpNet) -> bool {
    match prefix {
        IpNet::V4(v4) => v4.prefix_len() >= SHORTEST_V4 && (v4.addr().is_private() || v4.addr().is_link_local()),
        IpNet::V6(v6) => {
            v6.prefix_len() >= SHORTEST_V6 && (v6.addr().is_unique_local() || v6.addr().is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_host::{SeenAddress, SeenLink};

    use super::*;

    #[test]
    fn only_small_private_networks_are_local() {
        for (prefix, expected) in [
            ("192.168.7.0/24", true),
            ("10.0.0.0/16", true),
            ("10.0.0.0/8", false),
            ("172.16.0.0/12", false),
            ("172.32.0.0/24", false),
            ("169.254.0.0/16", true),
            ("198.51.100.0/24", false),
            ("0.0.0.0/0", false),
            ("fd00:1:2:3::/64", true),
            ("fc00::/7", false),
            ("fe80::/64", true),
            ("2001:db8::/64", false),
        ] {
            assert_eq!(is_local(prefix.parse().unwrap()), expected, "{prefix}");
        }
    }

    #[test]
    fn networks_of_tunnels_are_not_local() {
        let link = |name: &str, kind| SeenLink { name: name.into(), kind, up: true, controller: None };
        let address = |link, address: &str| SeenAddress { link, address: address.parse().unwrap(), permanent: false };
        let survey = Survey {
            links: [
                (1, link("eth0", LinkKind::Other)),
                (2, link("adit0", LinkKind::Tun)),
                (3, link("wg0", LinkKind::KernelTunnel)),
            ]
            .into(),
            addresses: vec![
                address(1, "192.168.7.9/24"),
                address(1, "fe80::9/64"),
                address(2, "10.64.3.2/32"),
                address(3, "10.9.0.2/24"),
            ],
            routes: Vec::new(),
        };
        let found = local_networks(&survey, "adit0");
        let named: Vec<String> = found.iter().map(|own| format!("{} {}", own.link, own.prefix)).collect();
        assert_eq!(named, ["eth0 192.168.7.0/24", "eth0 fe80::/64"]);
        assert_eq!(found.iter().filter(|network| needs_route(network)).count(), 1);
    }
}

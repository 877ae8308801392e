//! Checks of the configuration against the host it runs on.

use std::net::IpAddr;

use adit_host::why_no_ipv6;
use adit_program::exit::Exit;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;

use super::check::pools;
use super::{Config, ConfigError, Problem};

/// An address of a network device of the host.
pub(crate) struct HostAddress {
    pub(crate) device: String,
    pub(crate) net: IpNet,
}

/// All addresses of the host; none when the system does not tell.
pub(crate) fn host_addresses() -> Vec<HostAddress> {
    let Ok(devices) = getifaddrs() else { return Vec::new() };
    devices
        .filter_map(|device| {
            let address = ip_of(device.address.as_ref()?)?;
            let mask = device.netmask.as_ref().and_then(ip_of);
            let net =
                mask.and_then(|mask| IpNet::with_netmask(address, mask).ok()).unwrap_or_else(|| IpNet::from(address));
            Some(HostAddress { device: device.interface_name, net })
        })
        .collect()
}

fn ip_of(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let mut problems = conflicts(config, &host_addresses());
    problems.extend(ipv6_alone(config, why_no_ipv6()));
    if problems.is_empty() {
        return Ok(());
    }
    Err(ConfigError { path: config.path.clone(), problems, exit: Exit::Usage })
}

/// Pools that hold an address of the host, or lie in a network it is attached to: the hosts there could not be told
/// from devices.
fn conflicts(config: &Config, addresses: &[HostAddress]) -> Vec<Problem> {
    let next = "choose a pool that nothing else uses";
    let mut problems = Vec::new();
    for (key, pool) in pools(config) {
        for HostAddress { device, net } in addresses.iter().filter(|address| address.device != config.tun.name) {
            if pool.contains(&net.addr()) {
                let reason = format!("{pool} overlaps the address {} of {device}", net.addr());
                problems.push(Problem::new(key, reason, next));
            } else if overlap(pool, *net) {
                let reason = format!("{pool} overlaps the network {} of {device}", net.trunc());
                problems.push(Problem::new(key, reason, next));
            }
        }
    }
    problems
}

/// The warning about a host without IPv6, for the reason `why`, where the gateway has an IPv4 pool to serve.
pub(super) fn without_ipv6(config: &Config, why: Option<String>) -> Option<String> {
    let pools = config.pool.v4.zip(config.pool.v6);
    why.filter(|_| pools.is_some()).map(|why| format!("IPv6 is off on this host: {why}. Clients get IPv4 only"))
}

/// A gateway that has no IPv4 pool, on a host without IPv6.
fn ipv6_alone(config: &Config, why: Option<String>) -> Option<Problem> {
    let alone = config.pool.v4.is_none() && config.pool.v6.is_some();
    let why = why.filter(|_| alone)?;
    Some(Problem::new("pool.v6", format!("IPv6 is off on this host: {why}"), "switch it on, or set pool.v4"))
}

/// Whether two networks have an address in common.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::config_for_tests;
    use super::*;

    #[test]
    fn pool_overlaps_neither_a_smaller_nor_a_larger_network_of_the_host() {
        let config = config_for_tests(Path::new("/nowhere"));
        assert_eq!(config.pool.v4, Some("10.77.0.0/24".parse().unwrap()));
        for (device, net, conflicting) in [
            ("eth0", "10.77.0.9/24", true),
            ("eth0", "10.77.0.200/28", true),
            ("eth0", "10.77.3.5/16", true),
            ("eth0", "10.1.2.3/8", true),
            ("adit0", "10.77.0.1/24", false),
            ("eth0", "10.77.1.5/24", false),
            ("eth0", "192.0.2.5/24", false),
            ("eth0", "fd00:77::5/64", false),
        ] {
            let address = HostAddress { device: device.into(), net: net.parse().unwrap() };
            assert_eq!(conflicts(&config, &[address]).len(), usize::from(conflicting), "{net} on {device}");
        }
    }

    #[test]
    fn gateway_without_ipv6_serves_ipv4_and_says_so_but_not_without_a_pool_for_it() {
        let mut config = config_for_tests(Path::new("/nowhere"));
        config.pool.v6 = Some("fd00:77::/64".parse().unwrap());
        let off = || Some("net.ipv6.conf.all.disable_ipv6 is 1".to_owned());
        assert_eq!(without_ipv6(&config, None), None);
        let warning = without_ipv6(&config, off()).unwrap();
        assert!(warning.contains("disable_ipv6") && warning.contains("IPv4 only"), "{warning}");
        assert_eq!(ipv6_alone(&config, off()), None);
        config.pool.v4 = None;
        assert_eq!(without_ipv6(&config, off()), None);
        assert_eq!(ipv6_alone(&config, None), None);
        assert_eq!(ipv6_alone(&config, off()).unwrap().what, "pool.v6");
    }
}

//! Checks of the configuration against the host it runs on.

use std::net::IpAddr;

use adit_proto::exit::Exit;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;

use super::check::{pools, problem};
use super::{Config, ConfigError};

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
    let addresses = host_addresses();
    let mut problems = Vec::new();
    for (key, pool) in pools(config) {
        for address in addresses.iter().filter(|address| address.device != config.tun.name) {
            if pool.contains(&address.net.addr()) {
                let reason = format!("{pool} overlaps the address {} of {}", address.net.addr(), address.device);
                problems.push(problem(key, &reason, "choose a pool that nothing else uses"));
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(ConfigError { path: config.path.clone(), problems, exit: Exit::Usage })
}

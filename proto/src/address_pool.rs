//! Inner addresses and who leases them.
//!
//! A device keeps its addresses: they stay its own while it is away, until the pool has no address left that nobody
//! ever had. Then the one released longest ago goes to the newcomer, but never before its cool-down ended, so that
//! packets still on their way to the former holder do not reach the next one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use crate::packet::icmp::GatewayAddresses;

mod hosts;

use hosts::Hosts;

/// The networks that clients get their addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// The IPv4 network; without it clients get no IPv4 address. Its first host is the gateway's; its first and last
    /// address are never leased.
    pub v4: Option<Ipv4Net>,
    /// The IPv6 network; without it clients get no IPv6 address. Its first host (`…::1`) is the gateway's. Addresses
    /// chosen unasked differ in the lowest 32 bits only.
    pub v6: Option<Ipv6Net>,
    /// How long a released address goes to no other device.
    pub cooldown: Duration,
}

/// The addresses of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lease {
    /// The IPv4 address, if the pool has IPv4.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address, if the pool has IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// Why the pool does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every address is live or cooling down.
    #[error("no address is free in {pool}")]
    Exhausted {
        /// The network without a free address.
        pool: IpNet,
    },
    /// The pool has neither an IPv4 nor an IPv6 network.
    #[error("the address pool has no network")]
    NoNetwork,
}

/// Leases addresses of one IPv4 and one IPv6 network to devices, each address to one device at a time.
///
/// Leasing takes constant time on average and logarithmic time once the pool has been used up. Memory grows with the
/// number of addresses ever given, about 150 bytes each.
#[derive(Debug)]
pub struct AddressPool {
    v4: Option<(Ipv4Net, Hosts)>,
    v6: Option<(Ipv6Net, Hosts)>,
    devices: HashMap<String, Device>,
    live: usize,
}

/// The host numbers of one device, live or kept for its return.
#[derive(Debug, Clone, Copy, Default)]
struct Device {
    v4: Option<u128>,
    v6: Option<u128>,
    live: bool,
}

impl AddressPool {
    /// Makes a pool of which nothing is leased.
    pub fn new(config: PoolConfig) -> Self {
        let PoolConfig { v4, v6, cooldown } = config;
        let v4_hosts = |net: Ipv4Net| {
            let network = u128::from(net.network().to_bits());
            (net, Hosts::new(network, u32::from(32 - net.prefix_len()), true, cooldown))
        };
        let v6_hosts = |net: Ipv6Net| {
            let network = net.network().to_bits();
            (net, Hosts::new(network, u32::from(128 - net.prefix_len()), false, cooldown))
        };
        Self { v4: v4.map(v4_hosts), v6: v6.map(v6_hosts), devices: HashMap::new(), live: 0 }
    }

    /// From now on a released address goes to no other device for this time, also one that was released before.
    pub fn set_cooldown(&mut self, cooldown: Duration) {
        let v4 = self.v4.as_mut().map(|(_, hosts)| hosts);
        let v6 = self.v6.as_mut().map(|(_, hosts)| hosts);
        v4.into_iter().chain(v6).for_each(|hosts| hosts.set_cooldown(cooldown));
    }

    /// The gateway's own addresses: the first host of each network.
    pub fn gateway(&self) -> GatewayAddresses {
        GatewayAddresses {
            v4: self.v4.as_ref().map(|(_, hosts)| v4_address(hosts.gateway_address())),
            v6: self.v6.as_ref().map(|(_, hosts)| Ipv6Addr::from_bits(hosts.gateway_address())),
        }
    }

    /// Leases to `device` one address of each network, and returns them.
    ///
    /// A live device gets what it has. One that comes back gets its former addresses if nobody else has them by now.
    /// Otherwise an address of `wanted` is given if it is free, and where nothing is wanted or free, any: the IPv6
    /// address has the host number of the IPv4 one where possible.
    ///
    /// # Errors
    /// [`PoolError::Exhausted`] when a network has no address to give, and then nothing is leased;
    /// [`PoolError::NoNetwork`] when the pool has no network at all.
    pub fn lease(&mut self, device: &str, wanted: Option<Lease>, now: Instant) -> Result<Lease, PoolError> {
        if self.v4.is_none() && self.v6.is_none() {
            return Err(PoolError::NoNetwork);
        }
        let known = self.devices.get(device).copied().unwrap_or_default();
        if known.live {
            return Ok(self.addresses(known));
        }
        let wanted = wanted.unwrap_or_default();
        let v4 = self.choose_v4(device, known, wanted, now)?;
        let v6 = self.choose_v6(device, known, wanted, v4, now)?;
        self.claim(device, v4, v6);
        let leased = Device { v4, v6, live: true };
        self.devices.insert(device.to_owned(), leased);
        self.live += 1;
        Ok(self.addresses(leased))
    }

    fn choose_v4(
        &mut self,
        device: &str,
        known: Device,
        wanted: Lease,
        now: Instant,
    ) -> Result<Option<u128>, PoolError> {
        let Some((net, hosts)) = &mut self.v4 else { return Ok(None) };
        let wanted = wanted.v4.and_then(|address| hosts.host(address.to_bits().into()));
        let wanted = wanted.filter(|host| hosts.is_claimable(*host, device, now));
        let chosen = known.v4.or(wanted).or_else(|| hosts.choose(known.v6, now));
        chosen.map(Some).ok_or(PoolError::Exhausted { pool: IpNet::V4(*net) })
    }

    fn choose_v6(
        &mut self,
        device: &str,
        known: Device,
        wanted: Lease,
        v4: Option<u128>,
        now: Instant,
    ) -> Result<Option<u128>, PoolError> {
        // A device about to lose its IPv4 address gives its IPv6 address along with it, so that numbers go on matching.
        let loser = v4.zip(self.v4.as_ref()).and_then(|(host, (_, hosts))| hosts.holder(host));
        let along = loser.and_then(|loser| self.devices.get(loser)).and_then(|loser| loser.v6);

        let Some((net, hosts)) = &mut self.v6 else { return Ok(None) };
        let wanted = wanted.v6.and_then(|address| hosts.host(address.to_bits()));
        let asked = wanted.filter(|host| hosts.is_claimable(*host, device, now));
        let along = along.filter(|host| hosts.is_claimable(*host, device, now));
        let chosen = known.v6.or(asked).or(along).or_else(|| hosts.choose(v4, now));
        chosen.map(Some).ok_or(PoolError::Exhausted { pool: IpNet::V6(*net) })
    }

    /// Takes both host numbers for `device`, and makes those who kept them forget them.
    fn claim(&mut self, device: &str, v4: Option<u128>, v6: Option<u128>) {
        let loser = v4.zip(self.v4.as_mut()).and_then(|(host, (_, hosts))| hosts.claim(host, device));
        if let Some(loser) = loser.and_then(|loser| self.devices.get_mut(&loser)).filter(|loser| loser.v4 == v4) {
            loser.v4 = None;
        }
        let loser = v6.zip(self.v6.as_mut()).and_then(|(host, (_, hosts))| hosts.claim(host, device));
        if let Some(loser) = loser.and_then(|loser| self.devices.get_mut(&loser)).filter(|loser| loser.v6 == v6) {
            loser.v6 = None;
        }
    }

    /// Ends the live lease of `device`, if it has one, and begins the cool-down of its addresses.
    pub fn release(&mut self, device: &str, now: Instant) {
        let Some(known) = self.devices.get_mut(device).filter(|known| known.live) else { return };
        known.live = false;
        self.live -= 1;
        for (host, hosts) in held(&mut self.v4, &mut self.v6, *known) {
            hosts.release(host, now);
        }
    }

    /// The device with a live lease of `address`.
    pub fn device_of(&self, address: IpAddr) -> Option<&str> {
        let holder = match address {
            IpAddr::V4(address) => self.v4.as_ref().and_then(|(_, hosts)| holder(hosts, address.to_bits().into())),
            IpAddr::V6(address) => self.v6.as_ref().and_then(|(_, hosts)| holder(hosts, address.to_bits())),
        };
        holder.filter(|device| self.devices.get(*device).is_some_and(|known| known.live))
    }

    /// What `device` gets when it asks: its addresses, whether it holds them now or they were kept for its return.
    pub fn kept_for(&self, device: &str) -> Option<Lease> {
        self.devices.get(device).map(|known| self.addresses(*known))
    }

    /// The live lease of `device`.
    pub fn lease_of(&self, device: &str) -> Option<Lease> {
        self.devices.get(device).filter(|known| known.live).map(|known| self.addresses(*known))
    }

    /// The number of live leases.
    pub fn live(&self) -> usize {
        self.live
    }

    fn addresses(&self, device: Device) -> Lease {
        let v4 = device.v4.zip(self.v4.as_ref()).map(|(host, (_, hosts))| v4_address(hosts.address(host)));
        let v6 = device.v6.zip(self.v6.as_ref()).map(|(host, (_, hosts))| Ipv6Addr::from_bits(hosts.address(host)));
        Lease { v4, v6 }
    }
}

fn v4_address(bits: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::try_from(bits).expect("an IPv4 network holds 32-bit numbers"))
}

/// The device that holds `address`, live or not.
fn holder(hosts: &Hosts, address: u128) -> Option<&str> {
    hosts.host(address).and_then(|host| hosts.holder(host))
}

/// The host numbers of `device`, each with its network.
fn held<'a>(
    v4: &'a mut Option<(Ipv4Net, Hosts)>,
    v6: &'a mut Option<(Ipv6Net, Hosts)>,
    device: Device,
) -> impl Iterator<Item = (u128, &'a mut Hosts)> {
    let v4 = device.v4.zip(v4.as_mut().map(|(_, hosts)| hosts));
    let v6 = device.v6.zip(v6.as_mut().map(|(_, hosts)| hosts));
    v4.into_iter().chain(v6)
}

#[cfg(test)]
mod tests;

//! The addresses of one network, as host numbers, and who holds each.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// The highest host number chosen unasked: the low 32 bits of an IPv6 network are plenty, and easy to read.
const LAST_CHOSEN: u128 = 0xffff_ffff;

/// Releases in order; the number tells apart those of one instant.
type ReleaseOrder = (Instant, u64);

/// The host numbers of one network that clients can have.
///
/// A number once held is held for ever: on release it keeps its holder, which may come back to it, until another device
/// claims it. So the memory used is that of the numbers ever given, at most the size of the network.
#[derive(Debug)]
pub(super) struct Hosts {
    /// The address of host number 0.
    network: u128,
    gateway: u128,
    first: u128,
    last: u128,
    cooldown: Duration,
    held: HashMap<u128, Holder>,
    /// The numbers that are not live, oldest release first.
    released: BTreeMap<ReleaseOrder, u128>,
    releases: u64,
    /// No number from `first` up to here is unheld.
    fresh: u128,
}

#[derive(Debug)]
struct Holder {
    device: String,
    /// When the device gave it up; `None` while it is live.
    released: Option<ReleaseOrder>,
}

impl Hosts {
    /// All hosts of the network at `network` with `host_bits`, at most 128, bits below the prefix.
    ///
    /// The first host is the gateway's. `last_is_broadcast` keeps the last one of an IPv4 network out. As in RFC 3021
    /// and RFC 6164, a network of two addresses uses both, and one of a single address has only the gateway.
    pub(super) fn new(network: u128, host_bits: u32, last_is_broadcast: bool, cooldown: Duration) -> Self {
        let size_minus_one = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
        let gateway = u128::from(host_bits > 1);
        let last = size_minus_one - u128::from(last_is_broadcast && host_bits > 1);
        Self {
            network,
            gateway,
            first: gateway + 1,
            last,
            cooldown,
            held: HashMap::new(),
            released: BTreeMap::new(),
            releases: 0,
            fresh: gateway + 1,
        }
    }

    pub(super) fn set_cooldown(&mut self, cooldown: Duration) {
        self.cooldown = cooldown;
    }

    pub(super) fn gateway_address(&self) -> u128 {
        self.network + self.gateway
    }

    pub(super) fn address(&self, host: u128) -> u128 {
        self.network + host
    }

    /// The host number of an address, if clients can have it.
    pub(super) fn host(&self, address: u128) -> Option<u128> {
        address.checked_sub(self.network).filter(|host| (self.first..=self.last).contains(host))
    }

    /// The device that holds `host`, live or not.
    pub(super) fn holder(&self, host: u128) -> Option<&str> {
        self.held.get(&host).map(|holder| holder.device.as_str())
    }

    /// Tells whether `device` may have `host` at `now`: nobody holds it, `device` does, or its holder's cool-down
    /// ended.
    pub(super) fn is_claimable(&self, host: u128, device: &str, now: Instant) -> bool {
        self.held.get(&host).is_none_or(|holder| {
            holder.device == device || holder.released.is_some_and(|(released, _)| self.has_cooled(released, now))
        })
    }

    /// A number for a new holder: `preferred` if nobody ever held it, else the lowest nobody ever held, else the one
    /// released longest ago if its cool-down ended.
    pub(super) fn choose(&mut self, preferred: Option<u128>, now: Instant) -> Option<u128> {
        let last_chosen = self.last.min(LAST_CHOSEN);
        let in_range = self.first..=last_chosen;
        if let Some(host) = preferred.filter(|host| in_range.contains(host) && !self.held.contains_key(host)) {
            return Some(host);
        }
        // Every number is passed over once in the life of the pool, so this is constant time on average.
        while self.held.contains_key(&self.fresh) {
            self.fresh += 1;
        }
        if self.fresh <= last_chosen {
            return Some(self.fresh);
        }
        let ((released, _), host) = self.released.first_key_value()?;
        self.has_cooled(*released, now).then_some(*host)
    }

    /// Makes `device` the live holder of `host`, and returns the device that lost it, if another did.
    pub(super) fn claim(&mut self, host: u128, device: &str) -> Option<String> {
        if let Some(holder) = self.held.get_mut(&host) {
            if let Some(order) = holder.released.take() {
                self.released.remove(&order);
            }
            if holder.device == device {
                return None;
            }
            return Some(std::mem::replace(&mut holder.device, device.to_owned()));
        }
        self.held.insert(host, Holder { device: device.to_owned(), released: None });
        None
    }

    /// Begins the cool-down of `host`, unless it is cooling already.
    pub(super) fn release(&mut self, host: u128, now: Instant) {
        if let Some(holder) = self.held.get_mut(&host).filter(|holder| holder.released.is_none()) {
            let order = (now, self.releases);
            self.releases += 1;
            holder.released = Some(order);
            self.released.insert(order, host);
        }
    }

    fn has_cooled(&self, released: Instant, now: Instant) -> bool {
        now.saturating_duration_since(released) >= self.cooldown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(host_bits: u32, last_is_broadcast: bool) -> (u128, u128, u128) {
        let hosts = Hosts::new(0, host_bits, last_is_broadcast, Duration::ZERO);
        (hosts.gateway, hosts.first, hosts.last)
    }

    #[test]
    fn hosts_exclude_network_gateway_and_broadcast() {
        assert_eq!(range(8, true), (1, 2, 254));
        assert_eq!(range(2, true), (1, 2, 2));
        assert_eq!(range(1, true), (0, 1, 1));
        assert_eq!(range(64, false), (1, 2, u128::from(u64::MAX)));
        assert_eq!(range(2, false), (1, 2, 3));
        assert_eq!(range(1, false), (0, 1, 1));
        assert_eq!(range(128, false), (1, 2, u128::MAX));
    }

    #[test]
    fn network_of_one_address_has_no_client() {
        let hosts = Hosts::new(7, 0, true, Duration::ZERO);
        assert_eq!(hosts.gateway_address(), 7);
        assert_eq!(hosts.host(7), None);
        assert_eq!(hosts.host(8), None);
    }
}

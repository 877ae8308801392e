//! The routes to the prefixes of addresses, which the kernel makes along with an address, and not again when somebody
//! removes them alone.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use ipnet::IpNet;

use super::Found;
use crate::changes::HostChanges;
use crate::error::HostError;
use crate::journal::{Change, RecordedLink};
use crate::netlink::Family;

impl HostChanges {
    pub(super) async fn hold_prefix_routes(&mut self, gone: &HashSet<u32>, now: Instant) {
        if self.tunnel_closed {
            return;
        }
        for (link, address) in self.addresses_with_prefix(gone) {
            let family = if address.addr().is_ipv4() { Family::V4 } else { Family::V6 };
            let guard = format!("{family} prefix route of {}", link.name);
            let found = match self.netlink.link_towards(some_client(address)).await {
                Ok(index) if index == Some(link.index) => Found::Right,
                Ok(_) => Found::Wrong("was removed".to_owned()),
                Err(error) => Found::unknown(&error),
            };
            if self.history.must_mend(&guard, found, now) {
                let done = self.make_prefix_route(&link, address).await;
                self.history.mended(&guard, done, now);
            }
        }
    }

    /// The kernel makes the route when the address comes.
    async fn make_prefix_route(&self, link: &RecordedLink, address: IpNet) -> Result<(), HostError> {
        self.netlink.remove_recorded_address(link, address).await?;
        self.netlink.put_back_address(link, address).await
    }

    fn addresses_with_prefix(&self, gone: &HashSet<u32>) -> Vec<(RecordedLink, IpNet)> {
        let of = |change: &Change| {
            let Change::Address { link, address } = change else { return None };
            (address.prefix_len() < address.max_prefix_len()).then(|| (link.clone(), *address))
        };
        let recorded = self.journal.live().iter().filter_map(|entry| of(&entry.change));
        recorded.filter(|(link, _)| !gone.contains(&link.index)).collect()
    }
}

/// An address in the prefix that is not the host's own: the own one is the first of its prefix.
fn some_client(own: IpNet) -> IpAddr {
    match own.network() {
        IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits().saturating_add(2)).into(),
        IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits().saturating_add(2)).into(),
    }
}

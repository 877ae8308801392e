//! How many places each network has: of every size that counts, so that whoever owns a large one cannot take all places
//! by its many small ones.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Sizes of networks that have a share, in prefix bits, the smallest network first: what one site is usually given, up
/// to what one provider is. A share is twice that of the size before.
const SIZES_V4: [u8; 3] = [24, 20, 16];
const SIZES_V6: [u8; 4] = [56, 48, 40, 32];
/// The part of all places that a network of the smallest size may take.
const SMALLEST_PART: usize = 16;
/// Where there are few places, so many may be taken at least: a household that reconnects at once.
const LEAST: usize = 8;

/// What networks of each size may take.
pub(crate) struct Shares {
    smallest: usize,
}

impl Shares {
    /// The shares of so many places.
    pub(crate) fn of(places: usize) -> Self {
        Self { smallest: (places / SMALLEST_PART).max(LEAST.min(places.div_ceil(2))) }
    }

    /// The share of a network by the place of its size among the sizes.
    fn of_size(&self, place: usize) -> usize {
        self.smallest << place
    }
}

/// How many places are taken from each network.
#[derive(Default)]
pub(crate) struct Networks(HashMap<IpNet, usize>);

impl Networks {
    /// The smallest network of a client whose share is taken.
    pub(crate) fn narrowest_full(&self, client: IpAddr, shares: &Shares) -> Option<IpNet> {
        let mut sizes = networks_of(client).enumerate();
        sizes.find(|(place, network)| self.taken(network) >= shares.of_size(*place)).map(|(_, network)| network)
    }

    pub(crate) fn add(&mut self, client: IpAddr) {
        for network in networks_of(client) {
            *self.0.entry(network).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, client: IpAddr) {
        for network in networks_of(client) {
            let count = self.0.get_mut(&network).expect("who is removed was added");
            *count -= 1;
            if *count == 0 {
                self.0.remove(&network);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn taken(&self, network: &IpNet) -> usize {
        self.0.get(network).copied().unwrap_or(0)
    }
}

/// The networks of a client that have a share, the smallest first.
fn networks_of(client: IpAddr) -> impl Iterator<Item = IpNet> {
    let sizes: &[u8] = if client.is_ipv4() { &SIZES_V4 } else { &SIZES_V6 };
    sizes.iter().map(move |bits| IpNet::new(client, *bits).expect("the sizes fit their family").trunc())
}

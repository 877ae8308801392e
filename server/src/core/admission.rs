//! Connections that have not logged in yet: how many there may be, in all and from one network.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

/// Connections above which clients must first prove their address (QUIC Retry, RFC 9000 section 8.1.2).
const RETRY_ABOVE: usize = 50;
/// Connections from one network: enough for an office that reconnects at once, and a small part of the whole.
const LIMIT_PER_NETWORK: usize = 64;
/// What counts as one network: the usual least assignment to one site, in prefix bits.
const NETWORK_V4: u8 = 24;
const NETWORK_V6: u8 = 56;

/// The connections on their way in.
pub(crate) struct Pending {
    limit: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_network: HashMap<IpNet, usize>,
}

/// Whether there is room for one more connection.
pub(crate) enum Admission {
    /// There is; the place is held until it is dropped.
    Place(Place),
    /// Only for a client that proves its address first.
    ProveAddress,
    /// There is not.
    Full,
}

/// The place of one connection on its way in.
pub(crate) struct Place {
    pending: Arc<Pending>,
    network: IpNet,
}

impl Pending {
    /// Makes room for `limit` connections in all.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, counts: Mutex::default() })
    }

    /// Asks for a place for a client; `proven` says that its address is no forgery.
    pub(crate) fn admit(self: &Arc<Self>, client: IpAddr, proven: bool) -> Admission {
        let network = network(client);
        let mut counts = self.counts();
        let from_network = counts.by_network.get(&network).copied().unwrap_or(0);
        // Only proven addresses fill the account of their network, or forged ones would shut others out.
        if counts.total >= self.limit || (proven && from_network >= LIMIT_PER_NETWORK) {
            return Admission::Full;
        }
        if !proven && (counts.total >= RETRY_ABOVE || from_network >= LIMIT_PER_NETWORK) {
            return Admission::ProveAddress;
        }
        counts.total += 1;
        counts.by_network.insert(network, from_network + 1);
        Admission::Place(Place { pending: Arc::clone(self), network })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.pending.counts();
        counts.total = counts.total.saturating_sub(1);
        if let Some(count) = counts.by_network.get_mut(&self.network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.by_network.remove(&self.network);
            }
        }
    }
}

fn network(client: IpAddr) -> IpNet {
    let client = client.to_canonical();
    let bits = if client.is_ipv4() { NETWORK_V4 } else { NETWORK_V6 };
    IpNet::new(client, bits).map_or_else(|_| IpNet::from(client), |network| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Takes places until there is none; gives them and what was said last.
    fn fill(pending: &Arc<Pending>, client: &str, proven: bool) -> (Vec<Place>, Admission) {
        let mut places = Vec::new();
        loop {
            match pending.admit(address(client), proven) {
                Admission::Place(place) => places.push(place),
                full @ (Admission::ProveAddress | Admission::Full) => return (places, full),
            }
        }
    }

    #[test]
    fn unproven_clients_must_prove_their_address_when_many_are_pending() {
        let pending = Pending::new(1000);
        let (places, full) = fill(&pending, "192.0.2.1", false);
        assert_eq!(places.len(), RETRY_ABOVE);
        assert!(matches!(full, Admission::ProveAddress));
        assert!(matches!(pending.admit(address("198.51.100.1"), false), Admission::ProveAddress));
        assert!(matches!(pending.admit(address("198.51.100.1"), true), Admission::Place(_)));
    }

    #[test]
    fn one_network_cannot_take_all_places() {
        let pending = Pending::new(1000);
        let (places, full) = fill(&pending, "2001:db8:0:1::1", true);
        assert_eq!(places.len(), LIMIT_PER_NETWORK);
        assert!(matches!(full, Admission::Full));
        assert!(matches!(pending.admit(address("2001:db8:0:ff::2"), true), Admission::Full), "same /56");
        assert!(matches!(pending.admit(address("2001:db8:0:100::1"), true), Admission::Place(_)), "another /56");
    }

    #[test]
    fn mapped_and_plain_ipv4_are_one_network() {
        let pending = Pending::new(1000);
        let (_places, _) = fill(&pending, "::ffff:192.0.2.1", true);
        assert!(matches!(pending.admit(address("192.0.2.200"), true), Admission::Full));
    }

    #[test]
    fn all_places_taken_means_no_room_for_anyone() {
        let pending = Pending::new(10);
        let (places, full) = fill(&pending, "192.0.2.1", true);
        assert_eq!(places.len(), 10);
        assert!(matches!(full, Admission::Full));
        assert!(matches!(pending.admit(address("198.51.100.1"), true), Admission::Full));
    }

    #[test]
    fn place_is_free_again_after_its_connection() {
        let pending = Pending::new(1);
        let (places, _) = fill(&pending, "192.0.2.1", true);
        drop(places);
        assert!(matches!(pending.admit(address("192.0.2.1"), true), Admission::Place(_)));
        assert!(pending.counts().by_network.is_empty());
    }
}

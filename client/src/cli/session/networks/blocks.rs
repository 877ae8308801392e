//! The networks that block UDP, as they are kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long it is remembered that a network blocks UDP, in seconds.
const LASTS: u64 = Duration::from_secs(30 * 24 * 60 * 60).as_secs();
/// Networks remembered at most; the oldest goes for a new one.
const MOST: usize = 64;

/// Networks that block UDP, those found last at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UdpBlocks {
    networks: Vec<BlockedNetwork>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockedNetwork {
    /// What it is known by.
    network: String,
    /// When UDP was found blocked last, in seconds of Unix time.
    found: u64,
}

impl UdpBlocks {
    /// Whether a network is among them. A clock that was set back makes nothing last longer.
    pub(super) fn contains(&self, network: &str, now: u64) -> bool {
        self.networks.iter().any(|known| known.network == network && known.lasts(now))
    }

    /// Adds a network, or removes it; says whether that changed anything worth keeping.
    pub(super) fn note(&mut self, network: &str, blocks: bool, now: u64) -> bool {
        let before = self.networks.len();
        self.networks.retain(|known| known.network != network && known.lasts(now));
        if !blocks {
            return self.networks.len() != before;
        }
        let excess = (self.networks.len() + 1).saturating_sub(MOST);
        self.networks.drain(..excess);
        self.networks.push(BlockedNetwork { network: network.to_owned(), found: now });
        true
    }
}

impl BlockedNetwork {
    fn lasts(&self, now: u64) -> bool {
        (self.found..self.found.saturating_add(LASTS)).contains(&now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000_000;

    #[test]
    fn network_is_remembered_for_thirty_days_or_until_udp_passes_there() {
        let mut blocks = UdpBlocks::default();
        assert!(blocks.note("hotel", true, NOW));
        assert!(blocks.contains("hotel", NOW + LASTS - 1) && !blocks.contains("hotel", NOW + LASTS));
        assert!(!blocks.contains("home", NOW) && !blocks.contains("hotel", NOW - 1));
        assert!(blocks.note("hotel", true, NOW + 5), "it lasts from the last time on");
        assert!(blocks.contains("hotel", NOW + LASTS));
        assert!(blocks.note("hotel", false, NOW + 6) && !blocks.note("hotel", false, NOW + 6));
        assert!(!blocks.contains("hotel", NOW + 6));
    }

    #[test]
    fn oldest_network_goes_for_the_one_too_many() {
        let mut blocks = UdpBlocks::default();
        for number in 0..=64 {
            blocks.note(&format!("network {number}"), true, NOW + number);
        }
        assert_eq!(blocks.networks.len(), MOST);
        assert!(!blocks.contains("network 0", NOW + 64) && blocks.contains("network 1", NOW + 64));
    }
}

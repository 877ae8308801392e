//! Traffic counters of a session, written by the packet path and read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};

use adit_proto::drop_reason::DropReason;

/// Packets and bytes each way, seen from this host, and drops by reason. All updates are relaxed: figures of one moment
/// may be a few packets apart.
#[derive(Debug)]
pub struct Counters {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    rx_reordered: AtomicU64,
    drops: [AtomicU64; DropReason::COUNT],
}

/// Counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets received from the peer.
    pub rx_packets: u64,
    /// Bytes of packets received from the peer.
    pub rx_bytes: u64,
    /// Packets sent to the peer.
    pub tx_packets: u64,
    /// Bytes of packets sent to the peer.
    pub tx_bytes: u64,
    /// Packets received from the peer by `esp` after one with a higher number. Where the peer sends for a session with
    /// one worker, as a client does, that is reordering on the way. Where it has several, as a gateway does, each
    /// numbers its batches by itself, and two that send at the same moment count as well, while the order within each
    /// flow is kept.
    pub rx_reordered: u64,
    /// Dropped packets by reason, only reasons that occurred.
    pub drops: Vec<(&'static str, u64)>,
}

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            rx_packets: zero(),
            rx_bytes: zero(),
            tx_packets: zero(),
            tx_bytes: zero(),
            rx_reordered: zero(),
            drops: std::array::from_fn(|_| zero()),
        }
    }
}

impl Counters {
    /// Counts packets received from the peer.
    pub fn count_rx(&self, packets: u64, bytes: u64) {
        self.rx_packets.fetch_add(packets, Ordering::Relaxed);
        self.rx_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes of packets received and sent.
    pub fn bytes(&self) -> u64 {
        self.rx_bytes.load(Ordering::Relaxed).wrapping_add(self.tx_bytes.load(Ordering::Relaxed))
    }

    /// Counts received packets that came after one with a higher number; see [`Traffic::rx_reordered`].
    pub fn count_reordered(&self, packets: u64) {
        if packets > 0 {
            self.rx_reordered.fetch_add(packets, Ordering::Relaxed);
        }
    }

    /// Counts packets sent to the peer.
    pub fn count_tx(&self, packets: u64, bytes: u64) {
        self.tx_packets.fetch_add(packets, Ordering::Relaxed);
        self.tx_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts one dropped packet.
    pub fn count_drop(&self, reason: DropReason) {
        self.count_drops(1, reason);
    }

    /// Counts packets dropped for the same reason.
    pub fn count_drops(&self, packets: usize, reason: DropReason) {
        let counter = self.drops.get(reason.index()).expect("there is a counter for each reason");
        counter.fetch_add(packets as u64, Ordering::Relaxed);
    }

    /// Packets received from the peer, and sent to it, so far.
    pub fn packets(&self) -> (u64, u64) {
        (self.rx_packets.load(Ordering::Relaxed), self.tx_packets.load(Ordering::Relaxed))
    }

    /// The counters now.
    pub fn traffic(&self) -> Traffic {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            rx_packets: load(&self.rx_packets),
            rx_bytes: load(&self.rx_bytes),
            tx_packets: load(&self.tx_packets),
            tx_bytes: load(&self.tx_bytes),
            rx_reordered: load(&self.rx_reordered),
            drops: DropReason::ALL
                .iter()
                .zip(&self.drops)
                .map(|(reason, counter)| (reason.label(), load(counter)))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reasons_that_occurred_are_listed() {
        let counters = Counters::default();
        counters.count_drop(DropReason::TooBig);
        counters.count_drop(DropReason::TooBig);
        counters.count_rx(3, 300);
        let traffic = counters.traffic();
        assert_eq!(traffic.drops, vec![(DropReason::TooBig.label(), 2)]);
        assert_eq!((traffic.rx_packets, traffic.rx_bytes, traffic.tx_packets), (3, 300, 0));
    }
}

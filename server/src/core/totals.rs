//! What ended sessions leave behind: how many there were, why they ended, and their traffic.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_net::carrier::counters::Traffic;

use super::sessions::Ending;

/// The sums over all sessions that have ended in this run of the gateway. They take the same memory however many there
/// were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndedSessions {
    /// Ended by the client, or lost.
    pub left: u64,
    /// Ended since the device connected again.
    pub replaced: u64,
    /// Ended since the device was revoked.
    pub revoked: u64,
    /// Ended since a limit of the policy was reached.
    pub limited: u64,
    /// Ended since the login of the user was over.
    pub login_over: u64,
    /// Ended since the device's certificate was over.
    pub certificate_over: u64,
    /// Ended since the gateway stops.
    pub shutdown: u64,
    /// Packets received from clients.
    pub rx_packets: u64,
    /// Bytes received from clients.
    pub rx_bytes: u64,
    /// Packets sent to clients.
    pub tx_packets: u64,
    /// Bytes sent to clients.
    pub tx_bytes: u64,
    /// Packets received after one with a higher number.
    pub rx_reordered: u64,
    /// Dropped packets by reason, only reasons that occurred.
    pub drops: BTreeMap<&'static str, u64>,
}

/// Adds up what ends.
#[derive(Debug, Default)]
pub struct Totals(Mutex<EndedSessions>);

impl Totals {
    /// Adds a session: its traffic, and why the gateway ended it, if it did.
    pub fn add(&self, ending: Option<Ending>, traffic: &Traffic) {
        let mut sums = self.sums();
        let count = match ending {
            None => &mut sums.left,
            Some(Ending::Replaced) => &mut sums.replaced,
            Some(Ending::Revoked | Ending::Disabled) => &mut sums.revoked,
            Some(Ending::Crowded | Ending::Idle | Ending::OutsideHours) => &mut sums.limited,
            Some(Ending::LoginOver) => &mut sums.login_over,
            Some(Ending::CertificateOver) => &mut sums.certificate_over,
            Some(Ending::Shutdown | Ending::Restart(_)) => &mut sums.shutdown,
        };
        *count += 1;
        sums.rx_packets += traffic.rx_packets;
        sums.rx_bytes += traffic.rx_bytes;
        sums.tx_packets += traffic.tx_packets;
        sums.tx_bytes += traffic.tx_bytes;
        sums.rx_reordered += traffic.rx_reordered;
        for (reason, count) in &traffic.drops {
            *sums.drops.entry(reason).or_default() += count;
        }
    }

    /// The sums now.
    pub fn so_far(&self) -> EndedSessions {
        self.sums().clone()
    }

    fn sums(&self) -> MutexGuard<'_, EndedSessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_why_they_ended_and_their_traffic_is_added_up() {
        let totals = Totals::default();
        let traffic =
            |rx_packets, drops| Traffic { rx_packets, rx_bytes: 100 * rx_packets, drops, ..Traffic::default() };
        totals.add(None, &traffic(1, vec![("no_route", 2)]));
        totals.add(Some(Ending::Revoked), &traffic(2, vec![("no_route", 3), ("queue_full", 1)]));
        totals.add(None, &traffic(0, vec![]));
        let sums = totals.so_far();
        assert_eq!((sums.left, sums.replaced, sums.revoked, sums.shutdown), (2, 0, 1, 0));
        assert_eq!((sums.rx_packets, sums.rx_bytes, sums.tx_packets), (3, 300, 0));
        assert_eq!(sums.drops, BTreeMap::from([("no_route", 5), ("queue_full", 1)]));
    }
}

//! What a gateway changes on a live session, at a pace that a host stands.

use std::time::{Duration, Instant};

use crate::protocols::NetworkSettings;

/// Shortest time between two changes to the host for a gateway that goes on changing its mind; of what it says in
/// between, the newest counts. The first change of a while is made at once.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// What was changed and is not applied yet.
#[derive(Debug, Default)]
pub(super) struct Changes {
    network: Option<NetworkSettings>,
    mtu: Option<u16>,
    /// When they are applied, while there are some.
    due: Option<Instant>,
    last_applied: Option<Instant>,
}

impl Changes {
    pub(super) fn take_network(&mut self, network: NetworkSettings, now: Instant) {
        self.network = Some(network);
        self.schedule(now);
    }

    pub(super) fn take_mtu(&mut self, mtu: u16, now: Instant) {
        self.mtu = Some(mtu);
        self.schedule(now);
    }

    /// When [`Self::apply`] must be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Gives out what is to be applied now.
    pub(super) fn apply(&mut self, now: Instant) -> (Option<NetworkSettings>, Option<u16>) {
        self.due = None;
        self.last_applied = Some(now);
        (self.network.take(), self.mtu.take())
    }

    fn schedule(&mut self, now: Instant) {
        let earliest = self.last_applied.map_or(now, |last| now.max(last + SHORTEST_INTERVAL));
        self.due.get_or_insert(earliest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_change_is_made_at_once_and_then_the_newest_once_a_second() {
        let mut changes = Changes::default();
        let now = Instant::now();
        changes.take_mtu(1400, now);
        assert_eq!(changes.due(), Some(now));
        assert_eq!(changes.apply(now), (None, Some(1400)));
        assert_eq!(changes.due(), None);
        let soon = now + SHORTEST_INTERVAL / 10;
        for mtu in 1300..1400 {
            changes.take_mtu(mtu, soon);
        }
        changes.take_network(NetworkSettings::default(), soon);
        assert_eq!(changes.due(), Some(now + SHORTEST_INTERVAL));
        assert_eq!(changes.apply(now + SHORTEST_INTERVAL), (Some(NetworkSettings::default()), Some(1399)));
        let late = now + SHORTEST_INTERVAL * 60;
        changes.take_mtu(1280, late);
        assert_eq!(changes.due(), Some(late));
    }
}

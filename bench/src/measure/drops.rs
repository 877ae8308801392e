//! Packets that were dropped, as the links and the programs of both ends tell, and the impaired network between them.

use std::collections::BTreeMap;

use super::accounting::link_drops;
use super::meter::{count, reading};
use crate::report::model::Reading;
use crate::systems::Running;

/// All drops until one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Drops {
    /// Of the links by which packets enter and leave the tunnel; `None` where they do not tell.
    links: Option<u64>,
    /// Of the programs, by reason.
    programs: BTreeMap<String, u64>,
    /// Frames that the network between the ends was too slow for; `None` where it is a plain cable.
    relay: Option<u64>,
}

impl Drops {
    /// Now.
    pub(super) fn of(running: &Running) -> Self {
        let links = [&running.client, &running.gateway].map(|end| link_drops(&end.host, &end.link).ok());
        Self { links: links.into_iter().sum(), programs: running.drops(), relay: running.relay_overrun() }
    }

    /// Whether the network between the ends lost frames since `before` that its profile does not want lost.
    pub(super) fn relay_was_overrun(&self, before: &Self) -> bool {
        self.relay > before.relay
    }

    /// What was dropped since `before`; of the programs only reasons that occurred.
    pub(super) fn since(&self, before: &Self) -> Vec<Reading> {
        let packets = |metric: &str, after: u64, before: u64| {
            // A program that was started anew has forgotten what it counted.
            reading(metric, "packets", count(after.saturating_sub(before)))
        };
        let links = self.links.zip(before.links).map(|(after, before)| packets("device_drops", after, before));
        let reasons = self.programs.iter().map(|(reason, after)| {
            packets(&format!("drop_{reason}"), *after, before.programs.get(reason).copied().unwrap_or_default())
        });
        let frames =
            |(after, before): (u64, u64)| reading("relay_overrun", "frames", count(after.saturating_sub(before)));
        let relay = self.relay.zip(before.relay).map(frames);
        links.into_iter().chain(relay).chain(reasons.filter(|reading| reading.value > 0.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(links: Option<u64>, programs: &[(&str, u64)]) -> Drops {
        let programs = programs.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Drops { links, programs, relay: None }
    }

    #[test]
    fn only_reasons_that_occurred_meanwhile_are_told() {
        let before = drops(Some(7), &[("replayed", 5), ("too_big", 1)]);
        let after = drops(Some(7), &[("no_route", 2), ("replayed", 5), ("too_big", 4)]);
        let told: Vec<_> = after.since(&before).into_iter().map(|one| (one.metric, one.value)).collect();
        let expected = [("device_drops", 0.0), ("drop_no_route", 2.0), ("drop_too_big", 3.0)];
        assert_eq!(told, expected.map(|(metric, value)| (metric.to_owned(), value)));
    }

    #[test]
    fn frames_that_the_network_was_too_slow_for_are_told() {
        let [before, after] = [2, 5].map(|relay| Drops { relay: Some(relay), ..drops(None, &[]) });
        assert_eq!(after.since(&before), [reading("relay_overrun", "frames", 3.0)]);
        assert_eq!(before.since(&before), [reading("relay_overrun", "frames", 0.0)]);
        assert!(after.relay_was_overrun(&before) && !before.relay_was_overrun(&before));
        assert!(!drops(None, &[]).relay_was_overrun(&drops(None, &[])));
    }

    #[test]
    fn forgotten_drops_are_none() {
        assert_eq!(drops(None, &[("replayed", 2)]).since(&drops(Some(7), &[("replayed", 5)])), []);
    }
}

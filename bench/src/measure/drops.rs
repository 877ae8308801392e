//! Packets that were dropped, as the links and the programs of both ends tell.

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
}

impl Drops {
    /// Now.
    pub(super) fn of(running: &Running) -> Self {
        let links = [&running.client, &running.gateway].map(|end| link_drops(&end.host, &end.link).ok());
        Self { links: links.into_iter().sum(), programs: running.drops() }
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
        links.into_iter().chain(reasons.filter(|reading| reading.value > 0.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(links: Option<u64>, programs: &[(&str, u64)]) -> Drops {
        Drops { links, programs: programs.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect() }
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
    fn forgotten_drops_are_none() {
        assert_eq!(drops(None, &[("replayed", 2)]).since(&drops(Some(7), &[("replayed", 5)])), []);
    }
}

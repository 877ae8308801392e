//! Routes.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use super::Found;
use crate::changes::HostChanges;
use crate::error::HostError;
use crate::journal::Change;
use crate::netlink::{Family, ListedRoute, Route};

/// A route, and the index of the link it leads out of.
type Recorded = (Route, Option<u32>);

impl HostChanges {
    /// Routes that lead out of links in `gone` are left alone: they went with them.
    pub(super) async fn hold_routes(&mut self, gone: &HashSet<u32>, now: Instant) {
        for ((family, table), wanted) in self.recorded_routes(gone) {
            let guard = format!("{family} routes of table {table}");
            let (found, missing) = match self.netlink.listed_routes(family, table).await {
                Ok(listed) => look(&wanted, &listed.into_iter().collect()),
                Err(error) => (Found::unknown(&error), Vec::new()),
            };
            if self.history.must_mend(&guard, found, now) {
                let done = self.put_back_routes(&missing).await;
                self.history.mended(&guard, done, now);
            }
        }
    }

    /// What leads nowhere comes first, so that what leads out of a link never stands alone.
    async fn put_back_routes(&self, missing: &[Recorded]) -> Result<(), HostError> {
        let (nowhere, elsewhere): (Vec<_>, Vec<_>) = missing.iter().partition(|(_, link)| link.is_none());
        let mut done = Ok(());
        for (route, link) in nowhere.into_iter().chain(elsewhere) {
            done = self.netlink.put_back_route(route, *link).await.and(done);
        }
        done
    }

    fn recorded_routes(&self, gone: &HashSet<u32>) -> BTreeMap<(Family, u32), Vec<Recorded>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for entry in self.journal.live() {
            let Change::Route { route, link } = &entry.change else { continue };
            let link = link.as_ref().map(|link| link.index);
            if link.is_some_and(|index| gone.contains(&index)) {
                continue;
            }
            let family = if route.prefix.addr().is_ipv4() { Family::V4 } else { Family::V6 };
            found.entry((family, route.table)).or_default().push((route.clone(), link));
        }
        found
    }
}

/// What is to be said of the routes of a table, and which are to be put back.
fn look(wanted: &[Recorded], listed: &HashSet<ListedRoute>) -> (Found, Vec<Recorded>) {
    let stands = |(route, link): &&Recorded| listed.contains(&ListedRoute::expected(route, *link));
    let missing: Vec<Recorded> = wanted.iter().filter(|recorded| !stands(recorded)).cloned().collect();
    let found = match missing.len() {
        0 => Found::Right,
        count => Found::Wrong(format!("{count} of {} were removed or replaced", wanted.len())),
    };
    (found, missing)
}

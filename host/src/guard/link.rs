//! Settings and names of links.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use super::Found;
use crate::changes::HostChanges;
use crate::error::HostError;
use crate::journal::{Change, Entry, RecordedLink};
use crate::netlink::{LinkSettings, ListedLink};

impl HostChanges {
    /// Returns the indices of links that were deleted.
    pub(super) async fn hold_links(&mut self, now: Instant) -> HashSet<u32> {
        let links: BTreeSet<RecordedLink> =
            self.journal.live().iter().filter_map(|entry| entry.change.link()).cloned().collect();
        let mut gone = HashSet::new();
        for link in links {
            let guard = format!("link {}", link.name);
            match self.netlink.link_at(link.index).await {
                Ok(Some(listed)) => self.hold_link(&link, &guard, listed, now).await,
                Ok(None) => {
                    self.history.lost(&guard, "was deleted", now);
                    gone.insert(link.index);
                }
                Err(error) => {
                    self.history.must_mend(&guard, Found::unknown(&error), now);
                }
            }
        }
        gone
    }

    async fn hold_link(&mut self, link: &RecordedLink, guard: &str, listed: ListedLink, now: Instant) {
        let mut wanted = wanted_settings(self.journal.live(), link);
        if self.tunnel_closed {
            wanted.up = None;
        }
        // A link that we only hang something on may have any name.
        let is_renamed = wanted != LinkSettings::default() && listed.name != link.name;
        let differences = differences(&wanted, &listed.settings, is_renamed);
        let found =
            if differences.is_empty() { Found::Right } else { Found::Wrong(format!("was {}", differences.join(", "))) };
        if self.history.must_mend(guard, found, now) {
            let done = self.put_back_link(link, is_renamed, wanted).await;
            self.history.mended(guard, done, now);
        }
    }

    async fn put_back_link(
        &self,
        link: &RecordedLink,
        is_renamed: bool,
        wanted: LinkSettings,
    ) -> Result<(), HostError> {
        if is_renamed {
            let renamed = self.netlink.rename_recorded_link(link).await;
            if renamed.as_ref().err().and_then(HostError::errno) == Some(libc::EBUSY) {
                let down = LinkSettings { up: Some(false), ..LinkSettings::default() };
                self.netlink.set_recorded_link(link, down).await?;
                self.netlink.rename_recorded_link(link).await?;
            } else {
                renamed?;
            }
        }
        self.netlink.set_recorded_link(link, wanted).await
    }
}

/// What this process wants of a link, by all changes to it together.
pub(crate) fn wanted_settings(changes: &[Entry], link: &RecordedLink) -> LinkSettings {
    let mut wanted = LinkSettings::default();
    for entry in changes {
        if let Change::Link { link: of, set, .. } = &entry.change
            && of.index == link.index
        {
            wanted.mtu = set.mtu.or(wanted.mtu);
            wanted.up = set.up.or(wanted.up);
            wanted.gso_max_segs = set.gso_max_segs.or(wanted.gso_max_segs);
        }
    }
    wanted
}

impl LinkSettings {
    /// Whether these settings say what `other` says, and perhaps more.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let covers = |own: Option<u32>, other: Option<u32>| other.is_none() || own == other;
        (other.up.is_none() || self.up == other.up)
            && covers(self.mtu, other.mtu)
            && covers(self.gso_max_segs, other.gso_max_segs)
    }
}

/// What was done to a link, in words that go on after "was". The size of superpackets matters for speed alone, and some
/// kernels keep their own.
fn differences(wanted: &LinkSettings, now: &LinkSettings, is_renamed: bool) -> Vec<&'static str> {
    let up = match (wanted.up, now.up) {
        (Some(true), Some(false)) => Some("set down"),
        (Some(false), Some(true)) => Some("set up"),
        _ => None,
    };
    let mtu = (wanted.mtu.is_some() && wanted.mtu != now.mtu).then_some("given another MTU");
    let renamed = is_renamed.then_some("renamed");
    [renamed, up, mtu].into_iter().flatten().collect()
}

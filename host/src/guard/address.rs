//! Addresses of links.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use ipnet::IpNet;

use super::Found;
use crate::changes::HostChanges;
use crate::error::HostError;
use crate::journal::{Change, RecordedLink};
use crate::netlink::ListedAddress;

impl HostChanges {
    pub(super) async fn hold_addresses(&mut self, gone: &HashSet<u32>, now: Instant) {
        for (link, wanted) in self.recorded_addresses() {
            // The kernel takes IPv6 addresses from a link that is set down.
            if self.tunnel_closed || gone.contains(&link.index) {
                continue;
            }
            let guard = format!("addresses of {}", link.name);
            let (found, missing) = match self.netlink.listed_addresses(&link).await {
                Ok(listed) => look(&wanted, &listed),
                Err(error) => (Found::unknown(&error), Vec::new()),
            };
            if self.history.must_mend(&guard, found, now) {
                let done = self.put_back_addresses(&link, &missing).await;
                self.history.mended(&guard, done, now);
            }
        }
    }

    /// Gives a link those of its addresses that it lost when it was set down.
    pub(super) async fn put_back_addresses_of(&self, link: &RecordedLink) {
        let wanted = self.recorded_addresses().remove(link).unwrap_or_default();
        // What is there already is refused, and what stays missing is found by the guard.
        drop(self.put_back_addresses(link, &wanted).await);
    }

    async fn put_back_addresses(&self, link: &RecordedLink, missing: &[IpNet]) -> Result<(), HostError> {
        let mut done = Ok(());
        for address in missing {
            done = self.netlink.put_back_address(link, *address).await.and(done);
        }
        done
    }

    fn recorded_addresses(&self) -> BTreeMap<RecordedLink, Vec<IpNet>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for entry in self.journal.live() {
            if let Change::Address { link, address } = &entry.change {
                found.entry(link.clone()).or_default().push(*address);
            }
        }
        found
    }
}

/// What is to be said of the addresses that a link has, and which are to be put back.
fn look(wanted: &[IpNet], listed: &[ListedAddress]) -> (Found, Vec<IpNet>) {
    let stays = |address: &IpNet| listed.contains(&ListedAddress { address: *address, permanent: true });
    let missing: Vec<IpNet> = wanted.iter().filter(|address| !stays(address)).copied().collect();
    let found = match missing.len() {
        0 => Found::Right,
        count => Found::Wrong(format!("{count} of {} were removed or limited in time", wanted.len())),
    };
    (found, missing)
}

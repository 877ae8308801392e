//! Undoing recorded changes. Each may have been undone already, or never begun, or lost its link: all that counts as
//! done.

use std::io;

use super::{HostChanges, HostError};
use crate::dns::Resolved;
use crate::journal::{Change, Entry};
use crate::{answers, firewall, kill_switch, owned_table, sysctl};

impl HostChanges {
    /// Undoes the changes that are picked, newest first, going on after a failure.
    pub(super) async fn undo_where(&mut self, pick: impl Fn(&Change) -> bool) -> Result<(), HostError> {
        let picked: Vec<_> = self.journal.live().iter().filter(|entry| pick(&entry.change)).cloned().collect();
        let mut failures = Vec::new();
        let mut undone = Vec::new();
        for Entry { id, change } in picked.iter().rev() {
            match self.undo_change(change).await {
                Ok(()) => undone.push(*id),
                Err(error) => {
                    tracing::debug!(%error, ?change, "change not undone");
                    failures.push(error);
                }
            }
            // To restore a file twice could take back what somebody wrote in between; all else may be undone again.
            if matches!(change, Change::ResolverFile(_)) {
                failures.extend(self.journal.settle_all(&std::mem::take(&mut undone)).err());
            }
        }
        failures.extend(self.journal.settle_all(&undone).err());
        if failures.is_empty() { Ok(()) } else { Err(HostError::Undo { failures }) }
    }

    async fn undo_change(&self, change: &Change) -> Result<(), HostError> {
        if let Some(link) = change.link()
            && self.netlink.link_at(link.index).await?.is_none()
        {
            // The link is gone and has taken its settings along.
            return Ok(());
        }
        match change {
            Change::Sysctl { key, previous, set, .. } => undo_sysctl(key, previous, set),
            Change::Address { link, address } => {
                unless_gone(self.netlink.remove_recorded_address(link, *address).await, &[libc::EADDRNOTAVAIL])
            }
            Change::Link { link, previous, .. } => {
                unless_gone(self.netlink.set_recorded_link(link, *previous).await, &[])
            }
            Change::Route { route, link } => {
                let index = link.as_ref().map(|link| link.index);
                unless_gone(self.netlink.remove_recorded_route(route, index).await, &[libc::ESRCH, libc::ENOENT])
            }
            Change::Rule(rule) => {
                // An absent rule is ENOENT; without IPv6 in the kernel, the family itself is absent.
                unless_gone(self.netlink.remove_rule(rule).await, &[libc::ENOENT, libc::EAFNOSUPPORT])
            }
            Change::Firewall => firewall::remove_nameless(),
            Change::GatewayTable(record) => match &self.table {
                Some(table) => table.unload(),
                None => firewall::remove(record),
            },
            Change::PolicyTable(record) => match &self.policy_table {
                Some(table) => table.unload(),
                None => owned_table::remove(&record.policy()),
            },
            Change::KillSwitch(profile) => kill_switch::unload(profile),
            Change::Answers(rules) => answers::unload(&rules.tun),
            Change::ResolverFile(saved) => saved.restore(),
            Change::ResolverLink(link) => match Resolved::find(&self.options.bus).await {
                Some(resolved) => resolved.revert(link.index).await,
                None => Ok(()),
            },
            Change::ResolverServers { was, .. } => match Resolved::find(&self.options.bus).await {
                Some(resolved) => resolved.give_back(was).await,
                None => Ok(()),
            },
        }
    }
}

/// Somebody else's later value stays.
fn undo_sysctl(key: &str, previous: &str, set: &str) -> Result<(), HostError> {
    match sysctl::read(key) {
        Ok(now) if now == set => sysctl::write(key, previous),
        Ok(_) => Ok(()),
        Err(HostError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes refusals that mean "it is not there" for success.
fn unless_gone(done: Result<(), HostError>, absent: &[i32]) -> Result<(), HostError> {
    done.or_else(|error| {
        let gone = match error.errno() {
            Some(code) => code == libc::ENODEV || absent.contains(&code),
            None => matches!(error, HostError::NoSuchLink { .. }),
        };
        if gone { Ok(()) } else { Err(error) }
    })
}

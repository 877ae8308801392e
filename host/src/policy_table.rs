//! The gateway's nftables table `inet adit_policy_TUN`: which client may send what where.
//!
//! Each address of a client belongs to a class, and each class has a chain of rules for either family, which judge the
//! first packet of a connection. What they let through is remembered in the connection's mark, so that the packets
//! after it cost one comparison. The mark holds the number of the policy; under another policy it no longer counts, and
//! the connection's next packet is judged anew: what is forbidden now stops, and what is still allowed goes on. An
//! address without a class reaches nothing.
//!
//! Packets are judged by where they end up after destination NAT of this host. What is opened to clients from elsewhere
//! is none of this table's business, and neither are the clients' answers to it. Accepting here ends no other table's
//! say: what the gateway's firewall forbids stays forbidden.

mod class;
mod content;
mod generation;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_proto::policy::CompiledClass;

use crate::conntrack;
use crate::error::HostError;
use crate::firewall::TableRecord;
use crate::nft::Protection;
use crate::owned_table::OwnedTable;

use content::Content;
use generation::Generation;

/// Classes without members that the table keeps at most: the first packet of a connection is compared with all classes
/// before its own.
const MOST_IDLE: usize = 32;

/// What clients of one kind may reach.
#[derive(Debug, PartialEq, Eq)]
pub struct PolicyClass {
    /// Tells the class from all others of the policy.
    pub number: u32,
    /// What it may reach.
    pub rules: CompiledClass,
}

/// What becomes of a client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// It reaches what a class may.
    Admit(IpAddr, Arc<PolicyClass>),
    /// It reaches nothing.
    Dismiss(IpAddr),
}

impl MemberChange {
    /// Whose change it is.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Admit(address, _) | Self::Dismiss(address) => *address,
        }
    }
}

/// A loaded table. All of its verbs block for as long as the kernel takes, some milliseconds for thousands of members.
#[derive(Debug)]
pub struct PolicyTable(Mutex<Loaded>);

#[derive(Debug)]
struct Loaded {
    table: OwnedTable,
    content: Content,
    unjudged: Unjudged,
    /// It was removed for good: who changes it late does not bring it back.
    removed: bool,
}

/// Addresses that have another class, whose connections the former one may still have let through.
#[derive(Debug, Default)]
struct Unjudged(HashSet<IpAddr>);

impl PolicyTable {
    /// Loads the table without members: clients reach nothing that is forwarded.
    pub(crate) fn load(record: &TableRecord) -> Result<Self, HostError> {
        Self::load_with(record, &Protection::ALL)
    }

    /// Loads a table that judges no packet before it has its first policy by [`Self::replace`].
    pub(crate) fn load_idle(record: &TableRecord) -> Result<Self, HostError> {
        Self::load_content(record, &Protection::ALL, Content::idle(&record.tun))
    }

    /// Loads the table with the first protection that the kernel knows.
    pub(crate) fn load_with(record: &TableRecord, protections: &'static [Protection]) -> Result<Self, HostError> {
        Self::load_content(record, protections, Content::new(&record.tun))
    }

    fn load_content(
        record: &TableRecord,
        protections: &'static [Protection],
        content: Content,
    ) -> Result<Self, HostError> {
        // A gateway before this one may have marked connections by another policy.
        Generation::all().try_for_each(|generation| conntrack::clear_mark(generation.mark()))?;
        let table = OwnedTable::load(record.policy(), protections, |batch| content.fill(batch))?;
        Ok(Self(Mutex::new(Loaded { table, content, unjudged: Unjudged::default(), removed: false })))
    }

    /// Changes which addresses are members, in one transaction; of several changes of an address the last counts.
    ///
    /// An address that comes to another class keeps no connection that only its former class may have.
    ///
    /// # Errors
    /// The kernel's refusal. Nothing is changed then, unless it was connections that could not be judged anew.
    pub fn change(&self, changes: &[MemberChange]) -> Result<(), HostError> {
        self.loaded().change(changes)
    }

    /// Replaces the policy: all members, with the classes they have now, in one transaction. Connections are judged by
    /// it from their next packet on.
    ///
    /// # Errors
    /// The kernel's refusal; then the former policy holds.
    pub fn replace(&self, members: HashMap<IpAddr, Arc<PolicyClass>>) -> Result<(), HostError> {
        let mut loaded = self.loaded();
        if loaded.removed {
            return Ok(());
        }
        let content = loaded.content.under_next_policy(members);
        // None may still have it from the last time.
        conntrack::clear_mark(content.mark())?;
        loaded.table.replace(|batch| content.fill(batch))?;
        loaded.content = content;
        // All connections are judged by the new generation.
        loaded.unjudged = Unjudged::default();
        Ok(())
    }

    /// The names in rules of the classes.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.loaded().content.names()
    }

    /// Says which addresses a name in rules has for the time to come; after that it has none. Does nothing for a name
    /// that no class has.
    ///
    /// # Errors
    /// The kernel's refusal; then the name has the addresses that it had.
    pub fn resolved(&self, name: &str, addresses: &[IpAddr], time: Duration) -> Result<(), HostError> {
        let mut loaded = self.loaded();
        let now = Instant::now();
        let next = loaded.content.resolved(name, addresses, now + time).filter(|_| !loaded.removed);
        let Some(next) = next else { return Ok(()) };
        loaded.table.change_elements(|batch| next.refill(batch, now))?;
        loaded.content.set_name(name, next);
        Ok(())
    }

    /// Says what somebody did to the table, if anything.
    pub(crate) fn fault(&self) -> Result<Option<&'static str>, HostError> {
        self.loaded().table.fault()
    }

    /// Loads it again, with its members.
    pub(crate) fn put_back(&self) -> Result<(), HostError> {
        self.loaded().put_back()
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        self.loaded().table.name().to_owned()
    }

    /// Removes the table for good; leaves one that is not of this gateway. Changes do nothing from now on.
    pub(crate) fn unload(&self) -> Result<(), HostError> {
        let mut loaded = self.loaded();
        loaded.table.unload()?;
        loaded.removed = true;
        Ok(())
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loaded {
    fn change(&mut self, changes: &[MemberChange]) -> Result<(), HostError> {
        if self.removed {
            return Ok(());
        }
        if self.content.lacks_class(changes) && self.content.forget_idle_classes(MOST_IDLE) {
            self.put_back()?;
        }
        let learnt = self.content.learn(changes);
        let moves = self.content.moves(changes);
        let content = &self.content;
        let done = if learnt.is_empty() {
            self.table.change_elements(|batch| moves.fill(batch))
        } else {
            self.table.change(|batch| {
                content.fill_classes(&learnt, batch);
                moves.fill(batch);
            })
        };
        self.unjudged.0.extend(self.content.apply(&moves));
        if let Err(error) = done {
            // Perhaps the kernel's table is not as it was left; then it can still be put there as a whole.
            tracing::debug!(%error, "the table of the clients' policy is loaded anew");
            if let Err(error) = self.put_back() {
                self.content.revert(&moves);
                self.content.unlearn(&learnt);
                return Err(error);
            }
        }
        let mark = self.content.mark();
        self.unjudged.judge(|openers| conntrack::clear_marks_of(mark, openers))
    }

    fn put_back(&mut self) -> Result<(), HostError> {
        self.table.replace(|batch| self.content.fill(batch))
    }
}

impl Unjudged {
    /// Has the kernel judge their connections anew, by taking the marks off them. Those that it refuses are tried again
    /// the next time.
    fn judge(&mut self, clear: impl FnOnce(&HashSet<IpAddr>) -> Result<(), HostError>) -> Result<(), HostError> {
        clear(&self.0)?;
        self.0.clear();
        Ok(())
    }
}

#[cfg(test)]
mod packet_tests;
#[cfg(test)]
mod tests;

//! All live sessions: by device for the control side, by inner address for the packet path.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::Session;

/// Parts of the address table. A change copies one part only, so that 10,000 sessions cost about 80 entries a change.
const SHARDS: usize = 256;

type Shard = HashMap<IpAddr, Arc<Session>>;

/// The live sessions. Looking up an address takes no lock.
pub struct SessionTable {
    /// By device id; a device has one session at most. Guards changes of `shards`, too.
    by_device: Mutex<HashMap<String, Arc<Session>>>,
    shards: Box<[ArcSwap<Shard>]>,
    hasher: RandomState,
}

impl Default for SessionTable {
    fn default() -> Self {
        Self {
            by_device: Mutex::default(),
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl SessionTable {
    /// The session that has an inner address.
    pub fn lookup(&self, address: IpAddr) -> Option<Arc<Session>> {
        self.shard(address).load().get(&address).cloned()
    }

    /// Adds a session; returns the one of the same device that it replaces.
    pub fn insert(&self, session: Arc<Session>) -> Option<Arc<Session>> {
        let mut by_device = self.devices();
        let replaced = by_device.insert(session.device.id.clone(), Arc::clone(&session));
        if let Some(old) = &replaced {
            self.unpublish(old);
        }
        for address in session.addresses() {
            self.change(address, |shard| {
                shard.insert(address, Arc::clone(&session));
            });
        }
        replaced
    }

    /// Removes a session, unless another of the same device has replaced it. True if it was there.
    pub fn remove(&self, session: &Session) -> bool {
        let mut by_device = self.devices();
        if by_device.get(&session.device.id).is_none_or(|current| current.id != session.id) {
            return false;
        }
        by_device.remove(&session.device.id);
        self.unpublish(session);
        true
    }

    /// The session of a device.
    pub fn of_device(&self, device: &str) -> Option<Arc<Session>> {
        self.devices().get(device).cloned()
    }

    /// All sessions, in the order they began.
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut sessions: Vec<_> = self.devices().values().cloned().collect();
        sessions.sort_by_key(|session| session.id);
        sessions
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.devices().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn unpublish(&self, session: &Session) {
        for address in session.addresses() {
            self.change(address, |shard| {
                if shard.get(&address).is_some_and(|current| current.id == session.id) {
                    shard.remove(&address);
                }
            });
        }
    }

    fn change(&self, address: IpAddr, change: impl FnOnce(&mut Shard)) {
        let shard = self.shard(address);
        let mut copy = Shard::clone(&shard.load());
        change(&mut copy);
        shard.store(Arc::new(copy));
    }

    fn shard(&self, address: IpAddr) -> &ArcSwap<Shard> {
        let index = usize::try_from(self.hasher.hash_one(address) % SHARDS as u64).expect("less than SHARDS");
        &self.shards[index]
    }

    fn devices(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.by_device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tests::{address, session};

    #[test]
    fn newer_session_of_a_device_replaces_the_older() {
        let table = SessionTable::default();
        assert!(table.insert(session(1, "dev-a", 2)).is_none());
        let replaced = table.insert(session(2, "dev-a", 2)).unwrap();
        assert_eq!(replaced.id, 1);
        assert_eq!(table.lookup(address(2).into()).unwrap().id, 2);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn end_of_a_replaced_session_leaves_the_newer_alone() {
        let table = SessionTable::default();
        let old = session(1, "dev-a", 2);
        table.insert(Arc::clone(&old));
        table.insert(session(2, "dev-a", 2));
        assert!(!table.remove(&old));
        assert_eq!(table.lookup(address(2).into()).unwrap().id, 2);
    }

    #[test]
    fn removed_session_is_found_no_more() {
        let table = SessionTable::default();
        let only = session(1, "dev-a", 2);
        table.insert(Arc::clone(&only));
        assert!(table.remove(&only));
        assert!(table.lookup(address(2).into()).is_none());
        assert!(table.is_empty());
    }

    #[test]
    fn replacement_with_another_address_forgets_the_old_one() {
        let table = SessionTable::default();
        table.insert(session(1, "dev-a", 2));
        table.insert(session(2, "dev-a", 3));
        assert!(table.lookup(address(2).into()).is_none());
        assert_eq!(table.lookup(address(3).into()).unwrap().id, 2);
    }
}

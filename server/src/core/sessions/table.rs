//! All live sessions: by device for the control side, by inner address for the packet path.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_proto::policy::WhenFull;
use arc_swap::ArcSwap;

use super::super::grant::SessionsOfUser;
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

/// Sessions that a new one displaced. They can be found no more.
#[derive(Default)]
pub struct Displaced {
    /// The one of the same device.
    pub replaced: Option<Arc<Session>>,
    /// The oldest of the same user, beyond as many as may be.
    pub crowded: Vec<Arc<Session>>,
}

/// The user has as many sessions as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserFull;

/// The sessions of other devices of the same user that have to give way to a new one, oldest first.
fn crowded(by_device: &HashMap<String, Arc<Session>>, new: &Session) -> Result<Vec<Arc<Session>>, UserFull> {
    let Some(SessionsOfUser { most, when_full }) = new.grant().terms.limits.sessions else { return Ok(Vec::new()) };
    let is_other = |old: &&Arc<Session>| old.device.user == new.device.user && old.device.id != new.device.id;
    let mut others: Vec<_> = by_device.values().filter(is_other).cloned().collect();
    let excess = (others.len() + 1).saturating_sub(most);
    if excess > 0 && when_full == WhenFull::Refuse {
        return Err(UserFull);
    }
    others.sort_by_key(|session| session.id);
    others.truncate(excess);
    Ok(others)
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

    /// Adds a session, where its terms allow its user one more; returns those that it displaces.
    ///
    /// # Errors
    /// The user has as many sessions as may be, and no older one gives way.
    pub fn insert(&self, session: Arc<Session>) -> Result<Displaced, UserFull> {
        let mut by_device = self.devices();
        let crowded = crowded(&by_device, &session)?;
        for old in &crowded {
            by_device.remove(&old.device.id);
            self.unpublish(old);
        }
        let replaced = by_device.insert(session.device.id.clone(), Arc::clone(&session));
        if let Some(old) = &replaced {
            self.unpublish(old);
        }
        for address in session.addresses() {
            self.change(address, |shard| {
                shard.insert(address, Arc::clone(&session));
            });
        }
        Ok(Displaced { replaced, crowded })
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
    use crate::core::grant::{SessionLimits, Terms};
    use crate::core::tests::{address, session, terms};

    /// Adds a session without limits, and gives the one it replaces.
    fn insert(table: &SessionTable, session: Arc<Session>) -> Option<Arc<Session>> {
        table.insert(session).unwrap().replaced
    }

    /// A session of alice with the address `host`, who may have two.
    fn limited(id: u64, of: &str, host: u8, when_full: WhenFull) -> Arc<Session> {
        let session = session(id, of, host);
        let limits =
            SessionLimits { sessions: Some(SessionsOfUser { most: 2, when_full }), ..SessionLimits::unlimited(1400) };
        session.change_terms(Arc::new(Terms { limits, ..terms("0.0.0.0/0") }));
        session
    }

    #[test]
    fn oldest_session_of_a_user_gives_way_and_those_of_others_stay() {
        let table = SessionTable::default();
        insert(&table, limited(2, "dev-b", 3, WhenFull::Replace));
        insert(&table, limited(1, "dev-a", 2, WhenFull::Replace));
        let again = table.insert(limited(3, "dev-b", 3, WhenFull::Replace)).unwrap();
        assert_eq!((again.replaced.map(|old| old.id), again.crowded.len()), (Some(2), 0), "the same device again");
        let third = table.insert(limited(4, "dev-c", 4, WhenFull::Replace)).unwrap();
        assert_eq!(third.crowded.iter().map(|old| old.id).collect::<Vec<_>>(), [1]);
        assert!(table.lookup(address(2).into()).is_none() && table.of_device("dev-a").is_none());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn session_too_many_is_refused_where_none_gives_way() {
        let table = SessionTable::default();
        insert(&table, limited(1, "dev-a", 2, WhenFull::Refuse));
        insert(&table, limited(2, "dev-b", 3, WhenFull::Refuse));
        assert!(table.insert(limited(3, "dev-b", 3, WhenFull::Refuse)).is_ok(), "the same device again");
        assert!(table.insert(limited(4, "dev-c", 4, WhenFull::Refuse)).is_err());
        assert!(table.lookup(address(4).into()).is_none());
        assert_eq!(table.all().iter().map(|session| session.id).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn newer_session_of_a_device_replaces_the_older() {
        let table = SessionTable::default();
        assert!(insert(&table, session(1, "dev-a", 2)).is_none());
        let replaced = insert(&table, session(2, "dev-a", 2)).unwrap();
        assert_eq!(replaced.id, 1);
        assert_eq!(table.lookup(address(2).into()).unwrap().id, 2);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn end_of_a_replaced_session_leaves_the_newer_alone() {
        let table = SessionTable::default();
        let old = session(1, "dev-a", 2);
        insert(&table, Arc::clone(&old));
        insert(&table, session(2, "dev-a", 2));
        assert!(!table.remove(&old));
        assert_eq!(table.lookup(address(2).into()).unwrap().id, 2);
    }

    #[test]
    fn removed_session_is_found_no_more() {
        let table = SessionTable::default();
        let only = session(1, "dev-a", 2);
        insert(&table, Arc::clone(&only));
        assert!(table.remove(&only));
        assert!(table.lookup(address(2).into()).is_none());
        assert!(table.is_empty());
    }

    #[test]
    fn replacement_with_another_address_forgets_the_old_one() {
        let table = SessionTable::default();
        insert(&table, session(1, "dev-a", 2));
        insert(&table, session(2, "dev-a", 3));
        assert!(table.lookup(address(2).into()).is_none());
        assert_eq!(table.lookup(address(3).into()).unwrap().id, 2);
    }
}

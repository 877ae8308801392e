//! The networks from which a user logged in before.

use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, params};

use super::clock::{self, Clock};
use super::{Store, StoreError, unix};

impl Store {
    /// Remembers for a time from now on that a network is one that a user logged in from. Where that is known already
    /// to within a day, nothing is written.
    ///
    /// # Errors
    /// The store failed.
    pub fn remember_network(
        &self,
        user: &str,
        network: &str,
        lifetime: Duration,
        clock: impl Clock,
    ) -> Result<(), StoreError> {
        const DAY: i64 = 24 * 60 * 60;
        let sql = "SELECT until FROM known_networks WHERE owner = ?1 AND network = ?2";
        let known: Option<i64> = self.read().query_row(sql, [user, network], |row| row.get(0)).optional()?;
        if known.is_some_and(|known| known > unix(clock.read() + lifetime).saturating_sub(DAY)) {
            return Ok(());
        }
        self.write(|transaction| {
            let until = clock::now(transaction, clock)? + lifetime;
            let sql = "INSERT INTO known_networks (owner, network, until, boot) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (owner, network) DO UPDATE SET until = ?3, boot = ?4";
            transaction.execute(sql, params![user, network, unix(until), clock::boot()?])?;
            Ok(())
        })
    }

    /// All networks from which users logged in, with their users, also those that are known no longer.
    ///
    /// # Errors
    /// The store failed.
    pub fn known_networks(&self) -> Result<Vec<(String, String)>, StoreError> {
        let connection = self.read();
        let mut query = connection.prepare("SELECT owner, network FROM known_networks")?;
        let known = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(known.collect::<Result<_, _>>()?)
    }

    /// Whether a user logged in from a network lately. Waits for nobody who writes.
    ///
    /// # Errors
    /// The store failed.
    pub fn knows_network(&self, user: &str, network: &str, now: SystemTime) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM known_networks WHERE owner = ?1 AND network = ?2 AND until > ?3)";
        let connection = self.read();
        let mut query = connection.prepare_cached(sql)?;
        Ok(query.query_row(params![user, network, unix(now)], |row| row.get(0))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, at, scratch};
    use super::*;
    use crate::accounts::UserName;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn network_is_known_for_its_user_and_time() {
        let Scratch { store, directory: _directory } = scratch();
        for name in ["alice", "bob"] {
            store.invite(&UserName::parse(name).unwrap(), 60 * SECOND, at(0)).unwrap();
        }
        store.remember_network("alice", "192.0.2.0/24", 1000 * SECOND, at(0)).unwrap();
        let knows = |user, network, seconds| store.knows_network(user, network, at(seconds)).unwrap();
        assert!(knows("alice", "192.0.2.0/24", 999));
        assert!(!knows("alice", "192.0.2.0/24", 1000) && !knows("alice", "198.51.100.0/24", 1));
        assert!(!knows("bob", "192.0.2.0/24", 1), "another user");
        assert_eq!(store.known_networks().unwrap(), [("alice".to_owned(), "192.0.2.0/24".to_owned())]);
        store.remember_network("alice", "192.0.2.0/24", 199_999 * SECOND, at(1)).unwrap();
        assert!(knows("alice", "192.0.2.0/24", 199_999), "it is known longer");
        store.revoke("alice", at(2)).unwrap();
        assert!(!knows("alice", "192.0.2.0/24", 3));
    }

    #[test]
    fn network_known_to_within_a_day_is_not_written_again() {
        let Scratch { store, directory: _directory } = scratch();
        store.invite(&UserName::parse("alice").unwrap(), 60 * SECOND, at(0)).unwrap();
        store.remember_network("alice", "192.0.2.0/24", 100_000 * SECOND, at(0)).unwrap();
        store.writer().pragma_update(None, "query_only", true).unwrap();
        store.remember_network("alice", "192.0.2.0/24", 100_000 * SECOND, at(60)).unwrap();
        let later = store.remember_network("alice", "192.0.2.0/24", 100_000 * SECOND, at(100_000));
        assert!(later.is_err(), "the positive control: that would be written");
    }
}

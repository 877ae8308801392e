//! The devices of logins that began without one: clients that have no certificate come with their session token alone.
//!
//! A login gets its device at its first session, and has it for as long as it lasts, so that whoever comes with the
//! same token finds the same addresses. A device that has no session is taken over by the next login from a host of the
//! same name; so a user has about as many of them as hosts.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::device::device_of;
use super::enroll::{insert_device, new_device_id};
use super::{Store, StoreError, sha256, unix};
use crate::accounts::name::clean_device_name;
use crate::accounts::{ClientLogin, Device, DeviceKind};

/// Most such devices of one user. Beyond that a login takes over one that has another name.
const MOST: usize = 32;

/// The device of a login, and whether the login is over.
type Bound = (Device, bool);

impl Store {
    /// See [`Accounts::device_of_login`](crate::accounts::Accounts::device_of_login).
    pub(super) fn login_device(
        &self,
        login: &ClientLogin<'_>,
        is_live: &dyn Fn(&str) -> bool,
        now: SystemTime,
    ) -> Result<Option<Device>, StoreError> {
        let hash = sha256(login.token.as_bytes());
        let known = bound(&self.read(), &hash)?;
        let (device, is_over) = match known {
            Some(bound) => bound,
            None => self.write(|transaction| bind(transaction, login, &hash, is_live, now))?,
        };
        Ok((!is_over).then(|| self.unwritten.shown(device)))
    }

    /// See [`Accounts::end_login`](crate::accounts::Accounts::end_login).
    pub(super) fn end_login_of(&self, token: &str) -> Result<(), StoreError> {
        let hash = sha256(token.as_bytes());
        // Whoever comes with what is no token costs a look-up.
        if bound(&self.read(), &hash)?.is_none_or(|(_, is_over)| is_over) {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.execute("UPDATE logins SET is_over = 1 WHERE token_hash = ?1", [hash])?;
            Ok(())
        })
    }
}

fn bound(connection: &Connection, hash: &[u8; 32]) -> Result<Option<Bound>, StoreError> {
    let sql = "SELECT devices.id, owner, devices.name, kind, devices.created_at, revoked_at, is_over
        FROM logins JOIN devices ON devices.id = logins.device WHERE token_hash = ?1";
    let found = connection.prepare_cached(sql)?.query_row([hash], |row| Ok((device_of(row)?, row.get(6)?)));
    Ok(found.optional()?)
}

/// Gives a login its device, from which on a former login of the device is over.
fn bind(
    transaction: &Transaction<'_>,
    login: &ClientLogin<'_>,
    hash: &[u8; 32],
    is_live: &dyn Fn(&str) -> bool,
    now: SystemTime,
) -> Result<Bound, StoreError> {
    // The same token may have come on two connections at once.
    if let Some(bound) = bound(transaction, hash)? {
        return Ok(bound);
    }
    let name = clean_device_name(login.device_name);
    let device = match unused(transaction, login.user, &name, is_live)? {
        Some(device) => Device { name, ..device },
        None => new_device(transaction, login.user, name, now)?,
    };
    transaction.execute("UPDATE devices SET name = ?2 WHERE id = ?1", [&device.id, &device.name])?;
    transaction.execute("UPDATE logins SET is_over = 1 WHERE device = ?1", [&device.id])?;
    let ends_at = i64::try_from(login.ends_at).unwrap_or(i64::MAX);
    let sql = "INSERT INTO logins (token_hash, device, ends_at) VALUES (?1, ?2, ?3)";
    transaction.execute(sql, params![hash, device.id, ends_at])?;
    Ok((device, false))
}

/// A device of the user that nobody uses now and that has this name; if there are too many, one of any name.
fn unused(
    transaction: &Transaction<'_>,
    user: &str,
    name: &str,
    is_live: &dyn Fn(&str) -> bool,
) -> Result<Option<Device>, StoreError> {
    let sql = "SELECT id, owner, name, kind, created_at, revoked_at FROM devices
        WHERE owner = ?1 AND kind = 'token' AND by_login = 1 AND revoked_at IS NULL ORDER BY created_at, id";
    let mut query = transaction.prepare_cached(sql)?;
    let devices = query.query_map([user], device_of)?.collect::<Result<Vec<_>, _>>()?;
    let is_full = devices.len() >= MOST;
    let place = devices.iter().position(|device| device.name == name && !is_live(&device.id)).or_else(|| {
        // The oldest, rather than one more.
        is_full.then(|| devices.iter().position(|device| !is_live(&device.id)).unwrap_or(0))
    });
    Ok(place.and_then(|place| devices.into_iter().nth(place)))
}

fn new_device(transaction: &Transaction<'_>, user: &str, name: String, now: SystemTime) -> Result<Device, StoreError> {
    let (id, user, kind, created_at) = (new_device_id()?, user.to_owned(), DeviceKind::Token, unix(now));
    let device = Device { id, user, name, kind, created_at, revoked_at: None };
    insert_device(transaction, &device)?;
    transaction.execute("UPDATE devices SET by_login = 1 WHERE id = ?1", [&device.id])?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, at, scratch};
    use super::*;
    use crate::accounts::{Accounts as _, FirstPassword, UserName};

    fn gateway() -> Scratch {
        let scratch = scratch();
        for user in ["alice", "bob"] {
            let hash = FirstPassword::Hash("hash".to_owned());
            scratch.store.add_user(&UserName::parse(user).unwrap(), &hash, at(0)).unwrap();
        }
        scratch
    }

    fn login<'a>(user: &'a str, token: &'a str, device_name: &'a str) -> ClientLogin<'a> {
        ClientLogin { user, token, device_name, ends_at: 1_800_001_000 }
    }

    fn device(store: &Store, login: &ClientLogin<'_>, live: &[&str]) -> Option<String> {
        let device = store.device_of_login(login, &|id| live.contains(&id), at(1)).unwrap();
        device.map(|device| device.id)
    }

    #[test]
    fn login_has_the_same_device_whenever_it_comes() {
        let Scratch { store, directory: _directory } = gateway();
        let first = device(&store, &login("alice", "t1", "laptop"), &[]).unwrap();
        assert_eq!(
            device(&store, &login("alice", "t1", "laptop"), &[&first]),
            Some(first.clone()),
            "also beside itself"
        );
        assert_eq!(device(&store, &login("alice", "t1", "renamed"), &[]), Some(first.clone()));
        assert_ne!(device(&store, &login("bob", "t2", "laptop"), &[]), Some(first.clone()), "of another user");
        assert!(store.needs_login(&first).unwrap());
        let made = store.device(&first).unwrap().unwrap();
        assert_eq!((made.user.as_str(), made.name.as_str(), made.kind), ("alice", "laptop", DeviceKind::Token));
    }

    #[test]
    fn device_that_nobody_uses_is_taken_over_and_its_former_login_is_over() {
        let Scratch { store, directory: _directory } = gateway();
        let first = device(&store, &login("alice", "t1", "laptop"), &[]).unwrap();
        let beside = device(&store, &login("alice", "t2", "laptop"), &[&first]).unwrap();
        let other = device(&store, &login("alice", "t3", "phone"), &[]).unwrap();
        assert!(first != beside && beside != other && first != other);
        assert_eq!(device(&store, &login("alice", "t4", "laptop"), &[&beside]), Some(first.clone()));
        assert_eq!(device(&store, &login("alice", "t1", "laptop"), &[]), None, "void for ever");
        assert_eq!(device(&store, &login("alice", "t4", "laptop"), &[]), Some(first));
        assert_eq!(device(&store, &login("alice", "t2", "laptop"), &[]), Some(beside), "untouched");
    }

    #[test]
    fn login_that_was_ended_is_over_and_no_other() {
        let Scratch { store, directory: _directory } = gateway();
        let laptop = device(&store, &login("alice", "t1", "laptop"), &[]).unwrap();
        let phone = device(&store, &login("alice", "t2", "phone"), &[]);
        store.end_login("t1").unwrap();
        store.end_login("unknown").unwrap();
        assert_eq!(device(&store, &login("alice", "t1", "laptop"), &[]), None);
        assert_eq!(device(&store, &login("alice", "t2", "phone"), &[]), phone);
        assert_eq!(device(&store, &login("alice", "t3", "laptop"), &[]), Some(laptop), "the next one has its device");
    }

    #[test]
    fn revoked_device_is_told_to_its_login_and_taken_over_by_none() {
        let Scratch { store, directory: _directory } = gateway();
        let first = device(&store, &login("alice", "t1", "laptop"), &[]).unwrap();
        store.revoke(&first, at(2)).unwrap();
        let known = store.device_of_login(&login("alice", "t1", "laptop"), &|_| false, at(3)).unwrap().unwrap();
        assert!(known.revoked_at.is_some());
        assert_ne!(device(&store, &login("alice", "t2", "laptop"), &[]), Some(first));
    }

    #[test]
    fn user_has_no_more_devices_than_may_be_however_hosts_are_called() {
        let Scratch { store, directory: _directory } = gateway();
        for number in 0..2 * MOST {
            let (token, name) = (format!("t{number}"), format!("host{number}"));
            assert!(device(&store, &login("alice", &token, &name), &[]).is_some());
        }
        assert_eq!(store.devices().unwrap().len(), MOST);
    }

    #[test]
    fn logins_are_forgotten_long_after_their_end() {
        let Scratch { store, directory: _directory } = gateway();
        device(&store, &login("alice", "t1", "laptop"), &[]).unwrap();
        let count = || -> u32 { store.read().query_row("SELECT count(*) FROM logins", [], |row| row.get(0)).unwrap() };
        store.prune(at(1001)).unwrap();
        assert_eq!(count(), 1);
        store.prune(at(1001) + super::super::KEEP).unwrap();
        assert_eq!(count(), 0);
    }
}

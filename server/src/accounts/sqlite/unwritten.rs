//! Revocations that hold already and are not on disk yet.
//!
//! A revocation must not wait for a disk that is full, slow or read-only. So it is taken note of in memory first, where
//! every look-up sees it, and written with the next transaction that succeeds, before whatever else that one does.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, Transaction, params};
use tokio::sync::Notify;

use super::device::revoke_devices;
use super::person::revoke_user;
use super::{Store, StoreError};
use crate::accounts::name::DEVICE_PREFIX;
use crate::accounts::{Device, Revoked, UserName};

/// What was revoked in memory alone.
#[derive(Default)]
pub(super) struct Unwritten {
    state: Mutex<State>,
    settled: Condvar,
    added: Notify,
}

#[derive(Default)]
struct State {
    revocations: Vec<Revocation>,
    last: u64,
    /// Why they could not be written the last time.
    fault: Option<String>,
}

#[derive(Debug, Clone)]
struct Revocation {
    number: u64,
    whom: Whom,
    at: SystemTime,
}

/// One device, or a user with all devices and unused invites.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    Device(String),
    User(UserName),
}

/// How far revocations have got to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// They are durable.
    All,
    /// They hold in this process, but a restart would forget them.
    NotYet {
        /// Why not.
        reason: String,
    },
}

impl Whom {
    fn parse(name: &str) -> Result<Self, StoreError> {
        if name.starts_with(DEVICE_PREFIX) {
            return Ok(Self::Device(name.to_owned()));
        }
        UserName::parse(name).map(Self::User).map_err(|_| StoreError::NotFound(name.to_owned()))
    }

    /// What revoking would do; `NotFound` if there is no such user or device.
    fn found(&self, connection: &Connection) -> Result<Revoked, StoreError> {
        match self {
            Self::Device(id) => {
                let devices = names(connection, "SELECT id FROM devices WHERE id = ?1", id)?;
                if devices.is_empty() {
                    return Err(StoreError::NotFound(id.clone()));
                }
                Ok(Revoked { devices, invites: 0 })
            }
            Self::User(user) => {
                let user = user.as_str();
                if names(connection, "SELECT name FROM users WHERE name = ?1", user)?.is_empty() {
                    return Err(StoreError::NotFound(user.to_owned()));
                }
                let sql = "SELECT id FROM devices WHERE owner = ?1 AND revoked_at IS NULL ORDER BY id";
                let devices = names(connection, sql, user)?;
                let sql = "SELECT count(*) FROM invites WHERE owner = ?1 AND used_at IS NULL";
                let invites = connection.query_row(sql, [user], |row| row.get(0))?;
                Ok(Revoked { devices, invites })
            }
        }
    }
}

impl Revocation {
    fn write(&self, transaction: &Transaction<'_>) -> Result<Revoked, StoreError> {
        let revoked = self.whom.found(transaction)?;
        revoke_devices(transaction, &revoked.devices, self.at)?;
        if let Whom::User(user) = &self.whom {
            let sql = "DELETE FROM invites WHERE owner = ?1 AND used_at IS NULL";
            transaction.execute(sql, params![user.as_str()])?;
            revoke_user(transaction, user.as_str(), self.at)?;
        }
        Ok(revoked)
    }
}

impl Unwritten {
    /// Whether a device is revoked in memory.
    pub(super) fn holds_device(&self, device: &str, user: &str) -> bool {
        self.holds(|whom| match whom {
            Whom::Device(id) => id == device,
            Whom::User(name) => name.as_str() == user,
        })
    }

    /// Whether a user is revoked in memory, with all invites.
    pub(super) fn holds_user(&self, user: &str) -> bool {
        self.holds(|whom| matches!(whom, Whom::User(name) if name.as_str() == user))
    }

    /// A device as a look-up shows it.
    pub(super) fn shown(&self, device: Device) -> Device {
        let revoked = device.revoked_at.is_none() && self.holds_device(&device.id, &device.user);
        Device { revoked_at: if revoked { Some(super::unix(SystemTime::now())) } else { device.revoked_at }, ..device }
    }

    /// Writes all of them into a transaction; gives the devices they shut out, and what to [settle](Self::settle) once
    /// it is committed.
    pub(super) fn write(&self, transaction: &Transaction<'_>) -> Result<(Vec<String>, u64), StoreError> {
        let (revocations, last) = {
            let state = self.state();
            (state.revocations.clone(), state.last)
        };
        let mut devices = Vec::new();
        for revocation in &revocations {
            match revocation.write(transaction) {
                Ok(revoked) => devices.extend(revoked.devices),
                // Nobody is left to shut out, and nothing else may wait for that.
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((devices, last))
    }

    /// All up to this one are durable.
    pub(super) fn settle(&self, last: u64) {
        let mut state = self.state();
        state.revocations.retain(|revocation| revocation.number > last);
        if state.revocations.is_empty() {
            state.fault = None;
        }
        drop(state);
        self.settled.notify_all();
    }

    fn add(&self, whom: Whom, at: SystemTime) {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        state.revocations.push(Revocation { number, whom, at });
        state.fault = None;
        drop(state);
        self.added.notify_one();
    }

    fn fail(&self, error: &StoreError) {
        self.state().fault = Some(error.to_string());
        self.settled.notify_all();
    }

    fn holds(&self, one: impl Fn(&Whom) -> bool) -> bool {
        self.state().revocations.iter().any(|revocation| one(&revocation.whom))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Shuts out one device, or a user with all devices and unused invites, from now on and in memory alone: no disk is
    /// waited for. What is revoked stays so; a user may be invited again and then gets new devices.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the store could not be read.
    pub fn shut_out(&self, name: &str, now: SystemTime) -> Result<Revoked, StoreError> {
        let whom = Whom::parse(name)?;
        let before = whom.found(&self.read())?;
        self.unwritten.add(whom.clone(), now);
        // A device that was enrolled in between is shut out, too, and nobody else would name it.
        Ok(whom.found(&self.read()).unwrap_or(before))
    }

    /// Writes what [`Self::shut_out`] took note of; returns the devices it shuts out. Blocks for as long as the disk
    /// takes.
    ///
    /// # Errors
    /// The store could not be written; it is to be tried again.
    pub fn write_revocations(&self) -> Result<Vec<String>, StoreError> {
        let mut devices = Vec::new();
        let written = self.write_with(|written, _| {
            devices = written;
            Ok(())
        });
        match written {
            Ok(()) => Ok(devices),
            Err(error) => {
                self.unwritten.fail(&error);
                Err(error)
            }
        }
    }

    /// Waits until there are revocations to write.
    pub async fn revocations_added(&self) {
        self.unwritten.added.notified().await;
    }

    /// How far revocations have got.
    pub fn revocations(&self) -> Written {
        let state = self.unwritten.state();
        if state.revocations.is_empty() {
            return Written::All;
        }
        let reason = state.fault.clone().unwrap_or_else(|| "the disk is slow, or the store is in use".to_owned());
        Written::NotYet { reason }
    }

    /// Waits until all revocations are durable or could not be written, at most for a time. Blocks.
    pub fn wait_for_revocations(&self, patience: Duration) -> Written {
        let state = self.unwritten.state();
        let pending = |state: &mut State| !state.revocations.is_empty() && state.fault.is_none();
        let waited = self.unwritten.settled.wait_timeout_while(state, patience, pending);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.revocations()
    }

    /// Revokes at once and durably; for whoever may wait for the disk.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or the store failed.
    pub fn revoke(&self, name: &str, now: SystemTime) -> Result<Revoked, StoreError> {
        let revoked = self.shut_out(name, now)?;
        self.write_revocations()?;
        Ok(revoked)
    }
}

fn names(connection: &Connection, sql: &str, name: &str) -> Result<Vec<String>, StoreError> {
    let mut query = connection.prepare(sql)?;
    let names = query.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, at, scratch};
    use super::*;
    use crate::accounts::{Accounts as _, AuthError, EnrollError};

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    #[test]
    fn revocation_holds_while_the_disk_takes_nothing_and_is_written_when_it_can() {
        let Scratch { store, directory } = scratch();
        let (device, token) = store.token(&user("alice"), at(0)).unwrap();
        let (_, other) = store.token(&user("bob"), at(0)).unwrap();
        let code = store.invite(&user("alice"), Duration::from_secs(60), at(0)).unwrap();
        assert!(store.authenticate_token(&token).is_ok(), "the positive control");
        store.writer().pragma_update(None, "query_only", true).unwrap();

        let revoked = store.shut_out("alice", at(1)).unwrap();
        assert_eq!(revoked, Revoked { devices: vec![device.id.clone()], invites: 1 });
        assert!(store.write_revocations().is_err(), "the disk takes nothing");
        assert!(matches!(store.authenticate_token(&token), Err(AuthError::Revoked)));
        assert!(store.device(&device.id).unwrap().unwrap().revoked_at.is_some());
        let looked = store.check_invite::<std::convert::Infallible>(&code, at(1));
        assert!(matches!(looked, Err(EnrollError::UnknownCode)));
        assert!(store.authenticate_token(&other).is_ok(), "nobody else is touched");
        assert!(matches!(store.wait_for_revocations(Duration::ZERO), Written::NotYet { .. }));

        store.writer().pragma_update(None, "query_only", false).unwrap();
        // Whatever is written next takes it along.
        store.invite(&user("carol"), Duration::from_secs(60), at(2)).unwrap();
        assert_eq!(store.revocations(), Written::All);
        drop(store);
        let store = Store::open(&directory.path().join("store.db")).unwrap();
        assert!(matches!(store.authenticate_token(&token), Err(AuthError::Revoked)), "it is durable");
    }

    #[test]
    fn user_who_is_invited_again_is_no_longer_shut_out() {
        let Scratch { store, directory: _directory } = scratch();
        store.invite(&user("alice"), Duration::from_secs(60), at(0)).unwrap();
        store.shut_out("alice", at(1)).unwrap();
        let code = store.invite(&user("alice"), Duration::from_secs(60), at(2)).unwrap();
        assert!(store.check_invite::<std::convert::Infallible>(&code, at(2)).is_ok());
    }

    #[test]
    fn what_is_unwritten_is_waited_for_only_as_long_as_asked() {
        let Scratch { store, directory: _directory } = scratch();
        store.token(&user("alice"), at(0)).unwrap();
        store.shut_out("alice", at(1)).unwrap();
        assert!(matches!(store.wait_for_revocations(Duration::from_millis(1)), Written::NotYet { .. }));
        assert_eq!(store.write_revocations().unwrap().len(), 1);
        assert_eq!(store.wait_for_revocations(Duration::ZERO), Written::All);
    }
}

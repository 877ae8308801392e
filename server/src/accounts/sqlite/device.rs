//! Users, their devices, and how a device is let in or shut out.

use std::time::{Duration, SystemTime};

use adit_program::random::random;
use adit_proto::address_pool::Lease;
use adit_proto::login::token::LoginId;
use data_encoding::BASE64URL_NOPAD;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use subtle::ConstantTimeEq;

use super::enroll::{insert_device, new_device_id};
use super::invite::ensure_user;
use super::{HostClock, Store, StoreError, login, sha256, unix};
use crate::accounts::{Accounts, AuthError, ClientLogin, Device, DeviceKind, KnownPerson, StoreFault, UserName};

/// What every bearer token begins with, so that scanners for leaked secrets can know one.
const TOKEN_PREFIX: &str = "adit_";

impl Accounts for Store {
    fn authenticate_certificate(&self, device: &str, serial: &str, now: SystemTime) -> Result<Device, AuthError> {
        let found: Option<(Device, i64, Option<i64>, bool)> = self
            .read()
            .prepare_cached(
                "SELECT devices.id, owner, devices.name, kind, devices.created_at, devices.revoked_at, not_after,
                    certificates.revoked_at, disabled_at IS NOT NULL
                 FROM certificates JOIN devices ON devices.id = certificates.device JOIN users ON users.name = owner
                 WHERE serial = ?1 AND devices.id = ?2 AND kind = 'certificate'",
            )
            .and_then(|mut query| {
                let read = |row: &Row<'_>| Ok((device_of(row)?, row.get(6)?, row.get(7)?, row.get(8)?));
                query.query_row([serial, device], read).optional()
            })
            .map_err(StoreError::from)?;
        let (device, not_after, certificate_revoked, disabled) = found.ok_or(AuthError::Unknown)?;
        let device = self.unwritten.shown(device);
        if device.revoked_at.is_some() || certificate_revoked.is_some() {
            return Err(AuthError::Revoked);
        }
        if unix(now) >= not_after {
            return Err(AuthError::Expired);
        }
        if disabled { Err(AuthError::Disabled) } else { Ok(device) }
    }

    fn authenticate_token(&self, token: &str) -> Result<Device, AuthError> {
        let hash = sha256(token.as_bytes());
        let found: Option<(Device, [u8; 32], bool)> = self
            .read()
            .prepare_cached(
                "SELECT devices.id, owner, devices.name, kind, devices.created_at, revoked_at, token_hash,
                    disabled_at IS NOT NULL
                 FROM tokens JOIN devices ON devices.id = tokens.device JOIN users ON users.name = owner
                 WHERE token_hash = ?1 AND kind = 'token'",
            )
            .and_then(|mut query| {
                query.query_row([hash], |row| Ok((device_of(row)?, row.get(6)?, row.get(7)?))).optional()
            })
            .map_err(StoreError::from)?;
        let (device, stored, disabled) = found.ok_or(AuthError::Unknown)?;
        if !bool::from(stored.ct_eq(&hash)) {
            return Err(AuthError::Unknown);
        }
        let device = self.unwritten.shown(device);
        if device.revoked_at.is_some() {
            return Err(AuthError::Revoked);
        }
        if disabled { Err(AuthError::Disabled) } else { Ok(device) }
    }

    fn device(&self, id: &str) -> Result<Option<Device>, StoreFault> {
        let sql = "SELECT id, owner, name, kind, created_at, revoked_at FROM devices WHERE id = ?1";
        let found = self.read().query_row(sql, [id], device_of).optional().map_err(StoreError::from)?;
        Ok(found.map(|device| self.unwritten.shown(device)))
    }

    fn may_connect(&self, device: &str) -> Result<bool, StoreFault> {
        let Some(device) = self.device(device)?.filter(|device| device.revoked_at.is_none()) else {
            return Ok(false);
        };
        Ok(self.person(&device.user)?.is_some_and(|person| !person.is_disabled))
    }

    fn needs_login(&self, device: &str) -> Result<bool, StoreFault> {
        let sql = "SELECT by_login FROM devices WHERE id = ?1";
        let found = self.read().query_row(sql, [device], |row| row.get(0)).optional();
        // Whoever is unknown gets in by nothing else either.
        Ok(found.map_err(StoreError::from)?.unwrap_or(true))
    }

    fn login_left(&self, login: &LoginId) -> Result<Option<Duration>, StoreFault> {
        Ok(login::left(&self.read(), login)?)
    }

    fn device_of_login(
        &self,
        login: &ClientLogin<'_>,
        is_live: &dyn Fn(&str) -> bool,
        now: SystemTime,
    ) -> Result<Option<Device>, AuthError> {
        self.login_device(login, is_live, now)
    }

    fn end_login(&self, login: &LoginId) -> Result<(), StoreFault> {
        Ok(self.forget_login(login)?)
    }

    fn certificates_end(&self, device: &str) -> Result<Option<SystemTime>, StoreFault> {
        let end = self.last_certificate_end(device)?;
        if end.is_some_and(|end| SystemTime::now() >= end) && self.follow_clock(HostClock)?.is_some() {
            return Ok(self.last_certificate_end(device)?);
        }
        Ok(end)
    }

    fn person(&self, user: &str) -> Result<Option<KnownPerson>, StoreFault> {
        Ok(self.known_person(user)?)
    }

    fn has_lease(&self, device: &str, lease: Lease) -> Result<bool, StoreFault> {
        Ok(self.has_lease(device, lease)?)
    }

    fn save_lease(&self, device: &str, lease: Lease) -> Result<(), StoreFault> {
        Ok(self.write_lease(device, lease)?)
    }
}

impl Store {
    /// Makes a device that logs in with a bearer token, and returns it with the token, which is nowhere else.
    ///
    /// # Errors
    /// The store failed.
    pub fn token(&self, user: &UserName, now: SystemTime) -> Result<(Device, String), StoreError> {
        let token = format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&random::<32>()?));
        let device = Device {
            id: new_device_id()?,
            user: user.as_str().to_owned(),
            name: "token".to_owned(),
            kind: DeviceKind::Token,
            created_at: unix(now),
            revoked_at: None,
        };
        self.write(|transaction| {
            ensure_user(transaction, user, now)?;
            insert_device(transaction, &device)?;
            transaction.execute(
                "INSERT INTO tokens (token_hash, device) VALUES (?1, ?2)",
                params![sha256(token.as_bytes()), device.id],
            )?;
            Ok((device, token))
        })
    }

    fn last_certificate_end(&self, device: &str) -> Result<Option<SystemTime>, StoreError> {
        let sql = "SELECT max(not_after) FROM certificates WHERE device = ?1 AND revoked_at IS NULL";
        let end: Option<i64> = self.read().prepare_cached(sql)?.query_row([device], |row| row.get(0))?;
        Ok(end.map(|end| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(end).unwrap_or_default())))
    }

    /// All devices, by user and age.
    ///
    /// # Errors
    /// The store failed.
    pub fn devices(&self) -> Result<Vec<Device>, StoreError> {
        let sql = "SELECT id, owner, name, kind, created_at, revoked_at FROM devices ORDER BY owner, created_at, id";
        let connection = self.read();
        let mut query = connection.prepare(sql)?;
        let devices = query.query_map([], device_of)?;
        Ok(devices.map(|device| device.map(|device| self.unwritten.shown(device))).collect::<Result<_, _>>()?)
    }
}

pub(super) fn revoke_devices(
    transaction: &Transaction<'_>,
    devices: &[String],
    now: SystemTime,
) -> Result<(), StoreError> {
    for device in devices {
        let values = params![device, unix(now)];
        transaction.execute("UPDATE devices SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL", values)?;
        let sql = "UPDATE certificates SET revoked_at = ?2 WHERE device = ?1 AND revoked_at IS NULL";
        transaction.execute(sql, values)?;
        transaction.execute("DELETE FROM leases WHERE device = ?1", [device])?;
    }
    Ok(())
}

/// Reads a device from the first six columns of a row.
pub(super) fn device_of(row: &Row<'_>) -> rusqlite::Result<Device> {
    let kind = match row.get_ref(3)?.as_str()? {
        "certificate" => DeviceKind::Certificate,
        "token" => DeviceKind::Token,
        other => {
            let fault = format!("a device of kind {other:?}").into();
            return Err(rusqlite::Error::FromSqlConversionFailure(3, Type::Text, fault));
        }
    };
    Ok(Device {
        id: row.get(0)?,
        user: row.get(1)?,
        name: row.get(2)?,
        kind,
        created_at: row.get(4)?,
        revoked_at: row.get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scratch, at, scratch};
    use super::*;
    use crate::accounts::Revoked;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    #[test]
    fn token_lets_its_device_in_and_no_other_text_does() {
        let Scratch { store, directory: _directory } = scratch();
        let (device, token) = store.token(&user("alice"), at(0)).unwrap();
        assert_eq!(store.authenticate_token(&token).unwrap(), device);
        let longer = format!("{token}\0");
        for wrong in ["", "adit_", &token[..token.len() - 1], &longer, &token.to_uppercase(), &device.id] {
            assert!(matches!(store.authenticate_token(wrong), Err(AuthError::Unknown)), "{wrong:?}");
        }
        store.revoke("alice", at(1)).unwrap();
        assert!(matches!(store.authenticate_token(&token), Err(AuthError::Revoked)));
    }

    #[test]
    fn token_device_cannot_come_with_a_certificate() {
        let Scratch { store, directory: _directory } = scratch();
        let (device, _) = store.token(&user("alice"), at(0)).unwrap();
        assert!(matches!(store.authenticate_certificate(&device.id, "00", at(0)), Err(AuthError::Unknown)));
    }

    #[test]
    fn no_secret_is_stored() {
        let Scratch { store, directory } = scratch();
        let (_, token) = store.token(&user("alice"), at(0)).unwrap();
        let code = store.invite(&user("alice"), Duration::from_secs(60), at(0)).unwrap();
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
            assert!(!bytes.windows(code.len()).any(|window| window == code));
        }
    }

    #[test]
    fn revoking_a_user_takes_all_devices_and_open_invites() {
        let Scratch { store, directory: _directory } = scratch();
        let (first, _) = store.token(&user("alice"), at(0)).unwrap();
        let (second, _) = store.token(&user("alice"), at(0)).unwrap();
        let (other, token) = store.token(&user("bob"), at(0)).unwrap();
        store.invite(&user("alice"), Duration::from_secs(60), at(0)).unwrap();
        let revoked = store.revoke("Alice", at(1)).unwrap();
        let mut expected = vec![first.id, second.id];
        expected.sort();
        assert_eq!(revoked, Revoked { devices: expected, invites: 1 });
        assert_eq!(store.authenticate_token(&token).unwrap().id, other.id);
        let alice = &store.users(at(1)).unwrap()[0];
        assert_eq!((alice.devices, alice.invites), (0, 0));
    }

    #[test]
    fn revoking_nobody_is_an_error() {
        let Scratch { store, directory: _directory } = scratch();
        for name in ["nobody", "dev-nothing", "", "a b"] {
            assert!(matches!(store.revoke(name, at(0)), Err(StoreError::NotFound(_))), "{name:?}");
        }
    }

    #[test]
    fn device_of_an_unknown_kind_is_not_taken_for_another() {
        let Scratch { store, directory: _directory } = scratch();
        let (device, _) = store.token(&user("alice"), at(0)).unwrap();
        store.writer().pragma_update(None, "ignore_check_constraints", true).unwrap();
        store.writer().execute("UPDATE devices SET kind = 'tpm' WHERE id = ?1", [&device.id]).unwrap();
        assert!(store.device(&device.id).is_err());
    }
}

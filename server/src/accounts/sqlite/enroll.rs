//! Turning an invite into a device, and renewing the device's certificate.

use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use adit_program::random::random;
use adit_proto::login::token::LoginId;
use data_encoding::Specification;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use subtle::ConstantTimeEq;

use super::clock::{self, Clock};
use super::device::device_of;
use super::{Store, StoreError, login, sha256, unix};
use crate::accounts::name::{DEVICE_PREFIX, clean_device_name};
use crate::accounts::{Device, DeviceKind, EnrollError, Enrolled, RenewError, UserName};
use crate::identity::DeviceCertificate;

/// Most certificates of one device that are good at a time. A client renews when two thirds of the present one's life
/// are over, so two are usual; the others are for answers that were lost.
const MAX_CERTIFICATES: u32 = 4;

/// How long after its use an invite gives the same device its certificate again: for an answer that was lost, or that
/// the device could not save.
const AGAIN: u64 = 10 * 60;

impl Store {
    /// Looks whether an invite can be used, without using it. One that was used may still be good for its own device,
    /// which [`Self::enroll`] tells by the key.
    ///
    /// # Errors
    /// What [`Self::enroll`] would refuse it for.
    pub fn check_invite<E: Error + 'static>(&self, code: &[u8; 16], now: SystemTime) -> Result<(), EnrollError<E>> {
        let user = match usable(&self.read(), code, now)? {
            Invite::Unused { user } | Invite::Used { user, .. } => user,
        };
        if self.unwritten.holds_user(&user) { Err(EnrollError::UnknownCode) } else { Ok(()) }
    }

    /// Consumes an invite and creates its device with the certificate that `sign` makes for (device id, user), all in
    /// one transaction: the code is spent exactly when the device exists. For ten minutes the same code gives the same
    /// device a certificate again if it comes with the same key, of which `key` is the hash.
    ///
    /// # Errors
    /// See [`EnrollError`]; after each of them the store is as it was.
    pub fn enroll<E: Error + 'static>(
        &self,
        code: &[u8; 16],
        key: &[u8; 32],
        device_name: &str,
        clock: impl Clock,
        sign: impl FnOnce(&str, &str) -> Result<DeviceCertificate, E>,
    ) -> Result<Enrolled, EnrollError<E>> {
        let id = new_device_id()?;
        self.write(|transaction| {
            let now = clock::now(transaction, clock)?;
            spend(transaction, code, &self.newcomer(id, key, device_name), now, sign)
        })
    }

    /// Creates the device of a user who has logged in, as [`Self::enroll`] does for an invite: the login stands for the
    /// code, and is good for one device. From then on the device gets in only while its user has a login that lasts.
    ///
    /// # Errors
    /// As [`Self::enroll`], and [`EnrollError::LoginOver`].
    pub fn enroll_by_login<E: Error + 'static>(
        &self,
        (user, login): (&UserName, &LoginId),
        key: &[u8; 32],
        device_name: &str,
        clock: impl Clock,
        sign: impl FnOnce(&str, &str) -> Result<DeviceCertificate, E>,
    ) -> Result<Enrolled, EnrollError<E>> {
        let id = new_device_id()?;
        self.write(|transaction| {
            let now = clock::now(transaction, clock)?;
            // Its user may have logged out since it was looked at.
            if login::left(transaction, login)?.is_none_or(|left| left.is_zero()) {
                return Err(EnrollError::LoginOver);
            }
            let code = code_of(login);
            let expires = unix(now).saturating_add_unsigned(AGAIN);
            transaction
                .execute(
                    "INSERT INTO invites (code_hash, owner, expires_at, boot) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (code_hash) DO NOTHING",
                    params![sha256(&code), user.as_str(), expires, clock::boot()?],
                )
                .map_err(StoreError::from)?;
            let enrolled = spend(transaction, &code, &self.newcomer(id, key, device_name), now, sign)?;
            transaction
                .execute("UPDATE devices SET by_login = 1 WHERE id = ?1", [&enrolled.device.id])
                .map_err(StoreError::from)?;
            Ok(enrolled)
        })
    }

    fn newcomer<'a>(&self, id: String, key: &'a [u8; 32], name: &'a str) -> Newcomer<'a> {
        Newcomer { id, key, name, most: self.devices_per_user.load(Ordering::Relaxed) }
    }

    /// The user of a device that may have a further certificate.
    ///
    /// # Errors
    /// What [`Self::renew`] would refuse it for.
    pub fn check_renewal<E: Error + 'static>(&self, device: &str, now: SystemTime) -> Result<String, RenewError<E>> {
        let user = renewable(&self.read(), device, now)?;
        if self.unwritten.holds_device(device, &user) { Err(RenewError::Revoked) } else { Ok(user) }
    }

    /// Gives a device that is not revoked a further certificate, which `sign` makes for its user. Older ones stay good
    /// until they expire, since the answer may be lost on its way; at most four are good at a time.
    ///
    /// # Errors
    /// See [`RenewError`].
    pub fn renew<E: Error + 'static>(
        &self,
        device: &str,
        clock: impl Clock,
        sign: impl FnOnce(&str) -> Result<DeviceCertificate, E>,
    ) -> Result<DeviceCertificate, RenewError<E>> {
        self.write(|transaction| {
            let now = clock::now(transaction, clock)?;
            let user = renewable(transaction, device, now)?;
            let certificate = sign(&user).map_err(RenewError::Sign)?;
            insert_certificate(transaction, device, &certificate)?;
            Ok(certificate)
        })
    }
}

/// A device that wants to be known.
struct Newcomer<'a> {
    /// Its id, if it becomes one.
    id: String,
    /// The hash of its key.
    key: &'a [u8; 32],
    /// What it calls itself.
    name: &'a str,
    /// Most devices that its user may have.
    most: u32,
}

/// What stands for the code of an invite where a login enrols a device.
fn code_of(login: &LoginId) -> [u8; 16] {
    let mut code = [0; 16];
    code.copy_from_slice(&sha256(&[b"ticket of login ", login.as_slice()].concat())[..16]);
    code
}

/// Turns a code into a device with a certificate.
fn spend<E: Error + 'static>(
    transaction: &Transaction<'_>,
    code: &[u8; 16],
    newcomer: &Newcomer<'_>,
    now: SystemTime,
    sign: impl FnOnce(&str, &str) -> Result<DeviceCertificate, E>,
) -> Result<Enrolled, EnrollError<E>> {
    let device = match usable(transaction, code, now)? {
        Invite::Unused { user } => {
            if devices_of(transaction, &user, now)? >= newcomer.most {
                return Err(EnrollError::TooManyDevices(newcomer.most));
            }
            let (id, name) = (newcomer.id.clone(), clean_device_name(newcomer.name));
            let (kind, created_at) = (DeviceKind::Certificate, unix(now));
            let device = Device { id, user, name, kind, created_at, revoked_at: None };
            insert_device(transaction, &device)?;
            consume(transaction, code, newcomer.key, &device.id, now)?;
            device
        }
        Invite::Used { device, key_hash, .. } if bool::from(key_hash.ct_eq(newcomer.key)) => {
            again(transaction, &device, now)?
        }
        Invite::Used { .. } => return Err(EnrollError::UsedCode),
    };
    let certificate = sign(&device.id, &device.user).map_err(EnrollError::Sign)?;
    insert_certificate(transaction, &device.id, &certificate)?;
    Ok(Enrolled { device, certificate })
}

/// How many devices of a user can connect. One whose certificates are all over never will again, nor one without any
/// whose login is over.
pub(super) fn devices_of(transaction: &Transaction<'_>, user: &str, now: SystemTime) -> Result<u32, StoreError> {
    let sql = format!(
        "SELECT count(*) FROM devices WHERE owner = ?1 AND revoked_at IS NULL
            AND (kind = 'token' AND by_login = 0 OR {} OR EXISTS (SELECT 1 FROM certificates
                WHERE device = devices.id AND not_after > ?3 AND certificates.revoked_at IS NULL))",
        login::LASTS
    );
    Ok(transaction.query_row(&sql, params![user, clock::ran(transaction)?, unix(now)], |row| row.get(0))?)
}

fn renewable<E: Error + 'static>(
    connection: &Connection,
    device: &str,
    now: SystemTime,
) -> Result<String, RenewError<E>> {
    let sql =
        "SELECT owner, revoked_at, (SELECT count(*) FROM certificates WHERE device = devices.id AND not_after > ?2)
         FROM devices WHERE id = ?1 AND kind = 'certificate'";
    let found: Option<(String, Option<i64>, u32)> = connection
        .query_row(sql, params![device, unix(now)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(StoreError::from)?;
    match found {
        None => Err(RenewError::Unknown),
        Some((_, Some(_), _)) => Err(RenewError::Revoked),
        Some((_, None, good)) if good >= MAX_CERTIFICATES => Err(RenewError::TooMany),
        Some((user, None, _)) => Ok(user),
    }
}

/// The device that an invite has become, which wants its certificate once more. One certificate less than a device may
/// have is given so: the last is for its renewal.
fn again<E: Error + 'static>(
    transaction: &Transaction<'_>,
    device: &str,
    now: SystemTime,
) -> Result<Device, EnrollError<E>> {
    let sql = "SELECT id, owner, name, kind, created_at, revoked_at,
                (SELECT count(*) FROM certificates WHERE device = devices.id AND not_after > ?2)
         FROM devices WHERE id = ?1";
    let (device, good): (Device, u32) = transaction
        .query_row(sql, params![device, unix(now)], |row| Ok((device_of(row)?, row.get(6)?)))
        .map_err(StoreError::from)?;
    if device.revoked_at.is_some() || good >= MAX_CERTIFICATES - 1 {
        return Err(EnrollError::UsedCode);
    }
    Ok(device)
}

/// Marks the invite as used by a device with this key.
fn consume(
    transaction: &Transaction<'_>,
    code: &[u8; 16],
    key: &[u8; 32],
    device: &str,
    now: SystemTime,
) -> Result<(), StoreError> {
    transaction.execute(
        "UPDATE invites SET used_at = ?2, device = ?3, key_hash = ?4 WHERE code_hash = ?1",
        params![sha256(code), unix(now), device, key],
    )?;
    Ok(())
}

/// An invite that is good for something.
enum Invite {
    /// For a new device.
    Unused { user: String },
    /// For the device that it has become, a little longer.
    Used { user: String, device: String, key_hash: [u8; 32] },
}

/// The invite of a code. Every outcome takes the same one look-up by hash.
fn usable<E: Error + 'static>(
    connection: &Connection,
    code: &[u8; 16],
    now: SystemTime,
) -> Result<Invite, EnrollError<E>> {
    type Row = ([u8; 32], String, i64, Option<i64>, Option<String>, Option<[u8; 32]>);
    let hash = sha256(code);
    let sql = "SELECT code_hash, owner, expires_at, used_at, device, key_hash FROM invites WHERE code_hash = ?1";
    let found: Option<Row> = connection
        .query_row(sql, [hash], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })
        .optional()
        .map_err(StoreError::from)?;
    let (stored, user, expires_at, used_at, device, key_hash) = found.ok_or(EnrollError::UnknownCode)?;
    if !bool::from(stored.ct_eq(&hash)) {
        return Err(EnrollError::UnknownCode);
    }
    if let Some(used_at) = used_at {
        let lately = unix(now).abs_diff(used_at) < AGAIN;
        return match (device, key_hash) {
            (Some(device), Some(key_hash)) if lately => Ok(Invite::Used { user, device, key_hash }),
            _ => Err(EnrollError::UsedCode),
        };
    }
    if unix(now) >= expires_at {
        return Err(EnrollError::ExpiredCode);
    }
    Ok(Invite::Unused { user })
}

pub(super) fn insert_device(transaction: &Transaction<'_>, device: &Device) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO devices (id, owner, name, kind, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![device.id, device.user, device.name, device.kind.word(), device.created_at],
    )?;
    Ok(())
}

fn insert_certificate(
    transaction: &Transaction<'_>,
    device: &str,
    certificate: &DeviceCertificate,
) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO certificates (serial, device, not_after, boot) VALUES (?1, ?2, ?3, ?4)",
        params![certificate.serial, device, unix(certificate.not_after), clock::boot()?],
    )?;
    Ok(())
}

/// A fresh device id: `dev-` and 80 random bits in base 32.
pub(super) fn new_device_id() -> Result<String, StoreError> {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    let encoding = specification.encoding().expect("32 different symbols are an encoding");
    Ok(format!("{DEVICE_PREFIX}{}", encoding.encode(&random::<10>()?)))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::super::tests::{Scratch, at, scratch};
    use super::*;
    use crate::accounts::{Accounts as _, AuthError, UserName};

    /// The hash of a device's key.
    const KEY: [u8; 32] = [1; 32];

    static SERIAL: AtomicU64 = AtomicU64::new(0);

    fn certificate() -> DeviceCertificate {
        let serial = format!("{:032x}", SERIAL.fetch_add(1, Ordering::Relaxed));
        DeviceCertificate { pem: String::new(), serial, not_after: at(1000) }
    }

    fn sign(_: &str, _: &str) -> Result<DeviceCertificate, Infallible> {
        Ok(certificate())
    }

    fn renewed(_: &str) -> Result<DeviceCertificate, Infallible> {
        Ok(certificate())
    }

    fn invite(store: &Store) -> [u8; 16] {
        store.invite(&UserName::parse("alice").unwrap(), Duration::from_secs(60), at(0)).unwrap()
    }

    #[test]
    fn invite_makes_one_device_of_its_user() {
        let Scratch { store, directory: _directory } = scratch();
        let enrolled = store.enroll(&invite(&store), &KEY, "lap\u{1b}top", at(59), sign).unwrap();
        assert_eq!((enrolled.device.user.as_str(), enrolled.device.name.as_str()), ("alice", "laptop"));
        assert_eq!(enrolled.device.id.len(), 20);
        let found = store.authenticate_certificate(&enrolled.device.id, &enrolled.certificate.serial, at(60)).unwrap();
        assert_eq!(found, enrolled.device);
    }

    #[test]
    fn used_expired_and_unknown_codes_are_told_apart() {
        let Scratch { store, directory: _directory } = scratch();
        let code = invite(&store);
        store.enroll(&code, &KEY, "a", at(1), sign).unwrap();
        assert!(matches!(store.enroll(&code, &[2; 32], "a", at(1), sign), Err(EnrollError::UsedCode)));
        assert!(matches!(store.enroll(&invite(&store), &KEY, "a", at(60), sign), Err(EnrollError::ExpiredCode)));
        assert!(matches!(store.enroll(&[7; 16], &KEY, "a", at(1), sign), Err(EnrollError::UnknownCode)));
    }

    #[test]
    fn failed_signing_leaves_the_invite_good() {
        let Scratch { store, directory: _directory } = scratch();
        let code = invite(&store);
        let failed = store.enroll(&code, &KEY, "a", at(1), |_, _| Err(std::io::Error::other("no")));
        assert!(matches!(failed, Err(EnrollError::Sign(_))));
        assert_eq!(store.devices().unwrap(), []);
        assert!(store.enroll(&code, &KEY, "a", at(1), sign).is_ok());
    }

    #[test]
    fn of_many_that_race_for_one_invite_exactly_one_wins() {
        let scratch = scratch();
        // Two connections to one file, as of two processes, with two threads each.
        let other = Store::open(&scratch.directory.path().join("store.db")).unwrap();
        for _ in 0..20 {
            let code = invite(&scratch.store);
            let barrier = std::sync::Barrier::new(4);
            let outcomes: Vec<bool> = std::thread::scope(|scope| {
                let racers =
                    [(&scratch.store, 1), (&scratch.store, 2), (&other, 3), (&other, 4)].map(|(store, key)| {
                        let (barrier, code) = (&barrier, &code);
                        scope.spawn(move || {
                            barrier.wait();
                            match store.enroll(code, &[key; 32], "a", at(1), sign) {
                                Ok(_) => true,
                                Err(EnrollError::UsedCode) => false,
                                Err(other) => panic!("{other}"),
                            }
                        })
                    });
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
        }
        assert_eq!(scratch.store.devices().unwrap().len(), 20);
    }

    #[test]
    fn renewal_adds_a_certificate_unless_the_device_is_revoked() {
        let Scratch { store, directory: _directory } = scratch();
        let enrolled = store.enroll(&invite(&store), &KEY, "a", at(1), sign).unwrap();
        let id = &enrolled.device.id;
        let renew = |id: &str, now| store.renew(id, now, renewed);
        let fresh = renew(id, at(1)).unwrap();
        assert!(store.authenticate_certificate(id, &fresh.serial, at(2)).is_ok());
        assert!(store.authenticate_certificate(id, &enrolled.certificate.serial, at(2)).is_ok());
        assert!(matches!(renew("dev-none", at(2)), Err(RenewError::Unknown)));
        store.revoke(id, at(3)).unwrap();
        assert!(matches!(renew(id, at(4)), Err(RenewError::Revoked)));
        assert!(matches!(store.check_renewal::<Infallible>(id, at(4)), Err(RenewError::Revoked)));
    }

    #[test]
    fn device_has_few_good_certificates_at_a_time() {
        let Scratch { store, directory: _directory } = scratch();
        let id = store.enroll(&invite(&store), &KEY, "a", at(1), sign).unwrap().device.id;
        let check = |now| store.check_renewal::<Infallible>(&id, now);
        for _ in 1..MAX_CERTIFICATES {
            assert_eq!(check(at(2)).unwrap(), "alice");
            store.renew(&id, at(2), renewed).unwrap();
        }
        assert!(matches!(check(at(999)), Err(RenewError::TooMany)));
        assert!(matches!(store.renew(&id, at(999), renewed), Err(RenewError::TooMany)));
        assert!(store.renew(&id, at(1000), renewed).is_ok(), "expired ones do not count");
    }

    #[test]
    fn user_with_as_many_devices_as_may_be_enrols_another_once_one_is_gone() {
        let Scratch { store, directory: _directory } = scratch();
        store.limit_devices(2);
        let (alice, bob) = (UserName::parse("alice").unwrap(), UserName::parse("bob").unwrap());
        let first = store.enroll(&invite(&store), &KEY, "a", at(1), sign).unwrap().device.id;
        store.begin_logins_of("alice", &[[1; 16], [2; 16]]);
        store.enroll_by_login((&alice, &[1; 16]), &KEY, "b", at(1), sign).unwrap();
        let code = invite(&store);
        let enroll = |now| store.enroll(&code, &KEY, "c", now, sign).map(|enrolled| enrolled.device);
        assert!(matches!(enroll(at(2)), Err(EnrollError::TooManyDevices(2))));
        let by_login = store.enroll_by_login((&alice, &[2; 16]), &KEY, "c", at(2), sign);
        assert!(matches!(by_login, Err(EnrollError::TooManyDevices(2))));
        assert_eq!(store.devices().unwrap().len(), 2);
        let of_bob = store.invite(&bob, Duration::from_secs(60), at(2)).unwrap();
        assert!(store.enroll(&of_bob, &KEY, "d", at(2), sign).is_ok(), "the control: another user");
        store.revoke(&first, at(3)).unwrap();
        let device = enroll(at(3)).unwrap();
        assert_eq!(enroll(at(3)).unwrap(), device, "an answer that was lost makes no further device");
        let late = at(1001);
        let code = store.invite(&alice, Duration::from_secs(60), late).unwrap();
        assert!(store.enroll(&code, &KEY, "e", late, sign).is_ok(), "those whose certificates are over do not count");
    }

    #[test]
    fn login_that_is_over_or_was_never_made_enrols_nothing() {
        let Scratch { store, directory: _directory } = scratch();
        let alice = UserName::parse("alice").unwrap();
        invite(&store);
        store.begin_logins_of("alice", &[[1; 16], [2; 16]]);
        let enroll = |login: u8| store.enroll_by_login((&alice, &[login; 16]), &KEY, "b", at(1), sign);
        store.end_login(&[1; 16]).unwrap();
        for over in [1, 3] {
            assert!(matches!(enroll(over), Err(EnrollError::LoginOver)), "{over}");
        }
        enroll(2).expect("the positive control");
        assert_eq!(enroll(2).unwrap().device.user, "alice", "an answer that was lost");
        store.end_login(&[2; 16]).unwrap();
        assert!(matches!(enroll(2), Err(EnrollError::LoginOver)), "nor is it given again");
        assert_eq!(store.devices().unwrap().len(), 1);
    }

    #[test]
    fn looking_at_an_invite_does_not_spend_it() {
        let Scratch { store, directory: _directory } = scratch();
        let code = invite(&store);
        let look = |code: &[u8; 16], now| store.check_invite::<Infallible>(code, now);
        for _ in 0..2 {
            look(&code, at(1)).unwrap();
        }
        assert!(matches!(look(&code, at(60)), Err(EnrollError::ExpiredCode)));
        assert!(matches!(look(&[7; 16], at(1)), Err(EnrollError::UnknownCode)));
        store.enroll(&code, &KEY, "a", at(1), sign).unwrap();
        assert!(look(&code, at(1)).is_ok(), "its device may want it again");
        assert!(matches!(look(&code, at(601)), Err(EnrollError::UsedCode)));
    }

    #[test]
    fn device_gets_its_certificate_again_for_ten_minutes_with_the_same_key() {
        let Scratch { store, directory: _directory } = scratch();
        let code = invite(&store);
        let first = store.enroll(&code, &KEY, "a", at(1), sign).unwrap();
        let again = store.enroll(&code, &KEY, "other name", at(600), sign).unwrap();
        assert_eq!(again.device, first.device, "no second device");
        assert_eq!(store.devices().unwrap(), std::slice::from_ref(&first.device));
        for certificate in [&first.certificate, &again.certificate] {
            let found = store.authenticate_certificate(&first.device.id, &certificate.serial, at(600)).unwrap();
            assert_eq!(found, first.device);
        }
        let refused = |key: &[u8; 32], now| store.enroll(&code, key, "a", now, sign).map(|_| ()).unwrap_err();
        assert!(matches!(refused(&[2; 32], at(2)), EnrollError::UsedCode), "another key");
        assert!(matches!(refused(&KEY, at(601)), EnrollError::UsedCode), "too late");
        store.enroll(&code, &KEY, "a", at(600), sign).unwrap();
        assert!(matches!(refused(&KEY, at(600)), EnrollError::UsedCode), "and not without end");
        let renewal = store.check_renewal::<Infallible>(&first.device.id, at(600));
        assert!(renewal.is_ok(), "one is left for its renewal");
    }

    #[test]
    fn revoked_device_does_not_get_its_certificate_again() {
        let Scratch { store, directory: _directory } = scratch();
        let code = invite(&store);
        let device = store.enroll(&code, &KEY, "a", at(1), sign).unwrap().device;
        store.revoke(&device.id, at(2)).unwrap();
        assert!(matches!(store.enroll(&code, &KEY, "a", at(3), sign), Err(EnrollError::UsedCode)));
    }

    #[test]
    fn certificate_is_good_only_for_its_device_and_time() {
        let Scratch { store, directory: _directory } = scratch();
        let a = store.enroll(&invite(&store), &KEY, "a", at(1), sign).unwrap();
        let b = store.enroll(&invite(&store), &KEY, "b", at(1), sign).unwrap();
        let check = |device: &str, serial: &str, now| store.authenticate_certificate(device, serial, now);
        assert!(matches!(check(&a.device.id, &b.certificate.serial, at(2)), Err(AuthError::Unknown)));
        assert!(matches!(check(&a.device.id, "00", at(2)), Err(AuthError::Unknown)));
        assert!(matches!(check(&a.device.id, &a.certificate.serial, at(1000)), Err(AuthError::Expired)));
        store.revoke(&a.device.id, at(3)).unwrap();
        assert!(matches!(check(&a.device.id, &a.certificate.serial, at(4)), Err(AuthError::Revoked)));
        assert!(check(&b.device.id, &b.certificate.serial, at(4)).is_ok());
    }
}

//! Certificates, invites and whatever else ends, given while the host's clock was wrong.
//!
//! A host without a battery for its clock begins at some time in the past, until somebody tells it the time. What the
//! gateway gives meanwhile seems to be over, or not to have begun, once the clock is right. The kernel's time since the
//! boot is not set, so it shows by how much the clock was: the ends of what was given in this boot are moved with it,
//! and each is good for as long as it was meant to be. Of earlier boots nothing is known; they are left alone.
//!
//! Logins must not come to life again. They end by how long the host was seen running, over all boots: that grows, and
//! nobody sets it. It is noted every few minutes. What was not noted before a restart is missing, as is the time
//! without power.

use std::fs;
use std::time::SystemTime;

use nix::time::{ClockId, clock_gettime};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Store, StoreError, unix};

/// Tells one boot from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What a clock may be set by without notice, in seconds; certificates begin as long before they are issued.
const TOLERANCE: u64 = 60 * 60;

/// Moves all that was given in the boot ?1 by ?2 seconds. Codes of apps count in steps of half a minute: one that was
/// used by a clock ahead would else keep the next ones out.
const MOVES: [&str; 5] = [
    "UPDATE certificates SET not_after = not_after + ?2 WHERE boot = ?1",
    "UPDATE invites SET expires_at = expires_at + ?2, used_at = used_at + ?2 WHERE boot = ?1",
    "UPDATE password_links SET expires_at = expires_at + ?2, used_at = used_at + ?2 WHERE boot = ?1",
    "UPDATE known_networks SET until = until + ?2 WHERE boot = ?1",
    "UPDATE users SET totp_last = max(0, totp_last + ?2 / 30) WHERE totp_boot = ?1",
];

/// Where a verb of the store reads the time. It does so when it is its turn to write: the clock may be set while it
/// waits for that, and by a time from before it would move everything back.
pub trait Clock: Copy {
    /// The time of now.
    fn read(self) -> SystemTime;
}

/// The host's clock.
#[derive(Debug, Clone, Copy)]
pub struct HostClock;

impl Clock for HostClock {
    fn read(self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still.
impl Clock for SystemTime {
    fn read(self) -> SystemTime {
        self
    }
}

impl Store {
    /// Moves the ends of certificates, invites and the like along with a clock that was set; gives the seconds it was
    /// set by, if it was. Notes, too, for how long the host has run.
    ///
    /// # Errors
    /// The store failed.
    pub fn follow_clock(&self, clock: impl Clock) -> Result<Option<i64>, StoreError> {
        self.write(|transaction| {
            let set_by = follow(transaction, clock.read())?;
            let sql = "UPDATE clock SET seen = max(seen, ?2) WHERE boot = ?1";
            transaction.execute(sql, params![boot()?, seconds_since_boot()?])?;
            Ok(set_by)
        })
    }
}

/// For how long the host was seen running, in seconds, from the first boot that is known to now.
pub(super) fn ran(connection: &Connection) -> Result<i64, StoreError> {
    Ok(ran_before(connection, &boot()?)?.saturating_add(seconds_since_boot()?))
}

/// The same up to the beginning of this boot.
fn ran_before(connection: &Connection, boot: &str) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce((SELECT ran_before FROM clock WHERE boot = ?1),
        (SELECT max(ran_before + seen) FROM clock), 0)";
    Ok(connection.prepare_cached(sql)?.query_row([boot], |row| row.get(0))?)
}

/// The time of now, for what depends on it in the same transaction, which has followed the clock already.
pub(super) fn now(transaction: &Transaction<'_>, clock: impl Clock) -> Result<SystemTime, StoreError> {
    let now = clock.read();
    follow(transaction, now)?;
    Ok(now)
}

fn follow(transaction: &Transaction<'_>, now: SystemTime) -> Result<Option<i64>, StoreError> {
    let (boot, began) = (boot()?, boot_began_at(now)?);
    let sql = "SELECT boot_began_at FROM clock WHERE boot = ?1";
    let known: Option<i64> = transaction.query_row(sql, [&boot], |row| row.get(0)).optional()?;
    if known.is_some_and(|known| known.abs_diff(began) < TOLERANCE) {
        return Ok(None);
    }
    let ran_before = ran_before(transaction, &boot)?;
    transaction.execute("DELETE FROM clock WHERE boot <> ?1", [&boot])?;
    let sql = "INSERT INTO clock (boot, boot_began_at, ran_before, seen) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (boot) DO UPDATE SET boot_began_at = ?2";
    transaction.execute(sql, params![boot, began, ran_before, seconds_since_boot()?])?;
    let Some(known) = known else { return Ok(None) };
    let by = began.saturating_sub(known);
    for sql in MOVES {
        transaction.execute(sql, params![boot, by])?;
    }
    Ok(Some(by))
}

/// The name of this boot.
pub fn boot() -> Result<String, StoreError> {
    let name = fs::read_to_string(BOOT_ID).map_err(StoreError::Clock)?.trim().to_owned();
    // What has no name would be taken for all else that has none.
    if name.is_empty() { Err(StoreError::Clock(std::io::ErrorKind::InvalidData.into())) } else { Ok(name) }
}

/// When this boot began, by what the clock says now, in seconds of Unix time.
pub fn boot_began_at(now: SystemTime) -> Result<i64, StoreError> {
    Ok(unix(now).saturating_sub(seconds_since_boot()?))
}

/// The seconds since the boot, with those asleep.
pub fn seconds_since_boot() -> Result<i64, StoreError> {
    // /proc/uptime may be a container's own.
    let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|error| StoreError::Clock(error.into()))?;
    Ok(since.tv_sec())
}

/// Whether the clock was set between two answers of [`boot_began_at`].
pub fn was_set(before: i64, now: i64) -> bool {
    before.abs_diff(now) >= TOLERANCE
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::super::tests::{Scratch, scratch};
    use super::*;
    use crate::accounts::{Accounts as _, AuthError, FirstPassword, UserName};
    use crate::identity::DeviceCertificate;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    impl Store {
        /// Makes it look as if the boot before this one had lasted for so many seconds more than was seen of it.
        pub(crate) fn restart_host_after(&self, seconds: i64) {
            self.follow_clock(SystemTime::now()).unwrap();
            self.writer().execute("UPDATE clock SET boot = 'another', seen = ?1", [seconds]).unwrap();
        }
    }

    /// Enrols a device for ten days; gives its id and the serial number of its certificate.
    fn enroll(store: &Store, serial: &str, now: SystemTime) -> (String, String) {
        let code = store.invite(&UserName::parse("alice").unwrap(), DAY, now).unwrap();
        let sign = |_: &str, _: &str| {
            Ok::<_, Infallible>(DeviceCertificate {
                pem: String::new(),
                serial: serial.to_owned(),
                not_after: now + 10 * DAY,
            })
        };
        (store.enroll(&code, &[1; 32], "a", now, sign).unwrap().device.id, serial.to_owned())
    }

    #[test]
    fn certificate_of_a_wrong_clock_lives_as_long_as_it_was_meant_to() {
        let right = SystemTime::now();
        for wrong in [right - 400 * DAY, right + 400 * DAY] {
            let Scratch { store, directory: _directory } = scratch();
            let (device, serial) = enroll(&store, "01", wrong);
            let admitted = |now| store.authenticate_certificate(&device, &serial, now);
            if wrong < right {
                assert!(matches!(admitted(right), Err(AuthError::Expired)), "the positive control");
            }
            let by = store.follow_clock(right).unwrap().unwrap();
            assert!(by.unsigned_abs().abs_diff(400 * DAY.as_secs()) < 10, "{by}");
            assert!(admitted(right).is_ok() && admitted(right + 9 * DAY).is_ok());
            assert!(matches!(admitted(right + 11 * DAY), Err(AuthError::Expired)), "and no longer");
            assert_eq!(store.follow_clock(right).unwrap(), None, "once is enough");
        }
    }

    #[test]
    fn last_certificate_of_a_device_ends_when_it_was_meant_to_whatever_the_clock_was_set_to() {
        let Scratch { store, directory: _directory } = scratch();
        let right = SystemTime::now();
        let (device, _) = enroll(&store, "01", right - 400 * DAY);
        let ends_in = || {
            let end = store.certificates_end(&device).unwrap().unwrap();
            (end.duration_since(right).unwrap_or_default().as_secs() + 10) / DAY.as_secs()
        };
        assert_eq!(ends_in(), 10, "it is past by the clock, which was set");
        let renewed = |_: &str| {
            let (pem, serial) = (String::new(), "02".to_owned());
            Ok::<_, Infallible>(DeviceCertificate { pem, serial, not_after: right + 15 * DAY })
        };
        store.renew(&device, right, renewed).unwrap();
        assert_eq!(ends_in(), 15, "the later one counts");
        assert_eq!(store.certificates_end("dev-none").unwrap(), None);
        store.writer().execute("UPDATE certificates SET boot = 'another', not_after = 1000", []).unwrap();
        assert_eq!(ends_in(), 0, "it is really over");
        store.revoke(&device, right).unwrap();
        assert_eq!(store.certificates_end(&device).unwrap(), None);
    }

    #[test]
    fn invite_of_a_wrong_clock_can_be_used_for_as_long_as_it_was_meant_to() {
        let Scratch { store, directory: _directory } = scratch();
        let (wrong, right) = (SystemTime::now() - 400 * DAY, SystemTime::now());
        let code = store.invite(&UserName::parse("alice").unwrap(), DAY, wrong).unwrap();
        let look = |now| store.check_invite::<Infallible>(&code, now);
        assert!(look(right).is_err(), "the positive control");
        store.follow_clock(right).unwrap();
        assert!(look(right).is_ok());
        assert!(look(right + 2 * DAY).is_err());
    }

    /// A clock that is read by who has the turn to write, and by nobody else.
    #[derive(Clone, Copy)]
    struct InTurn<'a>(&'a Store);

    impl Clock for InTurn<'_> {
        fn read(self) -> SystemTime {
            assert!(self.0.writer.try_lock().is_err(), "it was read before the turn came");
            SystemTime::now()
        }
    }

    #[test]
    fn clock_is_read_when_the_turn_to_write_has_come() {
        let Scratch { store, directory: _directory } = scratch();
        let (alice, in_turn) = (UserName::parse("alice").unwrap(), InTurn(&store));
        let sign = |serial: &'static str| {
            let certificate =
                DeviceCertificate { pem: String::new(), serial: serial.to_owned(), not_after: in_turn.read() + DAY };
            Ok::<_, Infallible>(certificate)
        };
        let code = store.invite(&alice, DAY, in_turn).unwrap();
        let device = store.enroll(&code, &[1; 32], "a", in_turn, |_, _| sign("01")).unwrap().device.id;
        store.begin_logins_of("alice", &[[1; 16]]);
        store.enroll_by_login((&alice, &[1; 16]), &[2; 32], "b", in_turn, |_, _| sign("02")).unwrap();
        store.renew(&device, in_turn, |_| sign("03")).unwrap();
        let link = |hash| FirstPassword::Link { hash, seconds: 60 };
        store.add_user(&alice, &link([1; 32]), in_turn).unwrap();
        store.use_password_link("alice", &[1; 32], "hash", in_turn).unwrap();
        store.set_factor(&alice, b"sealed", 1, &[], in_turn).unwrap();
        assert!(store.use_code("alice", b"sealed", 2, in_turn).unwrap());
        store.reset_user(&alice, &link([2; 32]), in_turn).unwrap();
        store.follow_clock(in_turn).unwrap();
        store.prune(in_turn).unwrap();
    }

    #[test]
    fn clock_that_is_right_moves_nothing_and_a_boot_before_is_left_alone() {
        let Scratch { store, directory: _directory } = scratch();
        let now = SystemTime::now();
        let (device, serial) = enroll(&store, "01", now - 20 * DAY);
        store.writer().execute("UPDATE certificates SET boot = 'another'", []).unwrap();
        store.follow_clock(now).unwrap();
        assert!(matches!(store.authenticate_certificate(&device, &serial, now), Err(AuthError::Expired)));
        store.writer().execute("UPDATE certificates SET boot = NULL", []).unwrap();
        store.follow_clock(now + 400 * DAY).unwrap();
        assert!(matches!(store.authenticate_certificate(&device, &serial, now), Err(AuthError::Expired)), "of no boot");
        store.follow_clock(now).unwrap();
        let (device, serial) = enroll(&store, "02", now);
        assert_eq!(store.follow_clock(now + Duration::from_secs(60)).unwrap(), None);
        assert!(matches!(store.authenticate_certificate(&device, &serial, now + 11 * DAY), Err(AuthError::Expired)));
    }

    #[test]
    fn revoked_or_unknown_device_is_not_let_in_by_a_clock_that_was_set() {
        let Scratch { store, directory: _directory } = scratch();
        let now = SystemTime::now();
        let (device, serial) = enroll(&store, "01", now - 400 * DAY);
        store.revoke(&device, now - 400 * DAY).unwrap();
        store.follow_clock(now).unwrap();
        assert!(matches!(store.authenticate_certificate(&device, &serial, now), Err(AuthError::Revoked)));
        assert!(matches!(store.authenticate_certificate(&device, "02", now), Err(AuthError::Unknown)));
    }
}

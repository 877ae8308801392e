//! Users whose passwords the gateway keeps, their second factors, and the one-time codes by which they set a password.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use subtle::ConstantTimeEq;

use super::clock::{self, Clock};
use super::invite::ensure_user;
use super::person::{LOCAL, changed_one, forget_codes, read};
use super::{Store, StoreError, unix};
use crate::accounts::{FirstPassword, LinkError, LocalUser, UserError, UserName};

impl Store {
    /// Makes a user of the gateway itself, with a password or a one-time code to set one. Somebody who was only invited
    /// so far gets them, too.
    ///
    /// # Errors
    /// [`UserError::Exists`] when the user has a password, or is one of another source; or the store failed.
    pub fn add_user(&self, user: &UserName, first: &FirstPassword, clock: impl Clock) -> Result<(), UserError> {
        self.write(|transaction| {
            if let Some(known) = read(transaction, user.as_str())? {
                let sql = "SELECT password IS NOT NULL OR EXISTS (SELECT 1 FROM password_links WHERE owner = name)
                     FROM users WHERE name = ?1";
                let taken: bool =
                    transaction.query_row(sql, [user.as_str()], |row| row.get(0)).map_err(StoreError::from)?;
                if known.source != LOCAL || taken {
                    return Err(UserError::Exists(user.to_string()));
                }
            }
            let now = clock::now(transaction, clock)?;
            ensure_user(transaction, user, now)?;
            Ok(give(transaction, user, first, now)?)
        })
    }

    /// Takes password, second factor and recovery codes from a user, and gives a new password or a one-time code to set
    /// one. What was given to the user before is void, except the certificates and tokens of their devices.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::NotLocal`], or the store failed.
    pub fn reset_user(&self, user: &UserName, first: &FirstPassword, clock: impl Clock) -> Result<(), UserError> {
        self.write(|transaction| {
            require_local(transaction, user)?;
            let sql = "UPDATE users SET password = NULL, totp = NULL, totp_confirmed_at = NULL,
                    generation = generation + 1
                 WHERE name = ?1";
            changed_one(transaction.execute(sql, [user.as_str()]), user)?;
            forget_codes(transaction, user.as_str())?;
            let now = clock::now(transaction, clock)?;
            Ok(give(transaction, user, first, now)?)
        })
    }

    /// Makes sure that a user is one of the gateway itself.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::NotLocal`], or the store failed.
    pub fn require_local(&self, user: &UserName) -> Result<(), UserError> {
        require_local(&self.read(), user)
    }

    /// What a user of the gateway itself is checked by; `None` if there is no such user. Waits for nobody who writes.
    ///
    /// # Errors
    /// The store failed.
    pub fn local_user(&self, user: &str) -> Result<Option<LocalUser>, StoreError> {
        let sql = "SELECT password, totp, disabled_at IS NOT NULL,
                (SELECT count(*) FROM recovery_codes WHERE owner = users.name AND used_at IS NULL), generation
             FROM users WHERE name = ?1 AND source = 'local'";
        let found = self.read().prepare_cached(sql)?.query_row([user], |row| {
            Ok(LocalUser {
                password: row.get(0)?,
                totp: row.get(1)?,
                is_disabled: row.get(2)?,
                recovery_codes: row.get(3)?,
                generation: row.get::<_, u32>(4)?.into(),
            })
        });
        let revoked = self.unwritten.holds_user(user);
        Ok(found.optional()?.map(|known| LocalUser { is_disabled: known.is_disabled || revoked, ..known }))
    }

    /// Writes the same password in another form, unless it was changed meanwhile.
    ///
    /// # Errors
    /// The store failed.
    pub fn rehash(&self, user: &str, old: &str, new: &str) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sql = "UPDATE users SET password = ?3 WHERE name = ?1 AND password = ?2";
            transaction.execute(sql, [user, old, new])?;
            Ok(())
        })
    }

    /// Looks whether a one-time code of a user is good, without using it.
    ///
    /// # Errors
    /// What [`Self::use_password_link`] would refuse it for.
    pub fn check_password_link(&self, user: &str, hash: &[u8; 32], now: SystemTime) -> Result<(), LinkError> {
        usable(&self.read(), user, hash, now)
    }

    /// Uses a one-time code of a user up and sets the password (PHC string). What was given to the user before is void.
    ///
    /// # Errors
    /// See [`LinkError`]; after each of them the store is as it was.
    pub fn use_password_link(
        &self,
        user: &str,
        hash: &[u8; 32],
        password: &str,
        clock: impl Clock,
    ) -> Result<(), LinkError> {
        self.write(|transaction| {
            let now = clock::now(transaction, clock)?;
            usable(transaction, user, hash, now)?;
            let sql = "UPDATE password_links SET used_at = ?2 WHERE hash = ?1 AND used_at IS NULL";
            if transaction.execute(sql, params![hash, unix(now)]).map_err(StoreError::from)? != 1 {
                return Err(LinkError::Used);
            }
            let sql = "UPDATE users SET password = ?2, generation = generation + 1 WHERE name = ?1";
            transaction.execute(sql, [user, password]).map_err(StoreError::from)?;
            Ok(())
        })
    }

    /// Gives a user an app that shows codes, by its sealed secret, and new recovery codes, by their hashes. The step of
    /// the code that confirmed it is used up by that.
    ///
    /// # Errors
    /// [`UserError::NotFound`], [`UserError::NotLocal`], or the store failed.
    pub fn set_factor(
        &self,
        user: &UserName,
        secret: &[u8],
        step: u64,
        recovery: &[[u8; 32]],
        clock: impl Clock,
    ) -> Result<(), UserError> {
        self.write(|transaction| {
            require_local(transaction, user)?;
            let now = clock::now(transaction, clock)?;
            let sql = "UPDATE users SET totp = ?2, totp_confirmed_at = ?3, totp_last = ?4, totp_boot = ?5
                 WHERE name = ?1";
            let values = params![user.as_str(), secret, unix(now), signed(step), clock::boot()?];
            changed_one(transaction.execute(sql, values), user)?;
            let sql = "DELETE FROM recovery_codes WHERE owner = ?1";
            transaction.execute(sql, [user.as_str()]).map_err(StoreError::from)?;
            for hash in recovery {
                let sql = "INSERT INTO recovery_codes (hash, owner) VALUES (?1, ?2)";
                transaction.execute(sql, params![hash, user.as_str()]).map_err(StoreError::from)?;
            }
            Ok(())
        })
    }

    /// Uses up the code of a time step, if the user still has the app with this sealed secret and used no code of this
    /// or a later step before. Durable before it says `true`.
    ///
    /// # Errors
    /// The store failed; then the code counts as unused, and must not let anybody in.
    pub fn use_code(&self, user: &str, secret: &[u8], step: u64, clock: impl Clock) -> Result<bool, StoreError> {
        self.write(|transaction| {
            clock::now(transaction, clock)?;
            let sql = "UPDATE users SET totp_last = ?3, totp_boot = ?4
                 WHERE name = ?1 AND totp = ?2 AND totp_last < ?3";
            Ok(transaction.execute(sql, params![user, secret, signed(step), clock::boot()?])? == 1)
        })
    }

    /// Uses up a recovery code; `false` if the user has no such unused one. Durable before it says `true`.
    ///
    /// # Errors
    /// The store failed; then the code counts as unused, and must not let anybody in.
    pub fn use_recovery_code(&self, user: &str, hash: &[u8; 32], now: SystemTime) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let sql = "UPDATE recovery_codes SET used_at = ?3 WHERE owner = ?1 AND hash = ?2 AND used_at IS NULL";
            Ok(transaction.execute(sql, params![user, hash, unix(now)])? == 1)
        })
    }
}

fn give(
    transaction: &Transaction<'_>,
    user: &UserName,
    first: &FirstPassword,
    now: SystemTime,
) -> Result<(), StoreError> {
    match first {
        FirstPassword::Hash(hash) => {
            transaction.execute("UPDATE users SET password = ?2 WHERE name = ?1", [user.as_str(), hash])?;
        }
        FirstPassword::Link { hash, seconds } => {
            let expires = unix(now).saturating_add(i64::try_from(*seconds).unwrap_or(i64::MAX));
            transaction.execute(
                "INSERT INTO password_links (hash, owner, expires_at, boot) VALUES (?1, ?2, ?3, ?4)",
                params![hash, user.as_str(), expires, clock::boot()?],
            )?;
        }
    }
    Ok(())
}

fn require_local(connection: &Connection, user: &UserName) -> Result<(), UserError> {
    let known = read(connection, user.as_str())?.ok_or_else(|| UserError::NotFound(user.to_string()))?;
    if known.source == LOCAL {
        return Ok(());
    }
    Err(UserError::NotLocal { name: user.to_string(), owner: known.source })
}

/// A time step as SQLite keeps it.
fn signed(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

/// Whether a one-time code is this user's and good now.
fn usable(connection: &Connection, user: &str, hash: &[u8; 32], now: SystemTime) -> Result<(), LinkError> {
    let sql = "SELECT hash, expires_at, used_at FROM password_links WHERE hash = ?1 AND owner = ?2";
    let found: Option<([u8; 32], i64, Option<i64>)> = connection
        .query_row(sql, params![hash, user], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(StoreError::from)?;
    match found {
        Some((stored, ..)) if !bool::from(stored.ct_eq(hash)) => Err(LinkError::Unknown),
        None => Err(LinkError::Unknown),
        Some((_, _, Some(_))) => Err(LinkError::Used),
        Some((_, expires_at, None)) if unix(now) >= expires_at => Err(LinkError::Expired),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{Scratch, at, scratch};
    use super::*;
    use crate::accounts::Accounts as _;

    const CODE: [u8; 32] = [7; 32];

    fn alice() -> UserName {
        UserName::parse("alice").unwrap()
    }

    fn hash(text: &str) -> FirstPassword {
        FirstPassword::Hash(text.to_owned())
    }

    fn link(code: u8) -> FirstPassword {
        FirstPassword::Link { hash: [code; 32], seconds: 60 }
    }

    fn password(store: &Store) -> Option<String> {
        store.local_user("alice").unwrap().unwrap().password
    }

    fn generation(store: &Store) -> u64 {
        store.person("alice").unwrap().unwrap().generation
    }

    #[test]
    fn user_is_added_once_and_an_invited_one_gets_a_password() {
        let Scratch { store, directory: _directory } = scratch();
        store.invite(&alice(), Duration::from_secs(60), at(0)).unwrap();
        assert_eq!(password(&store), None);
        store.add_user(&alice(), &hash("one"), at(0)).unwrap();
        assert_eq!(password(&store).as_deref(), Some("one"));
        assert!(matches!(store.add_user(&alice(), &hash("two"), at(0)), Err(UserError::Exists(_))));
        let bob = UserName::parse("bob").unwrap();
        store.add_user(&bob, &link(1), at(0)).unwrap();
        assert!(matches!(store.add_user(&bob, &hash("two"), at(0)), Err(UserError::Exists(_))), "a code is out");
        assert_eq!(password(&store).as_deref(), Some("one"));
    }

    #[test]
    fn one_time_code_sets_a_password_once_and_in_time() {
        let Scratch { store, directory: _directory } = scratch();
        store.add_user(&alice(), &link(7), at(0)).unwrap();
        let used = |code: &[u8; 32], seconds| store.use_password_link("alice", code, "own", at(seconds));
        assert!(matches!(used(&[8; 32], 1), Err(LinkError::Unknown)));
        assert!(matches!(used(&CODE, 60), Err(LinkError::Expired)));
        assert!(matches!(store.use_password_link("bob", &CODE, "own", at(1)), Err(LinkError::Unknown)));
        assert_eq!(password(&store), None);
        for _ in 0..2 {
            store.check_password_link("alice", &CODE, at(59)).unwrap();
        }
        used(&CODE, 59).unwrap();
        assert_eq!(password(&store).as_deref(), Some("own"));
        assert_eq!(generation(&store), 1);
        assert!(matches!(used(&CODE, 59), Err(LinkError::Used)));
        assert!(matches!(store.check_password_link("alice", &CODE, at(59)), Err(LinkError::Used)));
    }

    #[test]
    fn of_many_that_race_for_one_code_exactly_one_wins() {
        let Scratch { store, directory } = scratch();
        store.add_user(&alice(), &link(7), at(0)).unwrap();
        store.set_factor(&alice(), b"sealed", 1, &[CODE], at(0)).unwrap();
        let other = Store::open(&directory.path().join("store.db")).unwrap();
        let barrier = std::sync::Barrier::new(4);
        let outcomes: Vec<[bool; 3]> = std::thread::scope(|scope| {
            let racers = [&store, &store, &other, &other].map(|store| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    [
                        store.use_password_link("alice", &CODE, "own", at(1)).is_ok(),
                        store.use_code("alice", b"sealed", 5, at(1)).unwrap(),
                        store.use_recovery_code("alice", &CODE, at(1)).unwrap(),
                    ]
                })
            });
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        for kind in 0..3 {
            assert_eq!(outcomes.iter().filter(|won| won[kind]).count(), 1, "{kind}: {outcomes:?}");
        }
    }

    #[test]
    fn code_of_an_app_is_used_once_and_no_earlier_one_after_it() {
        let Scratch { store, directory } = scratch();
        store.add_user(&alice(), &hash("one"), at(0)).unwrap();
        assert!(!store.use_code("alice", b"sealed", 200, at(0)).unwrap(), "there is no app");
        store.set_factor(&alice(), b"sealed", 100, &[], at(0)).unwrap();
        let used = |store: &Store, step| store.use_code("alice", b"sealed", step, at(0)).unwrap();
        assert!(!used(&store, 100), "it confirmed the app");
        assert!(used(&store, 101));
        assert!(!used(&store, 101) && !used(&store, 100));
        assert!(!store.use_code("alice", b"another", 200, at(0)).unwrap(), "the code of a former app");
        drop(store);
        let store = Store::open(&directory.path().join("store.db")).unwrap();
        assert!(!used(&store, 101) && used(&store, 102), "a restart forgets nothing");
    }

    #[test]
    fn code_used_by_a_clock_ahead_keeps_no_later_one_out_once_the_clock_is_right() {
        let Scratch { store, directory: _directory } = scratch();
        let right = SystemTime::now();
        let ahead = right + Duration::from_secs(400 * 86_400);
        let step = |time| u64::try_from(unix(time)).unwrap() / 30;
        store.add_user(&alice(), &hash("one"), ahead).unwrap();
        store.set_factor(&alice(), b"sealed", step(ahead), &[], ahead).unwrap();
        let next = step(right) + 1;
        assert!(store.use_code("alice", b"sealed", next, right).unwrap());
        assert!(!store.use_code("alice", b"sealed", next, right).unwrap());
    }

    #[test]
    fn recovery_codes_are_used_once_each_and_replaced_together() {
        let Scratch { store, directory: _directory } = scratch();
        store.add_user(&alice(), &hash("one"), at(0)).unwrap();
        store.set_factor(&alice(), b"sealed", 1, &[[1; 32], [2; 32]], at(0)).unwrap();
        let left = || store.local_user("alice").unwrap().unwrap().recovery_codes;
        assert_eq!(left(), 2);
        assert!(store.use_recovery_code("alice", &[1; 32], at(1)).unwrap());
        assert!(!store.use_recovery_code("alice", &[1; 32], at(1)).unwrap(), "twice");
        assert!(!store.use_recovery_code("bob", &[2; 32], at(1)).unwrap(), "another's");
        assert_eq!(left(), 1);
        store.set_factor(&alice(), b"sealed2", 1, &[[3; 32]], at(2)).unwrap();
        assert!(!store.use_recovery_code("alice", &[2; 32], at(2)).unwrap(), "of the former app");
        assert_eq!(left(), 1);
    }

    #[test]
    fn reset_takes_password_and_factor_and_gives_a_new_password() {
        let Scratch { store, directory: _directory } = scratch();
        store.add_user(&alice(), &link(7), at(0)).unwrap();
        store.set_factor(&alice(), b"sealed", 1, &[[1; 32]], at(0)).unwrap();
        store.reset_user(&alice(), &hash("two"), at(1)).unwrap();
        let known = store.local_user("alice").unwrap().unwrap();
        assert_eq!((known.password.as_deref(), known.totp, known.recovery_codes), (Some("two"), None, 0));
        assert_eq!(generation(&store), 1);
        assert!(matches!(store.use_password_link("alice", &CODE, "x", at(1)), Err(LinkError::Unknown)), "the old code");
        store.reset_user(&alice(), &link(9), at(2)).unwrap();
        assert_eq!(password(&store), None);
        let carol = UserName::parse("carol").unwrap();
        assert!(matches!(store.reset_user(&carol, &hash("x"), at(2)), Err(UserError::NotFound(_))));
        store.link_person(&alice(), "ldap", "u-1").unwrap();
        assert!(matches!(store.reset_user(&alice(), &hash("x"), at(3)), Err(UserError::NotLocal { .. })));
        assert!(matches!(store.set_factor(&alice(), b"s", 1, &[], at(3)), Err(UserError::NotLocal { .. })));
        assert!(store.local_user("alice").unwrap().is_none(), "the gateway checks no users of others");
    }

    #[test]
    fn revoked_user_has_nothing_left_to_log_in_with() {
        let Scratch { store, directory: _directory } = scratch();
        store.add_user(&alice(), &hash("one"), at(0)).unwrap();
        store.set_factor(&alice(), b"sealed", 1, &[[1; 32]], at(0)).unwrap();
        let known = || store.local_user("alice").unwrap().unwrap();
        assert!(!known().is_disabled && known().totp.is_some(), "the positive control");
        store.shut_out("alice", at(1)).unwrap();
        assert!(known().is_disabled && store.person("alice").unwrap().unwrap().is_disabled, "before it is written");
        store.write_revocations().unwrap();
        assert!(known().password.is_none() && known().totp.is_none() && known().recovery_codes == 0);
        assert_eq!(generation(&store), 1);
    }

    #[test]
    fn password_that_changed_meanwhile_is_not_written_over_by_its_former_form() {
        let Scratch { store, directory: _directory } = scratch();
        store.add_user(&alice(), &hash("old form"), at(0)).unwrap();
        store.rehash("alice", "old form", "new form").unwrap();
        assert_eq!(password(&store).as_deref(), Some("new form"));
        store.reset_user(&alice(), &hash("another"), at(1)).unwrap();
        store.rehash("alice", "new form", "newer form").unwrap();
        assert_eq!(password(&store).as_deref(), Some("another"));
        assert_eq!(generation(&store), 1, "the same password in another form ends no session");
    }
}

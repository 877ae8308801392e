//! People: who they are by which source, and whether they may connect.

use std::time::SystemTime;

use adit_program::foreign_text::printable;
use adit_proto::login::Person;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::invite::ensure_user;
use super::{Store, StoreError, unix};
use crate::accounts::{KnownPerson, PersonError, User, UserError, UserName};

/// The source of the users that the gateway itself knows.
pub(super) const LOCAL: &str = "local";

/// The columns that [`person_of`] reads.
const PERSON: &str = "name, source, subject, source_groups, generation, disabled_at, checked_at";

impl Store {
    /// Records that a source let somebody in, with their groups as of now. Who is here for the first time gets a user.
    ///
    /// # Errors
    /// See [`PersonError`].
    pub fn record_person(&self, person: &Person, now: SystemTime) -> Result<KnownPerson, PersonError> {
        self.write(|transaction| {
            let name = match known_name(transaction, person)? {
                Some(name) => name,
                None => make(transaction, person, now)?,
            };
            record(transaction, &name, &person.groups, now)?;
            let known = read(transaction, &name)?.ok_or_else(|| StoreError::NotFound(name.clone()))?;
            if known.is_disabled || self.unwritten.holds_user(&name) {
                return Err(PersonError::Disabled);
            }
            if person.generation.is_some_and(|generation| generation != known.generation) {
                return Err(PersonError::Changed);
            }
            Ok(known)
        })
    }

    /// Records what a source said when it was asked again about a user who was known as `asked`. `false`, and nothing
    /// is written, if the user has logged in since, or was changed: what was recorded then is newer.
    ///
    /// # Errors
    /// The store failed.
    pub fn record_check(&self, asked: &KnownPerson, groups: &[String], now: SystemTime) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let is_as_asked = is_still(transaction, asked)?;
            if is_as_asked {
                record(transaction, &asked.user, groups, now)?;
            }
            Ok(is_as_asked)
        })
    }

    /// Keeps what a source wants to have back when it is asked again about a person of its own, sealed. `false` if that
    /// is no user, or one who is disabled.
    ///
    /// # Errors
    /// The store failed.
    pub fn keep_refresh(&self, source: &str, subject: &str, refresh: &[u8]) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let sql = "UPDATE users SET refresh = ?3 WHERE source = ?1 AND subject = ?2 AND disabled_at IS NULL";
            Ok(transaction.execute(sql, params![source, subject, refresh])? == 1)
        })
    }

    /// What [`Self::keep_refresh`] kept of a person.
    ///
    /// # Errors
    /// The store failed.
    pub fn refresh(&self, source: &str, subject: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT refresh FROM users WHERE source = ?1 AND subject = ?2";
        Ok(self.read().query_row(sql, [source, subject], |row| row.get(0)).optional()?.flatten())
    }

    /// Lets a person of another source log in as a user that exists: the next login of theirs finds it.
    ///
    /// # Errors
    /// [`UserError::NotFound`]; [`UserError::Linked`] when the person is another user already.
    pub fn link_person(&self, user: &UserName, source: &str, subject: &str) -> Result<(), UserError> {
        self.write(|transaction| {
            let sql = "SELECT name FROM users WHERE source = ?1 AND subject = ?2";
            let other: Option<String> =
                transaction.query_row(sql, [source, subject], |row| row.get(0)).optional().map_err(StoreError::from)?;
            if let Some(other) = other.filter(|other| other != user.as_str()) {
                return Err(UserError::Linked(other));
            }
            let sql = "UPDATE users SET source = ?2, subject = ?3, source_groups = '[]', refresh = NULL,
                    password = NULL, totp = NULL, totp_confirmed_at = NULL, generation = generation + 1
                 WHERE name = ?1";
            changed_one(transaction.execute(sql, [user.as_str(), source, subject]), user)?;
            forget_codes(transaction, user.as_str())?;
            Ok(())
        })
    }

    /// Shuts a user out until further notice, or lets them in again. Says whether that changed anything. What was given
    /// to them before they were shut out is void for ever, except the certificates and tokens of their devices.
    ///
    /// # Errors
    /// [`UserError::NotFound`], or the store failed.
    pub fn set_disabled(&self, user: &UserName, disabled: bool, now: SystemTime) -> Result<bool, UserError> {
        self.write(|transaction| {
            let known = read(transaction, user.as_str())?;
            let known = known.ok_or_else(|| UserError::NotFound(user.to_string()))?;
            if known.is_disabled == disabled {
                return Ok(false);
            }
            let sql = "UPDATE users SET disabled_at = ?2, generation = generation + ?3 WHERE name = ?1";
            let at = disabled.then(|| unix(now));
            transaction.execute(sql, params![user.as_str(), at, disabled]).map_err(StoreError::from)?;
            Ok(true)
        })
    }

    /// Makes void whatever logins of a user have given so far, since a source said so of the one who was known as
    /// `asked`; `false` as of [`Self::record_check`].
    ///
    /// # Errors
    /// The store failed.
    pub fn end_logins_as_asked(&self, asked: &KnownPerson) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let is_as_asked = is_still(transaction, asked)?;
            if is_as_asked {
                transaction.execute("UPDATE users SET generation = generation + 1 WHERE name = ?1", [&asked.user])?;
            }
            Ok(is_as_asked)
        })
    }

    /// All users, by name.
    ///
    /// # Errors
    /// The store failed.
    pub fn users(&self, now: SystemTime) -> Result<Vec<User>, StoreError> {
        let sql = "SELECT name, created_at, source, disabled_at, password IS NOT NULL, totp IS NOT NULL,
                (SELECT count(*) FROM devices WHERE owner = users.name AND revoked_at IS NULL),
                (SELECT count(*) FROM invites WHERE owner = users.name AND used_at IS NULL AND expires_at > ?1),
                (SELECT count(*) FROM recovery_codes WHERE owner = users.name AND used_at IS NULL)
             FROM users ORDER BY name";
        let connection = self.read();
        let mut query = connection.prepare(sql)?;
        let users = query.query_map([unix(now)], user_of)?;
        Ok(users.collect::<Result<_, _>>()?)
    }

    /// What is known of a user, with revocations that are not written yet.
    pub(super) fn known_person(&self, user: &str) -> Result<Option<KnownPerson>, StoreError> {
        let found = read(&self.read(), user)?;
        let revoked = self.unwritten.holds_user(user);
        Ok(found.map(|known| KnownPerson { is_disabled: known.is_disabled || revoked, ..known }))
    }
}

/// The user that a person is already. Nobody is found by name alone, except those of the gateway itself.
fn known_name(transaction: &Transaction<'_>, person: &Person) -> Result<Option<String>, StoreError> {
    let local = "SELECT name FROM users WHERE source = ?1 AND name = ?2";
    let other = "SELECT name FROM users WHERE source = ?1 AND subject = ?2";
    let sql = if person.source == LOCAL { local } else { other };
    Ok(transaction.query_row(sql, [&person.source, &person.subject], |row| row.get(0)).optional()?)
}

/// Makes the user of a person who is here for the first time.
fn make(transaction: &Transaction<'_>, person: &Person, now: SystemTime) -> Result<String, PersonError> {
    let name = UserName::parse(&person.name)?;
    if let Some(other) = read(transaction, name.as_str())? {
        let (by, subject) = (person.source.clone(), printable(&person.subject));
        return Err(PersonError::NameTaken { name: name.to_string(), owner: other.source, by, subject });
    }
    ensure_user(transaction, &name, now)?;
    let sql = "UPDATE users SET source = ?2, subject = ?3 WHERE name = ?1";
    transaction.execute(sql, [name.as_str(), &person.source, &person.subject]).map_err(StoreError::from)?;
    Ok(name.to_string())
}

/// Whether nothing was recorded of a user since this was read. A login shows by the time and groups that it recorded.
fn is_still(transaction: &Transaction<'_>, asked: &KnownPerson) -> Result<bool, StoreError> {
    Ok(read(transaction, &asked.user)?.as_ref() == Some(asked))
}

fn record(transaction: &Transaction<'_>, user: &str, groups: &[String], now: SystemTime) -> Result<(), StoreError> {
    let groups = serde_json::to_string(groups).expect("a list of texts is JSON");
    let sql = "UPDATE users SET source_groups = ?2, checked_at = ?3 WHERE name = ?1";
    transaction.execute(sql, params![user, groups, unix(now)])?;
    Ok(())
}

/// A revoked user has nothing left to log in with. One of another source would still have the password that is kept
/// there, and so is disabled.
pub(super) fn revoke_user(transaction: &Transaction<'_>, user: &str, now: SystemTime) -> Result<(), StoreError> {
    let sql = "UPDATE users SET generation = generation + 1, password = NULL, totp = NULL, totp_confirmed_at = NULL,
            refresh = NULL, disabled_at = CASE source WHEN 'local' THEN disabled_at ELSE coalesce(disabled_at, ?2) END
         WHERE name = ?1";
    transaction.execute(sql, params![user, unix(now)])?;
    forget_codes(transaction, user)
}

/// Forgets the recovery codes of a user, the one-time codes for a password, and from where they logged in.
pub(super) fn forget_codes(transaction: &Transaction<'_>, user: &str) -> Result<(), StoreError> {
    for table in ["recovery_codes", "password_links", "known_networks"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE owner = ?1"), [user])?;
    }
    Ok(())
}

/// Turns "no row was changed" into "there is no such user".
pub(super) fn changed_one(changed: rusqlite::Result<usize>, user: &UserName) -> Result<(), UserError> {
    match changed.map_err(StoreError::from)? {
        0 => Err(UserError::NotFound(user.to_string())),
        _ => Ok(()),
    }
}

pub(super) fn read(connection: &Connection, user: &str) -> Result<Option<KnownPerson>, StoreError> {
    let sql = format!("SELECT {PERSON} FROM users WHERE name = ?1");
    Ok(connection.prepare_cached(&sql)?.query_row([user], person_of).optional()?)
}

fn person_of(row: &Row<'_>) -> rusqlite::Result<KnownPerson> {
    let groups = serde_json::from_str(row.get_ref(3)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, error.into()))?;
    let disabled_at: Option<i64> = row.get(5)?;
    Ok(KnownPerson {
        user: row.get(0)?,
        source: row.get(1)?,
        subject: row.get(2)?,
        groups,
        generation: row.get::<_, u32>(4)?.into(),
        is_disabled: disabled_at.is_some(),
        checked_at: row.get(6)?,
    })
}

fn user_of(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        name: row.get(0)?,
        created_at: row.get(1)?,
        source: row.get(2)?,
        disabled_at: row.get(3)?,
        has_password: row.get(4)?,
        has_factor: row.get(5)?,
        devices: row.get(6)?,
        invites: row.get(7)?,
        recovery_codes: row.get(8)?,
    })
}

#[cfg(test)]
mod tests;

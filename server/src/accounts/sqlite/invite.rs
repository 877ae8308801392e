//! Invites: single-use codes, of which only the hash is kept.

use std::time::{Duration, SystemTime};

use adit_program::random::random;
use rusqlite::{Transaction, params};

use super::clock::{self, Clock};
use super::{Store, StoreError, sha256, unix};
use crate::accounts::UserName;

impl Store {
    /// Makes a single-use invite for a user, who is created when needed; returns its code.
    ///
    /// # Errors
    /// The store failed.
    pub fn invite(&self, user: &UserName, lifetime: Duration, clock: impl Clock) -> Result<[u8; 16], StoreError> {
        let code = random::<16>()?;
        self.write(|transaction| {
            let now = clock::now(transaction, clock)?;
            let expires = unix(now).saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
            ensure_user(transaction, user, now)?;
            transaction.execute(
                "INSERT INTO invites (code_hash, owner, expires_at, boot) VALUES (?1, ?2, ?3, ?4)",
                params![sha256(&code), user.as_str(), expires, clock::boot()?],
            )?;
            Ok(code)
        })
    }
}

/// Creates the user unless there is one of that name.
pub(super) fn ensure_user(transaction: &Transaction<'_>, user: &UserName, now: SystemTime) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO users (name, created_at) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING",
        params![user.as_str(), unix(now)],
    )?;
    Ok(())
}

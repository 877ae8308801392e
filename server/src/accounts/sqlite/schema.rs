//! The tables, and the steps from each version of them to the next.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Step N brings a store from version N to N + 1 (`user_version`). Steps are never edited, only added.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE users (
        name TEXT NOT NULL PRIMARY KEY,
        created_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE devices (
        id TEXT NOT NULL PRIMARY KEY,
        user TEXT NOT NULL REFERENCES users (name),
        name TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('certificate', 'token')),
        created_at INTEGER NOT NULL,
        revoked_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX devices_by_user ON devices (user);
    CREATE TABLE certificates (
        serial TEXT NOT NULL PRIMARY KEY,
        device TEXT NOT NULL REFERENCES devices (id),
        not_after INTEGER NOT NULL,
        revoked_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX certificates_by_device ON certificates (device);
    CREATE TABLE invites (
        code_hash BLOB NOT NULL PRIMARY KEY,
        user TEXT NOT NULL REFERENCES users (name),
        expires_at INTEGER NOT NULL,
        used_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tokens (
        token_hash BLOB NOT NULL PRIMARY KEY,
        device TEXT NOT NULL REFERENCES devices (id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE leases (
        device TEXT NOT NULL PRIMARY KEY REFERENCES devices (id),
        v4 TEXT UNIQUE,
        v6 TEXT UNIQUE,
        is_static INTEGER NOT NULL CHECK (is_static IN (0, 1)),
        CHECK (v4 IS NOT NULL OR v6 IS NOT NULL)
    ) STRICT, WITHOUT ROWID;
",
    // Every device keeps its addresses, so none is more static than another.
    "
    ALTER TABLE leases DROP COLUMN is_static;
",
    // What an invite has become, so that the same device can ask for its certificate again.
    "
    ALTER TABLE invites ADD COLUMN device TEXT REFERENCES devices (id);
    ALTER TABLE invites ADD COLUMN key_hash BLOB;
",
    // In which boot of the host something that ends was given, and when that boot began by the clock: both are moved
    // when the clock is set.
    "
    ALTER TABLE certificates ADD COLUMN boot TEXT;
    ALTER TABLE invites ADD COLUMN boot TEXT;
    CREATE TABLE clock (
        boot TEXT NOT NULL PRIMARY KEY,
        boot_began_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
];

/// How long a transaction waits for that of another process.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sets what a reading connection needs and checks that the tables are not newer than this program.
pub(super) fn inspect(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    version(connection).map(drop)
}

/// As [`inspect`], for a store that cannot be brought up to date: an older one is refused.
pub(super) fn require(connection: &Connection) -> Result<(), StoreError> {
    inspect(connection)?;
    if version(connection)? < MIGRATIONS.len() {
        return Err(StoreError::Create(std::io::ErrorKind::ReadOnlyFilesystem.into()));
    }
    Ok(())
}

/// Sets what every connection needs and brings the tables up to date.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    inspect(connection)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = version(&transaction)?;
    if done == MIGRATIONS.len() {
        return Ok(());
    }
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known())?;
    Ok(transaction.commit()?)
}

/// The number of steps a store has behind it.
fn version(connection: &Connection) -> Result<usize, StoreError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = usize::try_from(found).ok().filter(|done| *done <= MIGRATIONS.len());
    done.ok_or(StoreError::TooNew { found, known: known() })
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("a few steps")
}

#[cfg(test)]
mod tests {
    use adit_proto::address_pool::Lease;

    use super::super::Store;
    use super::*;

    #[test]
    fn store_of_every_former_version_takes_addresses() {
        let folder = tempfile::tempdir().unwrap();
        for version in 1..MIGRATIONS.len() {
            let path = folder.path().join(format!("{version}.db"));
            let old = Connection::open(&path).unwrap();
            for step in &MIGRATIONS[..version] {
                old.execute_batch(step).unwrap();
            }
            old.execute_batch(
                "INSERT INTO users VALUES ('alice', 0);
                               INSERT INTO devices VALUES ('dev-a', 'alice', 'laptop', 'token', 0, NULL);",
            )
            .unwrap();
            old.pragma_update(None, "user_version", i64::try_from(version).unwrap()).unwrap();
            drop(old);
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            let store = Store::open(&path).unwrap();
            let lease = Lease { v4: Some([10, 77, 0, 2].into()), v6: None };
            store.write_lease("dev-a", lease).unwrap();
            assert_eq!(store.leases().unwrap()[0].lease, lease, "version {version}");
        }
    }
}

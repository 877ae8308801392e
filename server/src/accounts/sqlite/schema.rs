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
    // `user` is a word of SQL itself: other data bases take it for the role that is connected, without an error.
    "
    ALTER TABLE devices RENAME COLUMN user TO owner;
    ALTER TABLE invites RENAME COLUMN user TO owner;
    DROP INDEX devices_by_user;
    CREATE INDEX devices_by_owner ON devices (owner);
",
    // Users with passwords and second factors, users of other sources, and what is known of networks.
    "
    ALTER TABLE users ADD COLUMN source TEXT NOT NULL DEFAULT 'local';
    ALTER TABLE users ADD COLUMN subject TEXT;
    ALTER TABLE users ADD COLUMN source_groups TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE users ADD COLUMN refresh BLOB;
    ALTER TABLE users ADD COLUMN checked_at INTEGER;
    ALTER TABLE users ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE users ADD COLUMN disabled_at INTEGER;
    ALTER TABLE users ADD COLUMN password TEXT;
    ALTER TABLE users ADD COLUMN totp BLOB;
    ALTER TABLE users ADD COLUMN totp_confirmed_at INTEGER;
    ALTER TABLE users ADD COLUMN totp_last INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE users ADD COLUMN totp_boot TEXT;
    CREATE UNIQUE INDEX users_by_subject ON users (source, subject) WHERE subject IS NOT NULL;
    CREATE TABLE recovery_codes (
        hash BLOB NOT NULL PRIMARY KEY,
        owner TEXT NOT NULL REFERENCES users (name),
        used_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX recovery_codes_by_owner ON recovery_codes (owner);
    CREATE TABLE password_links (
        hash BLOB NOT NULL PRIMARY KEY,
        owner TEXT NOT NULL REFERENCES users (name),
        expires_at INTEGER NOT NULL,
        used_at INTEGER,
        boot TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX password_links_by_owner ON password_links (owner);
    CREATE TABLE known_networks (
        owner TEXT NOT NULL REFERENCES users (name),
        network TEXT NOT NULL,
        until INTEGER NOT NULL,
        boot TEXT,
        PRIMARY KEY (owner, network)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE devices ADD COLUMN by_login INTEGER NOT NULL DEFAULT 0;
",
    // Which device a login has that began without one.
    "
    CREATE TABLE logins (
        token_hash BLOB NOT NULL PRIMARY KEY,
        device TEXT NOT NULL REFERENCES devices (id),
        ends_at INTEGER NOT NULL,
        is_over INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX logins_by_device ON logins (device);
",
    // Every login that lasts, and which device it has if it began without one. What was given before names no login.
    "
    DROP TABLE logins;
    CREATE TABLE logins (
        number INTEGER NOT NULL PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        owner TEXT NOT NULL REFERENCES users (name),
        generation INTEGER NOT NULL,
        ends_at INTEGER NOT NULL,
        device TEXT REFERENCES devices (id)
    ) STRICT;
    CREATE INDEX logins_by_owner ON logins (owner);
    CREATE INDEX logins_by_device ON logins (device);
",
    // For how long the host was seen running: in the boots before, and in this one when it was last noted. A login ends
    // by that time, which no clock that is set moves.
    "
    ALTER TABLE clock ADD COLUMN ran_before INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE clock ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE logins DROP COLUMN ends_at;
    ALTER TABLE logins ADD COLUMN runs_out INTEGER NOT NULL DEFAULT 0;
",
    // When the last login ends of a device that came of one.
    "
    ALTER TABLE devices ADD COLUMN used_until INTEGER;
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
    migrate(connection, MIGRATIONS)
}

/// Takes the steps that a store has not behind it: all of them, or none.
fn migrate(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = version(&transaction)?;
    if done == steps.len() {
        return Ok(());
    }
    for step in steps.iter().skip(done) {
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
    use std::convert::Infallible;
    use std::path::Path;

    use adit_proto::address_pool::Lease;

    use super::super::tests::{Scratch, at, scratch};
    use super::super::{Store, sha256};
    use super::*;
    use crate::accounts::Accounts as _;
    use crate::identity::DeviceCertificate;

    /// The version from which on the column is named `owner`.
    const OWNER: usize = 5;

    /// What every version had: a user with a device, its certificate, its token, and an invite for another.
    const OLD_ROWS: &str = "
        INSERT INTO users (name, created_at) VALUES ('alice', 7);
        INSERT INTO devices (id, user, name, kind, created_at) VALUES ('dev-a', 'alice', 'laptop', 'certificate', 8);
        INSERT INTO devices (id, user, name, kind, created_at) VALUES ('dev-b', 'alice', 'token', 'token', 9);
        INSERT INTO certificates (serial, device, not_after) VALUES ('01', 'dev-a', 2000000000);
    ";

    /// A store as the program of that version left it, with an invite of this code and a token.
    fn old_store(path: &Path, version: usize, code: &[u8; 16], token: &str) {
        let old = Connection::open(path).unwrap();
        for step in &MIGRATIONS[..version] {
            old.execute_batch(step).unwrap();
        }
        let rows = if version < OWNER { OLD_ROWS.to_owned() } else { OLD_ROWS.replace("user,", "owner,") };
        old.execute_batch(&rows).unwrap();
        let owner = if version < OWNER { "user" } else { "owner" };
        let sql = format!("INSERT INTO invites (code_hash, {owner}, expires_at) VALUES (?1, 'alice', 2000000000)");
        old.execute(&sql, [sha256(code)]).unwrap();
        old.execute("INSERT INTO tokens VALUES (?1, 'dev-b')", [sha256(token.as_bytes())]).unwrap();
        old.pragma_update(None, "user_version", i64::try_from(version).unwrap()).unwrap();
        drop(old);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    #[test]
    fn store_of_every_former_version_is_brought_up_to_date_and_works() {
        let folder = tempfile::tempdir().unwrap();
        let (code, token, now) = ([3; 16], "adit_old", at(0));
        for version in 1..MIGRATIONS.len() {
            let path = folder.path().join(format!("{version}.db"));
            old_store(&path, version, &code, token);
            let store = Store::open(&path).unwrap();

            let lease = Lease { v4: Some([10, 77, 0, 2].into()), v6: None };
            store.write_lease("dev-a", lease).unwrap();
            assert_eq!(store.leases().unwrap()[0].lease, lease, "version {version}");

            assert_eq!(store.authenticate_certificate("dev-a", "01", now).unwrap().user, "alice", "version {version}");
            assert_eq!(store.authenticate_token(token).unwrap().id, "dev-b", "version {version}");
            assert_eq!(store.check_renewal::<Infallible>("dev-a", now).unwrap(), "alice", "version {version}");
            let sign = |_: &str, user: &str| {
                assert_eq!(user, "alice");
                let (pem, serial) = (String::new(), "02".to_owned());
                Ok::<_, Infallible>(DeviceCertificate { pem, serial, not_after: at(60) })
            };
            store.enroll(&code, &[1; 32], "phone", now, sign).unwrap();
            let alice = &store.users(now).unwrap()[0];
            assert_eq!((alice.devices, alice.invites, alice.created_at), (3, 0, 7), "version {version}");
            assert_eq!(store.revoke("alice", now).unwrap().devices.len(), 3, "version {version}");

            let indexes = names_in(&store, "SELECT name FROM sqlite_schema WHERE type = 'index'");
            assert!(indexes.contains(&"devices_by_owner".to_owned()), "version {version}: {indexes:?}");
        }
    }

    #[test]
    fn store_whose_migration_breaks_off_at_any_statement_is_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.db");
        old_store(&path, 1, &[3; 16], "adit_old");
        let content = |connection: &Connection| -> Vec<(String, String)> {
            let mut query = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL").unwrap();
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
        };
        let mut connection = Connection::open(&path).unwrap();
        let before = content(&connection);
        let statements: Vec<&str> =
            MIGRATIONS[1..].iter().flat_map(|step| step.split(';')).filter(|text| !text.trim().is_empty()).collect();
        assert!(statements.len() > 20, "{}", statements.len());
        for length in 1..=statements.len() {
            let broken = [MIGRATIONS[0], &statements[..length].join(";"), "SELECT no_such_function();"];
            assert!(migrate(&mut connection, &broken).is_err());
            assert_eq!(content(&connection), before, "{length}");
            assert_eq!(version(&connection).unwrap(), 1, "{length}");
        }
        drop(connection);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.users(at(0)).unwrap()[0].name, "alice", "the positive control");
    }

    #[test]
    fn no_column_is_named_as_a_word_of_sql() {
        let Scratch { store, directory: _directory } = scratch();
        let columns = names_in(
            &store,
            "SELECT columns.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns",
        );
        assert!(columns.contains(&"owner".to_owned()) && !columns.contains(&"user".to_owned()), "{columns:?}");
    }

    fn names_in(store: &Store, sql: &str) -> Vec<String> {
        let connection = store.read();
        let mut query = connection.prepare(sql).unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }
}

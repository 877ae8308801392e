//! What the gateway must not forget: users, devices, certificates, invites, tokens and leases, in one SQLite file.
//!
//! Every write is one transaction, durable (WAL, `synchronous=FULL`) before the method returns.

mod clock;
mod device;
mod enroll;
mod invite;
mod lease;
mod login;
mod network;
mod password;
mod person;
mod schema;
mod unwritten;

#[cfg(test)]
mod faults;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use adit_program::durable_file;
use adit_program::exit::{Exit, Failure};
use adit_program::guarded_file::GuardError;
use adit_program::random::NoRandomness;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::{AuthError, EnrollError, LinkError, PersonError, RenewError, StoreFault, UserError};
use crate::config::open_secret;
use crate::directories::StateDir;
use crate::identity::sha256;

pub use clock::{Clock, HostClock, boot, boot_began_at, seconds_since_boot, was_set};
use unwritten::Unwritten;
pub use unwritten::Written;

/// The store of one gateway. All methods block for the time of a transaction and may be called from any thread.
///
/// Whoever only reads waits for no disk and for nobody who writes: reading has a connection of its own, and in WAL mode
/// a writer keeps no reader out.
pub struct Store {
    /// None where only one connection can be had.
    reader: Option<Mutex<Connection>>,
    writer: Mutex<Connection>,
    unwritten: Unwritten,
    /// Most devices of a user.
    devices_per_user: AtomicU32,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file is missing, or somebody else could have read or changed it.
    #[error(transparent)]
    Unguarded(#[from] GuardError),
    /// The file could not be made.
    #[error("make the store: {0}")]
    Create(std::io::Error),
    /// The kernel does not tell the time since its boot.
    #[error("the clock of the kernel: {0}")]
    Clock(std::io::Error),
    /// A newer program wrote the file.
    #[error("store has schema {found}, this program knows {known}")]
    TooNew {
        /// Version in the file.
        found: i64,
        /// Newest version known here.
        known: i64,
    },
    /// Nothing of that name exists.
    #[error("{0}: no such user or device")]
    NotFound(String),
    /// An id, an invite or a token needs a number that nobody can guess.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Times of things that are over are kept this long, so that a late user learns why.
const KEEP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Store {
    /// Makes a new store, mode 0600.
    ///
    /// # Errors
    /// The file exists already or cannot be written.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        durable_file::create(path, b"", 0o600).map_err(StoreError::Create)?;
        Self::open(path)
    }

    /// Opens the store and brings its schema up to date.
    ///
    /// # Errors
    /// The file is missing, unsafe, damaged, or of a newer program.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let shared = open_shared(path).and_then(|writer| Ok((writer, Some(look(path)?))));
        let (writer, reader) = shared.or_else(|error| {
            if !error.is_of_disk() {
                return Err(error);
            }
            // The reason to refuse stays the first one.
            let connection = open_alone(path).or_else(|_| open_unchanging(path)).map_err(|_| error)?;
            tracing::warn!(
                store = %path.display(),
                "the disk is full or read-only: devices that are known are served, and nothing new can be stored"
            );
            Ok((connection, None))
        })?;
        Ok(Self::of(reader, writer))
    }

    /// Opens the store for a look: it is neither changed nor brought up to date.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        Ok(Self::of(None, look(path)?))
    }

    fn of(reader: Option<Connection>, writer: Connection) -> Self {
        Self {
            reader: reader.map(Mutex::new),
            writer: Mutex::new(writer),
            unwritten: Unwritten::default(),
            devices_per_user: AtomicU32::new(u32::MAX),
        }
    }

    /// From now on a user who has so many devices that can connect enrols no further one; before, there is no limit.
    pub fn limit_devices(&self, of_each_user: u32) {
        self.devices_per_user.store(of_each_user, Ordering::Relaxed);
    }

    /// Forgets what ends, such as invites and certificates, once its time has been over for 30 days: for logins, and
    /// for devices that came of them, that is time in which the host ran, so that no clock that is set makes them
    /// forgotten.
    ///
    /// # Errors
    /// The store failed.
    pub fn prune(&self, clock: impl Clock) -> Result<(), StoreError> {
        self.write(|transaction| {
            let before = unix(clock.read().checked_sub(KEEP).unwrap_or(SystemTime::UNIX_EPOCH));
            transaction.execute("DELETE FROM invites WHERE expires_at < ?1", [before])?;
            transaction.execute("DELETE FROM certificates WHERE not_after < ?1", [before])?;
            transaction.execute("DELETE FROM password_links WHERE expires_at < ?1", [before])?;
            transaction.execute("DELETE FROM known_networks WHERE until < ?1", [before])?;
            let ran_before = clock::ran(transaction)?.saturating_sub_unsigned(KEEP.as_secs());
            transaction.execute("DELETE FROM logins WHERE runs_out < ?1", [ran_before])?;
            login::forget_devices(transaction, ran_before)
        })
    }

    /// The failure of this store as the user of a verb sees it.
    #[must_use]
    pub fn failure(path: &Path, error: StoreError) -> Failure {
        match error {
            StoreError::Unguarded(GuardError { path, reason, next, .. }) => {
                Failure::new(Exit::Usage, path.display().to_string(), reason, next)
            }
            StoreError::NotFound(name) => Failure::new(
                Exit::Other,
                name,
                "no such user or device",
                "`adit-server users` and `adit-server devices` list them",
            ),
            StoreError::TooNew { .. } => Failure::new(
                Exit::Usage,
                path.display().to_string(),
                error.to_string(),
                "install the newer adit-server",
            ),
            other @ (StoreError::Sqlite(_)
            | StoreError::Create(_)
            | StoreError::Clock(_)
            | StoreError::Randomness(_)) => {
                let (exit, next) = if other.is_wrong_file() {
                    (Exit::Usage, "restore the file from a backup")
                } else {
                    (Exit::Other, "look at the disk of the state directory, and try again")
                };
                Failure::new(exit, path.display().to_string(), other.to_string(), next)
            }
        }
    }

    /// The connection that reads. It sees what was committed last.
    fn read(&self) -> MutexGuard<'_, Connection> {
        self.reader.as_ref().unwrap_or(&self.writer).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that writes, perhaps held for as long as a disk takes. A panic of another holder leaves no half
    /// transaction behind: dropping one rolls it back.
    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one write transaction; it is durable when this returns `Ok`, and had no effect when it returns `Err`.
    fn write<T, E: From<StoreError>>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        self.write_with(|_revoked, transaction| work(transaction))
    }

    /// As [`Self::write`]; `work` gets the devices that revocations, written first, have shut out.
    fn write_with<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(Vec<String>, &Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.writer();
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        let (revoked, last) = self.unwritten.write(&transaction)?;
        let value = work(revoked, &transaction)?;
        transaction.commit().map_err(StoreError::from)?;
        self.unwritten.settle(last);
        Ok(value)
    }
}

impl From<StoreError> for StoreFault {
    fn from(error: StoreError) -> Self {
        Self::new(error)
    }
}

impl From<StoreError> for AuthError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl<E: std::error::Error + 'static> From<StoreError> for EnrollError<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<StoreError> for UserError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<StoreError> for PersonError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<StoreError> for LinkError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl<E: std::error::Error + 'static> From<StoreError> for RenewError<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl StoreError {
    /// Whether the disk is to blame: it is full, read-only or broken.
    fn is_of_disk(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        let codes = [ErrorCode::DiskFull, ErrorCode::ReadOnly, ErrorCode::CannotOpen, ErrorCode::SystemIoFailure];
        error.sqlite_error_code().is_some_and(|code| codes.contains(&code))
    }

    /// Whether the file is no store, and trying again mends nothing.
    fn is_wrong_file(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
    }
}

/// Opens the store beside other processes that have it open.
fn open_shared(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = connect(path)?;
    schema::prepare(&mut connection)?;
    Ok(connection)
}

/// Opens the store for this process alone, which needs no file for the memory that processes share: a full disk has no
/// room for that.
fn open_alone(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = connect(path)?;
    connection.pragma_update(None, "locking_mode", "exclusive")?;
    schema::prepare(&mut connection)?;
    Ok(connection)
}

/// Opens a store on a read-only disk, which nobody changes. A write-ahead log with something in it would be left out,
/// and with it perhaps that a device was revoked: that is refused.
fn open_unchanging(path: &Path) -> Result<Connection, StoreError> {
    let [log, _] = StateDir::new(path.parent().unwrap_or_else(|| Path::new(""))).beside_store();
    if std::fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        return Err(StoreError::Create(std::io::ErrorKind::ReadOnlyFilesystem.into()));
    }
    drop(open_secret(path)?);
    let escaped = resolved(path)?.display().to_string().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let address = format!("file:{escaped}?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(address, flags)?;
    schema::require(&connection)?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    drop(open_secret(path)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Ok(Connection::open_with_flags(resolved(path)?, flags)?)
}

/// SQLite refuses a path with a symbolic link anywhere in it, so the directory is resolved first.
fn resolved(path: &Path) -> Result<PathBuf, StoreError> {
    let directory = path.parent().map(std::fs::canonicalize).transpose().map_err(StoreError::Create)?;
    Ok(directory.unwrap_or_default().join(path.file_name().unwrap_or_default()))
}

/// Connects for a look: nothing can be changed by this connection.
fn look(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path)?;
    schema::inspect(&connection)?;
    // Not SQLITE_OPEN_READ_ONLY: that leaves the files of a write-ahead log behind.
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn unix(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Accounts as _, UserName};
    use super::*;

    /// A store in a directory that lives as long as it.
    pub(super) struct Scratch {
        pub(super) directory: tempfile::TempDir,
        pub(super) store: Store,
    }

    pub(super) fn scratch() -> Scratch {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store.db")).unwrap();
        Scratch { directory, store }
    }

    pub(super) fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn who_reads_waits_for_nobody_who_writes() {
        let Scratch { store, directory } = scratch();
        let (device, token) = store.token(&UserName::parse("alice").unwrap(), at(0)).unwrap();
        let other = Store::open(&directory.path().join("store.db")).unwrap();
        let mut holder = other.writer();
        let held = holder.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| store.invite(&UserName::parse("bob").unwrap(), KEEP, at(0)));
            // It has the connection that writes, and waits for the other process.
            while store.writer.try_lock().is_ok() {
                std::thread::yield_now();
            }
            assert_eq!(store.authenticate_token(&token).unwrap(), device);
            assert_eq!(store.shut_out(&device.id, at(1)).unwrap().devices, [device.id]);
            assert!(matches!(store.authenticate_token(&token), Err(AuthError::Revoked)));
            assert!(!writing.is_finished(), "the positive control");
            drop(held);
            writing.join().unwrap().unwrap();
        });
        assert_eq!(store.revocations(), Written::All, "it was written along");
    }

    #[test]
    fn all_files_of_the_store_are_private() {
        let scratch = scratch();
        scratch.store.invite(&UserName::parse("alice").unwrap(), Duration::from_secs(60), at(0)).unwrap();
        let mut files = 0;
        for entry in std::fs::read_dir(scratch.directory.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
            files += 1;
        }
        assert!(files >= 2, "the store and its write-ahead log");
    }

    #[test]
    fn store_is_reopened_with_what_it_held() {
        let Scratch { directory, store } = scratch();
        store.invite(&UserName::parse("alice").unwrap(), Duration::from_secs(60), at(0)).unwrap();
        drop(store);
        let store = Store::open(&directory.path().join("store.db")).unwrap();
        assert_eq!(store.users(at(0)).unwrap().len(), 1);
    }

    #[test]
    fn missing_exposed_or_newer_store_is_refused() {
        let Scratch { directory, store } = scratch();
        let path = directory.path().join("store.db");
        assert!(matches!(Store::create(&path), Err(StoreError::Create(_))));
        assert!(matches!(Store::open(&directory.path().join("none")), Err(StoreError::Unguarded(_))));
        store.writer().pragma_update(None, "user_version", 99).unwrap();
        drop(store);
        assert!(matches!(Store::open(&path), Err(StoreError::TooNew { found: 99, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Unguarded(_))));
    }

    #[test]
    fn damaged_store_is_refused_without_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        durable_file::create(&path, &[0x5a; 8192], 0o600).unwrap();
        for opened in [Store::open(&path), Store::open_read_only(&path)] {
            assert_eq!(Store::failure(&path, opened.unwrap_err()).exit, Exit::Usage);
        }
    }

    #[test]
    fn store_that_another_process_keeps_locked_may_be_tried_again() {
        let Scratch { directory, store } = scratch();
        let path = directory.path().join("store.db");
        let locked = {
            let other = Store::open(&path).unwrap();
            other.writer().busy_timeout(Duration::ZERO).unwrap();
            let mut holder = store.writer();
            let _writing = holder.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
            other.prune(at(0)).unwrap_err()
        };
        assert_eq!(Store::failure(&path, locked).exit, Exit::Other);
    }

    #[test]
    fn look_at_a_store_reads_but_does_not_write() {
        let Scratch { directory, store } = scratch();
        let path = directory.path().join("store.db");
        let look = Store::open_read_only(&path).unwrap();
        assert_eq!(look.users(at(0)).unwrap(), []);
        assert!(look.prune(at(0)).is_err());
        store.writer().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open_read_only(&path), Err(StoreError::TooNew { found: 99, .. })));
        store.writer().pragma_update(None, "user_version", 0).unwrap();
        drop(Store::open_read_only(&path).unwrap());
        let version: i64 = store.writer().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, 0, "not brought up to date");
    }

    #[test]
    fn pruning_keeps_what_ended_lately() {
        let Scratch { store, directory: _directory } = scratch();
        store.invite(&UserName::parse("alice").unwrap(), Duration::from_secs(60), at(0)).unwrap();
        let count = |store: &Store| -> i64 {
            store.read().query_row("SELECT count(*) FROM invites", [], |row| row.get(0)).unwrap()
        };
        store.prune(at(3600)).unwrap();
        assert_eq!(count(&store), 1);
        store.prune(at(31 * 86_400)).unwrap();
        assert_eq!(count(&store), 0);
    }
}

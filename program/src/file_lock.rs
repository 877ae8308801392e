//! Locks between processes, on files.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::guarded_file::{Access, Guard, GuardError, Readers};

/// A lock on a file, freed on drop, and by the kernel on any death.
#[derive(Debug)]
pub struct FileLock {
    _file: Flock<File>,
}

impl FileLock {
    /// Takes the lock on the file at `path`, which is made (mode 0600) if it is missing; `None` if another holder has
    /// it.
    ///
    /// # Errors
    /// Somebody else could have made or replaced the file; it cannot be opened or locked.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>, GuardError> {
        let file = Guard::default().open(path, Access::AppendOrCreate, Readers::Owner)?;
        Self::try_lock(file).map_err(|error| GuardError::system(path, error))
    }

    /// Takes the lock on an open file; `None` if another holder has it.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn try_lock(file: File) -> io::Result<Option<Self>> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err((_file, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_file, error)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_is_held_once_and_freed_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = FileLock::try_acquire(&path).unwrap();
        assert!(first.is_some());
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        drop(first);
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }
}

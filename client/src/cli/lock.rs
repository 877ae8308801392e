//! One running client per profile.

use adit_program::exit::{Exit, Failure};
use adit_program::file_lock::FileLock;
use adit_program::guarded_file::GuardError;

use crate::profile::{Directories, ProfileName, guard_failure};

/// The lock a running client holds on its profile; freed on drop, and by the kernel on any death.
#[derive(Debug)]
pub(super) struct ClientLock {
    _file: FileLock,
}

impl ClientLock {
    /// Takes the lock; `None` if another process holds it.
    pub(super) fn try_acquire(directories: &Directories, name: &ProfileName) -> Result<Option<Self>, GuardError> {
        Ok(FileLock::try_acquire(&directories.lock(name))?.map(|file| Self { _file: file }))
    }

    /// Takes the lock of a client that is about to start.
    pub(super) fn acquire(directories: &Directories, name: &ProfileName) -> Result<Self, Failure> {
        match Self::try_acquire(directories, name) {
            Ok(Some(lock)) => Ok(lock),
            Ok(None) => Err(Failure::new(
                Exit::Usage,
                format!("profile {name}"),
                "a client is running with it already",
                format!("see `adit-client status {name}`, or end it with `adit-client down {name}`"),
            )),
            Err(error) => Err(guard_failure(error)),
        }
    }

    /// Whether a client is running with this profile, as far as this user may know.
    pub(super) fn is_held(directories: &Directories, name: &ProfileName) -> bool {
        if !directories.lock(name).exists() {
            return false;
        }
        matches!(Self::try_acquire(directories, name), Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_client_of_a_profile_is_refused_with_the_next_step() {
        let directory = tempfile::tempdir().unwrap();
        let directories = Directories::below(directory.path());
        directories.create_for_running().unwrap();
        let name: ProfileName = "home".parse().unwrap();
        assert!(!ClientLock::is_held(&directories, &name));
        let lock = ClientLock::acquire(&directories, &name).unwrap();
        assert!(ClientLock::is_held(&directories, &name));
        let refused = ClientLock::acquire(&directories, &name).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.next.contains("adit-client down home"));
        drop(lock);
        assert!(!ClientLock::is_held(&directories, &name));
    }
}

//! The files in a state directory: who may own them, and what to do about one that is missing.

use std::fs::File;
use std::path::Path;

use adit_program::guarded_file::{Access, Guard, GuardError, Readers};
use zeroize::Zeroizing;

/// The user that the service runs as, by the name in the package's `sysusers.d`.
pub(crate) const GATEWAY_USER: &str = "adit";

/// Whose files are trusted: root's, our own, and, when an administrator works on the state of a gateway that runs as a
/// service, that gateway's.
#[must_use]
pub fn guard() -> Guard {
    let guard = Guard::default();
    let user = gateway_user().map(|user| user.uid.as_raw());
    if nix::unistd::geteuid().is_root() { guard.or_user(user) } else { guard }
}

/// The user of the service, if this host has it.
pub(crate) fn gateway_user() -> Option<nix::unistd::User> {
    nix::unistd::User::from_name(GATEWAY_USER).ok()?
}

/// Reads a secret file, which must be closed to everyone but its owner.
///
/// # Errors
/// The first rule of [`Guard`] that it breaks.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, GuardError> {
    guard().read(path, Readers::Owner).map_err(of_init)
}

/// Reads a file that anybody may read and only its owner change.
///
/// # Errors
/// As [`read_secret`].
pub(crate) fn read_public(path: &Path) -> Result<Zeroizing<Vec<u8>>, GuardError> {
    guard().read(path, Readers::Everybody).map_err(of_init)
}

/// Opens a secret file.
pub(crate) fn open_secret(path: &Path) -> Result<File, GuardError> {
    guard().open(path, Access::Read, Readers::Owner).map_err(of_init)
}

/// All these files are made by `init`.
fn of_init(error: GuardError) -> GuardError {
    if error.is_missing() {
        return GuardError { next: "run `adit-server init`, or mend state_dir".to_owned(), ..error };
    }
    error
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use adit_program::durable_file;

    use super::*;

    #[test]
    fn secret_is_closed_to_others_and_what_is_public_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        durable_file::create(&path, b"secret", 0o600).unwrap();
        assert_eq!(read_secret(&path).unwrap().as_slice(), b"secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_secret(&path).unwrap_err().next.contains("chmod 600"));
        assert!(open_secret(&path).is_err());
        assert_eq!(read_public(&path).unwrap().as_slice(), b"secret");
    }

    #[test]
    fn missing_file_is_made_by_init() {
        let directory = tempfile::tempdir().unwrap();
        let missing = read_secret(&directory.path().join("none")).unwrap_err();
        assert_eq!(missing.reason, "does not exist");
        assert!(missing.next.contains("adit-server init"), "{missing}");
    }
}

//! A password that the user of a profile wanted kept: a file beside the profile, mode 0600.

use std::fs;
use std::io;
use std::path::PathBuf;

use adit_program::durable_file;
use adit_program::guarded_file::{Guard, Readers};
use zeroize::Zeroizing;

use super::{ProfileError, ProfileName, ProfileStore};

impl ProfileStore {
    /// The password that was kept; `None` if there is none.
    ///
    /// # Errors
    /// `Unguarded` if somebody else could have read or changed the file; `Io`.
    pub fn password(&self, name: &ProfileName) -> Result<Option<Zeroizing<String>>, ProfileError> {
        let path = self.password_path(name);
        let content = match Guard::default().read(&path, Readers::Owner) {
            Ok(content) => content,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let text = str::from_utf8(&content).map_err(|_| ProfileError::io(path, io::ErrorKind::InvalidData.into()))?;
        Ok(Some(Zeroizing::new(text.to_owned())))
    }

    /// Keeps a password in place of the last one.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn save_password(&self, name: &ProfileName, password: &str) -> Result<(), ProfileError> {
        let path = self.password_path(name);
        durable_file::replace(&path, password.as_bytes(), 0o600).map_err(|error| ProfileError::io(path, error))
    }

    /// Forgets the password, if one was kept.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn forget_password(&self, name: &ProfileName) -> Result<(), ProfileError> {
        let path = self.password_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ProfileError::io(path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn password_path(&self, name: &ProfileName) -> PathBuf {
        self.hidden(&format!("{name}.password"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn kept_password_is_private_comes_back_as_it_is_and_is_used_by_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let (store, name) = (ProfileStore::new(directory.path()), "work".parse().unwrap());
        assert_eq!(store.password(&name).unwrap(), None);
        store.save_password(&name, " p\u{e4}ss word ").unwrap();
        assert_eq!(store.password(&name).unwrap().unwrap().as_str(), " p\u{e4}ss word ");
        assert_eq!(store.names().unwrap(), [], "it is no profile");
        let path = store.password_path(&name);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(store.password(&name), Err(ProfileError::Unguarded(_))));
        store.forget_password(&name).unwrap();
        store.forget_password(&name).unwrap();
        assert_eq!(store.password(&name).unwrap(), None);
    }
}

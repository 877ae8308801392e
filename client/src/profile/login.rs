//! What the last login of a profile's user was worth: a file beside the profile, mode 0600.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_program::durable_file;
use adit_program::guarded_file::{Guard, Readers};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{ProfileError, ProfileName, ProfileStore};

/// A login that lasts. It has no `Debug`; the token is wiped from memory on drop.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLogin {
    /// The session token, for the gateway alone.
    pub token: String,
    /// When it began, in seconds since 1970.
    pub began_at: u64,
    /// When it ends, in seconds since 1970; `None` if it does not.
    pub ends_at: Option<u64>,
}

impl Drop for KeptLogin {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

impl KeptLogin {
    /// A login of this moment.
    #[must_use]
    pub fn new(token: &str, ends_at: Option<u64>, now: SystemTime) -> Self {
        Self { token: token.to_owned(), began_at: seconds(now), ends_at }
    }

    /// The same with another end.
    #[must_use]
    pub fn ending(mut self, at: SystemTime) -> Self {
        self.ends_at = Some(seconds(at));
        self
    }

    /// Time until it ends; nothing if it is over, `None` if it does not end.
    #[must_use]
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        self.ends_at.map(|ends_at| Duration::from_secs(ends_at.saturating_sub(seconds(now))))
    }

    /// Whether half of its life is over, so that it is worth while to renew it.
    #[must_use]
    pub fn is_past_half(&self, now: SystemTime) -> bool {
        self.ends_at.is_some_and(|ends_at| {
            let half = self.began_at.saturating_add(ends_at.saturating_sub(self.began_at) / 2);
            seconds(now) >= half
        })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl ProfileStore {
    /// The login of a profile's user; `None` if there was none, or its file is none that this client wrote.
    #[must_use]
    pub fn login(&self, name: &ProfileName) -> Option<KeptLogin> {
        let content = Guard::default().read(&self.login_path(name), Readers::Owner);
        let content = content
            .inspect_err(|error| {
                if !error.is_missing() {
                    tracing::warn!("the file of the last login is not used; log in again");
                    tracing::debug!(%error, "the file of the last login is not used");
                }
            })
            .ok()?;
        toml::from_str(str::from_utf8(&content).ok()?).ok()
    }

    /// Keeps a login in place of the last one.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn save_login(&self, name: &ProfileName, login: &KeptLogin) -> Result<(), ProfileError> {
        let path = self.login_path(name);
        let text = toml::to_string(login).map_err(|error| ProfileError::invalid(name, error.to_string()))?;
        let text = Zeroizing::new(text);
        durable_file::replace(&path, text.as_bytes(), 0o600).map_err(|error| ProfileError::io(path, error))
    }

    /// Forgets the last login, if there was one.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn forget_login(&self, name: &ProfileName) -> Result<(), ProfileError> {
        let path = self.login_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ProfileError::io(path, error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn login_path(&self, name: &ProfileName) -> std::path::PathBuf {
        self.hidden(&format!("{name}.login"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn kept_login_is_private_and_comes_back_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (store, name) = (ProfileStore::new(directory.path()), "home".parse().unwrap());
        assert!(store.login(&name).is_none());
        let login = KeptLogin::new("t0ken", Some(2000), at(1000));
        store.save_login(&name, &login).unwrap();
        assert!(store.login(&name) == Some(login));
        assert_eq!(fs::metadata(store.login_path(&name)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(store.names().unwrap(), [], "it is no profile");
        store.forget_login(&name).unwrap();
        store.forget_login(&name).unwrap();
        assert!(store.login(&name).is_none());
    }

    #[test]
    fn login_that_others_could_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let (store, name) = (ProfileStore::new(directory.path()), "home".parse().unwrap());
        store.save_login(&name, &KeptLogin::new("t0ken", None, at(1000))).unwrap();
        fs::set_permissions(store.login_path(&name), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(store.login(&name).is_none());
    }

    #[test]
    fn login_is_worth_renewing_from_the_middle_of_its_life_on() {
        let login = KeptLogin::new("t", Some(2000), at(1000));
        assert!(!login.is_past_half(at(1499)) && login.is_past_half(at(1500)) && login.is_past_half(at(3000)));
        assert_eq!(login.left(at(1900)), Some(Duration::from_secs(100)));
        assert_eq!(login.left(at(2100)), Some(Duration::ZERO));
        let endless = KeptLogin::new("t", None, at(1000));
        assert!(!endless.is_past_half(at(9999)) && endless.left(at(9999)).is_none());
    }
}

//! Profiles on disk: strict about who can read them, atomic in writing them.

use std::fs;
use std::io;
use std::path::PathBuf;

use adit_program::durable_file::{self, Reservation};
use adit_program::guarded_file::{Guard, GuardError, Readers};

use super::directories;
use super::{Profile, ProfileError, ProfileName};

/// Room for a new profile, in bytes: two certificates and a key, and some more.
const ROOM: usize = 4096;

/// One profile of a listing.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: ProfileName,
    /// The profile, or why it cannot be used.
    pub profile: Result<Profile, ProfileError>,
}

/// Room for a profile, taken before its content is known; given back on drop.
#[derive(Debug)]
pub struct ProfileRoom {
    path: PathBuf,
    replace: bool,
    reservation: Reservation,
}

impl ProfileRoom {
    /// As [`ProfileStore::save`], in the room that was taken.
    ///
    /// # Errors
    /// As [`ProfileStore::save`].
    pub fn save(self, profile: &Profile) -> Result<(), ProfileError> {
        let Self { path, replace, reservation } = self;
        let text = profile.encode()?;
        let saved = if replace { reservation.replace(text.as_bytes()) } else { reservation.create(text.as_bytes()) };
        saved.map_err(|error| unsaved(profile, path, replace, error))
    }
}

fn unsaved(profile: &Profile, path: PathBuf, replace: bool, error: io::Error) -> ProfileError {
    if error.kind() == io::ErrorKind::AlreadyExists && !replace {
        ProfileError::Exists { name: profile.name.to_string() }
    } else {
        ProfileError::io(path, error)
    }
}

/// The directory of profiles.
#[derive(Debug, Clone)]
pub struct ProfileStore {
    directory: PathBuf,
}

impl ProfileStore {
    /// Uses a directory, which need not exist yet.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The file of a profile.
    #[must_use]
    pub fn path(&self, name: &ProfileName) -> PathBuf {
        self.directory.join(format!("{name}.toml"))
    }

    /// Names of all profiles, sorted.
    ///
    /// # Errors
    /// `Io` if the directory is there but cannot be read.
    pub fn names(&self) -> Result<Vec<ProfileName>, ProfileError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ProfileError::io(&self.directory, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(|error| ProfileError::io(&self.directory, error))?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".toml"));
            names.extend(name.and_then(|name| name.parse::<ProfileName>().ok()));
        }
        names.sort();
        Ok(names)
    }

    /// All profiles, sorted by name, the unusable ones with the reason.
    ///
    /// # Errors
    /// As [`Self::names`].
    pub fn list(&self) -> Result<Vec<Entry>, ProfileError> {
        let names = self.names()?;
        Ok(names.into_iter().map(|name| Entry { profile: self.load(&name), name }).collect())
    }

    /// Whether a profile of this name is there, usable or not.
    #[must_use]
    pub fn contains(&self, name: &ProfileName) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// `NotFound`; `Unguarded` if somebody else could have read or changed it; the errors of [`Profile::parse`].
    pub fn load(&self, name: &ProfileName) -> Result<Profile, ProfileError> {
        let path = self.path(name);
        let content = Guard::default().read(&path, Readers::Owner);
        let content = content.map_err(|error| self.describe_guard(name, error))?;
        let not_text = |_| ProfileError::io(&path, io::Error::new(io::ErrorKind::InvalidData, "it is no UTF-8 text"));
        Profile::parse(name.clone(), str::from_utf8(&content).map_err(not_text)?)
    }

    /// A file of the directory that is no profile.
    pub(crate) fn hidden(&self, name: &str) -> PathBuf {
        self.directory.join(format!(".{name}"))
    }

    /// Takes room for a profile, so that saving it fails for no reason that could be known before.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn prepare(&self, name: &ProfileName, replace: bool) -> Result<ProfileRoom, ProfileError> {
        if !replace && self.contains(name) {
            return Err(ProfileError::Exists { name: name.to_string() });
        }
        directories::create(&self.directory, 0o700)?;
        Guard::default().check_directory(&self.directory)?;
        let path = self.path(name);
        if path.is_dir() {
            return Err(ProfileError::io(path, io::ErrorKind::IsADirectory.into()));
        }
        let reservation = Reservation::new(&path, ROOM, 0o600);
        let reservation = reservation.map_err(|error| ProfileError::io(&self.directory, error))?;
        Ok(ProfileRoom { path, replace, reservation })
    }

    /// Writes a profile, mode 0600. Readers see the old file or the new one, never a part.
    ///
    /// # Errors
    /// `Exists` if it is there and `replace` is false; `Io`.
    pub fn save(&self, profile: &Profile, replace: bool) -> Result<(), ProfileError> {
        let path = self.path(&profile.name);
        directories::create(&self.directory, 0o700)?;
        let text = profile.encode()?;
        let write = if replace { durable_file::replace } else { durable_file::create };
        match write(&path, text.as_bytes(), 0o600) {
            Err(error) => Err(unsaved(profile, path, replace, error)),
            Ok(()) => Ok(()),
        }
    }

    /// Removes a profile.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn remove(&self, name: &ProfileName) -> Result<(), ProfileError> {
        let path = self.path(name);
        fs::remove_file(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound { self.not_found(name) } else { ProfileError::io(path, error) }
        })
    }

    fn describe_guard(&self, name: &ProfileName, error: GuardError) -> ProfileError {
        if error.is_missing() { self.not_found(name) } else { error.into() }
    }

    fn not_found(&self, name: &ProfileName) -> ProfileError {
        ProfileError::NotFound { name: name.to_string(), directory: self.directory.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::profile::tests::profile;

    fn store() -> (tempfile::TempDir, ProfileStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = ProfileStore::new(directory.path().join("clients"));
        (directory, store)
    }

    #[test]
    fn saved_profile_is_private_and_loads_again() {
        let (_directory, store) = store();
        let original = profile("home");
        store.save(&original, false).unwrap();
        let mode = fs::metadata(store.path(&original.name)).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(store.load(&original.name).unwrap().encode().unwrap(), original.encode().unwrap());
        assert_eq!(store.names().unwrap(), vec![original.name]);
    }

    #[test]
    fn existing_profile_is_kept_unless_replacing() {
        let (_directory, store) = store();
        let mut profile = profile("home");
        store.save(&profile, false).unwrap();
        profile.user = "bob".into();
        assert!(matches!(store.save(&profile, false), Err(ProfileError::Exists { .. })));
        assert_eq!(store.load(&profile.name).unwrap().user, "alice");
        store.save(&profile, true).unwrap();
        assert_eq!(store.load(&profile.name).unwrap().user, "bob");
        assert_eq!(fs::read_dir(&store.directory).unwrap().count(), 1, "a draft was left");
    }

    #[test]
    fn readable_by_others_is_refused() {
        let (_directory, store) = store();
        let profile = profile("home");
        store.save(&profile, false).unwrap();
        for mode in [0o604, 0o640, 0o620] {
            fs::set_permissions(store.path(&profile.name), fs::Permissions::from_mode(mode)).unwrap();
            let refused = store.load(&profile.name);
            let reason = format!("mode {mode:04o} lets others at a secret");
            assert!(matches!(refused, Err(ProfileError::Unguarded(error)) if error.reason == reason));
        }
    }

    #[test]
    fn directory_that_others_can_write_is_refused_before_an_invite_is_used_up_for_it() {
        let (_directory, store) = store();
        let profile = profile("home");
        store.save(&profile, false).unwrap();
        fs::set_permissions(&store.directory, fs::Permissions::from_mode(0o777)).unwrap();
        let other = "other".parse().unwrap();
        for refused in [store.prepare(&other, false).map(drop), store.load(&profile.name).map(drop)] {
            let Err(ProfileError::Unguarded(error)) = refused else { panic!("the directory is not guarded") };
            assert!(error.next.contains("chmod go-w"), "{error}");
        }
    }

    #[test]
    fn symbolic_link_is_refused() {
        let (_directory, store) = store();
        let profile = profile("home");
        store.save(&profile, false).unwrap();
        std::os::unix::fs::symlink(store.path(&profile.name), store.directory.join("alias.toml")).unwrap();
        let alias = "alias".parse().unwrap();
        let refused = store.load(&alias);
        assert!(matches!(refused, Err(ProfileError::Unguarded(error)) if error.reason == "is a symbolic link"));
    }

    #[test]
    fn missing_profile_and_missing_directory_are_told_apart_from_errors() {
        let (_directory, store) = store();
        assert!(store.names().unwrap().is_empty());
        assert!(matches!(store.load(&"home".parse().unwrap()), Err(ProfileError::NotFound { .. })));
        assert!(matches!(store.remove(&"home".parse().unwrap()), Err(ProfileError::NotFound { .. })));
    }
}

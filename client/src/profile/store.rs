//! Profiles on disk: strict about who can read them, atomic in writing them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use zeroize::Zeroizing;

use super::directories;
use super::{Profile, ProfileError, ProfileName};

/// Largest profile that is read, in bytes; a real one has about 3 KiB.
const LARGEST_FILE: u64 = 64 * 1024;

/// One profile of a listing.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: ProfileName,
    /// The profile, or why it cannot be used.
    pub profile: Result<Profile, ProfileError>,
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
    /// `NotFound`; `NotRegular`, `TooOpen` and `ForeignOwner` if somebody else could have read or changed it; the
    /// errors of [`Profile::parse`].
    pub fn load(&self, name: &ProfileName) -> Result<Profile, ProfileError> {
        let path = self.path(name);
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|error| self.describe_open(name, &path, error))?;
        check_guarded(&path, &file)?;
        let mut text = Zeroizing::new(String::new());
        let read = Read::by_ref(&mut file).take(LARGEST_FILE).read_to_string(&mut text);
        read.map_err(|error| ProfileError::io(&path, error))?;
        Profile::parse(name.clone(), &text)
    }

    /// Makes sure that [`Self::save`] will have a place to write to.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn prepare(&self, name: &ProfileName, replace: bool) -> Result<(), ProfileError> {
        if !replace && self.contains(name) {
            return Err(ProfileError::Exists { name: name.to_string() });
        }
        directories::create(&self.directory, 0o700)?;
        let draft = self.draft(name);
        let tried = write_new(&draft, "").and_then(|()| fs::remove_file(&draft));
        tried.map_err(|error| ProfileError::io(&self.directory, error))
    }

    /// Writes a profile, mode 0600. Readers see the old file or the new one, never a part.
    ///
    /// # Errors
    /// `Exists` if it is there and `replace` is false; `Io`.
    pub fn save(&self, profile: &Profile, replace: bool) -> Result<(), ProfileError> {
        let path = self.path(&profile.name);
        directories::create(&self.directory, 0o700)?;
        let text = profile.encode()?;
        let draft = self.draft(&profile.name);
        let written = write_new(&draft, &text).and_then(|()| publish(&draft, &path, replace));
        if written.is_err() {
            // The draft may not exist; the error that matters is the first one.
            fs::remove_file(&draft).ok();
        }
        match written {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !replace => {
                Err(ProfileError::Exists { name: profile.name.to_string() })
            }
            Err(error) => Err(ProfileError::io(path, error)),
            Ok(()) => Ok(()),
        }
    }

    /// Removes a profile.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn remove(&self, name: &ProfileName) -> Result<(), ProfileError> {
        let path = self.path(name);
        fs::remove_file(&path).map_err(|error| self.describe_open(name, &path, error))
    }

    fn draft(&self, name: &ProfileName) -> PathBuf {
        self.directory.join(format!(".{name}.{}", std::process::id()))
    }

    fn describe_open(&self, name: &ProfileName, path: &Path, error: io::Error) -> ProfileError {
        if error.raw_os_error() == Some(libc::ELOOP) {
            return ProfileError::NotRegular { path: path.to_owned() };
        }
        if error.kind() == io::ErrorKind::NotFound {
            return ProfileError::NotFound { name: name.to_string(), directory: self.directory.clone() };
        }
        ProfileError::io(path, error)
    }
}

/// Refuses a file that somebody else than its owner, and the owner than us or root, could have read or changed.
fn check_guarded(path: &Path, file: &File) -> Result<(), ProfileError> {
    let metadata = file.metadata().map_err(|error| ProfileError::io(path, error))?;
    if !metadata.is_file() {
        return Err(ProfileError::NotRegular { path: path.to_owned() });
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ProfileError::TooOpen { path: path.to_owned(), mode });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(ProfileError::ForeignOwner { path: path.to_owned(), owner });
    }
    Ok(())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    // A draft of this name can only be left from a dead process with our process id.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Moves a finished draft to its place and makes the directory entry durable.
fn publish(draft: &Path, path: &Path, replace: bool) -> io::Result<()> {
    if replace {
        fs::rename(draft, path)?;
    } else {
        // Unlike `rename`, `link` fails if the target exists.
        fs::hard_link(draft, path)?;
        fs::remove_file(draft)?;
    }
    File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
            assert!(matches!(refused, Err(ProfileError::TooOpen { mode: found, .. }) if found == mode));
        }
    }

    #[test]
    fn symbolic_link_is_refused() {
        let (_directory, store) = store();
        let profile = profile("home");
        store.save(&profile, false).unwrap();
        std::os::unix::fs::symlink(store.path(&profile.name), store.directory.join("alias.toml")).unwrap();
        let alias = "alias".parse().unwrap();
        assert!(matches!(store.load(&alias), Err(ProfileError::NotRegular { .. })));
    }

    #[test]
    fn missing_profile_and_missing_directory_are_told_apart_from_errors() {
        let (_directory, store) = store();
        assert!(store.names().unwrap().is_empty());
        assert!(matches!(store.load(&"home".parse().unwrap()), Err(ProfileError::NotFound { .. })));
        assert!(matches!(store.remove(&"home".parse().unwrap()), Err(ProfileError::NotFound { .. })));
    }
}

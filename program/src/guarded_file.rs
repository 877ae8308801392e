//! Files that steer a privileged act: keys, profiles, tokens, journals, locks.
//!
//! Whoever can change such a file, or put another one in its place, decides what a program does with its privileges. So
//! it is used only if nobody but root and the user of this process could have done that:
//!
//! - it is a regular file, not a symbolic link, and belongs to root or this user; nobody else may write it, nor read it
//!   if it holds a secret;
//! - its directory belongs to root or this user, and nobody else may write there;
//! - so do all directories above it, and nobody else may write there either, unless they have the sticky bit as `/tmp`
//!   has it: there, only its owner can rename or remove an entry. The same goes for symbolic links on the way.
//!
//! What is checked is what is used: every directory is opened in the one checked before, and the file in the last one,
//! so that nothing can be swapped between check and use.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};
use crate::rights::to_reach_files_of;

/// Largest file that is read, in bytes.
const LARGEST_FILE: u64 = 64 * 1024;
/// Most symbolic links on the way to a directory, as in the kernel (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// Permission of the group and of others to write.
const WRITABLE: u32 = 0o022;
/// Any permission of the group and of others.
const OPEN_TO_OTHERS: u32 = 0o077;
/// Only the owner of an entry may rename or remove it in a directory with this bit.
const STICKY: u32 = 0o1000;
/// The user id that stands for all without one in a user namespace, unless the system names another.
const USUAL_OVERFLOW_ID: u32 = 65534;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner: it holds a secret.
    Owner,
    /// Anybody.
    Everybody,
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and appending; a missing file is made, mode 0600.
    AppendOrCreate,
}

/// Why a file is not used. `Display` gives path and reason.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct GuardError {
    /// The file, or the directory on the way to it that is to blame.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// What the user can do about it.
    pub next: String,
    /// The system's error, where it was the system that refused.
    #[source]
    pub source: Option<io::Error>,
}

impl GuardError {
    /// The system refused to open or read something.
    #[must_use]
    pub fn system(path: &Path, error: io::Error) -> Self {
        let (reason, next) = if error.kind() == io::ErrorKind::NotFound {
            ("does not exist".to_owned(), "mend the path, or make it".to_owned())
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            ("cannot be read: permission denied".to_owned(), to_reach_files_of("root or as its owner"))
        } else if error.raw_os_error() == Some(Errno::ELOOP as i32) {
            ("is a symbolic link".to_owned(), "put the file itself there".to_owned())
        } else {
            (format!("cannot be read: {error}"), "mend the file or its file system".to_owned())
        };
        Self { path: path.to_owned(), reason, next, source: Some(error) }
    }

    fn refusal(path: &Path, reason: String, next: String) -> Self {
        Self { path: path.to_owned(), reason, next, source: None }
    }

    fn foreign(path: &Path, owner: u32) -> Self {
        let reason = format!("belongs to user {owner}, who can change what is done with it");
        let own = nix::unistd::geteuid();
        Self::refusal(path, reason, format!("look what is in it, then run `chown {own} {}`", path.display()))
    }

    /// Whether there is no such file, or no such directory on the way to it.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.source.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether this user lacks a permission.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.source.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl From<GuardError> for Failure {
    fn from(error: GuardError) -> Self {
        let exit = if error.is_permission_denied() { Exit::Permission } else { Exit::Usage };
        Self::new(exit, error.path.display().to_string(), error.reason, error.next)
    }
}

/// Whom guarded files may belong to: root, the user of this process, and whoever else is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    own: u32,
    also: Option<u32>,
    /// Who owns what belongs to users that this user namespace does not have.
    overflow: Option<u32>,
}

impl Default for Guard {
    fn default() -> Self {
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid").ok();
        let overflow = overflow.and_then(|id| id.trim().parse().ok()).unwrap_or(USUAL_OVERFLOW_ID);
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self { own: nix::unistd::geteuid().as_raw(), also: None, overflow: unmapped(&map, overflow) }
    }
}

/// The overflow id, if a user namespace with this map (user_namespaces(7)) has no user of that number.
fn unmapped(map: &str, overflow: u32) -> Option<u32> {
    let holds = |line: &str| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u32>().ok());
        let (first, _outside, count) = (fields.next()??, fields.next()?, fields.next()??);
        Some(overflow.checked_sub(first)? < count)
    };
    // Without any line nothing is known, so nobody is taken for an unmapped user.
    (!map.is_empty() && !map.lines().any(|line| holds(line) == Some(true))).then_some(overflow)
}

impl Guard {
    /// Also trusts another user.
    #[must_use]
    pub fn or_user(self, user: Option<u32>) -> Self {
        Self { also: user, ..self }
    }

    /// Whether a file of this user is trusted.
    #[must_use]
    pub fn trusts(&self, user: u32) -> bool {
        user == 0 || user == self.own || self.also == Some(user)
    }

    /// As [`Self::read`], for a path that may be a symbolic link itself. The directory of each link is guarded like
    /// that of a file.
    ///
    /// # Errors
    /// As [`Self::read`], and a chain of links without end.
    pub fn read_linked(&self, path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, GuardError> {
        let mut path = path.to_owned();
        for _ in 0..=MOST_LINKS {
            let Ok(target) = fs::read_link(&path) else { return self.read(&path, readers) };
            let directory = path.parent().unwrap_or_else(|| Path::new("/")).to_owned();
            self.check_directory(&directory)?;
            path = directory.join(target);
        }
        Err(GuardError::system(&path, Errno::ELOOP.into()))
    }

    /// Whether a directory above that of the file may belong to this user.
    ///
    /// A user namespace of an ordinary user has one user; whatever belongs to others, also to the host's root, seems to
    /// belong to the overflow user there. So do `/` and `/tmp`, and no owner could be told from another. What is above
    /// a directory of our own is then left to whoever made the namespace: the privileges inside it do not reach beyond
    /// what that user has.
    fn trusts_above(&self, user: u32) -> bool {
        self.trusts(user) || self.overflow == Some(user)
    }

    /// Reads a file of at most 64 KiB.
    ///
    /// # Errors
    /// The first rule that the file, or a directory on the way to it, breaks.
    pub fn read(&self, path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, GuardError> {
        let file = self.open(path, Access::Read, readers)?;
        let mut content = Zeroizing::new(Vec::new());
        file.take(LARGEST_FILE).read_to_end(&mut content).map_err(|error| GuardError::system(path, error))?;
        Ok(content)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// The first rule that the file, or a directory on the way to it, breaks.
    pub fn open(&self, path: &Path, access: Access, readers: Readers) -> Result<File, GuardError> {
        let no_name = || GuardError::system(path, io::ErrorKind::IsADirectory.into());
        let name = path.file_name().ok_or_else(no_name)?;
        let directory = self.open_directory(parent(path))?;
        // A pipe or device must not keep us waiting before it is refused.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let flags = flags
            | match access {
                Access::Read => OFlag::O_RDONLY,
                Access::AppendOrCreate => OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT,
            };
        let file = openat(&directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let file = File::from(file.map_err(|errno| GuardError::system(path, errno.into()))?);
        let found = file.metadata().map_err(|error| GuardError::system(path, error))?;
        self.check_file(path, &found, readers)?;
        Ok(file)
    }

    /// Checks a directory and all above it, as for a file in it.
    ///
    /// # Errors
    /// The first rule that one of them breaks.
    pub fn check_directory(&self, path: &Path) -> Result<(), GuardError> {
        self.open_directory(path).map(drop)
    }

    fn check_file(&self, path: &Path, found: &Metadata, readers: Readers) -> Result<(), GuardError> {
        let shown = path.display();
        if !found.is_file() {
            let next = "put the file itself there".to_owned();
            return Err(GuardError::refusal(path, "is not a regular file".to_owned(), next));
        }
        if !self.trusts(found.uid()) {
            return Err(GuardError::foreign(path, found.uid()));
        }
        let mode = found.mode() & 0o7777;
        if readers == Readers::Owner && mode & OPEN_TO_OTHERS != 0 {
            let next = format!("run `chmod 600 {shown}`, and consider the secret known to others");
            return Err(GuardError::refusal(path, format!("mode {mode:04o} lets others at a secret"), next));
        }
        if mode & WRITABLE != 0 {
            let next = format!("look what is in it, then run `chmod go-w {shown}`");
            return Err(GuardError::refusal(path, format!("mode {mode:04o} lets others write it"), next));
        }
        Ok(())
    }

    /// Opens a directory by the names on its path, one after the other, checking each on the way.
    fn open_directory(&self, directory: &Path) -> Result<File, GuardError> {
        let absolute = std::path::absolute(directory).map_err(|error| GuardError::system(directory, error))?;
        let mut names = names(&absolute);
        let (mut at, mut here) = (PathBuf::from("/"), open_root()?);
        let mut links = 0;
        self.check_above(&at, &here)?;
        while let Some(name) = names.pop_front() {
            let path = at.join(&name);
            let entry = open_below(&here, &name).map_err(|error| GuardError::system(&path, error))?;
            let found = entry.metadata().map_err(|error| GuardError::system(&path, error))?;
            if found.is_symlink() {
                // Its target takes the place of its name; an absolute one leads back to the root.
                if !self.trusts_above(found.uid()) {
                    return Err(GuardError::foreign(&path, found.uid()));
                }
                links += 1;
                if links > MOST_LINKS {
                    return Err(GuardError::system(&path, Errno::ELOOP.into()));
                }
                let target = readlinkat(&entry, "").map_err(|errno| GuardError::system(&path, errno.into()))?;
                let target = PathBuf::from(target);
                if target.is_absolute() {
                    (at, here) = (PathBuf::from("/"), open_root()?);
                }
                for name in self::names(&target).into_iter().rev() {
                    names.push_front(name);
                }
                continue;
            }
            if !found.is_dir() {
                return Err(GuardError::system(&path, io::ErrorKind::NotADirectory.into()));
            }
            self.check_above(&path, &entry)?;
            if name == ".." {
                at.pop();
            } else {
                at = path;
            }
            here = entry;
        }
        self.check_own(&at, &here)?;
        Ok(here)
    }

    /// Checks a directory on the way to that of a file.
    fn check_above(&self, path: &Path, directory: &File) -> Result<(), GuardError> {
        let found = directory.metadata().map_err(|error| GuardError::system(path, error))?;
        if !self.trusts_above(found.uid()) {
            return Err(GuardError::foreign(path, found.uid()));
        }
        if found.mode() & WRITABLE != 0 && found.mode() & STICKY == 0 {
            return Err(writable_directory(path, &found));
        }
        Ok(())
    }

    /// Checks the directory of a file, where the sticky bit does not help: others could make files in it before we do.
    fn check_own(&self, path: &Path, directory: &File) -> Result<(), GuardError> {
        let found = directory.metadata().map_err(|error| GuardError::system(path, error))?;
        if !self.trusts(found.uid()) {
            return Err(GuardError::foreign(path, found.uid()));
        }
        if found.mode() & WRITABLE != 0 {
            return Err(writable_directory(path, &found));
        }
        Ok(())
    }
}

fn writable_directory(path: &Path, found: &Metadata) -> GuardError {
    let reason = format!("mode {:04o} lets others put files into the directory", found.mode() & 0o7777);
    GuardError::refusal(path, reason, format!("look what is in it, then run `chmod go-w {}`", path.display()))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The names on a path, without the root and the dots that mean nothing.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

fn open_root() -> Result<File, GuardError> {
    let root = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open("/");
    root.map_err(|error| GuardError::system(Path::new("/"), error))
}

/// Opens an entry of a directory as a place in the file system: a symbolic link as itself, and a directory without
/// permission to list it.
fn open_below(directory: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests;

//! Secret files: what must hold before one is used, and how one is written.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use zeroize::Zeroizing;

/// Largest secret file that is read, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// Why a secret file is not used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct SecretError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// What the user can do about it.
    pub next: String,
    /// The system's error, when there is one.
    #[source]
    pub source: Option<io::Error>,
}

/// Reads a secret file, which must be regular, no symbolic link, owned by root or by us, and closed to everyone else.
///
/// # Errors
/// The first rule it breaks.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let file = open_secret(path)?;
    let mut content = Zeroizing::new(Vec::new());
    file.take(MAX_SECRET).read_to_end(&mut content).map_err(|error| io_error(path, error))?;
    Ok(content)
}

/// Opens a secret file for reading after checking its kind, owner and mode on the open descriptor.
pub(crate) fn open_secret(path: &Path) -> Result<File, SecretError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file =
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(|error| io_error(path, error))?;
    let found = file.metadata().map_err(|error| io_error(path, error))?;
    let refuse = |reason: String, next: String| SecretError { path: path.to_owned(), reason, next, source: None };
    if !found.is_file() {
        return Err(refuse("is not a regular file".into(), "put the file itself there".into()));
    }
    if !owner_is_trusted(found.uid()) {
        let reason = format!("belongs to user {}, so its secret may be known", found.uid());
        return Err(refuse(reason, "give it to root or to the gateway's user".into()));
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let next = format!("run `chmod 600 {}`, and consider the secret known to others", path.display());
        return Err(refuse(format!("mode {mode:04o} lets others at a secret"), next));
    }
    Ok(file)
}

/// The user that the service runs as, by the name in the package's `sysusers.d`.
const GATEWAY_USER: &str = "adit";

/// Whether files of this user may be trusted: root's, our own, and, when an administrator works on the state of a
/// gateway that runs as a service, that gateway's.
pub(super) fn owner_is_trusted(uid: u32) -> bool {
    let own = nix::unistd::geteuid();
    uid == 0 || uid == own.as_raw() || (own.is_root() && gateway_user() == Some(uid))
}

fn gateway_user() -> Option<u32> {
    let user = nix::unistd::User::from_name(GATEWAY_USER).ok()?;
    user.map(|user| user.uid.as_raw())
}

fn io_error(path: &Path, error: io::Error) -> SecretError {
    let (reason, next) = if error.kind() == io::ErrorKind::NotFound {
        ("does not exist".to_owned(), "run `adit-server init`, or mend state_dir")
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        ("cannot be read: permission denied".to_owned(), "run as root or as its owner")
    } else if error.raw_os_error() == Some(Errno::ELOOP as i32) {
        ("is a symbolic link".to_owned(), "put the file itself there")
    } else {
        (format!("cannot be read: {error}"), "mend the file or its file system")
    };
    SecretError { path: path.to_owned(), reason, next: next.to_owned(), source: Some(error) }
}

/// Writes a new file so that it is there completely or not at all, and survives a power cut: a temporary file beside
/// it, `fsync`, a hard link that refuses an existing name, `fsync` of the directory.
///
/// # Errors
/// The file exists already (`AlreadyExists`) or cannot be written.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
    let name = path.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
    let temporary = directory.join(format!(".{}.{}.new", name.display(), std::process::id()));
    let linked = write_synced(&temporary, content, mode).and_then(|()| std::fs::hard_link(&temporary, path));
    let removed = std::fs::remove_file(&temporary);
    linked.and(removed)?;
    File::open(directory)?.sync_all()
}

fn write_synced(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_file_never_replaces_an_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        write_new(&path, b"first", 0o600).unwrap();
        assert_eq!(write_new(&path, b"second", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn secret_readable_by_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        write_new(&path, b"secret", 0o600).unwrap();
        assert_eq!(read_secret(&path).unwrap().as_slice(), b"secret");
        for mode in [0o640, 0o604, 0o610, 0o602] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(read_secret(&path).unwrap_err().next.contains("chmod 600"), "{mode:o}");
        }
    }

    #[test]
    fn symbolic_link_directory_and_missing_file_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        write_new(&path, b"secret", 0o600).unwrap();
        let link = directory.path().join("link.key");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read_secret(&link).unwrap_err().reason, "is a symbolic link");
        assert_eq!(read_secret(directory.path()).unwrap_err().reason, "is not a regular file");
        assert_eq!(read_secret(&directory.path().join("none")).unwrap_err().reason, "does not exist");
    }
}

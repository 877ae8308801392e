//! Putting a file or link in place, in one step where the host permits that.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use adit_program::durable_file::flush_directory;

/// Puts a file in place in one step; where that is not possible, because the path is a mount point or its directory is
/// read-only, as containers have it, writes into the existing file.
pub(super) fn put(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    match put_renamed(path, |beside| write_new(beside, content, mode, owner)) {
        Err(error) if is_for_lack_of_rename(&error) && fs::symlink_metadata(path).is_ok_and(|file| file.is_file()) => {
            write_into(path, content)
        }
        other => other,
    }
}

/// Puts a link in place.
pub(super) fn put_link(path: &Path, target: &Path) -> io::Result<()> {
    put_renamed(path, |beside| symlink(target, beside))
}

/// Removes a file that may be missing.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes something beside a path and renames it into place.
fn put_renamed(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = beside(path);
    remove(&beside).or_else(unless_read_only)?;
    let placed = make(&beside).and_then(|()| fs::rename(&beside, path));
    if placed.is_err() {
        remove(&beside).or_else(unless_read_only)?;
    }
    placed.and_then(|()| flush_directory(path))
}

fn write_new(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    if let Some((uid, gid)) = owner {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (uid, gid) {
            fchown(&file, Some(uid), Some(gid))?;
        }
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Writes into an existing file. What was in it comes back where the new content does not fit on the disk.
fn write_into(path: &Path, content: &[u8]) -> io::Result<()> {
    // A link that somebody put there meanwhile leads to a file that nobody has looked at.
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    let mut before = Vec::new();
    file.read_to_end(&mut before)?;
    let written = overwrite(&mut file, content);
    if written.is_err() {
        overwrite(&mut file, &before)?;
    }
    written
}

/// Cuts the file before it is written, so that a process that dies in between leaves the beginning of the new content.
fn overwrite(file: &mut File, content: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(content)?;
    file.sync_all()
}

fn is_for_lack_of_rename(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
    )
}

/// There is nothing to remove from a read-only file system: we could not have made it.
fn unless_read_only(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::ReadOnlyFilesystem { Ok(()) } else { Err(error) }
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.adit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_leads_to_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (directory.path().join("resolv.conf"), directory.path().join("elsewhere"));
        fs::write(&elsewhere, "as it was").unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert_eq!(write_into(&path, b"ours").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(fs::read(&elsewhere).unwrap(), b"as it was");
        write_into(&elsewhere, b"ours").unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"ours", "a file is written");
    }
}

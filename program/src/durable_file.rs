//! Files that are there completely or not at all, also after a power cut.
//!
//! A draft is written beside the file and flushed; then it gets the file's name in one step, and the directory is
//! flushed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a new file.
///
/// # Errors
/// `AlreadyExists` if there is a file of this name, which is left as it is; another refusal of the file system.
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let draft = Draft::write(path, content, mode)?;
    // Unlike `rename`, `link` fails if the name is taken.
    fs::hard_link(&draft.path, path)?;
    draft.remove()?;
    flush_directory(path)
}

/// Writes a file in place of the one of this name, if there is one. Readers see the old one or the new one.
///
/// # Errors
/// A refusal of the file system.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let draft = Draft::write(path, content, mode)?;
    fs::rename(&draft.path, path)?;
    flush_directory(path)
}

/// Finds out whether a file of this name could be written; leaves nothing behind.
///
/// # Errors
/// A refusal of the file system.
pub fn try_out(path: &Path) -> io::Result<()> {
    Draft::write(path, b"", 0o600)?.remove()
}

/// What will become a file; removed on drop.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(target: &Path, content: &[u8], mode: u32) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
        let path = target.with_file_name(format!(".{}.{}.new", name.display(), std::process::id()));
        // A draft of this name can only be left from a dead process with our process id.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        let draft = Self { path };
        file.write_all(content)?;
        file.sync_all()?;
        Ok(draft)
    }

    fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is gone already where all went well; else the error that led here is the one that matters.
        fs::remove_file(&self.path).ok();
    }
}

fn flush_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn entries(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn new_file_never_replaces_an_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        create(&path, b"first", 0o600).unwrap();
        assert_eq!(create(&path, b"second", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(entries(directory.path()), 1, "no draft is left");
    }

    #[test]
    fn replacement_takes_the_place_of_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.toml");
        for content in [b"first", b"other"] {
            replace(&path, content, 0o600).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        assert_eq!(entries(directory.path()), 1, "no draft is left");
    }

    #[test]
    fn trying_out_leaves_nothing_and_finds_a_missing_directory() {
        let directory = tempfile::tempdir().unwrap();
        try_out(&directory.path().join("a.toml")).unwrap();
        assert_eq!(entries(directory.path()), 0);
        assert!(try_out(&directory.path().join("none/a.toml")).is_err());
    }

    #[test]
    fn draft_of_a_dead_process_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(format!(".a.key.{}.new", std::process::id())), "half").unwrap();
        create(&directory.path().join("a.key"), b"whole", 0o600).unwrap();
        assert_eq!(entries(directory.path()), 1);
    }
}

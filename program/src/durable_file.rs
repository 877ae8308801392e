//! Files that are there completely or not at all, also after a power cut.
//!
//! A draft is written beside the file and flushed; then it gets the file's name in one step, and the directory is
//! flushed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a new file.
///
/// # Errors
/// `AlreadyExists` if there is a file of this name, which is left as it is; another refusal of the file system.
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = Draft::begin(path, mode)?;
    draft.fill(content)?;
    draft.take_free_name(path)
}

/// Writes a file in place of the one of this name, if there is one. Readers see the old one or the new one.
///
/// # Errors
/// A refusal of the file system.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = Draft::begin(path, mode)?;
    draft.fill(content)?;
    draft.take_name(path)
}

/// Room on the file system for a file whose content is not known yet; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    path: PathBuf,
    draft: Draft,
}

impl Reservation {
    /// Takes room for `size` bytes beside `path`.
    ///
    /// # Errors
    /// A refusal of the file system: the directory cannot be written, or the disk is full.
    pub fn new(path: &Path, size: usize, mode: u32) -> io::Result<Self> {
        let mut draft = Draft::begin(path, mode)?;
        draft.fill(&vec![0; size])?;
        Ok(Self { path: path.to_owned(), draft })
    }

    /// As [`create`], in the room that was taken.
    ///
    /// # Errors
    /// As [`create`].
    pub fn create(mut self, content: &[u8]) -> io::Result<()> {
        self.draft.fill(content)?;
        self.draft.take_free_name(&self.path)
    }

    /// As [`replace`], in the room that was taken.
    ///
    /// # Errors
    /// As [`replace`].
    pub fn replace(mut self, content: &[u8]) -> io::Result<()> {
        self.draft.fill(content)?;
        self.draft.take_name(&self.path)
    }
}

/// What will become a file; removed on drop.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    fn begin(target: &Path, mode: u32) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
        let path = target.with_file_name(format!(".{}.{}.new", name.display(), std::process::id()));
        // A draft of this name can only be left from a dead process with our process id.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        Ok(Self { path, file })
    }

    /// Makes `content` all that is in the draft. What was in it before leaves its room to it.
    fn fill(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(content)?;
        let length = u64::try_from(content.len()).expect("a length fits 64 bits");
        self.file.set_len(length)?;
        self.file.sync_all()
    }

    fn take_name(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        flush_directory(path)
    }

    fn take_free_name(self, path: &Path) -> io::Result<()> {
        // Unlike `rename`, `link` fails if the name is taken.
        match fs::hard_link(&self.path, path) {
            Ok(()) => fs::remove_file(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // exFAT, SMB, 9p and others have no links, each with a refusal of its own.
            Err(_) => self.claim_name(path)?,
        }
        flush_directory(path)
    }

    /// Takes a free name without a link: an empty file claims it, and the draft replaces that. A crash in between
    /// leaves the empty file.
    fn claim_name(&self, path: &Path) -> io::Result<()> {
        drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?);
        fs::rename(&self.path, path).inspect_err(|_| {
            // The refusal of the rename is what matters.
            fs::remove_file(path).ok();
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is gone already where all went well; else the error that led here is the one that matters.
        fs::remove_file(&self.path).ok();
    }
}

/// Flushes the directory of `path` to disk, and with it that there is a file of this name, or none.
///
/// # Errors
/// A refusal of the file system.
pub fn flush_directory(path: &Path) -> io::Result<()> {
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
    fn name_is_taken_without_links_too_but_only_a_free_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        let claim = |content: &[u8]| {
            let mut draft = Draft::begin(&path, 0o600).unwrap();
            draft.fill(content).unwrap();
            draft.claim_name(&path)
        };
        claim(b"first").unwrap();
        assert_eq!(claim(b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(entries(directory.path()), 1, "no draft is left");
    }

    #[test]
    fn reservation_takes_room_and_gives_it_back_or_becomes_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.toml");
        let reserve = || Reservation::new(&path, 4096, 0o600).unwrap();
        let unused = reserve();
        assert_eq!(unused.draft.file.metadata().unwrap().len(), 4096);
        drop(unused);
        assert_eq!(entries(directory.path()), 0);
        reserve().create(b"first").unwrap();
        assert_eq!(reserve().create(b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        reserve().replace(b"third").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(entries(directory.path()), 1, "no draft is left");
        assert!(Reservation::new(&directory.path().join("none/a.toml"), 1, 0o600).is_err());
    }

    #[test]
    fn draft_of_a_dead_process_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(format!(".a.key.{}.new", std::process::id())), "half").unwrap();
        create(&directory.path().join("a.key"), b"whole", 0o600).unwrap();
        assert_eq!(entries(directory.path()), 1);
    }
}

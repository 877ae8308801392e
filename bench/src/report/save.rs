//! Files of results, which are there completely or not at all.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use adit_program::exit::{Exit, Failure};
use tempfile::{Builder, NamedTempFile};

/// Who may read and write a new file, less what the umask takes.
const MODE: u32 = 0o666;

/// Writes a file; whoever looks sees the old one until the new one is complete.
///
/// # Errors
/// Fails with the name of the file: exit code 6 where a permission is missing, 2 otherwise.
pub(crate) fn save(path: &Path, text: &str) -> Result<(), Failure> {
    write(path, text.as_bytes()).map_err(|error| failure(path, &error))
}

/// Whether [`save`] would find its folder, asked before hours are spent on what shall be written.
///
/// # Errors
/// Fails as [`save`] does.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    let place = Place::of(path).and_then(|place| place.begin().map(drop));
    place.map_err(|error| failure(path, &error))
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    match Place::of(path)? {
        Place::Stream => fs::OpenOptions::new().write(true).open(path)?.write_all(text),
        place @ Place::File(_) => {
            let Some(mut file) = place.begin()? else { return Ok(()) };
            file.write_all(text)?;
            file.as_file().sync_all()?;
            let Place::File(path) = place else { return Ok(()) };
            file.persist(path).map(drop).map_err(|error| error.error)
        }
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    let kind = error.kind();
    let (exit, next) = if kind == ErrorKind::PermissionDenied {
        (Exit::Permission, "name a file in a folder you may write to")
    } else if kind == ErrorKind::NotFound {
        (Exit::Usage, "make its folder first")
    } else {
        (Exit::Usage, "name another file")
    };
    Failure::new(exit, path.display().to_string(), format!("cannot be written: {error}"), next)
}

enum Place {
    /// A file, or nothing yet; links are followed.
    File(PathBuf),
    /// A device or pipe, which cannot be replaced.
    Stream,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
            Ok(found) if found.is_file() => fs::canonicalize(path).map(Self::File),
            Ok(_) => Ok(Self::Stream),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::File(path.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// A new file beside the one that it shall replace.
    fn begin(&self) -> io::Result<Option<NamedTempFile>> {
        let Self::File(path) = self else { return Ok(None) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        Builder::new().prefix(".adit-bench-").permissions(Permissions::from_mode(MODE)).tempfile_in(folder).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn file_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let [path, link] = ["report.html", "latest.html"].map(|name| folder.path().join(name));
        symlink(&path, &link).unwrap();
        for text in ["one", "two"] {
            check(&path).unwrap();
            save(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&link).unwrap(), text);
        }
        save(&link, "three").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o600, 0o600, "{mode:o}");
        save(Path::new("/dev/null"), "four").unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (path, exit) in
            [(folder.path().join("no/report.html"), Exit::Usage), (folder.path().to_owned(), Exit::Usage)]
        {
            for failed in [check(&path).unwrap_err(), save(&path, "").unwrap_err()] {
                assert_eq!((failed.exit, failed.what), (exit, path.display().to_string()));
            }
        }
    }
}

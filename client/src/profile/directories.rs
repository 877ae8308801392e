//! Where the client keeps its files.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{ProfileError, ProfileName};

/// The client's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Profiles.
    pub clients: PathBuf,
    /// Sockets, locks and logs of running clients.
    pub run: PathBuf,
    /// Undo journals, which must survive a power cut.
    pub state: PathBuf,
}

impl Directories {
    /// The directories of this host: `/etc/adit/clients`, `/run/adit-client` and `/var/lib/adit-client`. `/run/adit`
    /// and `/var/lib/adit` belong to a gateway's own user, whose files root cannot write once it gave up its
    /// capabilities.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clients: "/etc/adit/clients".into(),
            run: "/run/adit-client".into(),
            state: "/var/lib/adit-client".into(),
        }
    }

    /// All of them below one directory: `clients`, `run` and `state`.
    #[must_use]
    pub fn below(directory: &Path) -> Self {
        Self { clients: directory.join("clients"), run: directory.join("run"), state: directory.join("state") }
    }

    /// The control socket of a running client.
    #[must_use]
    pub fn socket(&self, name: &ProfileName) -> PathBuf {
        self.run.join(format!("client-{name}.sock"))
    }

    /// The file a running client holds a lock on.
    #[must_use]
    pub fn lock(&self, name: &ProfileName) -> PathBuf {
        self.run.join(format!("client-{name}.lock"))
    }

    /// The log of a detached client.
    #[must_use]
    pub fn log(&self, name: &ProfileName) -> PathBuf {
        self.run.join(format!("client-{name}.log"))
    }

    /// The journal of a client's host changes.
    #[must_use]
    pub fn journal(&self, name: &ProfileName) -> PathBuf {
        self.state.join(format!("client-{name}.journal"))
    }

    /// Names of the clients that have a journal, also of forgotten profiles, sorted.
    ///
    /// # Errors
    /// The file system's refusal to list the state directory.
    pub fn journals(&self) -> io::Result<Vec<ProfileName>> {
        let entries = match fs::read_dir(&self.state) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names: Vec<ProfileName> = Vec::new();
        for entry in entries {
            let file = entry?.file_name();
            let name = file.to_str().and_then(|file| file.strip_prefix("client-")?.strip_suffix(".journal"));
            names.extend(name.and_then(|name| name.parse().ok()));
        }
        names.sort();
        Ok(names)
    }

    /// Makes the run directory (0755) and the state directory (0700) if they are missing.
    ///
    /// # Errors
    /// `Io` with the directory that could not be made.
    pub fn create_for_running(&self) -> Result<(), ProfileError> {
        create(&self.run, 0o755)?;
        create(&self.state, 0o700)
    }
}

/// Makes a directory, and those above it, unless it is there.
pub(super) fn create(path: &Path, mode: u32) -> Result<(), ProfileError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| ProfileError::io(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_found_by_name_and_other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let directories = Directories::below(directory.path());
        assert!(directories.journals().unwrap().is_empty());
        directories.create_for_running().unwrap();
        for file in ["client-work.journal", "client-home.journal", "server.journal", "client-x.lock"] {
            fs::write(directories.state.join(file), "x").unwrap();
        }
        let names: Vec<String> = directories.journals().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["home", "work"]);
    }
}

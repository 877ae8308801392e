//! Where the client keeps its files.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::ProfileName;

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
    /// The directories of this host: `/etc/adit/clients`, `/run/adit-client` and `/var/lib/adit-client`. `/run/adit` and
    /// `/var/lib/adit` belong to a gateway's own user, whose files root cannot write once it gave up its capabilities.
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

    /// Makes the run directory (0755) and the state directory (0700) if they are missing.
    ///
    /// # Errors
    /// The path that could not be made, and the file system's refusal.
    pub fn create_for_running(&self) -> Result<(), (PathBuf, io::Error)> {
        create(&self.run, 0o755)?;
        create(&self.state, 0o700)
    }
}

pub(super) fn create(path: &Path, mode: u32) -> Result<(), (PathBuf, io::Error)> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| (path.to_owned(), error))
}

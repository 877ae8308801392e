//! Where a gateway keeps its files.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The directory of what must outlive the process: keys, store and journal. `/var/lib/adit` unless `state_dir` names
/// another; only the gateway's own user may look into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The state directory at a path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The private key of the certificate authority.
    #[must_use]
    pub fn authority_key(&self) -> PathBuf {
        self.0.join("authority.key")
    }

    /// The certificate of the certificate authority.
    #[must_use]
    pub fn authority_certificate(&self) -> PathBuf {
        self.0.join("authority.pem")
    }

    /// The keys of the QUIC endpoint.
    #[must_use]
    pub fn endpoint_keys(&self) -> PathBuf {
        self.0.join("endpoint.key")
    }

    /// The key under which secrets lie in the store that the gateway has to read again.
    #[must_use]
    pub fn service_key(&self) -> PathBuf {
        self.0.join("service.key")
    }

    /// The SQLite file of users, devices, invites and leases.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.0.join("store.db")
    }

    /// The files that SQLite puts beside the store while it is open.
    pub(crate) fn beside_store(&self) -> [PathBuf; 2] {
        [self.0.join("store.db-wal"), self.0.join("store.db-shm")]
    }

    /// The directory of what was got by ACME.
    #[must_use]
    pub fn acme(&self) -> PathBuf {
        self.0.join("acme")
    }

    /// The account at the ACME authority, with its key.
    #[must_use]
    pub fn acme_account(&self) -> PathBuf {
        self.acme().join("account.json")
    }

    /// The certificate of a name, with its key.
    #[must_use]
    pub fn acme_certificate(&self, name: &str) -> PathBuf {
        self.acme().join(format!("{name}.pem"))
    }

    /// The pause after orders for a name that failed.
    #[must_use]
    pub fn acme_backoff(&self, name: &str) -> PathBuf {
        self.acme().join(format!("{name}.pause.json"))
    }

    /// The directory of what RADIUS servers are still to be told of sessions.
    #[must_use]
    pub fn radius_accounting(&self) -> PathBuf {
        self.0.join("radius-accounting")
    }

    /// The journal of changes to the host. It lies with the state, since after a crash it must still be there.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("host.journal")
    }
}

/// The directory of what ends with the process: the admin socket. `/run/adit` unless `runtime_dir` names another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// The runtime directory at a path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The admin socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("server.sock")
    }

    /// Makes the directory (mode 0700) unless it is there.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }
}

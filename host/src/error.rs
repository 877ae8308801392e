//! Why a host change failed.

use std::io;
use std::path::PathBuf;

use adit_program::guarded_file::GuardError;

/// Why the host could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another living process holds the journal.
    #[error("another process holds the journal {}", journal.display())]
    Busy {
        /// The journal's path.
        journal: PathBuf,
    },
    /// What the journal tells of is in another network namespace, and can be undone only there.
    #[error("the changes in the journal {} are in another network namespace", journal.display())]
    OtherNamespace {
        /// The journal's path.
        journal: PathBuf,
        /// The command that runs another one in that namespace.
        enter: String,
    },
    /// Somebody else could have changed the journal.
    #[error(transparent)]
    Unguarded(#[from] GuardError),
    /// No link (interface) has this name.
    #[error("no network link is called {name}")]
    NoSuchLink {
        /// The name that was looked for.
        name: String,
    },
    /// An nftables table has the name that the gateway's should have, and is another program's.
    #[error("the nftables table inet {table} {reason}")]
    ForeignTable {
        /// The table's name.
        table: String,
        /// What it is instead, such as `belongs to process 12`.
        reason: String,
    },
    /// The kernel or the file system refused.
    #[error("{doing}")]
    System {
        /// What was being done, in the imperative: `add route 10.0.0.0/8`.
        doing: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// The resolver's file could not be read or written.
    #[error("{doing}: {reason}")]
    ResolverFile {
        /// What was being done: `write /etc/resolv.conf`.
        doing: String,
        /// Why it cannot be done, and what helps.
        reason: String,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// The D-Bus call failed.
    #[error("{doing}")]
    Bus {
        /// What was being done.
        doing: String,
        /// The refusal.
        #[source]
        source: Box<zbus::Error>,
    },
    /// The journal holds something this version does not understand.
    #[error("journal {} line {line} is not readable", journal.display())]
    Journal {
        /// The journal's path.
        journal: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// Some changes could not be undone; they stay in the journal.
    #[error("{} host changes could not be undone", failures.len())]
    Undo {
        /// One failure for each change that is left.
        failures: Vec<HostError>,
    },
}

impl HostError {
    pub(crate) fn system(doing: impl Into<String>, source: io::Error) -> Self {
        Self::System { doing: doing.into(), source }
    }

    pub(crate) fn bus(doing: impl Into<String>, source: zbus::Error) -> Self {
        Self::Bus { doing: doing.into(), source: Box::new(source) }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub(crate) fn errno(&self) -> Option<i32> {
        if let Self::System { source, .. } = self { source.raw_os_error() } else { None }
    }

    /// Whether the kernel lacks nftables or a part of it: it then knows no such socket, family, message or expression.
    #[must_use]
    pub fn is_missing_firewall(&self) -> bool {
        let Self::System { doing, source } = self else { return false };
        let missing = [libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::ENOENT];
        doing.contains("nftables") && source.raw_os_error().is_some_and(|code| missing.contains(&code))
    }

    /// The kind of the kernel's or the file system's refusal, if it was one of them that refused.
    #[must_use]
    pub fn kind(&self) -> Option<io::ErrorKind> {
        if let Self::System { source, .. } = self { Some(source.kind()) } else { None }
    }

    /// Whether the reason is a missing permission or capability (`EPERM`, `EACCES`).
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        match self {
            Self::System { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Unguarded(error) => error.is_permission_denied(),
            Self::Undo { failures } => failures.iter().any(Self::is_permission_denied),
            // Its reason says what helps, which may be anything but more rights.
            Self::ResolverFile { .. }
            | Self::Busy { .. }
            | Self::OtherNamespace { .. }
            | Self::NoSuchLink { .. }
            | Self::ForeignTable { .. }
            | Self::Bus { .. }
            | Self::Journal { .. } => false,
        }
    }
}

//! Why a profile could not be read or written.

use std::io;
use std::path::PathBuf;

use adit_program::exit::{Exit, Failure};
use adit_program::guarded_file::GuardError;
use adit_program::rights::to_reach_files_of;
use adit_program::toml_error::TomlFault;
use nix::errno::Errno;

use super::ProfileName;

/// Why a profile could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The name is not allowed.
    #[error("`{name}` is not a profile name")]
    Name {
        /// What was given.
        name: String,
    },
    /// No profile has this name.
    #[error("there is no such profile in {}", directory.display())]
    NotFound {
        /// The name looked for.
        name: String,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A profile of this name is there already.
    #[error("a profile of this name is there already")]
    Exists {
        /// The name.
        name: String,
    },
    /// Others than its owner, root and this user can read or change the file.
    #[error("{}", .0.reason)]
    Unguarded(#[from] GuardError),
    /// The text is not TOML, or a value has the wrong type.
    #[error("{message}")]
    Syntax {
        /// The profile's name.
        name: String,
        /// Line and reason.
        message: String,
    },
    /// The file holds a key that profiles do not have.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The profile's name.
        name: String,
        /// The key.
        key: String,
        /// A known key that looks like it.
        nearest: Option<&'static str>,
    },
    /// A value, or the combination of values, makes no sense.
    #[error("{message}")]
    Invalid {
        /// The profile's name.
        name: String,
        /// The reason.
        message: String,
    },
    /// The file system refused.
    #[error("{source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

impl ProfileError {
    pub(super) fn invalid(name: &ProfileName, message: impl Into<String>) -> Self {
        Self::Invalid { name: name.to_string(), message: message.into() }
    }

    pub(super) fn syntax(name: &ProfileName, fault: &TomlFault) -> Self {
        Self::Syntax { name: name.to_string(), message: format!("line {}: {}", fault.line, fault.reason) }
    }

    pub(super) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        let reason = error.to_string();
        let (exit, what, next) = match error {
            ProfileError::Name { name } => (
                Exit::Usage,
                format!("profile {name}"),
                "use letters, digits, `.`, `_` and `-`, at most 48 of them".to_owned(),
            ),
            ProfileError::NotFound { name, .. } => (
                Exit::Usage,
                format!("profile {name}"),
                "see `adit-client list`, or make one with `adit-client join URL`".to_owned(),
            ),
            ProfileError::Exists { name } => (
                Exit::Usage,
                format!("profile {name}"),
                "choose another with `--name`, or overwrite it with `--replace`".to_owned(),
            ),
            ProfileError::Unguarded(error) => return guard_failure(error),
            ProfileError::UnknownKey { name, nearest, .. } => {
                let next = nearest.map_or_else(|| "remove it".to_owned(), |key| format!("did you mean `{key}`?"));
                (Exit::Usage, format!("profile {name}"), next)
            }
            ProfileError::Syntax { name, .. } | ProfileError::Invalid { name, .. } => {
                (Exit::Usage, format!("profile {name}"), "mend the file, or join again with a new invite".to_owned())
            }
            ProfileError::Io { path, source } => return file_failure(&path.display().to_string(), &source),
        };
        Self::new(exit, what, reason, next)
    }
}

/// The [`Failure`] of a file that is not used.
pub(crate) fn guard_failure(error: GuardError) -> Failure {
    match &error.source {
        Some(source) if source.raw_os_error() != Some(Errno::ELOOP as i32) => {
            file_failure(&error.path.display().to_string(), source)
        }
        Some(_) | None => error.into(),
    }
}

/// The [`Failure`] of a refused file operation on `what`.
pub(crate) fn file_failure(what: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::PermissionDenied {
        let next = format!("{}; or name another directory with `--dir`", to_reach_files_of("root"));
        return Failure::new(Exit::Permission, what, "permission denied", next);
    }
    Failure::new(Exit::Other, what, error.to_string(), "")
}

//! Secrets that the configuration names by where they lie: they never stand in it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use adit_program::configuration::{Complaint, Given};
use adit_program::guarded_file::{GuardError, Readers};
use zeroize::Zeroizing;

use super::secret::guard;

/// What a value begins with that names a credential of the service manager.
const CREDENTIAL: &str = "credential:";

/// The variable in which the service manager names the directory of credentials (systemd.exec(5)).
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Largest credential that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Where a secret lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// A file that is closed to everyone but its owner.
    File(PathBuf),
    /// A credential that the service manager hands over (`LoadCredential=`).
    Credential(String),
}

impl SecretPlace {
    /// Reads the value of a key that names a secret: an absolute path, or `credential:NAME`.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn parse(given: &Given<'_>) -> Result<Self, Complaint> {
        let text = given.text()?;
        let next = "write the absolute path of a file, or credential:NAME for one that systemd hands over";
        if let Some(name) = text.strip_prefix(CREDENTIAL) {
            let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
            return is_plain
                .then(|| Self::Credential(name.to_owned()))
                .ok_or_else(|| Complaint::unfit(format!("{given} names no credential"), next));
        }
        let path = PathBuf::from(text);
        if path.is_absolute() {
            return Ok(Self::File(path));
        }
        Err(Complaint::unfit(format!("{given} is not absolute"), next))
    }

    /// The secret without the end of its line; never empty.
    ///
    /// # Errors
    /// It cannot be read, others could read it, or it is empty.
    pub fn read(&self) -> Result<Zeroizing<Vec<u8>>, GuardError> {
        let (path, mut secret) = match self {
            Self::File(path) => (path.clone(), guard().read(path, Readers::Owner)?),
            Self::Credential(name) => read_credential(name)?,
        };
        while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            secret.pop();
        }
        if secret.is_empty() {
            let (reason, next) = ("is empty".to_owned(), "write the secret into it, on one line".to_owned());
            return Err(GuardError { path, reason, next, source: None });
        }
        Ok(secret)
    }
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Credential(name) => write!(f, "{CREDENTIAL}{name}"),
        }
    }
}

/// The manager alone decides who reads a credential: its directory belongs to this service.
fn read_credential(name: &str) -> Result<(PathBuf, Zeroizing<Vec<u8>>), GuardError> {
    let shown = PathBuf::from(format!("{CREDENTIAL}{name}"));
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return Err(GuardError {
            path: shown,
            reason: format!("the service manager hands over no credentials: {DIRECTORY} is not set"),
            next: format!("add `LoadCredential={name}:FILE` to the unit, or name the file itself"),
            source: None,
        });
    };
    let path = Path::new(&directory).join(name);
    let read = || {
        let mut secret = Zeroizing::new(Vec::new());
        File::open(&path)?.take(LARGEST).read_to_end(&mut secret)?;
        Ok(secret)
    };
    let secret = read().map_err(|error| GuardError::system(&path, error))?;
    Ok((path, secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use adit_program::durable_file;

    use super::*;

    #[test]
    fn secret_comes_without_its_line_end_and_only_from_a_closed_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        durable_file::create(&path, b"s e c r e t\r\n", 0o600).unwrap();
        let place = SecretPlace::File(path.clone());
        assert_eq!(place.read().unwrap().as_slice(), b"s e c r e t");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(place.read().unwrap_err().next.contains("chmod 600"));
    }

    #[test]
    fn empty_or_missing_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let place = SecretPlace::File(path.clone());
        assert!(place.read().unwrap_err().is_missing());
        durable_file::create(&path, b"\n", 0o600).unwrap();
        assert_eq!(place.read().unwrap_err().reason, "is empty");
    }
}

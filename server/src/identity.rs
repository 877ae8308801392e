//! Who is who: the embedded certificate authority, the certificates it issues, and the identity a device proves with
//! one.

mod authority;
mod device;
mod endpoint_keys;
mod public_certificate;
mod request;
mod service_key;

pub use authority::{Authority, ServerCertificate};
pub use device::{DeviceCertificate, DeviceIdentity, device_identity};
pub use endpoint_keys::{create_endpoint_keys, load_endpoint_keys};
pub use public_certificate::{PublicCertificate, PublicCertificateFiles};
pub use request::DeviceRequest;
pub use service_key::{Sealer, ServiceKey};

use std::path::PathBuf;
use std::time::SystemTime;

use adit_program::exit::{Exit, Failure};
use adit_program::guarded_file::GuardError;
use adit_program::random::{NoRandomness, random};
use adit_program::rights::to_reach_files_of;
use aws_lc_rs::digest;
use time::OffsetDateTime;

/// Why an identity could not be made, read or accepted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing, or somebody else could have read or changed it.
    #[error(transparent)]
    Unguarded(#[from] GuardError),
    /// A file could not be read or written.
    #[error("{path}: not accessible")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The certificate request is not PEM, not PKCS#10, or not signed by its own key.
    #[error("certificate request refused: {0}")]
    Request(&'static str),
    /// The device certificate does not name exactly one device.
    #[error("device certificate refused: {0}")]
    Certificate(&'static str),
    /// A certificate could not be made.
    #[error("issue certificate")]
    Issue(#[from] rcgen::Error),
    /// A certificate needs a number that nobody can guess.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// A time is out of range.
    #[error("{0}")]
    System(&'static str),
}

impl IdentityError {
    fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }

    /// The failure as the user of a verb sees it.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Unguarded(GuardError { path, reason, next, .. }) => {
                Failure::new(Exit::Usage, path.display().to_string(), reason, next)
            }
            Self::File { path, source } => Failure::new(
                Exit::Usage,
                path.display().to_string(),
                source.to_string(),
                if source.kind() == std::io::ErrorKind::PermissionDenied {
                    to_reach_files_of("root or as the gateway's user")
                } else {
                    "restore the file from a backup".to_owned()
                },
            ),
            Self::Content { path, reason } => {
                Failure::new(Exit::Usage, path.display().to_string(), reason, "restore the file from a backup")
            }
            Self::Issue(_) => of_identity(&self, "look at the names in `public`, which the certificate must bear"),
            Self::System(_) => of_identity(&self, "set the clock of this host"),
            Self::Request(_) | Self::Certificate(_) | Self::Randomness(_) => of_identity(&self, "try again"),
        }
    }
}

fn of_identity(error: &IdentityError, next: &str) -> Failure {
    Failure::new(Exit::Other, "identity", error.to_string(), next)
}

/// SHA-256 of some bytes.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    hash
}

fn certificate_time(time: SystemTime) -> Result<OffsetDateTime, IdentityError> {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .ok_or(IdentityError::System("the clock is out of range"))?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IdentityError::System("the clock is out of range"))
}

/// A random serial number of 16 bytes, positive and without leading zeros (RFC 5280 section 4.1.2.2).
fn random_serial() -> Result<[u8; 16], IdentityError> {
    let mut serial = random::<16>()?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

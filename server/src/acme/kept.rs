//! A certificate as it lies in the state directory, in one file: whose it is, its key, and its chain.

use std::time::{Duration, SystemTime};

use adit_program::exit::{Exit, Failure};
use adit_program::guarded_file::Readers;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::schedule::Life;
use crate::config::guard;
use crate::directories::StateDir;

/// What the file begins with. Whoever reads PEM passes over it.
const DIRECTORY: &str = "# directory: ";

/// A certificate that was got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The directory of the authority that issued it.
    pub directory: String,
    /// The certificate itself.
    pub certificate: CertificateDer<'static>,
    /// From when and until when it is good.
    pub life: Life,
}

impl Kept {
    /// The one of a name, if there is one.
    ///
    /// # Errors
    /// Its file cannot be read, others could have read or changed it, or it holds something else.
    pub fn read(state_dir: &StateDir, name: &str) -> Result<Option<Self>, Failure> {
        let path = state_dir.acme_certificate(name);
        let text = match guard().read(&path, Readers::Owner) {
            Ok(text) => text,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let next = "remove it: the gateway gets another one";
        let unfit = || Failure::new(Exit::Usage, path.display().to_string(), "it holds no certificate of ACME", next);
        Self::of_text(&text).map(Some).ok_or_else(unfit)
    }

    /// What a file with this content holds.
    pub(super) fn of_text(text: &[u8]) -> Option<Self> {
        let first = text.split(|byte| *byte == b'\n').next()?;
        let directory = std::str::from_utf8(first).ok()?.strip_prefix(DIRECTORY)?.to_owned();
        let certificate = CertificateDer::from_pem_slice(text).ok()?;
        let life = life_of(&certificate)?;
        Some(Self { directory, certificate, life })
    }
}

fn life_of(certificate: &CertificateDer<'_>) -> Option<Life> {
    let moment = |time: ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    };
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    Some(Life { begins: moment(validity.not_before)?, ends: moment(validity.not_after)? })
}

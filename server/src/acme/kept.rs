//! A certificate as it lies in the state directory, in one file: whose it is, its key, and its chain.

use std::time::{Duration, SystemTime};

use adit_program::exit::{Exit, Failure};
use adit_program::guarded_file::Readers;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
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
        // Without it the certificate is shown to nobody.
        let _key = PrivateKeyDer::from_pem_slice(text).ok()?;
        let life = life_of(&certificate)?;
        Some(Self { directory, certificate, life })
    }
}

/// The content of a file: key and chain are PEM.
#[cfg(feature = "acme")]
pub(super) fn text(directory: &str, key: &str, chain: &str) -> zeroize::Zeroizing<Vec<u8>> {
    zeroize::Zeroizing::new(
        [DIRECTORY, directory, "\n", key.trim_end(), "\n", chain.trim_end(), "\n"].concat().into_bytes(),
    )
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

#[cfg(test)]
#[cfg(feature = "acme")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use adit_program::durable_file;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    const NAME: &str = "vpn.example.org";
    const DIRECTORY: &str = "https://acme.example/dir";

    fn issued() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        (key.serialize_pem(), params.self_signed(&key).unwrap().pem())
    }

    #[test]
    fn what_was_written_is_read_and_is_a_certificate_with_its_key_to_others() {
        let (key, chain) = issued();
        let text = text(DIRECTORY, &key, &chain);
        let kept = Kept::of_text(&text).unwrap();
        assert_eq!(kept.directory, DIRECTORY);
        assert_eq!(kept.life.ends.duration_since(kept.life.begins).unwrap(), Duration::from_secs(90 * 24 * 3600));
        assert_eq!(CertificateDer::pem_slice_iter(&text).count(), 1);
        assert!(PrivateKeyDer::from_pem_slice(&text).is_ok());
    }

    #[test]
    fn file_that_others_could_read_or_that_holds_something_else_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(directory.path());
        let read = || Kept::read(&state_dir, NAME);
        assert!(matches!(read(), Ok(None)), "there is no such directory");
        fs::create_dir(state_dir.acme()).unwrap();
        assert!(matches!(read(), Ok(None)));
        let (key, chain) = issued();
        let path = state_dir.acme_certificate(NAME);
        durable_file::replace(&path, &text(DIRECTORY, &key, &chain), 0o600).unwrap();
        assert!(read().unwrap().is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read().unwrap_err().next.contains("chmod 600"));
        let keyless = format!("# directory: {DIRECTORY}\n{chain}");
        for content in [&b""[..], b"garbage", chain.as_bytes(), b"# directory: x\n", keyless.as_bytes()] {
            durable_file::replace(&path, content, 0o600).unwrap();
            let refused = read().unwrap_err();
            assert!(refused.to_string().contains(NAME) && refused.next.contains("remove it"), "{refused}");
        }
    }
}

//! The certificate that others trust: for who knows only the gateway's name.

use std::path::{Path, PathBuf};

use adit_program::exit::{Exit, Failure};
use adit_program::guarded_file::Readers;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::guard;

/// The two files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicCertificateFiles {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A certificate and its key.
pub struct PublicCertificate {
    /// The certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
}

impl PublicCertificateFiles {
    /// Reads them. Either may be a symbolic link, as programs that renew certificates make them.
    ///
    /// # Errors
    /// A file that is missing, that others could have changed, or that holds something else.
    pub fn load(&self) -> Result<PublicCertificate, Failure> {
        let text = guard().read_linked(&self.certificate, Readers::Everybody)?;
        let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| no(&self.certificate, "it holds no certificate in PEM"))?;
        let text = guard().read_linked(&self.key, Readers::Owner)?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| no(&self.key, "it holds no private key in PEM"))?;
        Ok(PublicCertificate { chain, key })
    }
}

fn no(path: &Path, reason: &str) -> Failure {
    Failure::new(Exit::Usage, path.display().to_string(), reason, "mend tls.certificate and tls.key")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn files(directory: &Path) -> PublicCertificateFiles {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["vpn.example.org".into()]).unwrap().self_signed(&key).unwrap();
        let [own, live] = ["archive", "live"].map(|name| directory.join(name));
        fs::create_dir(&own).unwrap();
        fs::create_dir(&live).unwrap();
        fs::write(own.join("cert1.pem"), certificate.pem()).unwrap();
        fs::write(own.join("key1.pem"), key.serialize_pem()).unwrap();
        fs::set_permissions(own.join("key1.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("../archive/cert1.pem", live.join("cert.pem")).unwrap();
        symlink("../archive/key1.pem", live.join("key.pem")).unwrap();
        PublicCertificateFiles { certificate: live.join("cert.pem"), key: live.join("key.pem") }
    }

    fn refused(files: &PublicCertificateFiles) -> String {
        files.load().err().unwrap().to_string()
    }

    #[test]
    fn links_to_the_newest_files_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(files(directory.path()).load().unwrap_or_else(|failure| panic!("{failure}")).chain.len(), 1);
    }

    #[test]
    fn files_that_others_could_have_changed_or_read_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let mode = |path: &str, mode| {
            fs::set_permissions(directory.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        for (path, open, closed) in
            [("archive/key1.pem", 0o644, 0o600), ("archive", 0o777, 0o755), ("live", 0o777, 0o755)]
        {
            mode(path, open);
            assert!(files.load().is_err(), "{path}");
            mode(path, closed);
            assert!(files.load().is_ok(), "{path}");
        }
    }

    #[test]
    fn what_is_missing_or_no_pem_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        fs::write(directory.path().join("archive/cert1.pem"), "nonsense").unwrap();
        assert!(refused(&files).contains("no certificate in PEM"));
        fs::remove_file(directory.path().join("archive/cert1.pem")).unwrap();
        assert!(refused(&files).contains("does not exist"));
    }
}

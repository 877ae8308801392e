//! Self-signed certificates for other VPNs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};

/// A certificate and its key, in two files of PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// The file with the certificate.
    pub(super) certificate: PathBuf,
    /// The file with its private key.
    pub(super) key: PathBuf,
    /// SHA-256 of the certificate's DER form.
    pub(super) fingerprint: [u8; 32],
}

impl Identity {
    /// Makes an ECDSA identity (P-256) for `subject`, an address or a name, and writes it to `folder`.
    pub(super) fn create(folder: &Path, subject: &str) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([subject.to_owned()]).context("make a certificate")?;
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        let write =
            |path: &Path, text: String| fs::write(path, text).with_context(|| format!("write {}", path.display()));
        write(&certificate, made.cert.pem())?;
        write(&key, made.signing_key.serialize_pem())?;
        let hash = digest(&SHA256, made.cert.der());
        let fingerprint = hash.as_ref().try_into().context("SHA-256 has 32 bytes")?;
        Ok(Self { certificate, key, fingerprint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_in_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::create(folder.path(), "192.0.2.17").unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert!(read(&identity.certificate).starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(read(&identity.key).starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_ne!(Identity::create(folder.path(), "192.0.2.17").unwrap().fingerprint, identity.fingerprint);
    }
}

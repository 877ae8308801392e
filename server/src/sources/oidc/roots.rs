//! Which authorities a server on the network is believed by.

use std::path::Path;

use adit_program::guarded_file::Readers;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::guard;

/// Why there is no authority to believe.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct NoRoots {
    /// The reason in words.
    pub(super) reason: String,
    /// What to do about it.
    pub(super) next: String,
}

impl NoRoots {
    pub(super) fn unusable(reason: String) -> Self {
        Self { reason, next: "name a PEM file with the authority's certificate".to_owned() }
    }
}

/// The authorities in a PEM file, or else those of the system.
pub(super) fn load(authority: Option<&Path>) -> Result<RootCertStore, NoRoots> {
    authority.map_or_else(of_system, of_file)
}

fn of_file(path: &Path) -> Result<RootCertStore, NoRoots> {
    let text = guard()
        .read(path, Readers::Everybody)
        .map_err(|error| NoRoots { reason: format!("{}: {}", error.path.display(), error.reason), next: error.next })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| NoRoots::unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| NoRoots::unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(NoRoots::unusable("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

fn of_system() -> Result<RootCertStore, NoRoots> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have certificates that no library takes; those are left out.
    let (_added, _left_out) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(NoRoots {
            reason: "this host knows no certificate authority".to_owned(),
            next: "install the package `ca-certificates`, or name a PEM file with the authority's certificate"
                .to_owned(),
        });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use adit_program::durable_file;

    use super::*;

    #[test]
    fn file_of_authorities_is_believed_only_with_a_certificate_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let authority = rcgen::generate_simple_self_signed(["provider.test".to_owned()]).unwrap();
        durable_file::create(&path("good.pem"), authority.cert.pem().as_bytes(), 0o644).unwrap();
        durable_file::create(&path("empty.pem"), b"nothing\n", 0o644).unwrap();
        durable_file::create(&path("open.pem"), authority.cert.pem().as_bytes(), 0o644).unwrap();
        std::fs::set_permissions(path("open.pem"), std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(load(Some(&path("good.pem"))).unwrap().len(), 1);
        assert_eq!(load(Some(&path("empty.pem"))).unwrap_err().reason, "there is no certificate in it");
        assert!(load(Some(&path("none.pem"))).unwrap_err().reason.contains("does not exist"));
        assert!(load(Some(&path("open.pem"))).is_err(), "anybody could name an authority");
    }
}

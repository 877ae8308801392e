//! Who may vouch for servers of a directory.

use std::path::Path;
use std::sync::Arc;

use adit_program::guarded_file::Readers;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::{Problem, guard};

/// TLS that checks servers against the certificates in a file, or against those that the system trusts.
///
/// # Errors
/// There are no such certificates.
pub(super) fn tls(authority: Option<&Path>) -> Result<Arc<ClientConfig>, Problem> {
    let roots = match authority {
        Some(path) => of_file(path)?,
        None => of_the_system()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| problem(error.to_string(), "report this: the TLS library refuses its own defaults"))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn of_file(path: &Path) -> Result<RootCertStore, Problem> {
    let shown = path.display();
    let text = guard().read(path, Readers::Everybody);
    let text = text.map_err(|error| problem(error.to_string(), error.next))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added
            .map_err(|error| problem(format!("{shown} holds a bad certificate: {error}"), "write PEM certificates"))?;
    }
    if roots.is_empty() {
        return Err(problem(
            format!("{shown} holds no certificate"),
            "write the certificates of the authority, as PEM",
        ));
    }
    Ok(roots)
}

fn of_the_system() -> Result<RootCertStore, Problem> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let next = "install the system's certificates (ca-certificates), or name a file";
        return Err(problem("the system trusts no certificate authority".to_owned(), next));
    }
    Ok(roots)
}

fn problem(reason: String, next: impl Into<String>) -> Problem {
    Problem::new("ldap.authority", reason, next)
}

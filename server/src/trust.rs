//! Who may vouch for servers that the gateway asks.

use std::path::Path;
use std::sync::Arc;

use adit_program::guarded_file::Readers;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::{Problem, guard};

/// What is wrong, and what to do about it.
type Complaint = (String, String);

/// TLS that checks servers against the certificates in the file that `key` names, or against those that the system
/// trusts.
///
/// # Errors
/// There are no such certificates.
pub(crate) fn tls(key: &str, authority: Option<&Path>) -> Result<Arc<ClientConfig>, Problem> {
    let problem = |(reason, next): Complaint| Problem::new(key, reason, next);
    let roots = authority.map_or_else(of_the_system, of_file).map_err(problem)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| {
            problem(complaint(error.to_string(), "report this: the TLS library refuses its own defaults"))
        })?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn of_file(path: &Path) -> Result<RootCertStore, Complaint> {
    let shown = path.display();
    let text = guard().read(path, Readers::Everybody);
    let text = text.map_err(|error| complaint(error.to_string(), error.next))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| {
            complaint(format!("{shown} holds a bad certificate: {error}"), "write PEM certificates")
        })?;
    }
    if roots.is_empty() {
        return Err(complaint(
            format!("{shown} holds no certificate"),
            "write the certificates of the authority, as PEM",
        ));
    }
    Ok(roots)
}

fn of_the_system() -> Result<RootCertStore, Complaint> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let next = "install the system's certificates (ca-certificates), or name a file";
        return Err(complaint("the system trusts no certificate authority".to_owned(), next));
    }
    Ok(roots)
}

fn complaint(reason: String, next: impl Into<String>) -> Complaint {
    (reason, next.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use adit_program::durable_file;

    use super::*;

    #[test]
    fn file_of_authorities_is_believed_only_with_a_certificate_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let authority = rcgen::generate_simple_self_signed(["provider.test".to_owned()]).unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            durable_file::create(&path, text.as_bytes(), 0o644).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            tls("oidc.authority", Some(&path)).map_err(|problem| problem.to_string())
        };
        assert!(file("good.pem", &authority.cert.pem(), 0o644).is_ok());
        let empty = file("empty.pem", "nothing\n", 0o644).unwrap_err();
        assert!(empty.contains("oidc.authority") && empty.contains("no certificate"), "{empty}");
        assert!(file("open.pem", &authority.cert.pem(), 0o666).is_err(), "anybody could name an authority");
    }
}

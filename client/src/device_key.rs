//! The key of a device, and what enrolment and renewal ask a gateway to certify.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Makes a device key on the curve P-256.
pub(crate) fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

/// A PKCS#10 request (RFC 2986) for a key, PEM. The gateway decides the names in the certificate.
pub(crate) fn certificate_request(key: &KeyPair) -> Result<String, rcgen::Error> {
    CertificateParams::new(Vec::new())?.serialize_request(key)?.pem()
}

/// Whether the first certificate of a PEM text is for `key`.
pub(crate) fn carries_key(chain_pem: &str, key: &KeyPair) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_slice(chain_pem.as_bytes()) else { return false };
    let parsed = X509Certificate::from_der(&certificate);
    parsed.is_ok_and(|(_, parsed)| parsed.tbs_certificate.subject_pki.raw == key.subject_public_key_info())
}

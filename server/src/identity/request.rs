//! Certificate requests of devices.

use rcgen::{CertificateSigningRequestParams, PublicKeyData, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{IdentityError, sha256};

/// A PKCS#10 certificate request whose signature and key type were checked.
#[derive(Debug, Clone)]
pub struct DeviceRequest {
    pub(super) key: SubjectPublicKeyInfo,
}

impl DeviceRequest {
    /// SHA-256 of its key's SubjectPublicKeyInfo.
    pub fn key_hash(&self) -> [u8; 32] {
        sha256(&self.key.subject_public_key_info())
    }

    /// Checks a certificate request in PEM: it must be signed by its own key, which must be ECDSA P-256.
    ///
    /// Names and extensions it asks for are ignored: the gateway alone decides what it certifies.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn parse(pem: &str) -> Result<Self, IdentityError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| IdentityError::Request("not a PEM certificate request"))?;
        CertificateSigningRequestParams::from_der(&der)
            .map_err(|_| IdentityError::Request("malformed, or not signed by its own key"))?;
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|_| IdentityError::Request("not a PKCS#10 certificate request"))?;
        if !rest.is_empty() {
            return Err(IdentityError::Request("bytes after the certificate request"));
        }
        let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map_err(|_| IdentityError::Request("unknown key type"))?;
        if *key.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(IdentityError::Request("the key must be ECDSA P-256"));
        }
        Ok(Self { key })
    }
}

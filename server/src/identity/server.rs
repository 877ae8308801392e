//! The gateway's own certificate.

use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The gateway's certificate chain and its key, which lives only in memory.
pub struct ServerCertificate {
    /// The gateway's certificate, then the authority's, so that a client can find its pin in the chain.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first certificate.
    pub key: PrivateKeyDer<'static>,
}

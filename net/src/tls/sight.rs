//! Looks at what a gateway shows, for somebody who is to say whether it is the one meant.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::{pinned, spki_sha256};

/// What a gateway shows. As a verifier it refuses every gateway, once it has seen it: so there is never a connection
/// over which something could be said.
#[derive(Debug)]
pub struct Sight {
    provider: Arc<CryptoProvider>,
    chain: OnceLock<Vec<CertificateDer<'static>>>,
}

/// What a gateway has shown, and the fingerprint by which it is known from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its own certificate.
    pub certificate: CertificateDer<'static>,
    /// The SHA-256 of the SPKI of its authority, if that is in the chain and vouches for it, or else of its own key.
    pub pin: [u8; 32],
    /// Whether the fingerprint is that of its authority.
    pub is_of_authority: bool,
}

impl Sight {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, chain: OnceLock::new() }
    }

    /// What the gateway of this name has shown; `None` if it has shown nothing that is a certificate.
    #[must_use]
    pub fn seen(&self, host: &str) -> Option<Seen> {
        let (certificate, others) = self.chain.get()?.split_first()?;
        let vouching = others.last().and_then(spki_sha256).filter(|pin| self.vouches(*pin, certificate, others, host));
        let pin = vouching.or_else(|| spki_sha256(certificate))?;
        Some(Seen { certificate: certificate.clone(), pin, is_of_authority: vouching.is_some() })
    }

    /// Whether an authority with this fingerprint vouches for the gateway.
    fn vouches(
        &self,
        pin: [u8; 32],
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        host: &str,
    ) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        let verifier = pinned::PinnedAuthority::new(pin, Arc::clone(&self.provider));
        verifier.verify_server_cert(certificate, others, &name, &[], UnixTime::now()).is_ok()
    }
}

impl ServerCertVerifier for Sight {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = [end_entity].into_iter().chain(intermediates).map(|certificate| certificate.clone().into_owned());
        // Where several addresses answer, the first one counts.
        self.chain.get_or_init(|| chain.collect());
        Err(only_looked_at())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_looked_at())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_looked_at())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn only_looked_at() -> Error {
    Error::General("the gateway was only looked at".to_owned())
}

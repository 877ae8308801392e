//! Verifies a gateway by the hash of its certificate authority, for the connections by which a device joins, or by that
//! of its own key.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::{roots, spki_sha256};

/// What a refused gateway's user is told.
const PIN_MISMATCH: &str = "the gateway's certificate authority does not match the fingerprint that was given";
/// The same where the fingerprint may be that of its own key.
const NO_PIN_MATCHES: &str = "no certificate that the gateway shows matches the fingerprint that was given";

/// Accepts a chain only if it holds a certificate with the pinned key and is valid under that certificate as root.
#[derive(Debug)]
pub(super) struct PinnedAuthority {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
    /// Whether the pinned key may be the gateway's own.
    takes_leaf: bool,
}

impl PinnedAuthority {
    pub(super) fn new(pin: [u8; 32], provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider, takes_leaf: false }
    }

    /// Accepts as well whoever has the pinned key itself, whatever its certificate says.
    pub(super) fn or_leaf(self) -> Self {
        Self { takes_leaf: true, ..self }
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.takes_leaf && spki_sha256(end_entity) == Some(self.pin) {
            // The handshake proves that it has the key.
            return Ok(ServerCertVerified::assertion());
        }
        let mismatch = if self.takes_leaf { NO_PIN_MATCHES } else { PIN_MISMATCH };
        let authority = intermediates
            .iter()
            .find(|certificate| spki_sha256(certificate) == Some(self.pin))
            .ok_or_else(|| Error::General(mismatch.to_owned()))?;
        let roots = roots(&authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    struct Gateway {
        authority: CertificateDer<'static>,
        leaf: CertificateDer<'static>,
    }

    fn gateway(name: &str) -> Gateway {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
        Gateway { authority: authority.into(), leaf: leaf.into() }
    }

    fn verify(pin: [u8; 32], leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], name: &str) -> Result<(), Error> {
        PinnedAuthority::new(pin, super::super::crypto_provider())
            .verify_server_cert(leaf, rest, &ServerName::try_from(name).unwrap(), &[], UnixTime::now())
            .map(|_| ())
    }

    #[test]
    fn chain_under_the_pinned_authority_is_accepted() {
        let gateway = gateway("gw.example");
        let pin = spki_sha256(&gateway.authority).unwrap();
        assert_eq!(verify(pin, &gateway.leaf, &[gateway.authority], "gw.example"), Ok(()));
    }

    #[test]
    fn another_authority_is_refused() {
        let (ours, theirs) = (gateway("gw.example"), gateway("gw.example"));
        let pin = spki_sha256(&ours.authority).unwrap();
        let refused = verify(pin, &theirs.leaf, &[theirs.authority], "gw.example").unwrap_err();
        assert!(refused.to_string().contains("does not match the fingerprint that was given"), "{refused}");
    }

    #[test]
    fn leaf_of_another_authority_beside_the_pinned_one_is_refused() {
        let (ours, theirs) = (gateway("gw.example"), gateway("gw.example"));
        let pin = spki_sha256(&ours.authority).unwrap();
        assert!(verify(pin, &theirs.leaf, &[ours.authority], "gw.example").is_err());
    }

    #[test]
    fn another_name_is_refused() {
        let gateway = gateway("gw.example");
        let pin = spki_sha256(&gateway.authority).unwrap();
        assert!(verify(pin, &gateway.leaf, &[gateway.authority], "other.example").is_err());
    }

    #[test]
    fn pinned_key_as_leaf_alone_is_refused() {
        let gateway = gateway("gw.example");
        let pin = spki_sha256(&gateway.leaf).unwrap();
        assert!(verify(pin, &gateway.leaf, &[], "gw.example").is_err());
    }

    #[test]
    fn pinned_key_is_accepted_as_leaf_where_that_is_meant_and_no_other() {
        let (ours, theirs) = (gateway("gw.example"), gateway("gw.example"));
        let pin = spki_sha256(&ours.leaf).unwrap();
        let verifier = PinnedAuthority::new(pin, super::super::crypto_provider()).or_leaf();
        let verify = |leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], name: &str| {
            verifier.verify_server_cert(
                leaf,
                rest,
                &ServerName::try_from(name).unwrap().to_owned(),
                &[],
                UnixTime::now(),
            )
        };
        assert!(verify(&ours.leaf, &[], "gw.example").is_ok());
        assert!(verify(&ours.leaf, &[], "other.example").is_ok(), "its key says who it is");
        assert!(verify(&theirs.leaf, &[ours.authority], "gw.example").is_err());
        assert!(verify(&theirs.leaf, &[ours.leaf], "gw.example").is_err(), "it is no authority");
    }
}

//! TLS 1.3 settings of both sides: post-quantum key exchange first, private certificate authority only, no resumption.

mod pinned;
mod undated;

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Application protocol of HTTP/3 (RFC 9114 section 3.1).
const ALPN: &[u8] = b"h3";

/// The cryptography both sides use: TLS 1.3 suites with AES-256-GCM first, X25519MLKEM768 before X25519.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    let mut chosen = provider::default_provider();
    chosen.cipher_suites = vec![
        provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
        provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
        provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    chosen.kx_groups = vec![provider::kx_group::X25519MLKEM768, provider::kx_group::X25519];
    Arc::new(chosen)
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4), which pins its key; `None` if it is no
/// certificate.
pub fn spki_sha256(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let hash = digest::digest(&digest::SHA256, parsed.tbs_certificate.subject_pki.raw);
    hash.as_ref().try_into().ok()
}

/// The gateway's certificate, which can be renewed while it serves.
#[derive(Debug)]
pub struct ServerIdentity {
    current: ArcSwap<CertifiedKey>,
}

impl ServerIdentity {
    /// Holds a certificate chain (leaf first, authority last) and the leaf's key.
    ///
    /// # Errors
    /// If they do not belong together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        Ok(Self { current: ArcSwap::from_pointee(CertifiedKey::from_der(chain, key, &crypto_provider())?) })
    }

    /// Replaces the certificate for handshakes to come.
    ///
    /// # Errors
    /// If chain and key do not belong together; the former ones stay.
    pub fn renew(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), rustls::Error> {
        self.current.store(Arc::new(CertifiedKey::from_der(chain, key, &crypto_provider())?));
        Ok(())
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// TLS of the gateway. A client may show a certificate of `authority` or none; one of any other authority ends the
/// handshake. Whether a certificate is still good, or already, is not asked: whoever issued it must know.
///
/// # Errors
/// If the authority is no certificate.
pub fn server_config(
    identity: Arc<ServerIdentity>,
    authority: &CertificateDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), crypto_provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(undated::Undated(verifier)))
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// TLS of a client that knows its gateway's authority. `certificate` is its own chain and key, if it has one.
///
/// # Errors
/// If the authority is no certificate, or chain and key do not belong together.
pub fn client_config(
    authority: &CertificateDer<'static>,
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(authority)?);
    let config = match certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    Ok(finish_client(config))
}

/// TLS of a client that knows only the hash of its gateway's authority, from an invite.
///
/// The authority itself must be in the chain the gateway shows; the rest is verified as usual with it as the only root.
///
/// # Errors
/// If the library takes none of the protocol versions.
pub fn pinned_client_config(pin: [u8; 32]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned::PinnedAuthority::new(pin, crypto_provider())))
        .with_no_client_auth();
    Ok(finish_client(config))
}

fn finish_client(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(roots)
}

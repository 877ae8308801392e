//! TLS settings of both sides: 1.3 with post-quantum key exchange first, no resumption.
//!
//! A gateway has its own certificate authority, and devices that have joined trust no other. It may have further
//! certificates that the public trusts, for whoever knows only one of its names. Which of them it shows is decided in
//! the handshake: a client that knows the authority says so by offering the application protocol `adit`.

mod pinned;
mod sight;
mod undated;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::client::WantsClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};
use x509_parser::prelude::{FromDer, X509Certificate};

pub use sight::{Seen, Sight};

/// Application protocol of HTTP/3 (RFC 9114 section 3.1).
const ALPN: &[u8] = b"h3";
/// Application protocol of HTTP/1.1 (RFC 7301 section 6).
const HTTP1: &[u8] = b"http/1.1";
/// What a client offers beside [`ALPN`] if it knows the gateway's own authority. It is never chosen (RFC 7301 section
/// 3.2 lets a server pass over what it does not speak), so it says nothing to servers of others.
const KNOWS_AUTHORITY: &[u8] = b"adit";
/// What an authority offers, and nothing else, that asks whether a gateway has a name (RFC 8737 section 3).
const CHALLENGE: &[u8] = b"acme-tls/1";

/// Suites of TLS 1.2 with forward secrecy and authenticated encryption.
const OLD_SUITES: [SupportedCipherSuite; 6] = [
    provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    provider::cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    provider::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    provider::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    provider::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

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

/// What a client shows of itself: a certificate chain, leaf first, and the leaf's key.
pub type OwnCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A certificate chain (leaf first, authority last) with the leaf's key, which belong together.
#[derive(Debug, Clone)]
pub struct Certified(Arc<CertifiedKey>);

impl Certified {
    /// Takes a chain and a key.
    ///
    /// # Errors
    /// If they do not belong together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        Ok(Self(Arc::new(CertifiedKey::from_der(chain, key, &crypto_provider())?)))
    }
}

/// Certificates of authorities that others trust, each for a name of the gateway.
#[derive(Debug, Clone, Default)]
pub struct PublicCertificates(Vec<(String, Certified)>);

impl PublicCertificates {
    /// Adds one for a name. The first is also for whoever asks for another name, or for none.
    #[must_use]
    pub fn with(mut self, name: &str, certified: Certified) -> Self {
        self.0.push((name.to_owned(), certified));
        self
    }

    fn of_name(&self, asked: Option<&str>) -> Option<&Certified> {
        let is_asked = |name: &str| asked.is_some_and(|asked| asked.eq_ignore_ascii_case(name));
        let found = self.0.iter().find(|(name, _)| is_asked(name)).or_else(|| self.0.first());
        found.map(|(_, certified)| certified)
    }
}

impl From<Certified> for PublicCertificates {
    /// One for whoever asks.
    fn from(certified: Certified) -> Self {
        Self::default().with("", certified)
    }
}

/// The gateway's certificates, which can be renewed while it serves.
#[derive(Debug)]
pub struct ServerIdentity {
    /// Of the gateway's own authority.
    current: ArcSwap<CertifiedKey>,
    /// Shown to clients that do not know ours.
    public: ArcSwap<PublicCertificates>,
    /// How often one of them was replaced; held by whoever replaces one.
    turn: Mutex<u64>,
}

impl ServerIdentity {
    /// Holds a certificate chain (leaf first, authority last) and the leaf's key.
    ///
    /// # Errors
    /// If they do not belong together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        let current = ArcSwap::new(Certified::new(chain, key)?.0);
        Ok(Self { current, public: ArcSwap::default(), turn: Mutex::default() })
    }

    /// From now on, clients that do not know the gateway's own authority are shown one of these certificates, or
    /// without any what all others are.
    pub fn show_to_public(&self, certificates: PublicCertificates) {
        self.replace(None, || self.public.store(Arc::new(certificates)));
    }

    /// Replaces the certificate of the gateway's own authority for handshakes to come.
    pub fn renew(&self, certified: Certified) {
        self.replace(None, || self.current.store(certified.0));
    }

    /// The certificate that clients are shown which do not know the gateway's own authority, and ask for this name.
    pub fn shown_to_public(&self, asked: Option<&str>) -> Option<CertificateDer<'static>> {
        let public = self.public.load().of_name(asked).map(|certified| Arc::clone(&certified.0));
        public.unwrap_or_else(|| self.current.load_full()).cert.first().cloned()
    }

    /// How often a certificate was replaced. Whoever makes one of what may change meanwhile asks for this first, and
    /// shows it by [`Self::show_to_public_if`] or [`Self::renew_if`].
    pub fn turn(&self) -> u64 {
        *self.turns()
    }

    /// As [`Self::show_to_public`], unless a certificate was replaced since this turn; tells the turn of now if it was
    /// done.
    pub fn show_to_public_if(&self, turn: u64, certificates: PublicCertificates) -> Option<u64> {
        self.replace(Some(turn), || self.public.store(Arc::new(certificates)))
    }

    /// As [`Self::renew`], unless a certificate was replaced since this turn; says whether it was done.
    pub fn renew_if(&self, turn: u64, certified: Certified) -> bool {
        self.replace(Some(turn), || self.current.store(certified.0)).is_some()
    }

    fn replace(&self, since: Option<u64>, replace: impl FnOnce()) -> Option<u64> {
        let mut turn = self.turns();
        if since.is_some_and(|since| since != *turn) {
            return None;
        }
        replace();
        *turn += 1;
        Some(*turn)
    }

    fn turns(&self) -> MutexGuard<'_, u64> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for ServerIdentity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let knows_authority = hello.alpn().is_some_and(|mut offered| offered.any(|name| name == KNOWS_AUTHORITY));
        let public = self.public.load();
        let public = if knows_authority { None } else { public.of_name(hello.server_name()) };
        Some(public.map_or_else(|| self.current.load_full(), |certified| Arc::clone(&certified.0)))
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
    gateway_config(crypto_provider(), &[&rustls::version::TLS13], identity, authority, ALPN)
}

/// TLS of the gateway over TCP, where anybody comes: as [`server_config`], with more curves. With `old` also TLS 1.2,
/// for clients that know no better: with forward secrecy and authenticated encryption alone.
///
/// # Errors
/// If the authority is no certificate.
pub fn listener_config(
    identity: Arc<ServerIdentity>,
    authority: &CertificateDer<'static>,
    old: bool,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let (provider, versions) = wider_provider(old);
    gateway_config(provider, &versions, identity, authority, HTTP1)
}

/// The name about which an authority asks with this hello, if it does (RFC 8737 section 3).
pub fn challenged_name<'a>(hello: &'a ClientHello<'_>) -> Option<&'a str> {
    let mut offered = hello.alpn()?;
    let is_challenge = offered.next() == Some(CHALLENGE) && offered.next().is_none();
    if is_challenge { hello.server_name() } else { None }
}

/// TLS that answers such a question, by the certificate alone: nothing is said after the handshake.
///
/// # Errors
/// The key is of no kind that is known.
pub fn challenge_config(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let (provider, versions) = wider_provider(false);
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions)?;
    // Whether they belong together cannot be checked: the extension that holds the proof is critical, and unknown here.
    let key = builder.crypto_provider().key_provider.load_private_key(key)?;
    let answer = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(answer));
    config.alpn_protocols = vec![CHALLENGE.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The cryptography of connections with programs of others: more curves, and with `old` also TLS 1.2.
fn wider_provider(old: bool) -> (Arc<CryptoProvider>, Vec<&'static SupportedProtocolVersion>) {
    let mut provider = CryptoProvider::clone(&crypto_provider());
    provider.kx_groups.extend([provider::kx_group::SECP256R1, provider::kx_group::SECP384R1]);
    let mut versions = vec![&rustls::version::TLS13];
    if old {
        provider.cipher_suites.extend(OLD_SUITES);
        versions.push(&rustls::version::TLS12);
    }
    (Arc::new(provider), versions)
}

fn gateway_config(
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    identity: Arc<ServerIdentity>,
    authority: &CertificateDer<'static>,
    protocol: &[u8],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(Arc::new(undated::Undated(verifier)))
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![protocol.to_vec()];
    config.send_tls13_tickets = 0;
    // Whoever resumed a session would not prove anew whose certificate it was.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// TLS of a client that knows its gateway's authority. `certificate` is its own chain and key, if it has one.
///
/// # Errors
/// If the authority is no certificate, or chain and key do not belong together.
pub fn client_config(
    authority: &CertificateDer<'static>,
    certificate: Option<OwnCertificate>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(authority)?);
    Ok(finish_client(showing(builder, certificate)?, &[ALPN, KNOWS_AUTHORITY]))
}

/// TLS of a client that shows a certificate, or none.
fn showing(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    certificate: Option<OwnCertificate>,
) -> Result<ClientConfig, rustls::Error> {
    match certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// TLS of a client that knows only its gateway's name, and believes a certificate of one of these authorities for it.
///
/// # Errors
/// If the library takes none of the protocol versions.
pub fn rooted_client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let config = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(finish_client(config, &[ALPN]))
}

/// TLS of a client that knows only the hash of its gateway's authority, from an invite or a person.
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
    Ok(finish_client(config, &[ALPN, KNOWS_AUTHORITY]))
}

/// By what a client knows a gateway that others may have made.
pub enum KnownBy {
    /// Authorities that may vouch for its name.
    Roots(RootCertStore),
    /// The SHA-256 of the SPKI of its authority, or of its own certificate.
    Pin([u8; 32]),
}

/// TLS over TCP of a client at a gateway of whatever make: also TLS 1.2, with forward secrecy and authenticated
/// encryption alone. `certificate` is what is shown to a gateway that asks for one.
///
/// # Errors
/// If the library takes none of the protocol versions, or chain and key do not belong together.
pub fn foreign_client_config(
    known_by: KnownBy,
    certificate: Option<OwnCertificate>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let (provider, versions) = wider_provider(true);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions)?;
    Ok(match known_by {
        KnownBy::Roots(roots) => finish_client(showing(builder.with_root_certificates(roots), certificate)?, &[HTTP1]),
        KnownBy::Pin(pin) => {
            let verifier = pinned::PinnedAuthority::new(pin, provider).or_leaf();
            let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
            finish_client(showing(builder, certificate)?, &[HTTP1, KNOWS_AUTHORITY])
        }
    })
}

/// TLS over TCP of a client that only looks at what a gateway shows: as that of [`KnownBy::Pin`], but every handshake
/// fails, so that nothing is ever said to the gateway.
///
/// # Errors
/// If the library takes none of the protocol versions.
pub fn looking_client_config() -> Result<(Arc<ClientConfig>, Arc<Sight>), rustls::Error> {
    let (provider, versions) = wider_provider(true);
    let sight = Arc::new(Sight::new(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Sight>::clone(&sight))
        .with_no_client_auth();
    Ok((finish_client(config, &[HTTP1, KNOWS_AUTHORITY]), sight))
}

/// As `config`, which is for QUIC, for the listener on TCP.
#[must_use]
pub fn over_tcp(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    for protocol in config.alpn_protocols.iter_mut().filter(|protocol| *protocol == ALPN) {
        *protocol = HTTP1.to_vec();
    }
    Arc::new(config)
}

fn finish_client(mut config: ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

fn roots(authority: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(roots)
}

#[cfg(test)]
mod tests;

//! The certificate authority embedded in a gateway.

use std::path::Path;
use std::time::{Duration, SystemTime};

use adit_program::durable_file;
use data_encoding::{HEXLOWER, HEXUPPER};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{DeviceCertificate, DeviceRequest, IdentityError, certificate_time, random_serial, sha256};
use crate::config::{read_public, read_secret};
use crate::directories::StateDir;

/// Validity of the authority; it can only be replaced by enrolling every device again.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Validity of the gateway's own certificate, which is made anew at each start.
const SERVER_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Certificates begin this long before they are issued, for peers whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// The gateway's own certificate chain and its key, which lives only in memory.
pub struct ServerCertificate {
    /// The gateway's certificate, then the authority's, so that a client can find its pin in the chain.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first certificate.
    pub key: PrivateKeyDer<'static>,
}

/// The certificate authority of one gateway: it signs the gateway's own certificate and those of its devices.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    pin: [u8; 32],
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("pin", &HEXLOWER.encode(&self.pin)).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority (ECDSA P-256, 10 years) and writes it to the state directory: the key with mode 0600 and
    /// the certificate with 0644.
    ///
    /// # Errors
    /// The files exist already or cannot be written.
    pub fn create(directory: &StateDir, now: SystemTime) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let certificate = authority_params(&key, now)?.self_signed(&key)?;
        let (key_path, certificate_path) = (directory.authority_key(), directory.authority_certificate());
        let key_pem = zeroize::Zeroizing::new(key.serialize_pem());
        durable_file::create(&key_path, key_pem.as_bytes(), 0o600)
            .map_err(|error| IdentityError::file(&key_path, error))?;
        durable_file::create(&certificate_path, certificate.pem().as_bytes(), 0o644)
            .map_err(|error| IdentityError::file(&certificate_path, error))?;
        Self::assemble(key, certificate.der().clone(), certificate.pem())
    }

    /// Loads the authority from the state directory.
    ///
    /// # Errors
    /// A file is missing, unsafe (see [`read_secret`]), or key and certificate do not belong together.
    pub fn load(directory: &StateDir) -> Result<Self, IdentityError> {
        let path = directory.authority_key();
        let content = |path: &Path, reason| IdentityError::Content { path: path.to_owned(), reason };
        let secret = read_secret(&path)?;
        let key = std::str::from_utf8(&secret).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = key.ok_or_else(|| content(&path, "holds no private key"))?;

        let path = directory.authority_certificate();
        let no_certificate = || content(&path, "holds no certificate");
        let pem = String::from_utf8(read_public(&path)?.to_vec()).map_err(|_| no_certificate())?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| no_certificate())?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| no_certificate())?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(content(&path, "does not belong to the key beside it"));
        }
        Self::assemble(key, certificate, pem)
    }

    fn assemble(key: KeyPair, certificate: CertificateDer<'static>, pem: String) -> Result<Self, IdentityError> {
        let pin = sha256(&key.subject_public_key_info());
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate, pem, pin })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the authority's SubjectPublicKeyInfo, as an invite carries it.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        self.pin
    }

    /// Issues the gateway's own certificate for the given DNS names and IP addresses, with a fresh key that is never
    /// stored. It is valid for 90 days from an hour before `now`.
    ///
    /// # Errors
    /// A name is not a DNS name or IP address.
    pub fn issue_server(&self, names: &[String], now: SystemTime) -> Result<ServerCertificate, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = common_name("Adit gateway");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf(&mut params, SERVER_LIFETIME, now)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(ServerCertificate {
            chain: vec![certificate.der().clone(), self.certificate()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    /// Issues a device certificate. Its only name is the URI `adit:device/ID`; nothing but the key comes from the
    /// request.
    ///
    /// # Errors
    /// Signing failed or the time is out of range.
    pub fn issue_device(
        &self,
        request: &DeviceRequest,
        device: &str,
        user: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<DeviceCertificate, IdentityError> {
        let mut params = CertificateParams::default();
        let name = format!("{}{device}", super::device::URI_PREFIX).try_into()?;
        params.subject_alt_names = vec![SanType::URI(name)];
        params.distinguished_name = common_name(user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let serial = leaf(&mut params, lifetime, now)?;
        let certificate = params.signed_by(&request.key, &self.issuer)?;
        let not_after = now.checked_add(lifetime).ok_or(IdentityError::System("the lifetime is out of range"))?;
        Ok(DeviceCertificate { pem: certificate.pem(), serial: HEXLOWER.encode(&serial), not_after })
    }
}

fn authority_params(key: &KeyPair, now: SystemTime) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    let tag = HEXUPPER.encode(&sha256(&key.subject_public_key_info())[..4]);
    params.distinguished_name = common_name(&format!("Adit authority {tag}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_LIFETIME, now)?;
    Ok(params)
}

/// What every leaf has in common; returns its serial number.
fn leaf(params: &mut CertificateParams, lifetime: Duration, now: SystemTime) -> Result<[u8; 16], IdentityError> {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    set_validity(params, lifetime, now)?;
    random_serial().inspect(|serial| params.serial_number = Some(SerialNumber::from_slice(serial)))
}

fn set_validity(params: &mut CertificateParams, lifetime: Duration, now: SystemTime) -> Result<(), IdentityError> {
    let out_of_range = || IdentityError::System("the lifetime is out of range");
    params.not_before = certificate_time(now.checked_sub(BACKDATE).ok_or_else(out_of_range)?)?;
    params.not_after = certificate_time(now.checked_add(lifetime).ok_or_else(out_of_range)?)?;
    Ok(())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

#[cfg(test)]
mod tests {
    use super::super::device_identity;
    use super::*;
    use rcgen::CertificateSigningRequest;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    fn authority() -> Authority {
        Authority::create(&StateDir::new(tempfile::tempdir().unwrap().path()), now()).unwrap()
    }

    fn request(params: CertificateParams) -> CertificateSigningRequest {
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap()
    }

    fn der_of(certificate: &DeviceCertificate) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(certificate.pem.as_bytes()).unwrap()
    }

    #[test]
    fn authority_survives_a_restart_and_keeps_its_pin() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(directory.path());
        let made = Authority::create(&state_dir, now()).unwrap();
        let loaded = Authority::load(&state_dir).unwrap();
        assert_eq!(made.pin(), loaded.pin());
        assert_eq!(made.certificate(), loaded.certificate());
        let (_, parsed) = X509Certificate::from_der(&loaded.certificate).unwrap();
        assert_eq!(sha256(parsed.public_key().raw), loaded.pin());
        assert!(Authority::create(&state_dir, now()).is_err(), "nothing is overwritten");
    }

    #[test]
    fn key_of_another_authority_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| StateDir::new(directory.path().join(name)));
        for state_dir in [&a, &b] {
            std::fs::create_dir(state_dir.path()).unwrap();
            Authority::create(state_dir, now()).unwrap();
        }
        std::fs::copy(b.authority_certificate(), a.authority_certificate()).unwrap();
        assert!(matches!(Authority::load(&a), Err(IdentityError::Content { .. })));
    }

    #[test]
    fn server_certificate_names_all_public_hosts_and_ends_in_the_authority() {
        let authority = authority();
        let names = ["vpn.example.org".to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
        let issued = authority.issue_server(&names, now()).unwrap();
        assert_eq!(issued.chain[1], authority.certificate());
        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        let (_, root) = X509Certificate::from_der(&issued.chain[1]).unwrap();
        leaf.verify_signature(Some(root.public_key())).unwrap();
        assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 3);
        assert_eq!(leaf.validity().not_after.timestamp(), 20_090 * 86_400);
        assert!(device_identity(&issued.chain[0]).is_err(), "the gateway is no device");
    }

    #[test]
    fn device_certificate_carries_only_the_name_the_gateway_chose() {
        let authority = authority();
        let mut wish = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        wish.subject_alt_names.push(SanType::URI("adit:device/dev-evil".try_into().unwrap()));
        wish.distinguished_name = common_name("root");
        wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let request = DeviceRequest::parse(&request(wish).pem().unwrap()).unwrap();
        let issued = authority.issue_device(&request, "dev-a", "alice", 30 * DAY, now()).unwrap();
        let identity = device_identity(&der_of(&issued)).unwrap();
        assert_eq!((identity.device.as_str(), &identity.serial), ("dev-a", &issued.serial));
        let der = der_of(&issued);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(!parsed.is_ca());
        assert_eq!(parsed.subject().to_string(), "CN=alice");
    }

    #[test]
    fn certificates_without_exactly_one_device_name_are_refused() {
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let dns = SanType::DnsName("a.example".try_into().unwrap());
        for names in [
            vec![],
            vec![uri("adit:device/dev-a"), uri("adit:device/dev-b")],
            vec![uri("adit:device/dev-a"), dns.clone()],
            vec![dns],
            vec![uri("https://example.org")],
            vec![uri("adit:device/")],
            vec![uri("adit:device/a/b")],
            vec![uri("ADIT:device/dev-a")],
        ] {
            let params = {
                let mut params = CertificateParams::default();
                params.subject_alt_names = names.clone();
                params
            };
            let certificate = params.signed_by(&key, &authority.issuer).unwrap();
            assert!(device_identity(certificate.der()).is_err(), "{names:?}");
        }
        assert!(device_identity(b"no certificate").is_err());
    }

    #[test]
    fn requests_with_a_broken_signature_or_another_key_type_are_refused() {
        let good = request(CertificateParams::default());
        assert!(DeviceRequest::parse(&good.pem().unwrap()).is_ok());
        let mut forged = good.der().to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let body = data_encoding::BASE64.encode(&forged);
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(DeviceRequest::parse(&forged).is_err());
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let other = CertificateParams::default().serialize_request(&key).unwrap();
            assert!(DeviceRequest::parse(&other.pem().unwrap()).is_err());
        }
        assert!(DeviceRequest::parse("").is_err());
        assert!(DeviceRequest::parse("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }
}

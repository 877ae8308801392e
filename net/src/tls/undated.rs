//! Verifies device certificates in all but their dates.
//!
//! The gateway knows of each certificate it issued until when it is good, also of those it issued while its clock was
//! wrong. The dates in the certificate are by that clock: TLS would shut such a device out before the gateway could
//! look.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Verifies as another verifier does, at a time of the certificate's own life if the present is none.
#[derive(Debug)]
pub(super) struct Undated(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Undated {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        match verified {
            Err(Error::InvalidCertificate(error)) if is_for_its_dates(&error) => {
                match a_time_in_the_life_of(end_entity) {
                    Some(then) => self.0.verify_client_cert(end_entity, intermediates, then),
                    None => Err(Error::InvalidCertificate(error)),
                }
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }
}

fn is_for_its_dates(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

/// The middle of a certificate's life.
fn a_time_in_the_life_of(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let validity = parsed.validity();
    let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let middle = begins.checked_add(ends.checked_sub(begins)? / 2)?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(middle).ok()?)))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::RootCertStore;
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    struct Authority {
        certificate: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().into();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn plain(authority: &Authority) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).unwrap();
        let provider = super::super::crypto_provider();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
    }

    /// A certificate for some years, for this use.
    fn issue(
        authority: &Authority,
        years: std::ops::Range<i32>,
        usage: ExtendedKeyUsagePurpose,
    ) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![usage];
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        params.signed_by(&key, &authority.issuer).unwrap().into()
    }

    #[test]
    fn dates_do_not_count_and_everything_else_does() {
        let (ours, theirs) = (authority(), authority());
        let (plain, undated) = (plain(&ours), Undated(plain(&ours)));
        let accepted =
            |certificate: &CertificateDer<'_>| undated.verify_client_cert(certificate, &[], UnixTime::now()).is_ok();
        for years in [1975..1976, 2020..2021, 2090..2091] {
            let device = issue(&ours, years.clone(), ExtendedKeyUsagePurpose::ClientAuth);
            assert!(plain.verify_client_cert(&device, &[], UnixTime::now()).is_err(), "the positive control");
            assert!(accepted(&device), "{years:?}");
            assert!(
                !accepted(&issue(&theirs, years.clone(), ExtendedKeyUsagePurpose::ClientAuth)),
                "another authority"
            );
            assert!(!accepted(&issue(&ours, years, ExtendedKeyUsagePurpose::ServerAuth)), "for another use");
        }
        assert!(!accepted(&CertificateDer::from(vec![0x30, 0])), "no certificate");
    }
}

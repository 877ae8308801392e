//! Tells in words when the dates of a certificate and the clock of this host do not fit together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How a certificate's dates do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// It is not valid yet.
    TooEarly,
    /// It has expired.
    TooLate,
}

/// Begin and end of a certificate's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) begins: SystemTime,
    pub(crate) ends: SystemTime,
}

impl Validity {
    /// That of the first certificate of a PEM text.
    pub(crate) fn of(chain_pem: &str) -> Option<Self> {
        let certificate = CertificateDer::from_pem_slice(chain_pem.as_bytes()).ok()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        Self::of_certificate(&parsed)
    }

    /// That of a certificate.
    pub(crate) fn of_certificate(parsed: &X509Certificate<'_>) -> Option<Self> {
        let time = |seconds: i64| Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?));
        let validity = parsed.validity();
        Some(Self { begins: time(validity.not_before.timestamp())?, ends: time(validity.not_after.timestamp())? })
    }

    /// How it does not fit a clock, if it does not.
    pub(crate) fn misfit(self, now: SystemTime) -> Option<Misfit> {
        if now < self.begins { Some(Misfit::TooEarly) } else { (now > self.ends).then_some(Misfit::TooLate) }
    }
}

/// A time that has passed, whatever the clock says: when this program was made or installed, or one of the profile's
/// certificates.
pub(crate) fn known_past<'a>(certificates: impl Iterator<Item = &'a str>) -> Option<SystemTime> {
    let program = std::env::current_exe().and_then(|program| program.metadata()?.modified()).ok();
    program.into_iter().chain(certificates.filter_map(Validity::of).map(|validity| validity.begins)).max()
}

/// What is wrong when a gateway's certificate does not fit this host's clock.
pub(crate) fn complaint(misfit: Misfit, now: SystemTime, known_past: Option<SystemTime>) -> String {
    match (misfit, known_past.filter(|past| *past > now)) {
        (Misfit::TooEarly, Some(past)) => {
            format!("this host's clock is wrong: it says {}, but it is {} or later", shown(now), shown(past))
        }
        (Misfit::TooEarly, None) => doubt(now, "is not valid yet"),
        (Misfit::TooLate, _) => doubt(now, "has expired"),
    }
}

fn doubt(now: SystemTime, what: &str) -> String {
    let now = shown(now);
    format!("by this host's clock, which says {now}, the gateway's certificate {what}: this clock is wrong, or its own")
}

/// What is wrong when the gateway takes this device's certificate for out of date; `None` if it is, by our clock, too.
pub(crate) fn disagreement(device: Validity, now: SystemTime) -> Option<String> {
    let (begins, ends) = (shown(device.begins), shown(device.ends));
    match device.misfit(now) {
        Some(Misfit::TooLate) => None,
        Some(Misfit::TooEarly) => Some(format!(
            "this device's certificate is valid from {begins} only, and this host's clock says {}: a clock is wrong, or \
             was when the certificate was made",
            shown(now)
        )),
        None => Some(format!(
            "the gateway takes this device's certificate for out of date, but it is valid from {begins} to {ends}, and \
             this host's clock says {}: one of the two clocks is wrong",
            shown(now)
        )),
    }
}

/// A time as people read it.
pub(crate) fn shown(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    fn at(years: u32) -> SystemTime {
        UNIX_EPOCH + YEAR * years
    }

    fn certificate(begins: SystemTime, ends: SystemTime) -> String {
        let mut params = CertificateParams::new(vec!["device".into()]).unwrap();
        (params.not_before, params.not_after) = (begins.into(), ends.into());
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn certificates_and_this_program_tell_what_has_passed() {
        let program = known_past([].into_iter()).unwrap();
        assert!(program > at(50), "{program:?}");
        let (old, late) = (certificate(at(20), at(21)), certificate(at(200), at(201)));
        assert_eq!(known_past([old.as_str(), "nonsense"].into_iter()), Some(program));
        assert_eq!(known_past([old.as_str(), late.as_str()].into_iter()), Some(at(200)));
    }

    #[test]
    fn clock_is_blamed_only_where_it_is_known_to_be_wrong() {
        let sure = complaint(Misfit::TooEarly, at(54), Some(at(56)));
        assert!(sure.starts_with("this host's clock is wrong: it says 2023-"), "{sure}");
        for (misfit, past) in [(Misfit::TooEarly, Some(at(50))), (Misfit::TooEarly, None), (Misfit::TooLate, None)] {
            let unsure = complaint(misfit, at(54), past);
            assert!(unsure.contains("this clock is wrong, or its own"), "{unsure}");
        }
    }

    #[test]
    fn device_certificate_that_is_out_of_date_here_too_is_no_matter_of_clocks() {
        let validity = Validity::of(&certificate(at(56), at(57))).unwrap();
        assert_eq!(validity, Validity { begins: at(56), ends: at(57) });
        assert_eq!(disagreement(validity, at(58)), None);
        for now in [at(55), at(56), at(57)] {
            assert!(disagreement(validity, now).unwrap().contains("clock"), "{now:?}");
        }
    }
}

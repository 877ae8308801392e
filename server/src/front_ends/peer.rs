//! Who is at the other end of a connection.

use rustls::pki_types::CertificateDer;

use crate::core::login::Credential;
use crate::identity::device_identity;

/// Who is at the other end of a connection, as far as TLS knows.
pub(super) enum Peer {
    /// No certificate; may enrol or log in with a token.
    Anonymous,
    /// A device certificate of our authority, whatever its dates: its device id and serial number.
    Certificate { device: String, serial: String },
    /// A certificate of our authority that names no device.
    Nameless,
}

impl Peer {
    /// Reads who TLS found at the other end.
    pub(super) fn of(quic: &quinn::Connection) -> Self {
        let shown = quic.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
        Self::who_shows(shown.as_ref().and_then(|chain| chain.first()))
    }

    /// Reads whose certificate it is that somebody shows.
    pub(super) fn who_shows(certificate: Option<&CertificateDer<'_>>) -> Self {
        match certificate.map(|certificate| device_identity(certificate)) {
            None => Self::Anonymous,
            Some(Ok(identity)) => Self::Certificate { device: identity.device, serial: identity.serial },
            Some(Err(error)) => {
                tracing::debug!(%error, "client certificate names no device");
                Self::Nameless
            }
        }
    }

    /// What it logs in with: its certificate, if it showed one, else its bearer token.
    pub(super) fn credential(&self, token: Option<&str>) -> Option<Credential> {
        match self {
            Self::Certificate { device, serial } => {
                Some(Credential::Certificate { device: device.clone(), serial: serial.clone() })
            }
            Self::Nameless => None,
            Self::Anonymous => token.map(|token| Credential::Token(token.to_owned())),
        }
    }
}

//! What an [`EspControl`](super::EspControl) is made from, and how it fails.

use std::sync::Arc;

use adit_proto::esp::field::{Answer, Offer};
use adit_proto::esp::keys::{EXPORTER_LABEL, KeyError, SECRET_LEN};
use adit_proto::esp::lifetime::RekeyPolicy;
use adit_proto::esp::rekey::RekeyError;
use adit_proto::sealing::aead::CipherRefused;

use crate::carrier::esp::key_exchange::ExchangeError;
use crate::worker::DataPlane;

/// What an end offers or permits, and when it wants new keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EspSettings {
    /// What is offered, for a server what is permitted.
    pub offer: Offer,
    /// When this end's keys are replaced.
    pub policy: RekeyPolicy,
}

/// Why ESP cannot go on. The session has to end: the two ends no longer agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EspError {
    /// The peer broke the rules.
    #[error(transparent)]
    Rekey(#[from] RekeyError),
    /// The peer's share is not usable, or there is no key of this end.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// No keys can be made for the epoch.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The library does not take the keys.
    #[error(transparent)]
    Cipher(#[from] CipherRefused),
    /// Every index of every worker is taken.
    #[error("no free spi")]
    NoSpi,
}

/// A connection whose TLS gives both of its ends the same secrets (RFC 8446 section 7.5).
pub trait Exporter {
    /// Fills `secret` with what the label stands for; `None` if the handshake is not done.
    fn export(&self, label: &[u8], secret: &mut [u8]) -> Option<()>;
}

impl Exporter for quinn::Connection {
    fn export(&self, label: &[u8], secret: &mut [u8]) -> Option<()> {
        self.export_keying_material(secret, label, &[]).ok()
    }
}

/// Takes the secret of ESP from an established connection; `None` if its handshake is not done.
pub fn exporter_secret(connection: &impl Exporter) -> Option<[u8; SECRET_LEN]> {
    let mut secret = [0; SECRET_LEN];
    connection.export(EXPORTER_LABEL, &mut secret)?;
    Some(secret)
}

/// What both ends need to begin.
pub struct EspSetup<'a, S> {
    /// What was negotiated.
    pub negotiated: Answer,
    /// The secret of the connection, erased when taken.
    pub secret: &'a mut [u8; SECRET_LEN],
    /// The workers.
    pub plane: Arc<dyn DataPlane<S>>,
    /// Whose SAs they are.
    pub session: Arc<S>,
    /// When this end's keys are replaced.
    pub policy: RekeyPolicy,
    /// The largest packet that may be sent, whatever the path takes, in bytes.
    pub largest_packet: u16,
}

//! What a server makes of what a client can do.

use super::peer_info::{Abilities, PeerInfo};
use crate::sealing::suite::Suite;

/// How data lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Data v2 of 2.4 and later.
    V2,
    /// The epoch format of 2.7.
    Epoch,
}

/// What a server lets its clients have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Ciphers, the preferred one first.
    pub suites: Vec<Suite>,
    /// Whether the epoch format is chosen where the client knows it.
    pub epoch: bool,
    /// Whether renegotiations have a key of tls-crypt of their own where the client knows that.
    pub dynamic_tls_crypt: bool,
}

/// What both ends do. It is pushed to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Agreement {
    /// The cipher of data.
    pub suite: Suite,
    /// Its form.
    pub format: Format,
    /// Whether either end may say EXIT in the control channel.
    pub exit_message: bool,
    /// Whether renegotiations have a key of tls-crypt of their own.
    pub dynamic_tls_crypt: bool,
}

/// Why a client cannot be served. The text is for its user, by AUTH_FAILED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It knows no peer ids, or makes data keys as versions before 2.5 did.
    #[error("this gateway needs OpenVPN 2.6 or newer: update the client")]
    Old,
    /// It takes none of the ciphers.
    #[error("no shared cipher: remove `cipher` and `data-ciphers` from the profile, or set `data-ciphers DEFAULT`")]
    Cipher,
}

impl Offer {
    /// The first cipher of this offer that the client takes, and the most of everything else that both know.
    ///
    /// # Errors
    /// Why there is nothing to agree on.
    pub fn agree(&self, client: &PeerInfo) -> Result<Agreement, Mismatch> {
        let has = |ability| client.abilities.has(ability);
        if !has(Abilities::DATA_V2.with(Abilities::KEY_EXPORT)) {
            return Err(Mismatch::Old);
        }
        let suite = self.suites.iter().find(|suite| client.suites.contains(suite)).ok_or(Mismatch::Cipher)?;
        Ok(Agreement {
            suite: *suite,
            format: if self.epoch && has(Abilities::DATA_EPOCH) { Format::Epoch } else { Format::V2 },
            exit_message: has(Abilities::EXIT_MESSAGE),
            dynamic_tls_crypt: self.dynamic_tls_crypt && has(Abilities::DYNAMIC_TLS_CRYPT),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        Offer { suites: Suite::ALL.to_vec(), epoch: true, dynamic_tls_crypt: true }
    }

    fn client(abilities: u32, suites: &[Suite]) -> PeerInfo {
        PeerInfo { abilities: Abilities(abilities), suites: suites.to_vec(), ..PeerInfo::default() }
    }

    #[test]
    fn stock_clients_get_the_most_that_they_know() {
        let of_2_6 = offer().agree(&client(990, &Suite::ALL)).unwrap();
        assert_eq!((of_2_6.suite, of_2_6.format), (Suite::Aes256Gcm, Format::V2));
        assert!(of_2_6.exit_message && of_2_6.dynamic_tls_crypt);
        let of_2_7 = offer().agree(&client(8094, &Suite::ALL)).unwrap();
        assert_eq!(of_2_7.format, Format::Epoch);
        let without = Offer { epoch: false, dynamic_tls_crypt: false, ..offer() };
        let plain = without.agree(&client(8094, &Suite::ALL)).unwrap();
        assert_eq!((plain.format, plain.dynamic_tls_crypt), (Format::V2, false));
    }

    #[test]
    fn order_of_the_server_decides() {
        let offer = Offer { suites: vec![Suite::ChaCha20Poly1305, Suite::Aes128Gcm], ..offer() };
        let suite = |suites: &[Suite]| offer.agree(&client(990, suites)).map(|agreement| agreement.suite);
        assert_eq!(suite(&Suite::ALL), Ok(Suite::ChaCha20Poly1305));
        assert_eq!(suite(&[Suite::Aes128Gcm, Suite::Aes256Gcm]), Ok(Suite::Aes128Gcm));
        assert_eq!(suite(&[Suite::Aes256Gcm]), Err(Mismatch::Cipher));
        assert_eq!(suite(&[]), Err(Mismatch::Cipher));
    }

    #[test]
    fn client_that_is_too_old_is_refused() {
        for abilities in [0, 2, 8, 6] {
            assert_eq!(offer().agree(&client(abilities, &Suite::ALL)), Err(Mismatch::Old));
        }
        assert!(offer().agree(&client(2 | 8, &Suite::ALL)).is_ok_and(|agreement| !agreement.exit_message));
    }
}

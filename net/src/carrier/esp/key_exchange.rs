//! The key exchange of an epoch, by aws-lc: X25519, alone or behind ML-KEM-768.
//!
//! ```text
//!                  client's share                     server's share                 secret
//! X25519           public key (32)                    public key (32)                X25519 (32)
//! X25519MLKEM768   encapsulation key (1184) ‖ X25519  ciphertext (1088) ‖ X25519     ML-KEM (32) ‖ X25519 (32)
//! ```
//!
//! Layouts and order are those of TLS (draft-ietf-tls-ecdhe-mlkem section 4). The client begins with
//! [`ClientExchange::new`], the server replies with [`answer`], and [`ClientExchange::finish`] ends it. Every key is
//! used once and erased.

use adit_proto::esp::capsule::Group;
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_768};
use aws_lc_rs::rand::SystemRandom;
use bytes::Bytes;
use zeroize::Zeroizing;

/// Bytes of an X25519 public key (RFC 7748 section 5).
const X25519_LEN: usize = 32;

/// Bytes of the longest secret, so that it is written without moving.
const MAX_SECRET_LEN: usize = 64;

/// Why a key exchange failed; the session has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The peer's share has the wrong length, is no key or ciphertext, or leads to a secret of zeros (RFC 7748 section
    /// 6.1).
    #[error("unusable key share")]
    Share,
    /// The library could not make a key.
    #[error("cannot make a key")]
    Generate,
}

/// What both ends know after the exchange. Erased when dropped.
pub type SharedSecret = Zeroizing<Vec<u8>>;

/// An exchange under way at either end: what is kept until the peer's part is there.
pub(super) enum Exchange {
    /// The client's: the secret needs the server's share.
    Client(Box<ClientExchange>),
    /// The server's: the secret is there already.
    Server(SharedSecret),
}

impl Exchange {
    /// Makes this end's part and returns its share: the client's, or with `client_share` the server's. Without a group
    /// there is no exchange, and the share is empty.
    pub(super) fn begin(
        group: Option<Group>,
        client_share: Option<&[u8]>,
    ) -> Result<(Option<Self>, Bytes), ExchangeError> {
        let Some(group) = group else { return Ok((None, Bytes::new())) };
        Ok(match client_share {
            None => {
                let exchange = ClientExchange::new(group)?;
                let share = exchange.share();
                (Some(Self::Client(Box::new(exchange))), share)
            }
            Some(client_share) => {
                let (share, secret) = answer(group, client_share)?;
                (Some(Self::Server(secret)), share)
            }
        })
    }

    /// The shared secret; only a client needs the peer's share.
    pub(super) fn finish(self, peer_share: &[u8]) -> Result<SharedSecret, ExchangeError> {
        match self {
            Self::Client(exchange) => exchange.finish(peer_share),
            Self::Server(secret) => Ok(secret),
        }
    }
}

/// The client's half of an exchange under way.
pub struct ClientExchange {
    group: Group,
    share: Bytes,
    x25519: EphemeralPrivateKey,
    /// The private part of ML-KEM; only in the hybrid.
    kem: Option<DecapsulationKey>,
}

impl ClientExchange {
    /// Makes the client's keys.
    ///
    /// # Errors
    /// [`ExchangeError::Generate`] if the library fails.
    pub fn new(group: Group) -> Result<Self, ExchangeError> {
        let mut share = Vec::with_capacity(group.client_share_len());
        let kem = match group {
            Group::X25519 => None,
            Group::X25519MlKem768 => Some(decapsulation_key(&mut share)?),
        };
        let x25519 = x25519_key(&mut share)?;
        Ok(Self { group, share: Bytes::from(share), x25519, kem })
    }

    /// The client's share, [`Group::client_share_len`] bytes.
    pub fn share(&self) -> Bytes {
        self.share.clone()
    }

    /// The shared secret, from the server's share.
    ///
    /// # Errors
    /// [`ExchangeError::Share`] if the share is not usable.
    pub fn finish(self, server_share: &[u8]) -> Result<SharedSecret, ExchangeError> {
        let (encapsulated, public) = split(server_share, self.group.server_share_len())?;
        let mut secret = SharedSecret::new(Vec::with_capacity(MAX_SECRET_LEN));
        if let Some(kem) = &self.kem {
            let part = kem.decapsulate(Ciphertext::from(encapsulated)).map_err(|_| ExchangeError::Share)?;
            secret.extend_from_slice(part.as_ref());
        }
        agree(self.x25519, public, &mut secret)?;
        Ok(secret)
    }
}

/// The server's whole part: its share, [`Group::server_share_len`] bytes, and the shared secret, from the client's
/// share.
///
/// # Errors
/// [`ExchangeError::Share`] if the client's share is not usable, [`ExchangeError::Generate`] if the library fails.
pub fn answer(group: Group, client_share: &[u8]) -> Result<(Bytes, SharedSecret), ExchangeError> {
    let (encapsulation_key, public) = split(client_share, group.client_share_len())?;
    let mut share = Vec::with_capacity(group.server_share_len());
    let mut secret = SharedSecret::new(Vec::with_capacity(MAX_SECRET_LEN));
    match group {
        Group::X25519 => {}
        Group::X25519MlKem768 => encapsulate(encapsulation_key, &mut share, &mut secret)?,
    }
    let x25519 = x25519_key(&mut share)?;
    agree(x25519, public, &mut secret)?;
    Ok((Bytes::from(share), secret))
}

/// Parts a share of `expected` bytes into what is in front of the X25519 public key, and that.
fn split(share: &[u8], expected: usize) -> Result<(&[u8], &[u8; X25519_LEN]), ExchangeError> {
    share.split_last_chunk().filter(|_| share.len() == expected).ok_or(ExchangeError::Share)
}

/// Makes the private part of ML-KEM and appends the public one to `share`.
fn decapsulation_key(share: &mut Vec<u8>) -> Result<DecapsulationKey, ExchangeError> {
    let key = DecapsulationKey::generate(&ML_KEM_768).map_err(|_| ExchangeError::Generate)?;
    let public = key.encapsulation_key().and_then(|public| public.key_bytes()).map_err(|_| ExchangeError::Generate)?;
    share.extend_from_slice(public.as_ref());
    Ok(key)
}

/// Encapsulates a fresh secret: appends the ciphertext to `share` and the secret to `secret`.
fn encapsulate(key: &[u8], share: &mut Vec<u8>, secret: &mut Vec<u8>) -> Result<(), ExchangeError> {
    let key = EncapsulationKey::new(&ML_KEM_768, key).map_err(|_| ExchangeError::Share)?;
    let (ciphertext, part) = key.encapsulate().map_err(|_| ExchangeError::Share)?;
    share.extend_from_slice(ciphertext.as_ref());
    secret.extend_from_slice(part.as_ref());
    Ok(())
}

/// Makes an X25519 key and appends the public part to `share`.
fn x25519_key(share: &mut Vec<u8>) -> Result<EphemeralPrivateKey, ExchangeError> {
    let key = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| ExchangeError::Generate)?;
    let public = key.compute_public_key().map_err(|_| ExchangeError::Generate)?;
    share.extend_from_slice(public.as_ref());
    Ok(key)
}

/// Appends the X25519 secret to `secret`. The library refuses one of zeros.
fn agree(key: EphemeralPrivateKey, public: &[u8; X25519_LEN], secret: &mut Vec<u8>) -> Result<(), ExchangeError> {
    let public = UnparsedPublicKey::new(&X25519, public);
    agree_ephemeral(key, public, ExchangeError::Share, |part| {
        secret.extend_from_slice(part);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_get_the_same_secret_of_the_groups_length() {
        for (group, len) in [(Group::X25519, 32), (Group::X25519MlKem768, 64)] {
            let client = ClientExchange::new(group).unwrap();
            assert_eq!(client.share().len(), group.client_share_len());
            let (share, server_secret) = answer(group, &client.share()).unwrap();
            assert_eq!(share.len(), group.server_share_len());
            let client_secret = client.finish(&share).unwrap();
            assert_eq!(client_secret, server_secret);
            assert_eq!(client_secret.len(), len);
            assert!(client_secret.capacity() <= MAX_SECRET_LEN, "it was not moved while it was written");
        }
    }

    #[test]
    fn every_exchange_is_fresh() {
        let shares = [(); 2].map(|()| ClientExchange::new(Group::X25519MlKem768).unwrap().share());
        assert_ne!(shares[0][..1184], shares[1][..1184]);
        assert_ne!(shares[0][1184..], shares[1][1184..]);
    }

    #[test]
    fn secret_of_the_hybrid_begins_with_ml_kem() {
        let client = ClientExchange::new(Group::X25519MlKem768).unwrap();
        let (share, secret) = answer(Group::X25519MlKem768, &client.share()).unwrap();
        let kem = client.kem.as_ref().unwrap().decapsulate(Ciphertext::from(&share[..1088])).unwrap();
        assert_eq!(kem.as_ref(), &secret[..32]);
    }

    #[test]
    fn shares_of_the_wrong_length_are_refused() {
        for group in Group::ALL {
            let share = ClientExchange::new(group).unwrap().share();
            let longer = [&share[..], &[0]].concat();
            for wrong in [&[][..], &share[1..], &longer, &[7; 31]] {
                assert_eq!(answer(group, wrong).unwrap_err(), ExchangeError::Share);
            }
            let (share, _) = answer(group, &share).unwrap();
            let longer = [&share[..], &[0]].concat();
            for wrong in [&[][..], &share[1..], &longer] {
                assert_eq!(ClientExchange::new(group).unwrap().finish(wrong).unwrap_err(), ExchangeError::Share);
            }
        }
    }

    #[test]
    fn points_that_lead_to_a_secret_of_zeros_are_refused() {
        // Points of low order on the curve: 0 and 1.
        for point in [0, 1] {
            for group in Group::ALL {
                let mut share = ClientExchange::new(group).unwrap().share().to_vec();
                let place = share.len() - X25519_LEN;
                share[place..].fill(0);
                share[place] = point;
                assert_eq!(answer(group, &share).unwrap_err(), ExchangeError::Share);

                let client = ClientExchange::new(group).unwrap();
                let mut share = answer(group, &client.share()).unwrap().0.to_vec();
                let place = share.len() - X25519_LEN;
                share[place..].fill(0);
                share[place] = point;
                assert_eq!(client.finish(&share).unwrap_err(), ExchangeError::Share);
            }
        }
    }

    #[test]
    fn encapsulation_key_that_is_none_is_refused() {
        let mut share = ClientExchange::new(Group::X25519MlKem768).unwrap().share().to_vec();
        // Coefficients beyond the modulus (FIPS 203 section 7.2).
        share[..1152].fill(0xff);
        assert_eq!(answer(Group::X25519MlKem768, &share).unwrap_err(), ExchangeError::Share);
    }

    #[test]
    fn foreign_ciphertext_leads_to_another_secret() {
        let client = ClientExchange::new(Group::X25519MlKem768).unwrap();
        let (share, secret) = answer(Group::X25519MlKem768, &client.share()).unwrap();
        let mut changed = share.to_vec();
        changed[5] ^= 1;
        assert_ne!(client.finish(&changed).unwrap(), secret, "implicit rejection (FIPS 203 section 6.3)");
    }
}

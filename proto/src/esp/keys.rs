//! From the QUIC connection to the keys of each epoch.
//!
//! ```text
//! S_0  = TLS exporter (RFC 8446 section 7.5), 32 bytes
//! S_n  = HKDF-Extract(salt = S'_(n-1), ikm = shared secret of the epoch's key exchange, or 32 zero bytes without one)
//! keys = HKDF-Expand(S_n, "adit esp 1 keys" ‖ epoch (4) ‖ suite (2)
//!                         ‖ SPI client to server (4) ‖ SPI server to client (4)
//!                         ‖ SHA-256(SA_INIT of the client ‖ SA_INIT of the server))
//!      = key and salt client to server, key and salt server to client
//! S'_n = HKDF-Expand(S_n, "adit esp 1 next", 32)
//! ```
//!
//! HKDF is that of RFC 5869 with SHA-256. S_n is erased as soon as its keys and S'_n are made, so that who seizes a
//! running process cannot open what earlier epochs carried; the fresh key exchange keeps later epochs from who only
//! knows S'_n. The exporter alone would give neither: its secret lasts as long as the connection.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::capsule::{Group, SaInit};
use super::packet::SALT_LEN;
use crate::sealing::suite::{MAX_KEY_LEN, Suite};

/// The label for the TLS exporter; its context is empty.
///
/// Export only once the handshake is confirmed, and never from early data: both ends would not yet know each other.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-adit-esp-1";

/// Bytes to take from the exporter.
pub const SECRET_LEN: usize = 32;

const KEYS_LABEL: &[u8] = b"adit esp 1 keys";
const NEXT_LABEL: &[u8] = b"adit esp 1 next";

/// Bytes of key and salt of both directions, at most.
const MAX_MATERIAL_LEN: usize = 2 * (MAX_KEY_LEN + SALT_LEN);

/// Why no keys were made. The chain is unchanged then, and the session has to end: both ends no longer agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An SA_INIT is for another epoch than the next one, or the two are for different ones.
    #[error("SA_INIT for another epoch")]
    Epoch,
    /// The two SA_INIT name different suites.
    #[error("SA_INIT with different suites")]
    Suite,
    /// The two SA_INIT name different groups, or epoch 0 names one.
    #[error("SA_INIT with different groups")]
    Group,
    /// A secret came without a group, a group without a secret, or the secret is all zeros (RFC 7748 section 6.1).
    #[error("key exchange without a usable secret")]
    SharedSecret,
    /// The last epoch has passed.
    #[error("epochs exhausted")]
    Exhausted,
}

/// The key and salt of one direction, to set up one SA with. Erased when dropped.
///
/// ```compile_fail
/// fn copy(keys: &adit_proto::esp::keys::DirectionKeys) -> adit_proto::esp::keys::DirectionKeys { keys.clone() }
/// ```
/// ```compile_fail
/// fn show(keys: &adit_proto::esp::keys::DirectionKeys) -> String { format!("{keys:?}") }
/// ```
/// ```compile_fail
/// fn compare(keys: &adit_proto::esp::keys::DirectionKeys) -> bool { *keys == *keys }
/// ```
#[derive(ZeroizeOnDrop)]
pub struct DirectionKeys {
    #[zeroize(skip)]
    suite: Suite,
    key: [u8; MAX_KEY_LEN],
    salt: [u8; SALT_LEN],
}

impl DirectionKeys {
    /// Takes key and salt off `material`.
    fn take(suite: Suite, material: &mut &[u8]) -> Option<Self> {
        let (key, rest) = material.split_at_checked(suite.key_len())?;
        let (&salt, rest) = rest.split_first_chunk()?;
        let mut keys = Self { suite, key: [0; MAX_KEY_LEN], salt };
        keys.key.get_mut(..key.len())?.copy_from_slice(key);
        *material = rest;
        Some(keys)
    }

    /// The suite they are for.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The key, [`Suite::key_len`] bytes. For the cipher, and for the key log that an operator asked for.
    pub fn key(&self) -> &[u8] {
        self.key.get(..self.suite.key_len()).expect("no key is longer than the longest")
    }

    /// The salt. As secret as the key.
    pub const fn salt(&self) -> [u8; SALT_LEN] {
        self.salt
    }

    #[cfg(test)]
    pub(crate) fn for_test(suite: Suite, seed: u8) -> Self {
        Self { suite, key: [seed; MAX_KEY_LEN], salt: [seed; SALT_LEN] }
    }
}

/// The keys of one epoch, never the same for both directions.
pub struct EpochKeys {
    /// For what the client sends.
    pub client_to_server: DirectionKeys,
    /// For what the server sends.
    pub server_to_client: DirectionKeys,
}

/// The secret from which the next epoch is made. Lives as long as its connection and not longer.
///
/// ```compile_fail
/// fn copy(chain: &adit_proto::esp::keys::KeyChain) -> adit_proto::esp::keys::KeyChain { chain.clone() }
/// ```
#[derive(ZeroizeOnDrop)]
pub struct KeyChain {
    secret: [u8; SECRET_LEN],
    #[zeroize(skip)]
    next_epoch: Option<u32>,
}

impl KeyChain {
    /// Starts the chain with what the exporter gave for [`EXPORTER_LABEL`], and erases it there.
    pub fn new(exported: &mut [u8; SECRET_LEN]) -> Self {
        let chain = Self { secret: *exported, next_epoch: Some(0) };
        exported.zeroize();
        chain
    }

    /// Makes the keys of the next epoch from both ends' SA_INIT and the secret of their key exchange, which is erased
    /// by its owner, and forgets how.
    ///
    /// # Errors
    /// If the two do not fit each other or the chain; the chain is unchanged then.
    pub fn advance(&mut self, client: &SaInit, server: &SaInit, shared: Option<&[u8]>) -> Result<EpochKeys, KeyError> {
        let epoch = self.agreed_epoch(client, server)?;
        let extracted = self.extract(epoch, client.group, shared)?;
        let mut material = [0; MAX_MATERIAL_LEN];
        let mut next = [0; SECRET_LEN];
        let keys =
            Self::expand(&extracted, client, server, &mut material).zip(extracted.expand(NEXT_LABEL, &mut next).ok());
        material.zeroize();
        let (keys, ()) = keys.ok_or(KeyError::Exhausted)?;
        self.secret = next;
        next.zeroize();
        self.next_epoch = epoch.checked_add(1);
        Ok(keys)
    }

    fn agreed_epoch(&self, client: &SaInit, server: &SaInit) -> Result<u32, KeyError> {
        let epoch = self.next_epoch.ok_or(KeyError::Exhausted)?;
        if client.epoch != epoch || server.epoch != epoch {
            return Err(KeyError::Epoch);
        }
        if client.suite != server.suite {
            return Err(KeyError::Suite);
        }
        if client.group != server.group || epoch == 0 && client.group.is_some() {
            return Err(KeyError::Group);
        }
        Ok(epoch)
    }

    /// S_n: the exporter's secret itself in epoch 0, extracted from the chain and the key exchange afterwards.
    fn extract(&self, epoch: u32, group: Option<Group>, shared: Option<&[u8]>) -> Result<Hkdf<Sha256>, KeyError> {
        let input = match (group, shared) {
            (None, None) => &[0; SECRET_LEN],
            (Some(_), Some(shared)) if shared.iter().any(|&byte| byte != 0) => shared,
            (None | Some(_), _) => return Err(KeyError::SharedSecret),
        };
        if epoch == 0 {
            return Hkdf::from_prk(&self.secret).map_err(|_too_short| KeyError::SharedSecret);
        }
        let (mut secret, hkdf) = Hkdf::<Sha256>::extract(Some(&self.secret), input);
        secret.as_mut_slice().zeroize();
        Ok(hkdf)
    }

    fn expand(hkdf: &Hkdf<Sha256>, client: &SaInit, server: &SaInit, material: &mut [u8]) -> Option<EpochKeys> {
        let suite = client.suite;
        let material = material.get_mut(..suite.key_len().checked_add(SALT_LEN)?.checked_mul(2)?)?;
        let info = [
            &client.epoch.to_be_bytes()[..],
            &suite.code().to_be_bytes(),
            // Each end receives on the index it chose.
            &server.spi.get().to_be_bytes(),
            &client.spi.get().to_be_bytes(),
            &Self::transcript(client, server),
        ]
        .concat();
        hkdf.expand_multi_info(&[KEYS_LABEL, &info], material).ok()?;
        let mut material = &*material;
        Some(EpochKeys {
            client_to_server: DirectionKeys::take(suite, &mut material)?,
            server_to_client: DirectionKeys::take(suite, &mut material)?,
        })
    }

    fn transcript(client: &SaInit, server: &SaInit) -> [u8; 32] {
        let mut capsules = Vec::new();
        client.encode(&mut capsules);
        server.encode(&mut capsules);
        Sha256::digest(&capsules).into()
    }
}

#[cfg(test)]
mod tests;

//! The key under which the gateway keeps what it must be able to read again, such as the secrets of second factors.

use adit_program::durable_file;
use adit_program::random::{NoRandomness, random};
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use super::IdentityError;
use crate::config::read_secret;
use crate::directories::StateDir;

/// Length of the key, in bytes.
const LENGTH: usize = 32;
/// Length of what stands in front of a sealed text, in bytes: the nonce of AES-GCM (RFC 5116 section 5.1).
const NONCE: usize = 12;

/// One secret of the gateway, from which comes a key for each purpose.
pub struct ServiceKey(Zeroizing<[u8; LENGTH]>);

impl ServiceKey {
    /// Loads the key of a gateway, and makes one (mode 0600) where there is none: gateways of former versions have
    /// none.
    ///
    /// # Errors
    /// The file is unsafe, of another length, or cannot be written.
    pub fn load_or_create(state_dir: &StateDir) -> Result<Self, IdentityError> {
        if let Some(key) = Self::load(state_dir)? {
            return Ok(key);
        }
        let path = state_dir.service_key();
        let key = Zeroizing::new(random::<LENGTH>()?);
        match durable_file::create(&path, key.as_slice(), 0o600) {
            Ok(()) => Ok(Self(key)),
            // Another process was faster, and its key is the one.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Self::load_or_create(state_dir),
            Err(error) => Err(IdentityError::file(&path, error)),
        }
    }

    /// Loads the key of a gateway; `None` where there is none yet.
    ///
    /// # Errors
    /// The file is unsafe or of another length.
    pub fn load(state_dir: &StateDir) -> Result<Option<Self>, IdentityError> {
        let path = state_dir.service_key();
        let found = match read_secret(&path) {
            Err(error) if error.is_missing() => return Ok(None),
            read => read?,
        };
        let wrong = || IdentityError::Content { path, reason: "does not hold the key of 32 bytes" };
        found.as_slice().try_into().map(|key| Some(Self(Zeroizing::new(key)))).map_err(|_| wrong())
    }

    /// What seals for one purpose; what was sealed for another does not open.
    #[must_use]
    pub fn sealer(&self, purpose: &'static str) -> Sealer {
        let salt = Salt::new(HKDF_SHA256, b"adit service key");
        let mut bytes = Zeroizing::new([0; LENGTH]);
        let filled = salt
            .extract(self.0.as_slice())
            .expand(&[purpose.as_bytes()], HKDF_SHA256)
            .and_then(|key| key.fill(bytes.as_mut_slice()));
        filled.expect("HKDF-SHA-256 gives 32 bytes");
        Sealer(RandomizedNonceKey::new(&AES_256_GCM, bytes.as_slice()).expect("32 bytes are a key of AES-256"))
    }
}

/// Seals and opens with AES-256-GCM. Nonces are random, which is safe for 2^32 texts under one key (NIST SP 800-38D
/// section 8.3).
pub struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// Seals a text. It opens only together with `about`, such as the name of the user it belongs to.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn seal(&self, text: &[u8], about: &[u8]) -> Result<Vec<u8>, NoRandomness> {
        let mut body = text.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(about), &mut body).map_err(|_| NoRandomness)?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut body);
        Ok(whole)
    }

    /// The text; `None` when it was not sealed with this key, for this purpose and about this.
    #[must_use]
    pub fn open(&self, sealed: &[u8], about: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE>()?;
        let mut body = Zeroizing::new(body.to_vec());
        let opened = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(about), body.as_mut_slice());
        let length = opened.ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_is_made_once_and_opens_what_it_sealed_before() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(directory.path());
        assert!(ServiceKey::load(&state_dir).unwrap().is_none());
        let sealed =
            ServiceKey::load_or_create(&state_dir).unwrap().sealer("factors").seal(b"secret", b"alice").unwrap();
        let mode = std::fs::metadata(state_dir.service_key()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = ServiceKey::load_or_create(&state_dir).unwrap().sealer("factors");
        assert_eq!(again.open(&sealed, b"alice").unwrap().as_slice(), b"secret");
    }

    #[test]
    fn sealed_text_opens_only_whole_for_its_purpose_and_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let key = ServiceKey::load_or_create(&StateDir::new(directory.path())).unwrap();
        let sealer = key.sealer("factors");
        let sealed = sealer.seal(b"secret", b"alice").unwrap();
        assert!(sealer.open(&sealed, b"alice").is_some(), "the positive control");
        assert!(sealer.open(&sealed, b"bob").is_none());
        assert!(key.sealer("tokens").open(&sealed, b"alice").is_none());
        for length in 0..sealed.len() {
            assert!(sealer.open(&sealed[..length], b"alice").is_none(), "{length}");
        }
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(sealer.open(&changed, b"alice").is_none(), "{index}");
        }
        assert_ne!(sealed, sealer.seal(b"secret", b"alice").unwrap(), "no nonce comes twice");
    }

    #[test]
    fn file_that_is_exposed_or_of_another_length_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(directory.path());
        let path = state_dir.service_key();
        durable_file::create(&path, &[1; 31], 0o600).unwrap();
        assert!(matches!(ServiceKey::load_or_create(&state_dir), Err(IdentityError::Content { .. })));
        durable_file::replace(&path, &[1; 32], 0o644).unwrap();
        assert!(matches!(ServiceKey::load_or_create(&state_dir), Err(IdentityError::Unguarded(_))));
        durable_file::replace(&path, &[1; 32], 0o600).unwrap();
        assert!(ServiceKey::load_or_create(&state_dir).is_ok(), "the positive control");
    }
}

//! The trait over aws-lc-rs and a start for virtual time, for tests alone: the shell's own cipher cannot be used below
//! the shell.

use std::time::Instant;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::aead::{Aead, CipherRefused, Forged, NONCE_LEN, TAG_LEN};
use super::suite::Suite;

pub(crate) struct AwsCipher(LessSafeKey);

impl Aead for AwsCipher {
    fn new(suite: Suite, key: &[u8]) -> Result<Self, CipherRefused> {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        UnboundKey::new(algorithm, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| CipherRefused)
    }

    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        associated_data: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CipherRefused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag =
            self.0.seal_in_place_separate_tag(nonce, Aad::from(associated_data), buffer).map_err(|_| CipherRefused)?;
        tag.as_ref().try_into().map_err(|_| CipherRefused)
    }

    fn open(&self, nonce: [u8; NONCE_LEN], associated_data: &[u8], buffer: &mut [u8]) -> Result<(), Forged> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(associated_data), buffer).map(|_plaintext| ()).map_err(|_| Forged)
    }
}

#[expect(clippy::disallowed_methods, reason = "a start is needed, and only differences from it matter")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

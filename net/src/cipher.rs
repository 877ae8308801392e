//! The suites by aws-lc.

use adit_proto::sealing::aead::{Aead, CipherRefused, Forged, NONCE_LEN, TAG_LEN};
use adit_proto::sealing::suite::Suite;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// A suite under one key. Nonces are the caller's care: they are sequence numbers, each given out once.
pub struct Cipher(LessSafeKey);

impl Aead for Cipher {
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

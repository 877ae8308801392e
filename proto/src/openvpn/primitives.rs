//! What the control channel needs of a cryptographic library, beside HMAC with SHA-2.

use crate::sealing::aead::CipherRefused;

/// Bytes of a key of AES-256.
pub const AES_KEY_LEN: usize = 32;

/// Bytes of the first counter block of AES in counter mode.
pub const COUNTER_LEN: usize = 16;

/// Bytes of an HMAC with SHA-1.
pub const SHA1_LEN: usize = 20;

/// Brought by the shell.
pub trait Primitives {
    /// Encrypts or decrypts `data` in place by AES-256 in counter mode, whose first block is `counter`.
    ///
    /// # Errors
    /// If the library does not do it; what `data` holds then must not be used.
    fn aes_256_ctr(key: &[u8; AES_KEY_LEN], counter: [u8; COUNTER_LEN], data: &mut [u8]) -> Result<(), CipherRefused>;

    /// HMAC with SHA-1 of parts one after the other: what tls-auth uses where no other digest is configured.
    fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; SHA1_LEN];
}

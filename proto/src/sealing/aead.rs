//! The one thing the core needs from a cryptographic library.

use super::suite::Suite;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;

/// Bytes of a tag: every format has the full one.
pub const TAG_LEN: usize = 16;

/// The library would not take a key, or could not seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cipher refused its input")]
pub struct CipherRefused;

/// A ciphertext or its associated data is not what the peer sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct Forged;

/// A cipher under one key. Both operations work in place and take `&self`, so that several workers may seal with one
/// key.
pub trait Aead: Sized {
    /// Sets the cipher up; `key` has [`Suite::key_len`] bytes.
    ///
    /// # Errors
    /// If the library does not take the key.
    fn new(suite: Suite, key: &[u8]) -> Result<Self, CipherRefused>;

    /// Encrypts `buffer` in place and returns the tag over it and `associated_data`.
    ///
    /// # Errors
    /// If the library does not do it; `buffer` must not be sent then.
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        associated_data: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CipherRefused>;

    /// Decrypts `buffer`, ciphertext and then tag, in place: the plaintext stands where the ciphertext stood.
    ///
    /// # Errors
    /// If the tag does not fit; what `buffer` holds then must not be used.
    fn open(&self, nonce: [u8; NONCE_LEN], associated_data: &[u8], buffer: &mut [u8]) -> Result<(), Forged>;
}

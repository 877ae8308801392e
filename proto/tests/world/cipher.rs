//! A real cipher that notes every nonce it seals with.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use adit_proto::sealing::aead::{Aead, CipherRefused, Forged, NONCE_LEN};
use adit_proto::sealing::suite::Suite;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

thread_local! {
    /// What was sealed with in this scenario: keys and nonces.
    static USED: RefCell<HashSet<(Vec<u8>, [u8; NONCE_LEN])>> = RefCell::default();
    static USED_TWICE: Cell<bool> = const { Cell::new(false) };
}

/// Begins a scenario: nothing was sealed yet.
pub(crate) fn forget_nonces() {
    USED.with_borrow_mut(HashSet::clear);
    USED_TWICE.set(false);
}

/// Whether a key has sealed two datagrams with the same nonce.
pub(crate) fn a_nonce_was_used_twice() -> bool {
    USED_TWICE.get()
}

/// The cipher of both ends.
pub(crate) struct NotingCipher {
    name: Vec<u8>,
    key: LessSafeKey,
}

impl Aead for NotingCipher {
    fn new(suite: Suite, key: &[u8]) -> Result<Self, CipherRefused> {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let unbound = UnboundKey::new(algorithm, key).map_err(|_| CipherRefused)?;
        Ok(Self { name: key.to_vec(), key: LessSafeKey::new(unbound) })
    }

    fn seal(&self, nonce: [u8; NONCE_LEN], associated: &[u8], buffer: &mut [u8]) -> Result<[u8; 16], CipherRefused> {
        let is_new = USED.with_borrow_mut(|used| used.insert((self.name.clone(), nonce)));
        USED_TWICE.set(USED_TWICE.get() || !is_new);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag =
            self.key.seal_in_place_separate_tag(nonce, Aad::from(associated), buffer).map_err(|_| CipherRefused)?;
        tag.as_ref().try_into().map_err(|_| CipherRefused)
    }

    fn open(&self, nonce: [u8; NONCE_LEN], associated: &[u8], buffer: &mut [u8]) -> Result<(), Forged> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.open_in_place(nonce, Aad::from(associated), buffer).map(|_plaintext| ()).map_err(|_| Forged)
    }
}

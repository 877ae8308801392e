//! The ciphers and how much one key may protect.

/// Bytes of the longest key.
pub const MAX_KEY_LEN: usize = 32;

/// Bytes of an AES block.
const BLOCK_LEN: usize = 16;

/// An AEAD that protects datagrams, each with 16 bytes of tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// AES-256-GCM ; the default.
    Aes256Gcm,
    /// AES-128-GCM.
    Aes128Gcm,
    /// ChaCha20-Poly1305; for processors without AES.
    ChaCha20Poly1305,
}

impl Suite {
    /// Every suite, the preferred one first.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// The number of the suite in negotiation and key derivation of ESP.
    pub const fn code(self) -> u16 {
        match self {
            Self::Aes256Gcm => 1,
            Self::Aes128Gcm => 2,
            Self::ChaCha20Poly1305 => 3,
        }
    }

    /// The suite of a number; `None` if it is unknown.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.code() == code)
    }

    /// The stable name of the suite, as status and logs show it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// Bytes of a key, without the salt.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
            Self::Aes128Gcm => 16,
        }
    }

    /// The last sequence number a key may protect; sealing stops there whatever happens.
    ///
    /// GCM: below 2^32 packets, the bound of SP 800-38D section 8.3 for one key, far above the trigger of
    /// [`crate::esp::lifetime::RekeyPolicy`] and far below a wrap of the nonce. ChaCha20-Poly1305 has no such bound
    /// (RFC 9001 section 6.6); 2^48 only keeps the number away from its end.
    pub const fn last_sequence(self) -> u64 {
        match self {
            Self::Aes256Gcm | Self::Aes128Gcm => (1 << 32) - 1,
            Self::ChaCha20Poly1305 => (1 << 48) - 1,
        }
    }

    /// The most cipher blocks of 16 bytes that one key may protect: 2^36 for AES, so that an attacker's advantage over
    /// a random permutation stays below 2^-57 (RFC 9001 appendix B). No bound of its own for ChaCha20.
    pub const fn max_blocks(self) -> u64 {
        match self {
            Self::Aes256Gcm | Self::Aes128Gcm => 1 << 36,
            Self::ChaCha20Poly1305 => u64::MAX,
        }
    }

    /// The failed authentications after which a receiver gives a key up: 2^36, the integrity limit of ChaCha20-Poly1305
    /// (RFC 9001 section 6.6), which is stricter than GCM's and holds for all.
    pub const fn max_failures(self) -> u64 {
        1 << 36
    }

    /// Cipher blocks of `plaintext` bytes, tag block included.
    #[inline]
    pub const fn blocks(plaintext: usize) -> u64 {
        plaintext.div_ceil(BLOCK_LEN).saturating_add(1) as u64
    }
}

impl std::fmt::Display for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_and_distinct() {
        assert_eq!(Suite::ALL.map(Suite::code), [1, 2, 3]);
        assert!(Suite::ALL.into_iter().all(|suite| Suite::from_code(suite.code()) == Some(suite)));
        assert_eq!([0, 4, u16::MAX].map(Suite::from_code), [None; 3]);
    }

    #[test]
    fn no_key_outgrows_its_room() {
        assert!(Suite::ALL.into_iter().all(|suite| suite.key_len() <= MAX_KEY_LEN));
    }

    #[test]
    fn blocks_count_the_ciphertext_and_the_tag() {
        assert_eq!([4, 16, 20].map(Suite::blocks), [2, 2, 3]);
    }
}

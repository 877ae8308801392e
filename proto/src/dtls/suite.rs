//! The cipher suites: what their numbers mean for keys and records.

use super::record::HEADER_LEN;
use crate::sealing::aead::TAG_LEN;
use crate::sealing::suite::Suite;

/// Bytes of the nonce that AES-GCM has on the wire (RFC 5288 section 3).
pub const EXPLICIT_NONCE_LEN: usize = 8;

/// The hash of a suite's key derivation and transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashFunction {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
}

/// A cipher suite. Those of pre-shared keys are for whole handshakes; of the others only cipher and hash count, as
/// their sessions are resumed and no certificate is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherSuite {
    /// TLS_PSK_WITH_AES_256_GCM_SHA384 (RFC 5487).
    PskAes256Gcm,
    /// TLS_PSK_WITH_AES_128_GCM_SHA256 (RFC 5487).
    PskAes128Gcm,
    /// TLS_PSK_WITH_CHACHA20_POLY1305_SHA256 (RFC 7905).
    PskChaCha20Poly1305,
    /// TLS_RSA_WITH_AES_256_GCM_SHA384 (RFC 5288).
    RsaAes256Gcm,
    /// TLS_RSA_WITH_AES_128_GCM_SHA256 (RFC 5288).
    RsaAes128Gcm,
    /// TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 (RFC 5289).
    EcdheRsaAes256Gcm,
    /// TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 (RFC 5289).
    EcdheRsaAes128Gcm,
}

impl CipherSuite {
    /// The suites of pre-shared keys, the preferred one first.
    pub const PSK: [Self; 3] = [Self::PskAes256Gcm, Self::PskChaCha20Poly1305, Self::PskAes128Gcm];

    /// The suites of resumed sessions, the preferred one first.
    pub const RESUMED: [Self; 4] =
        [Self::EcdheRsaAes256Gcm, Self::EcdheRsaAes128Gcm, Self::RsaAes256Gcm, Self::RsaAes128Gcm];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::PskAes256Gcm => 0x00a9,
            Self::PskAes128Gcm => 0x00a8,
            Self::PskChaCha20Poly1305 => 0xccab,
            Self::RsaAes256Gcm => 0x009d,
            Self::RsaAes128Gcm => 0x009c,
            Self::EcdheRsaAes256Gcm => 0xc030,
            Self::EcdheRsaAes128Gcm => 0xc02f,
        }
    }

    /// The suite with that number; `None` if it is not one of these.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::PSK.into_iter().chain(Self::RESUMED).find(|suite| suite.code() == code)
    }

    /// The name by which headers such as `X-DTLS12-CipherSuite` choose it: OpenSSL's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PskAes256Gcm => "PSK-AES256-GCM-SHA384",
            Self::PskAes128Gcm => "PSK-AES128-GCM-SHA256",
            Self::PskChaCha20Poly1305 => "PSK-CHACHA20-POLY1305",
            Self::RsaAes256Gcm => "AES256-GCM-SHA384",
            Self::RsaAes128Gcm => "AES128-GCM-SHA256",
            Self::EcdheRsaAes256Gcm => "ECDHE-RSA-AES256-GCM-SHA384",
            Self::EcdheRsaAes128Gcm => "ECDHE-RSA-AES128-GCM-SHA256",
        }
    }

    /// The cipher.
    pub const fn aead(self) -> Suite {
        match self {
            Self::PskAes256Gcm | Self::RsaAes256Gcm | Self::EcdheRsaAes256Gcm => Suite::Aes256Gcm,
            Self::PskAes128Gcm | Self::RsaAes128Gcm | Self::EcdheRsaAes128Gcm => Suite::Aes128Gcm,
            Self::PskChaCha20Poly1305 => Suite::ChaCha20Poly1305,
        }
    }

    /// The hash of key derivation and transcript.
    pub const fn hash(self) -> HashFunction {
        match self.aead() {
            Suite::Aes256Gcm => HashFunction::Sha384,
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => HashFunction::Sha256,
        }
    }

    /// Bytes of the part of a nonce that comes from the keys: the whole of it for ChaCha20-Poly1305, which is combined
    /// with the record's number (RFC 7905 section 2), and its beginning for AES-GCM (RFC 5288 section 3).
    pub const fn iv_len(self) -> usize {
        match self.aead() {
            Suite::Aes256Gcm | Suite::Aes128Gcm => 4,
            Suite::ChaCha20Poly1305 => 12,
        }
    }

    /// Bytes of the nonce that stand in front of the ciphertext.
    pub const fn explicit_nonce_len(self) -> usize {
        match self.aead() {
            Suite::Aes256Gcm | Suite::Aes128Gcm => EXPLICIT_NONCE_LEN,
            Suite::ChaCha20Poly1305 => 0,
        }
    }

    /// Bytes in front of the plaintext of a sealed record: the headroom that a slot needs.
    pub const fn prefix_len(self) -> usize {
        HEADER_LEN.saturating_add(self.explicit_nonce_len())
    }

    /// Bytes of the record that carries `plaintext` bytes.
    pub const fn sealed_len(self, plaintext: usize) -> usize {
        self.prefix_len().saturating_add(plaintext).saturating_add(TAG_LEN)
    }

    /// Most bytes of plaintext that a datagram of that many bytes carries in one record.
    pub const fn largest_plaintext(self, datagram: usize) -> usize {
        datagram.saturating_sub(self.prefix_len().saturating_add(TAG_LEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_registry() {
        assert_eq!(CipherSuite::PSK.map(CipherSuite::code), [0xa9, 0xccab, 0xa8]);
        assert_eq!(CipherSuite::RESUMED.map(CipherSuite::code), [0xc030, 0xc02f, 0x9d, 0x9c]);
        for suite in CipherSuite::PSK.into_iter().chain(CipherSuite::RESUMED) {
            assert_eq!(CipherSuite::from_code(suite.code()), Some(suite));
        }
        assert_eq!([0, 0x00ff, 0xc0a8].map(CipherSuite::from_code), [None; 3]);
    }

    #[test]
    fn hash_is_the_one_in_the_name() {
        for suite in CipherSuite::PSK.into_iter().chain(CipherSuite::RESUMED) {
            assert_eq!(suite.hash() == HashFunction::Sha384, suite.name().ends_with("SHA384"), "{}", suite.name());
        }
    }

    #[test]
    fn overhead_is_37_bytes_with_gcm_and_29_with_chacha() {
        assert_eq!(CipherSuite::PskAes256Gcm.sealed_len(0), 37);
        assert_eq!(CipherSuite::PskChaCha20Poly1305.sealed_len(0), 29);
        assert_eq!(CipherSuite::PskAes256Gcm.largest_plaintext(1472), 1435, "1434 and the byte of AnyConnect's type");
        assert_eq!(CipherSuite::PskAes256Gcm.largest_plaintext(20), 0);
    }
}

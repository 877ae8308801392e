//! Where the keys of DTLS records come from, as a client's request and the answer to it agree on that.

use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::Zeroizing;

use super::PSK_NEGOTIATE;
use crate::anyconnect::record;
use crate::dtls::secret::MASTER_LEN;
use crate::dtls::suite::CipherSuite;
use crate::http::field::{self, Field};

/// The header in which Cisco's clients name suites of DTLS 1.2.
const CISCO: &str = "X-DTLS12-CipherSuite";
/// The header in which all others do.
const OTHERS: &str = "X-DTLS-CipherSuite";
/// Largest datagram of a link of usual size, in bytes, whatever the family of its addresses.
const DATAGRAM: usize = 1452;

/// What both ends know before the handshake. It may be a secret, so it has no `Debug`.
#[derive(Clone)]
pub enum Keying {
    /// A pre-shared key, which they take from the TLS connection.
    PreSharedKey,
    /// The master secret of a session that they resume though neither was in it before. The client has told it.
    Resumed {
        /// The secret.
        master: Zeroizing<[u8; MASTER_LEN]>,
        /// The session's suite.
        suite: NamedSuite,
    },
}

impl Keying {
    /// The best of what a request allows for; `None` if it allows for none that this gateway knows.
    pub(super) fn of(fields: &[Field]) -> Option<Self> {
        let allows = |header: &str, name: &str| {
            let names = field::value(fields, &header.to_ascii_lowercase()).unwrap_or_default();
            names.split(':').any(|named| named.trim() == name)
        };
        if allows(OTHERS, PSK_NEGOTIATE) {
            return Some(Self::PreSharedKey);
        }
        let suite = NamedSuite::ALL.into_iter().find(|suite| allows(suite.header, suite.name))?;
        Some(Self::Resumed { master: master_secret(field::value(fields, "x-dtls-master-secret")?)?, suite })
    }

    /// The suite of the session that is resumed, if one is.
    pub const fn resumed(&self) -> Option<NamedSuite> {
        match self {
            Self::PreSharedKey => None,
            Self::Resumed { suite, .. } => Some(*suite),
        }
    }
}

fn master_secret(hex: &str) -> Option<Zeroizing<[u8; MASTER_LEN]>> {
    let mut master = Zeroizing::new([0; MASTER_LEN]);
    if hex.len() != 2 * MASTER_LEN {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode_mut(hex.as_bytes(), master.as_mut_slice()).ok()?;
    Some(master)
}

/// A suite for a resumed session, as headers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedSuite {
    /// The header in which client and gateway name it.
    pub header: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// What it is.
    pub suite: CipherSuite,
}

impl NamedSuite {
    /// The preferred ones first. The names of the last are those of OpenConnect before version 7.08.
    pub const ALL: [Self; 6] = [
        Self::of_cisco(CipherSuite::EcdheRsaAes256Gcm),
        Self::of_cisco(CipherSuite::EcdheRsaAes128Gcm),
        Self::of_cisco(CipherSuite::RsaAes256Gcm),
        Self::of_cisco(CipherSuite::RsaAes128Gcm),
        Self { header: OTHERS, name: "OC-DTLS1_2-AES256-GCM", suite: CipherSuite::RsaAes256Gcm },
        Self { header: OTHERS, name: "OC-DTLS1_2-AES128-GCM", suite: CipherSuite::RsaAes128Gcm },
    ];

    const fn of_cisco(suite: CipherSuite) -> Self {
        Self { header: CISCO, name: suite.name(), suite }
    }

    /// Largest packet that a record takes on a link of usual size, in bytes.
    pub(super) fn largest_packet(self) -> u16 {
        let packet = self.suite.largest_plaintext(DATAGRAM).saturating_sub(record::HEAD_LEN);
        u16::try_from(packet).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resumed(pairs: &[(&str, &str)]) -> Option<(&'static str, CipherSuite, [u8; MASTER_LEN])> {
        let fields: Vec<Field> = pairs.iter().map(|(name, value)| Field::new(*name, *value)).collect();
        match Keying::of(&fields)? {
            Keying::PreSharedKey => panic!("there is nothing of a pre-shared key"),
            Keying::Resumed { master, suite } => Some((suite.name, suite.suite, *master)),
        }
    }

    #[test]
    fn client_without_a_pre_shared_key_resumes_with_the_best_suite_that_it_names() {
        let (secret, bytes) = ("3C".repeat(MASTER_LEN), [0x3c; MASTER_LEN]);
        let with = |header, suites| resumed(&[("x-dtls-master-secret", &secret), (header, suites)]);
        // As newer clients of Cisco, and as OpenConnect 7.07.
        let cisco = "AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-SHA";
        let best = ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::EcdheRsaAes128Gcm, bytes);
        assert_eq!(with("x-dtls12-ciphersuite", cisco), Some(best));
        let old = "OC-DTLS1_2-AES256-GCM:OC-DTLS1_2-AES128-GCM:AES128-SHA";
        let best = ("OC-DTLS1_2-AES256-GCM", CipherSuite::RsaAes256Gcm, bytes);
        assert_eq!(with("x-dtls-ciphersuite", old), Some(best));
        assert_eq!(with("x-dtls-ciphersuite", "AES256-SHA:AES128-SHA"), None, "nothing of DTLS 1.2");
        assert_eq!(with("x-dtls12-ciphersuite", "OC-DTLS1_2-AES256-GCM"), None, "in the other header");
    }

    #[test]
    fn secret_that_is_none_resumes_nothing() {
        let with = |secret: &str| {
            resumed(&[("x-dtls-master-secret", secret), ("x-dtls12-ciphersuite", "AES256-GCM-SHA384")]).is_some()
        };
        assert!(with(&"0f".repeat(MASTER_LEN)), "the positive control");
        for secret in ["", "0f", &"0f".repeat(MASTER_LEN + 1), &"0f".repeat(MASTER_LEN - 1), &"0g".repeat(MASTER_LEN)] {
            assert!(!with(secret), "{secret}");
        }
        assert_eq!(resumed(&[("x-dtls12-ciphersuite", "AES256-GCM-SHA384")]), None, "without one");
    }
}

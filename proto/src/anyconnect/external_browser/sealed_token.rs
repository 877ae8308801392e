//! A token as a browser brings it to a client: sealed by the gateway, so that this client alone opens it (`AC_ECIES`).
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 2 | version, 1 |
//! | 2, 2, n | number, length and value of each part, in any order |
//!
//! | part | value |
//! | --- | --- |
//! | 1 | public key of the gateway, made for this token, as SubjectPublicKeyInfo (91 bytes) |
//! | 2 | the first bytes of the tag (12) |
//! | 3 | the token, encrypted by AES-256-GCM |
//! | 4 | nonce (12) |
//!
//! All numbers are big-endian. The key of the cipher has 32 bytes: HKDF-SHA-256 over the secret that ECDH on P-256
//! gives, without salt, info `AC_ECIES`.

use data_encoding::BASE64;
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::AgreementKey;
use crate::anyconnect::form_body;
use crate::sealing::aead::{Aead, CipherRefused, NONCE_LEN};
use crate::sealing::suite::Suite;

/// Longest token, in bytes.
pub const MAX_TOKEN: usize = 1024;

/// Longest sealed token that is read, in bytes: more than any gateway sends.
const MAX_SEALED: usize = 4096;
const VERSION: [u8; 2] = [0, 1];
const GATEWAYS_KEY: [u8; 2] = [0, 1];
const TAG: [u8; 2] = [0, 2];
const ENCRYPTED: [u8; 2] = [0, 3];
const NONCE: [u8; 2] = [0, 4];
/// What the key is derived for.
const KEY_INFO: &[u8] = b"AC_ECIES";
/// Bytes of the tag that are sent.
const SENT_TAG: usize = 12;

/// A token that is sealed for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedToken {
    gateways_key: AgreementKey,
    tag: [u8; SENT_TAG],
    encrypted: Vec<u8>,
    nonce: [u8; NONCE_LEN],
}

impl SealedToken {
    /// Seals a token. `secret` is what the client's key and the private half of `ours` agree on; both that key pair and
    /// the secret are for this token alone, so any nonce is new.
    ///
    /// # Errors
    /// The token is longer than [`MAX_TOKEN`], or the cipher does not do it.
    pub(super) fn seal<A: Aead>(
        token: &str,
        secret: &[u8],
        ours: &AgreementKey,
        nonce: [u8; NONCE_LEN],
    ) -> Result<Self, CipherRefused> {
        if token.len() > MAX_TOKEN {
            return Err(CipherRefused);
        }
        let mut encrypted = token.as_bytes().to_vec();
        let tag = cipher::<A>(secret)?.seal(nonce, &[], &mut encrypted)?;
        let (tag, _unsent) = tag.split_first_chunk::<SENT_TAG>().ok_or(CipherRefused)?;
        Ok(Self { gateways_key: *ours, tag: *tag, encrypted, nonce })
    }

    /// The gateway's key, on which and its own private key the client agrees on the secret.
    pub const fn gateways_key(&self) -> &AgreementKey {
        &self.gateways_key
    }

    /// What was sealed, with the secret of [`Self::gateways_key`]; `None` if it was sealed with another one.
    ///
    /// Only a part of the tag is there. Encrypting what was encrypted gives the text back, as the key stream is the
    /// same; encrypting that again gives the whole tag.
    pub fn open<A: Aead>(&self, secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let cipher = cipher::<A>(secret).ok()?;
        let mut text = Zeroizing::new(self.encrypted.clone());
        let _tag_of_nothing = cipher.seal(self.nonce, &[], &mut text).ok()?;
        let mut again = text.clone();
        let tag = cipher.seal(self.nonce, &[], &mut again).ok()?;
        let (tag, _unsent) = tag.split_first_chunk::<SENT_TAG>()?;
        bool::from(tag.as_slice().ct_eq(self.tag.as_slice())).then_some(text)
    }

    /// As it stands in the path of a URL: base64, with what has a meaning in URLs escaped.
    pub(super) fn encode(&self) -> String {
        let spki = self.gateways_key.spki();
        let parts: [([u8; 2], &[u8]); 4] =
            [(GATEWAYS_KEY, &spki), (TAG, &self.tag), (ENCRYPTED, &self.encrypted), (NONCE, &self.nonce)];
        let mut bytes = VERSION.to_vec();
        for (number, value) in parts {
            // No part is longer than a token.
            let [.., high, low] = value.len().to_be_bytes();
            bytes.extend([number, [high, low]].as_flattened());
            bytes.extend(value);
        }
        BASE64.encode(&bytes).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
    }

    /// Reads what stands in the path of a URL; `None` if that is no sealed token.
    pub fn decode(path: &str) -> Option<Self> {
        let fields = form_body::read(format!("sealed={path}").as_bytes())?;
        // The plus of base64 is a space in forms.
        let text = fields.first().map(|(_, text)| text.replace(' ', "+"))?;
        Self::of_bytes(&BASE64.decode(text.as_bytes()).ok()?)
    }

    /// `None` if a part is missing, doubled, or of no use. Parts that nobody knows are passed over.
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = Some(bytes).filter(|bytes| bytes.len() <= MAX_SEALED)?.strip_prefix(&VERSION)?;
        let mut parts: [Option<&[u8]>; 4] = [None; 4];
        while !rest.is_empty() {
            let (number, after) = rest.split_first_chunk::<2>()?;
            let (length, after) = after.split_first_chunk::<2>()?;
            let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let known =
                [GATEWAYS_KEY, TAG, ENCRYPTED, NONCE].iter().zip(&mut parts).find(|(known, _)| *known == number);
            if let Some((_, part)) = known
                && part.replace(value).is_some()
            {
                return None;
            }
            rest = after;
        }
        let [Some(key), Some(tag), Some(encrypted), Some(nonce)] = parts else { return None };
        let (tag, nonce) = (tag.try_into().ok()?, nonce.try_into().ok()?);
        let encrypted = Some(encrypted).filter(|token| token.len() <= MAX_TOKEN)?.to_owned();
        Some(Self { gateways_key: AgreementKey::of_spki(key)?, tag, encrypted, nonce })
    }
}

/// The cipher under the key that a secret gives.
fn cipher<A: Aead>(secret: &[u8]) -> Result<A, CipherRefused> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, secret).expand(KEY_INFO, key.as_mut_slice()).map_err(|_too_long| CipherRefused)?;
    A::new(Suite::Aes256Gcm, key.as_slice())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sealing::test_cipher::AwsCipher;

    const SECRET: &[u8] = b"what both keys agree on";

    fn part(number: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        [&number.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
    }

    /// Any key: nobody agrees on anything with it here.
    fn key() -> AgreementKey {
        AgreementKey::of_point(&[&[4][..], &[7; 64]].concat()).unwrap()
    }

    fn parts() -> [Vec<u8>; 4] {
        [part(1, &key().spki()), part(2, &[2; SENT_TAG]), part(3, b"sealed"), part(4, &[4; NONCE_LEN])]
    }

    fn read(parts: &[Vec<u8>]) -> Option<SealedToken> {
        SealedToken::of_bytes(&[VERSION.to_vec(), parts.concat()].concat())
    }

    #[test]
    fn what_the_gateway_writes_the_client_reads_and_opens() {
        for token in ["t", "Abc123Xyz", &"a".repeat(MAX_TOKEN)] {
            let sealed = SealedToken::seal::<AwsCipher>(token, SECRET, &key(), [9; NONCE_LEN]).unwrap();
            let read = SealedToken::decode(&sealed.encode()).unwrap();
            assert_eq!((read.gateways_key(), &read), (&key(), &sealed));
            assert_eq!(read.open::<AwsCipher>(SECRET).unwrap().as_slice(), token.as_bytes());
            assert!(read.open::<AwsCipher>(b"another secret").is_none());
            let plain = sealed.encode().replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
            assert_eq!(SealedToken::decode(&plain).unwrap(), sealed, "also without escapes");
            let escaped: String = plain.bytes().map(|byte| format!("%{byte:02X}")).collect();
            assert_eq!(SealedToken::decode(&escaped).unwrap(), sealed, "also with more of them");
        }
        let long = "a".repeat(MAX_TOKEN + 1);
        assert!(SealedToken::seal::<AwsCipher>(&long, SECRET, &key(), [9; NONCE_LEN]).is_err());
    }

    #[test]
    fn what_was_changed_is_not_opened() {
        let sealed = SealedToken::seal::<AwsCipher>("t0ken", SECRET, &key(), [9; NONCE_LEN]).unwrap();
        assert!(sealed.open::<AwsCipher>(SECRET).is_some(), "the positive control");
        let changed = |change: &dyn Fn(&mut SealedToken)| {
            let mut sealed = sealed.clone();
            change(&mut sealed);
            sealed.open::<AwsCipher>(SECRET)
        };
        for position in 0..SENT_TAG {
            assert!(changed(&|sealed| sealed.tag[position] ^= 1).is_none(), "tag, {position}");
            assert!(changed(&|sealed| sealed.nonce[position] ^= 1).is_none(), "nonce, {position}");
        }
        for position in 0..sealed.encrypted.len() {
            assert!(changed(&|sealed| sealed.encrypted[position] ^= 1).is_none(), "token, {position}");
        }
        assert!(changed(&|sealed| sealed.encrypted.truncate(4)).is_none());
    }

    #[test]
    fn parts_are_read_in_any_order_and_others_passed_over() {
        let sealed = SealedToken {
            gateways_key: key(),
            tag: [2; SENT_TAG],
            encrypted: b"sealed".to_vec(),
            nonce: [4; NONCE_LEN],
        };
        let [one, two, three, four] = parts();
        assert_eq!(read(&parts()), Some(sealed.clone()));
        assert_eq!(read(&[four, three, part(9, b"new"), two, one]), Some(sealed));
    }

    #[test]
    fn sealed_token_that_is_not_whole_is_none() {
        let whole = [VERSION.to_vec(), parts().concat()].concat();
        assert!(SealedToken::of_bytes(&whole).is_some(), "the positive control");
        for length in 0..whole.len() {
            assert_eq!(SealedToken::of_bytes(&whole[..length]), None, "{length}");
        }
        for missing in 0..4 {
            let mut parts = parts().to_vec();
            parts.remove(missing);
            assert_eq!(read(&parts), None);
        }
        let [one, two, three, four] = parts();
        assert_eq!(read(&[one.clone(), one.clone(), two.clone(), three.clone(), four.clone()]), None, "doubled");
        assert_eq!(read(&[one.clone(), part(2, &[2; 16]), three.clone(), four.clone()]), None, "a tag that is not cut");
        assert_eq!(read(&[one.clone(), two.clone(), three.clone(), part(4, &[4; 8])]), None, "no nonce");
        assert_eq!(read(&[one, two.clone(), part(3, &[0; MAX_TOKEN + 1]), four.clone()]), None, "a long token");
        assert_eq!(read(&[part(1, b"no key"), two, three, four]), None);
        assert_eq!(SealedToken::of_bytes(&[&[0, 2], &whole[2..]].concat()), None, "another version");
        let long = part(9, &[0; MAX_SEALED]);
        assert_eq!(read(&[parts().to_vec(), vec![long]].concat()), None, "too long");
    }

    proptest! {
        #[test]
        fn nothing_disturbs_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200), path in "\\PC{0,140}") {
            drop(SealedToken::of_bytes(&[VERSION.to_vec(), bytes].concat()));
            drop(SealedToken::decode(&path));
        }
    }
}

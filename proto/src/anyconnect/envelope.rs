//! The envelope in which a browser brings a client the token of its login, sealed so that the client alone opens it
//! (`AC_ECIES`).
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 2 | version, 1 |
//! | 2, 2, n | tag, length and value of each part, in any order |
//!
//! All numbers are big-endian.

/// Longest envelope, in bytes: more than any token needs.
pub const MAX_ENVELOPE: usize = 4096;

const VERSION: [u8; 2] = [0, 1];
const PEER_KEY: [u8; 2] = [0, 1];
const SEAL: [u8; 2] = [0, 2];
const SEALED: [u8; 2] = [0, 3];
const NONCE: [u8; 2] = [0, 4];

/// What the key is derived for (HKDF-SHA256, without a salt).
pub const INFO: &[u8] = b"AC_ECIES";
/// Bytes of the tag of AES-256-GCM that are kept.
pub const SEAL_LEN: usize = 12;

/// What is in an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The gateway's key for this envelope alone, of P-256, as SubjectPublicKeyInfo.
    pub peer_key: Vec<u8>,
    /// The tag that vouches for it.
    pub seal: [u8; SEAL_LEN],
    /// The token, sealed.
    pub sealed: Vec<u8>,
    /// The nonce that it is sealed with.
    pub nonce: [u8; 12],
}

impl Envelope {
    /// Reads an envelope; `None` if a part is missing, doubled, or of no use. Parts that nobody knows are passed over.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Some(bytes).filter(|bytes| bytes.len() <= MAX_ENVELOPE)?.strip_prefix(&VERSION)?;
        let mut parts: [Option<&[u8]>; 4] = [None; 4];
        while !rest.is_empty() {
            let (tag, after) = rest.split_first_chunk::<2>()?;
            let (length, after) = after.split_first_chunk::<2>()?;
            let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let known = [PEER_KEY, SEAL, SEALED, NONCE].iter().zip(&mut parts).find(|(known, _)| *known == tag);
            if let Some((_, part)) = known
                && part.replace(value).is_some()
            {
                return None;
            }
            rest = after;
        }
        let [Some(peer_key), Some(seal), Some(sealed), Some(nonce)] = parts else { return None };
        let (seal, nonce) = (seal.try_into().ok()?, nonce.try_into().ok()?);
        Some(Self { peer_key: peer_key.to_owned(), seal, sealed: sealed.to_owned(), nonce })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(tag: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        [&tag.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
    }

    fn parts() -> [Vec<u8>; 4] {
        [part(1, b"key"), part(2, &[2; SEAL_LEN]), part(3, b"sealed"), part(4, &[4; 12])]
    }

    fn decoded(parts: &[Vec<u8>]) -> Option<Envelope> {
        Envelope::decode(&[VERSION.to_vec(), parts.concat()].concat())
    }

    #[test]
    fn parts_are_read_in_any_order_and_others_passed_over() {
        let envelope =
            Envelope { peer_key: b"key".to_vec(), seal: [2; SEAL_LEN], sealed: b"sealed".to_vec(), nonce: [4; 12] };
        let [one, two, three, four] = parts();
        assert_eq!(decoded(&parts()), Some(envelope.clone()));
        assert_eq!(decoded(&[four, three, part(9, b"new"), two, one]), Some(envelope));
    }

    #[test]
    fn envelope_that_is_not_whole_is_none() {
        let whole = [VERSION.to_vec(), parts().concat()].concat();
        for length in 0..whole.len() {
            assert_eq!(Envelope::decode(&whole[..length]), None, "{length}");
        }
        for missing in 0..4 {
            let mut parts = parts().to_vec();
            parts.remove(missing);
            assert_eq!(decoded(&parts), None);
        }
        let [one, two, three, four] = parts();
        assert_eq!(decoded(&[one.clone(), one.clone(), two.clone(), three.clone(), four.clone()]), None, "doubled");
        assert_eq!(decoded(&[one.clone(), part(2, &[2; 16]), three.clone(), four]), None, "a tag that is not cut");
        assert_eq!(decoded(&[one, two, three, part(4, &[4; 8])]), None, "no nonce");
        assert_eq!(Envelope::decode(&[&[0, 2], &whole[2..]].concat()), None, "another version");
        let long = part(9, &[0; MAX_ENVELOPE]);
        assert_eq!(decoded(&[parts().to_vec(), vec![long]].concat()), None, "too long");
    }

    proptest! {
        #[test]
        fn nothing_disturbs_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Envelope::decode(&[VERSION.to_vec(), bytes].concat()));
        }
    }
}

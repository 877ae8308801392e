//! Variable-length integers of QUIC (RFC 9000 section 16), used by HTTP/3 frames, capsules and datagrams.
//!
//! ```text
//! first two bits   bytes   largest value
//!       00           1     63
//!       01           2     16,383
//!       10           4     1,073,741,823
//!       11           8     4,611,686,018,427,387,903
//! ```

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

pub(crate) mod element;

/// Largest value a variable-length integer can hold: 2^62 - 1 (RFC 9000 section 16).
pub const MAX: u64 = (1 << 62) - 1;

/// Largest value of one, two and four bytes (RFC 9000 table 4).
const MAX_1: u64 = (1 << 6) - 1;
const MAX_2: u64 = (1 << 14) - 1;
const MAX_4: u64 = (1 << 30) - 1;

/// Decodes the integer at the start of `bytes` and says how many bytes it took; `None` if `bytes` ends before it does.
///
/// Longer encodings than needed are accepted, as RFC 9000 section 16 asks.
#[inline]
pub fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    match bytes {
        // The identifiers in front of every packet are that small.
        [first @ ..=0x3f, ..] => Some((u64::from(*first), 1)),
        _ => decode_longer(bytes),
    }
}

/// As [`decode`], for integers of several bytes.
fn decode_longer(bytes: &[u8]) -> Option<(u64, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let following = (1_usize << (first >> 6)).checked_sub(1)?;
    let mut value = u64::from(first & 0x3f);
    for &byte in rest.get(..following)? {
        value = value << 8 | u64::from(byte);
    }
    Some((value, following.checked_add(1)?))
}

/// Takes the integer at the start of `bytes` off it; leaves `bytes` as it was and returns `None` if it ends too early.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (value, length) = decode(bytes)?;
    *bytes = bytes.get(length..)?;
    Some(value)
}

/// Appends the shortest encoding of `value` to `out`.
///
/// # Panics
/// If `value` exceeds [`MAX`].
pub fn encode(value: u64, out: &mut Vec<u8>) {
    assert!(value <= MAX, "{value} does not fit a variable-length integer");
    let length = encoded_len(value);
    let prefix = (length.trailing_zeros() as u64) << 62;
    let tagged = match length {
        1 => value << 56 | prefix,
        2 => value << 48 | prefix,
        4 => value << 32 | prefix,
        _ => value | prefix,
    };
    out.extend(tagged.to_be_bytes().iter().take(length));
}

/// Number of bytes of the shortest encoding of `value`: 1, 2, 4 or 8.
pub const fn encoded_len(value: u64) -> usize {
    if value <= MAX_1 {
        1
    } else if value <= MAX_2 {
        2
    } else if value <= MAX_4 {
        4
    } else {
        8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(value, &mut out);
        out
    }

    /// The examples of RFC 9000 appendix A.1.
    #[test]
    fn rfc_examples_decode() {
        let eight = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(decode(&eight), Some((151_288_809_941_952_652, 8)));
        assert_eq!(decode(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(decode(&[0x7b, 0xbd]), Some((15_293, 2)));
        assert_eq!(decode(&[0x25]), Some((37, 1)));
        assert_eq!(encoded(151_288_809_941_952_652), eight);
        assert_eq!(encoded(494_878_333), [0x9d, 0x7f, 0x3e, 0x7d]);
        assert_eq!(encoded(15_293), [0x7b, 0xbd]);
        assert_eq!(encoded(37), [0x25]);
    }

    #[test]
    fn longer_encoding_than_needed_is_accepted() {
        assert_eq!(decode(&[0x40, 0x25]), Some((37, 2)));
        assert_eq!(decode(&[0xc0, 0, 0, 0, 0, 0, 0, 0x25]), Some((37, 8)));
    }

    #[test]
    fn truncated_integer_is_not_decoded() {
        for whole in [&[0x40, 0x25][..], &[0x80, 0, 0, 1], &[0xc0, 0, 0, 0, 0, 0, 0, 1]] {
            for end in 0..whole.len() {
                assert_eq!(decode(whole.get(..end).unwrap()), None);
            }
        }
    }

    #[test]
    fn limits_of_each_length() {
        for (value, length) in [(63, 1), (64, 2), (16_383, 2), (16_384, 4), ((1 << 30) - 1, 4), (1 << 30, 8), (MAX, 8)]
        {
            assert_eq!(encoded_len(value), length);
            assert_eq!(encoded(value).len(), length);
            assert_eq!(decode(&encoded(value)), Some((value, length)));
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn too_large_value_is_not_encoded() {
        encoded(MAX + 1);
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=MAX, tail in proptest::collection::vec(any::<u8>(), 0..4)) {
            let mut bytes = encoded(value);
            let length = bytes.len();
            bytes.extend(tail);
            prop_assert_eq!(decode(&bytes), Some((value, length)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Some((value, length)) = decode(&bytes) {
                prop_assert!(value <= MAX && length <= bytes.len());
            }
        }
    }
}

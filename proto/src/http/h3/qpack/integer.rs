//! Integers that begin in the low bits of a byte (RFC 7541 section 5.1, which QPACK shares by RFC 9204 section 4.1.1).

use crate::varint;

/// Takes an integer whose first byte keeps it in its `bits` low bits; `None` if it ends early or exceeds 62 bits, the
/// most that RFC 9204 section 4.1.1 asks a decoder to take.
pub(super) fn take(bytes: &mut &[u8], bits: u32) -> Option<u64> {
    let (&first, mut rest) = bytes.split_first()?;
    let mask = mask(bits);
    let mut value = u64::from(first & mask);
    if first & mask == mask {
        let mut shift = 0_u32;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            let part = u64::from(byte & 0x7f);
            let shifted = part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
            value = value.checked_add(shifted).filter(|value| *value <= varint::MAX)?;
            if byte & 0x80 == 0 {
                break;
            }
            shift = shift.checked_add(7)?;
        }
    }
    *bytes = rest;
    Some(value)
}

/// Appends an integer in the `bits` low bits of a byte whose other bits are `pattern`.
pub(super) fn put(value: u64, pattern: u8, bits: u32, out: &mut Vec<u8>) {
    let mask = mask(bits);
    let Some(mut rest) = value.checked_sub(u64::from(mask)) else {
        out.push(pattern | low_byte(value));
        return;
    };
    out.push(pattern | mask);
    while rest >= 0x80 {
        out.push(low_byte(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

const fn low_byte(value: u64) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}

/// `bits` ones, for 1 to 8 bits.
const fn mask(bits: u32) -> u8 {
    u8::MAX.unbounded_shr(u8::BITS.saturating_sub(bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Examples of RFC 7541 appendix C.1.
    #[test]
    fn rfc_examples() {
        for (value, bits, coded) in [(10, 5, &[0x0a][..]), (1337, 5, &[0x1f, 0x9a, 0x0a]), (42, 8, &[0x2a])] {
            let mut out = Vec::new();
            put(value, 0, bits, &mut out);
            assert_eq!(out, coded);
            assert_eq!(take(&mut &*out, bits), Some(value));
        }
    }

    #[test]
    fn integer_cut_short_is_refused() {
        for bytes in [&[][..], &[0x1f], &[0x1f, 0x9a], &[0xff, 0x80]] {
            assert_eq!(take(&mut &*bytes, 5), None);
        }
    }

    #[test]
    fn integer_above_62_bits_is_refused() {
        let mut long = vec![0xff; 12];
        long.push(0);
        assert_eq!(take(&mut &*long, 5), None);
        let mut padded = vec![0x1f];
        padded.extend([0x80; 11]);
        padded.push(1);
        assert_eq!(take(&mut &*padded, 5), None);
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=varint::MAX, bits in 1_u32..=8) {
            let mut out = Vec::new();
            put(value, 0, bits, &mut out);
            out.push(0x55);
            let mut bytes = &*out;
            prop_assert_eq!(take(&mut bytes, bits), Some(value));
            prop_assert_eq!(bytes, [0x55]);
        }
    }
}

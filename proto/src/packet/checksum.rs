//! The Internet checksum (RFC 1071).

use std::net::Ipv6Addr;

/// A running ones' complement sum.
///
/// Every piece but the last must have an even length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksum(u64);

impl Checksum {
    /// Begins with a sum of zero.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Begins with the IPv6 pseudo-header (RFC 8200 section 8.1) of an upper-layer packet of `len` bytes.
    pub fn ipv6_pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, len: u32, protocol: u8) -> Self {
        Self::new()
            .with(&source.octets())
            .with(&destination.octets())
            .with(&len.to_be_bytes())
            .with(&u32::from(protocol).to_be_bytes())
    }

    /// Adds `bytes`; an odd last byte counts as if a zero followed it.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        // 32-bit words sum to the same value modulo 2^16 - 1 as 16-bit ones; 64 bits hold the carries of 2^32 of them.
        let (words, rest) = bytes.as_chunks::<4>();
        let sum = words.iter().fold(self.0, |sum, word| sum.wrapping_add(u64::from(u32::from_be_bytes(*word))));
        let last = match *rest {
            [a] => u32::from_be_bytes([a, 0, 0, 0]),
            [a, b] => u32::from_be_bytes([a, b, 0, 0]),
            [a, b, c] => u32::from_be_bytes([a, b, c, 0]),
            _ => 0,
        };
        Self(sum.wrapping_add(u64::from(last)))
    }

    /// The checksum to put into the header, or 0 when the sum covered a correct checksum already.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while let Some(carry) = Some(sum >> 16).filter(|carry| *carry != 0) {
            sum = (sum & 0xffff).wrapping_add(carry);
        }
        !u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 1, word by word with an end-around carry at each step.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u16;
        for pair in bytes.chunks(2) {
            let word = u16::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u16::from);
            let (total, carry) = sum.overflowing_add(word);
            sum = total + u16::from(carry);
        }
        !sum
    }

    #[test]
    fn rfc_1071_example() {
        let sum = Checksum::new().with(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).finish();
        assert_eq!(sum, !0xddf2);
    }

    proptest! {
        #[test]
        fn equals_the_naive_sum(bytes in prop::collection::vec(any::<u8>(), 0..2000), cut in 0..1000usize) {
            prop_assert_eq!(Checksum::new().with(&bytes).finish(), naive(&bytes));
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len() / 2 * 2));
            prop_assert_eq!(Checksum::new().with(head).with(tail).finish(), naive(&bytes));
        }
    }
}

//! The Internet checksum (RFC 1071).

use std::net::Ipv6Addr;

/// A running ones' complement sum.
///
/// Every piece but the last must have an even length. The sum is kept in the machine's byte order, which commutes with
/// it (RFC 1071 section 2 B), so that the bytes are summed as they lie in memory.
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

    /// Begins with the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1) of an upper-layer packet of `len`
    /// bytes.
    ///
    /// `addresses` are source and destination as they stand in the IP header. The two versions place length and
    /// protocol differently, which does not change the sum.
    pub fn pseudo_header(addresses: &[u8], len: u32, protocol: u8) -> Self {
        Self::new().with(addresses).with(&len.to_be_bytes()).with_word(u16::from(protocol))
    }

    /// Adds `bytes`; an odd last byte counts as if a zero followed it.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        // 32-bit words sum to the same value modulo 2^16 - 1 as 16-bit ones; 64 bits hold the carries of 2^32 of them.
        // Plain additions without end-around carry are what the compiler turns into vector instructions.
        let (words, rest) = bytes.as_chunks::<4>();
        let sum = words.iter().fold(self.0, |sum, word| sum.wrapping_add(u64::from(u32::from_ne_bytes(*word))));
        let last = match *rest {
            [a] => u32::from_ne_bytes([a, 0, 0, 0]),
            [a, b] => u32::from_ne_bytes([a, b, 0, 0]),
            [a, b, c] => u32::from_ne_bytes([a, b, c, 0]),
            _ => 0,
        };
        Self(sum.wrapping_add(u64::from(last)))
    }

    /// Adds one 16-bit word given as a number.
    #[must_use]
    pub const fn with_word(self, word: u16) -> Self {
        Self(self.0.wrapping_add(word.to_be() as u64))
    }

    /// The sum itself, as a partial checksum holds it until the rest is added.
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while let Some(carry) = Some(sum >> 16).filter(|carry| *carry != 0) {
            sum = (sum & 0xffff).wrapping_add(carry);
        }
        u16::from_be(u16::try_from(sum).unwrap_or(u16::MAX))
    }

    /// The checksum to put into the header, or 0 when the sum covered a correct checksum already.
    pub fn finish(self) -> u16 {
        !self.fold()
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

    #[test]
    fn pseudo_headers_of_both_versions_agree_with_their_layouts() {
        let (source, destination) = ([10, 64, 0, 2], [192, 0, 2, 1]);
        let laid_out = [&source[..], &destination, &[0, 6, 0x12, 0x34]].concat();
        let addresses = [source, destination].concat();
        assert_eq!(Checksum::pseudo_header(&addresses, 0x1234, 6).finish(), naive(&laid_out));
        let (source, destination) = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9), Ipv6Addr::LOCALHOST);
        let addresses = [source.octets(), destination.octets()].concat();
        let known = Checksum::ipv6_pseudo_header(source, destination, 0x1_0203, 17);
        assert_eq!(Checksum::pseudo_header(&addresses, 0x1_0203, 17).fold(), known.fold());
    }

    proptest! {
        #[test]
        fn word_is_two_bytes(bytes in prop::collection::vec(any::<u8>(), 0..50), word: u16) {
            let bytes = &bytes[..bytes.len() & !1];
            let sum = Checksum::new().with(bytes);
            prop_assert_eq!(sum.with_word(word).fold(), sum.with(&word.to_be_bytes()).fold());
            prop_assert_eq!(sum.fold(), !naive(bytes));
        }

        #[test]
        fn equals_the_naive_sum(bytes in prop::collection::vec(any::<u8>(), 0..2000), cut in 0..1000usize) {
            prop_assert_eq!(Checksum::new().with(&bytes).finish(), naive(&bytes));
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len() / 2 * 2));
            prop_assert_eq!(Checksum::new().with(head).with(tail).finish(), naive(&bytes));
        }
    }
}

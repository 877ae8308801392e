//! The layout of an ESP datagram (RFC 4303 section 2, with the IV of RFC 4106 section 3 and RFC 7634 section 2).
//!
//! ```text
//! SPI (4)  sequence low (4)  IV (8)
//!   AEAD( inner  padding 01 02 03 (0–3)  padding length (1)  next header (1) )  ICV (16)
//! ```
//!
//! The IV is the 64-bit extended sequence number. The associated data are SPI and extended sequence number, whose high
//! half is not in the header (RFC 4106 section 5).

use crate::drop_reason::DropReason;
use crate::sealing::aead::{NONCE_LEN, TAG_LEN};

/// Bytes of SPI and sequence number (RFC 4303 sections 2.1 and 2.2).
pub const HEADER_LEN: usize = 8;

/// Bytes of the explicit IV (RFC 4106 section 3.1).
pub const IV_LEN: usize = 8;

/// Bytes in front of the inner packet: the headroom a slot needs.
pub const PREFIX_LEN: usize = HEADER_LEN + IV_LEN;

/// Bytes of padding length and next header (RFC 4303 sections 2.5 and 2.6).
pub const TRAILER_LEN: usize = 2;

/// Bytes of the salt, the constant first part of a nonce (RFC 4106 section 4, RFC 7634 section 2).
pub const SALT_LEN: usize = 4;

/// Bytes of the integrity check value, the AEAD's full tag (RFC 4106 section 6).
pub const ICV_LEN: usize = TAG_LEN;

/// Bytes of the associated data with an extended sequence number (RFC 4106 section 5).
pub const ASSOCIATED_DATA_LEN: usize = 12;

/// What inner packet, padding and trailer together are a multiple of (RFC 4303 section 2.4).
pub const ALIGNMENT: usize = 4;

/// Least bytes on top of an inner packet, without UDP and IP.
pub const MIN_OVERHEAD: usize = PREFIX_LEN + TRAILER_LEN + ICV_LEN;

/// Most bytes on top of an inner packet, without UDP and IP.
pub const MAX_OVERHEAD: usize = MIN_OVERHEAD + ALIGNMENT - 1;

/// Bytes of the shortest datagram, one with nothing inside.
pub const MIN_LEN: usize = PREFIX_LEN + ALIGNMENT + ICV_LEN;

/// What an inner packet is (RFC 4303 section 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHeader {
    /// An IPv4 packet.
    Ipv4,
    /// An IPv6 packet.
    Ipv6,
    /// A dummy packet: a probe or nothing (RFC 4303 section 2.6).
    Nothing,
    /// An IPv4 packet whose TCP or UDP checksum the sender's kernel vouches for and left partial (RFC 3692 experimental
    /// number).
    VouchedIpv4,
    /// An IPv6 packet of the same kind (RFC 3692 experimental number).
    VouchedIpv6,
}

impl NextHeader {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Ipv4, Self::Ipv6, Self::Nothing, Self::VouchedIpv4, Self::VouchedIpv6];

    /// The protocol number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 41,
            Self::Nothing => 59,
            Self::VouchedIpv4 => 253,
            Self::VouchedIpv6 => 254,
        }
    }

    /// The kind with that number; `None` if it is not one of ours.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The kind of an IP packet by its first byte; `None` if its version is neither 4 nor 6.
    pub fn of_packet(packet: &[u8], vouched: bool) -> Option<Self> {
        match (packet.first()? >> 4, vouched) {
            (4, false) => Some(Self::Ipv4),
            (4, true) => Some(Self::VouchedIpv4),
            (6, false) => Some(Self::Ipv6),
            (6, true) => Some(Self::VouchedIpv6),
            _ => None,
        }
    }

    /// Whether the inner checksum is left partial.
    pub const fn is_vouched(self) -> bool {
        matches!(self, Self::VouchedIpv4 | Self::VouchedIpv6)
    }

    /// The IP version that the inner packet must have; `None` for a dummy.
    pub const fn version(self) -> Option<u8> {
        match self {
            Self::Ipv4 | Self::VouchedIpv4 => Some(4),
            Self::Ipv6 | Self::VouchedIpv6 => Some(6),
            Self::Nothing => None,
        }
    }
}

/// Bytes of padding after an inner packet of `inner` bytes, 0 to 3 (RFC 4303 section 2.4).
pub const fn padding_len(inner: usize) -> usize {
    inner.wrapping_add(TRAILER_LEN).wrapping_neg() % ALIGNMENT
}

/// Bytes that are encrypted of an inner packet of `inner` bytes: with padding and trailer.
#[inline]
pub const fn plaintext_len(inner: usize) -> usize {
    inner.saturating_add(padding_len(inner)).saturating_add(TRAILER_LEN)
}

/// Bytes of the datagram that carries an inner packet of `inner` bytes.
pub const fn sealed_len(inner: usize) -> usize {
    plaintext_len(inner).saturating_add(PREFIX_LEN + ICV_LEN)
}

/// Bytes of the largest inner packet in a datagram of at most `datagram` bytes; 0 if not even an empty one fits.
pub const fn largest_inner(datagram: usize) -> usize {
    let body = datagram.saturating_sub(PREFIX_LEN + ICV_LEN);
    body.saturating_sub(body % ALIGNMENT).saturating_sub(TRAILER_LEN)
}

/// Joins salt and IV (RFC 4106 section 4, RFC 7634 section 2).
#[inline]
pub const fn nonce(salt: [u8; SALT_LEN], iv: [u8; IV_LEN]) -> [u8; NONCE_LEN] {
    let [s0, s1, s2, s3] = salt;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
    [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]
}

/// The associated data of a packet with an extended sequence number: SPI, high half, low half (RFC 4106 section 5).
pub const fn associated_data(spi: u32, sequence: u64) -> [u8; ASSOCIATED_DATA_LEN] {
    let [a, b, c, d] = spi.to_be_bytes();
    let [e, f, g, h, i, j, k, l] = sequence.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// What a datagram says in the clear. Nothing of it can be trusted before the datagram is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whose SA it is; any number.
    pub spi: u32,
    /// The low half of the sequence number.
    pub sequence_low: u32,
    /// The explicit IV.
    pub iv: [u8; IV_LEN],
}

impl Header {
    /// Reads the header of a datagram and checks the datagram's length.
    ///
    /// # Errors
    /// [`DropReason::Truncated`] below [`MIN_LEN`], [`DropReason::BadLength`] if the ciphertext is not aligned (RFC
    /// 4303 section 2.4).
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        if datagram.len() < MIN_LEN {
            return Err(DropReason::Truncated);
        }
        if !datagram.len().is_multiple_of(ALIGNMENT) {
            return Err(DropReason::BadLength);
        }
        let (&spi, rest) = datagram.split_first_chunk::<4>().ok_or(DropReason::Truncated)?;
        let (&low, rest) = rest.split_first_chunk::<4>().ok_or(DropReason::Truncated)?;
        let &iv = rest.first_chunk::<IV_LEN>().ok_or(DropReason::Truncated)?;
        Ok(Self { spi: u32::from_be_bytes(spi), sequence_low: u32::from_be_bytes(low), iv })
    }

    /// The bytes in front of the ciphertext.
    pub const fn encode(&self) -> [u8; PREFIX_LEN] {
        let [a, b, c, d] = self.spi.to_be_bytes();
        let [e, f, g, h] = self.sequence_low.to_be_bytes();
        let [i, j, k, l, m, n, o, p] = self.iv;
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }
}

/// Writes padding, its length and the next header behind the first `inner` bytes of `body` (RFC 4303 sections 2.4 to
/// 2.6), and returns the length of all; `None` if `body` is too short.
pub fn put_trailer(body: &mut [u8], inner: usize, next_header: u8) -> Option<usize> {
    let padding = padding_len(inner);
    let trailer = body.get_mut(inner..)?.get_mut(..padding.checked_add(TRAILER_LEN)?)?;
    for (byte, value) in trailer.iter_mut().zip(1_u8..) {
        *byte = value;
    }
    let [.., length, next] = trailer else { return None };
    *length = u8::try_from(padding).ok()?;
    *next = next_header;
    inner.checked_add(padding)?.checked_add(TRAILER_LEN)
}

/// Splits a plaintext into the length of what is inside and the next header (RFC 4303 sections 2.4 to 2.6).
///
/// # Errors
/// [`DropReason::BadPadding`] if the padding is longer than the plaintext or does not count from 1, as section 2.4 lets
/// a receiver check.
pub fn split_trailer(plaintext: &[u8]) -> Result<(usize, u8), DropReason> {
    let [rest @ .., length, next_header] = plaintext else { return Err(DropReason::BadPadding) };
    let inner = rest.len().checked_sub(usize::from(*length)).ok_or(DropReason::BadPadding)?;
    let padding = rest.get(inner..).ok_or(DropReason::BadPadding)?;
    if !padding.iter().copied().eq(1..=*length) {
        return Err(DropReason::BadPadding);
    }
    Ok((inner, *next_header))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overhead_is_34_to_37_bytes() {
        assert_eq!([1440, 1439, 1438, 1437, 1436, 1435].map(padding_len), [2, 3, 0, 1, 2, 3]);
        assert_eq!((MIN_OVERHEAD, MAX_OVERHEAD, MIN_LEN), (34, 37, sealed_len(0)));
        assert_eq!(sealed_len(1438), 1472, "an outer MTU of 1500 carries 1438 bytes over IPv4");
        assert_eq!(largest_inner(1472), 1438);
    }

    #[test]
    fn next_headers_have_their_numbers() {
        assert_eq!(NextHeader::ALL.map(NextHeader::code), [4, 41, 59, 253, 254]);
        let known: Vec<u8> = (0..=u8::MAX).filter(|&code| NextHeader::from_code(code).is_some()).collect();
        assert_eq!(known, [4, 41, 59, 253, 254]);
    }

    #[test]
    fn version_and_vouching_choose_the_next_header() {
        assert_eq!(NextHeader::of_packet(&[0x45], false), Some(NextHeader::Ipv4));
        assert_eq!(NextHeader::of_packet(&[0x60], true), Some(NextHeader::VouchedIpv6));
        assert_eq!(NextHeader::of_packet(&[0x50], false), None);
        assert_eq!(NextHeader::of_packet(&[], false), None);
    }

    #[test]
    fn associated_data_has_the_high_half_in_the_middle() {
        assert_eq!(
            associated_data(0x8100_0001, 0x0a0b_0c0d_0102_0304),
            [0x81, 0, 0, 1, 0x0a, 0x0b, 0x0c, 0x0d, 1, 2, 3, 4]
        );
    }

    #[test]
    fn short_and_unaligned_datagrams_are_dropped() {
        for len in 0..MIN_LEN {
            assert_eq!(Header::parse(&vec![0x80; len]), Err(DropReason::Truncated));
        }
        for len in [37, 38, 39, 1471] {
            assert_eq!(Header::parse(&vec![0x80; len]), Err(DropReason::BadLength));
        }
        assert!(Header::parse(&[0x80; MIN_LEN]).is_ok());
    }

    #[test]
    fn wrong_padding_is_dropped() {
        assert_eq!(split_trailer(&[1, 2, 2, 4]), Ok((0, 4)));
        for plaintext in [&[][..], &[4], &[1, 4], &[0, 0, 2, 4], &[1, 1, 2, 4], &[2, 1, 2, 4], &[9; 8]] {
            assert_eq!(split_trailer(plaintext), Err(DropReason::BadPadding), "{plaintext:?}");
        }
    }

    #[test]
    fn longest_padding_a_peer_may_choose_is_accepted() {
        let plaintext: Vec<u8> = [0x45].into_iter().chain(1..=255).chain([255, 4]).collect();
        assert_eq!(split_trailer(&plaintext), Ok((1, 4)));
    }

    proptest! {
        #[test]
        fn trailer_round_trip(inner in 0_usize..2000, next_header: u8) {
            let mut body = vec![0xaa; inner + 5];
            let len = put_trailer(&mut body, inner, next_header).unwrap();
            prop_assert_eq!(len % ALIGNMENT, 0);
            prop_assert_eq!(len + PREFIX_LEN + ICV_LEN, sealed_len(inner));
            prop_assert_eq!(split_trailer(&body[..len]), Ok((inner, next_header)));
            prop_assert_eq!(put_trailer(&mut vec![0; len - 1], inner, next_header), None);
        }

        #[test]
        fn largest_inner_is_the_largest(datagram in MIN_LEN..70_000) {
            let inner = largest_inner(datagram);
            prop_assert!(sealed_len(inner) <= datagram && sealed_len(inner + 1) > datagram);
        }

        #[test]
        fn header_round_trip(spi: u32, sequence_low: u32, iv: [u8; IV_LEN]) {
            let header = Header { spi, sequence_low, iv };
            let mut datagram = header.encode().to_vec();
            datagram.resize(MIN_LEN, 0);
            prop_assert_eq!(Header::parse(&datagram), Ok(header));
        }
    }
}

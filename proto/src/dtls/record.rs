//! The layout of a record (RFC 6347 section 4.1). A datagram holds one or several.
//!
//! ```text
//! type (1)  version (2)  epoch (2)  sequence (6)  length (2)
//!   epoch 0: what the type says
//!   epoch 1: explicit nonce (8, AES-GCM alone)  AEAD( what the type says )  tag (16)
//! ```

use crate::drop_reason::DropReason;

/// Bytes in front of what a record holds.
pub const HEADER_LEN: usize = 13;

/// Bytes of the associated data (RFC 6347 section 4.1.2.1, RFC 5246 section 6.2.3.3).
pub const ASSOCIATED_DATA_LEN: usize = 13;

/// Most bytes of plaintext in a record (RFC 5246 section 6.2.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;

/// The last sequence number of an epoch.
pub const LAST_SEQUENCE: u64 = (1 << 48) - 1;

/// DTLS 1.2 on the wire: the one's complement of 1.2.
pub const DTLS_1_2: u16 = 0xfefd;

/// DTLS 1.0, which the first ClientHello and the HelloVerifyRequest bear (RFC 6347 section 4.2.1).
pub const DTLS_1_0: u16 = 0xfeff;

/// What a record holds (RFC 5246 section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// A single byte that says no more than the epoch of the next record does.
    ChangeCipherSpec,
    /// A warning, or the end.
    Alert,
    /// Pieces of handshake messages.
    Handshake,
    /// What the association is for.
    ApplicationData,
}

impl ContentType {
    /// Every type, by number.
    pub const ALL: [Self; 4] = [Self::ChangeCipherSpec, Self::Alert, Self::Handshake, Self::ApplicationData];

    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::ChangeCipherSpec => 20,
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::ApplicationData => 23,
        }
    }

    /// The type with that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|content| content.code() == code)
    }
}

/// What a record says in the clear. Nothing of it can be trusted before the record is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record holds.
    pub content: ContentType,
    /// The version; its first byte is 0xfe.
    pub version: u16,
    /// 0 in the clear, 1 under the keys.
    pub epoch: u16,
    /// The number within the epoch, at most [`LAST_SEQUENCE`].
    pub sequence: u64,
    /// Bytes behind the header.
    pub length: u16,
}

impl Header {
    /// Reads the header that `datagram` begins with and checks that the record lies within it.
    ///
    /// # Errors
    /// [`DropReason::Truncated`] if the record is cut short, [`DropReason::BadRecord`] if it is of no known type or of
    /// a version that is not DTLS.
    pub fn parse(datagram: &[u8]) -> Result<Self, DropReason> {
        let (header, rest) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::Truncated)?;
        let &[content, v0, v1, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1] = header;
        let header = Self {
            content: ContentType::from_code(content).ok_or(DropReason::BadRecord)?,
            version: u16::from_be_bytes([v0, v1]),
            epoch: u16::from_be_bytes([e0, e1]),
            sequence: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            length: u16::from_be_bytes([l0, l1]),
        };
        if v0 != 0xfe {
            return Err(DropReason::BadRecord);
        }
        if rest.len() < usize::from(header.length) {
            return Err(DropReason::Truncated);
        }
        Ok(header)
    }

    /// The bytes in front of what the record holds.
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let [v0, v1] = self.version.to_be_bytes();
        let [e0, e1, s0, s1, s2, s3, s4, s5] = self.number();
        let [l0, l1] = self.length.to_be_bytes();
        [self.content.code(), v0, v1, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1]
    }

    /// Epoch and sequence number, from which nonces are made.
    pub const fn number(&self) -> [u8; 8] {
        let [e0, e1] = self.epoch.to_be_bytes();
        let [_, _, s0, s1, s2, s3, s4, s5] = self.sequence.to_be_bytes();
        [e0, e1, s0, s1, s2, s3, s4, s5]
    }

    /// The associated data of a record with `plaintext` bytes inside.
    pub const fn associated_data(&self, plaintext: u16) -> [u8; ASSOCIATED_DATA_LEN] {
        Self { length: plaintext, ..*self }.encode_associated_data()
    }

    /// The header with the number moved to its front.
    const fn encode_associated_data(&self) -> [u8; ASSOCIATED_DATA_LEN] {
        let [content, v0, v1, number @ .., l0, l1] = self.encode();
        let [e0, e1, s0, s1, s2, s3, s4, s5] = number;
        [e0, e1, s0, s1, s2, s3, s4, s5, content, v0, v1, l0, l1]
    }
}

/// Splits the first record off a datagram: its header, all of it, and what follows.
///
/// # Errors
/// As [`Header::parse`]; nothing behind such a record can be found.
pub fn split_first(datagram: &mut [u8]) -> Result<(Header, &mut [u8], &mut [u8]), DropReason> {
    let header = Header::parse(datagram)?;
    let len = HEADER_LEN.saturating_add(header.length.into());
    let (record, rest) = datagram.split_at_mut_checked(len).ok_or(DropReason::Truncated)?;
    Ok((header, record, rest))
}

/// A record of epoch 0, with the first 65,535 bytes of `body`.
pub fn plain(content: ContentType, version: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let header = Header { content, version, epoch: 0, sequence, length };
    [&header.encode()[..], body.get(..length.into()).unwrap_or(body)].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn types_have_their_numbers() {
        let known: Vec<u8> = (0..=u8::MAX).filter(|&code| ContentType::from_code(code).is_some()).collect();
        assert_eq!(known, [20, 21, 22, 23]);
        assert_eq!(ContentType::ALL.map(ContentType::code), [20, 21, 22, 23]);
    }

    #[test]
    fn associated_data_begins_with_the_number() {
        let content = ContentType::ApplicationData;
        let header = Header { content, version: DTLS_1_2, epoch: 1, sequence: 0x0203_0405_0607, length: 99 };
        assert_eq!(header.associated_data(0x1234), [0, 1, 2, 3, 4, 5, 6, 7, 23, 0xfe, 0xfd, 0x12, 0x34]);
    }

    #[test]
    fn records_of_a_datagram_come_one_by_one() {
        let first = plain(ContentType::Handshake, DTLS_1_2, 5, &[1, 2, 3]);
        let second = plain(ContentType::ChangeCipherSpec, DTLS_1_2, 6, &[1]);
        let mut datagram = [&first[..], &second, &[20, 0xfe]].concat();
        let (header, record, rest) = split_first(&mut datagram).unwrap();
        assert_eq!((header.content, header.sequence, &*record), (ContentType::Handshake, 5, &first[..]));
        let (header, record, rest) = split_first(rest).unwrap();
        assert_eq!((header.content, header.sequence, &*record), (ContentType::ChangeCipherSpec, 6, &second[..]));
        assert_eq!(split_first(rest).err(), Some(DropReason::Truncated));
    }

    #[test]
    fn foreign_and_cut_records_are_dropped() {
        let whole = plain(ContentType::Alert, DTLS_1_2, 0, &[2, 40]);
        assert!(Header::parse(&whole).is_ok());
        for len in 0..whole.len() {
            assert_eq!(Header::parse(&whole[..len]), Err(DropReason::Truncated));
        }
        for (place, byte) in [(0, 19), (0, 24), (1, 3)] {
            let mut foreign = whole.clone();
            foreign[place] = byte;
            assert_eq!(Header::parse(&foreign), Err(DropReason::BadRecord));
        }
    }

    proptest! {
        #[test]
        fn header_round_trip(number: u64, version: u8, kind in 0_usize..4, length in 0_u16..100) {
            let header = Header {
                content: ContentType::ALL[kind],
                version: 0xfe00 | u16::from(version),
                epoch: (number >> 48) as u16,
                sequence: number & LAST_SEQUENCE,
                length,
            };
            prop_assert_eq!(header.number(), number.to_be_bytes());
            let datagram = [&header.encode()[..], &[0; 100]].concat();
            prop_assert_eq!(Header::parse(&datagram), Ok(header));
        }
    }
}

//! Asks a QUIC server which versions it speaks, by a datagram of any size that QUIC permits.
//!
//! A server answers a long header of a version that it does not know with a Version Negotiation packet (RFC 9000
//! section 6.1), if the datagram has the 1200 bytes that its own versions ask for. The answer is small, whatever the
//! size of the question, and holds its connection ids, which only who has seen the question knows. Nothing proves who
//! answers.
//!
//! ```text
//! question: 0xc0 | 0x1a2a3a4a | 8 | id | 8 | id | zeros
//! answer:   1... | 0          | 8 | id | 8 | id | a version of 4 bytes, or several
//! ```

/// Shortest question that is answered, in bytes (RFC 9000 section 14.1).
pub const LEAST: u16 = 1200;
/// Bytes of a question's id.
pub const ID_LEN: usize = 8;

/// A version that nobody speaks: those of this pattern are kept for questions like this (RFC 9000 section 15).
const VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];
/// Long header, with the bit that QUIC datagrams have on ports which they share (RFC 9443).
const LONG_HEADER: u8 = 0xc0;
const ID_LEN_BYTE: u8 = 8;

/// The datagram that asks, of `size` bytes, but at least [`LEAST`].
#[must_use]
pub fn encode(id: [u8; ID_LEN], size: u16) -> Vec<u8> {
    let size = usize::from(size.max(LEAST));
    let mut datagram = Vec::with_capacity(size);
    datagram.push(LONG_HEADER);
    datagram.extend(VERSION);
    for _destination_and_source in 0..2 {
        datagram.push(ID_LEN_BYTE);
        datagram.extend(id);
    }
    datagram.resize(size, 0);
    datagram
}

/// The id of the question that a datagram answers; `None` if it is no such answer.
#[must_use]
pub fn decode_answer(datagram: &[u8]) -> Option<[u8; ID_LEN]> {
    let [0x80..=0xff, 0, 0, 0, 0, ID_LEN_BYTE, rest @ ..] = datagram else { return None };
    let (id, rest) = rest.split_first_chunk::<ID_LEN>()?;
    let [ID_LEN_BYTE, rest @ ..] = rest else { return None };
    let (source, versions) = rest.split_first_chunk::<ID_LEN>()?;
    let has_versions = !versions.is_empty() && versions.len().is_multiple_of(VERSION.len());
    (id == source && has_versions).then_some(*id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: [u8; ID_LEN] = [1, 2, 3, 4, 5, 6, 7, 8];

    /// An answer as RFC 9000 section 17.2.1 has it, with two versions.
    fn answer(destination: [u8; ID_LEN], source: [u8; ID_LEN]) -> Vec<u8> {
        let head: [&[u8]; 6] =
            [&[0xca, 0, 0, 0, 0], &[8], &destination, &[8], &source, &[0, 0, 0, 1, 0xa, 0x1a, 0x2a, 0x3a]];
        head.concat()
    }

    #[test]
    fn question_has_its_size_and_never_less_than_is_answered() {
        for (wanted, size) in [(0, 1200), (1200, 1200), (1472, 1472)] {
            let datagram = encode(ID, wanted);
            assert_eq!(datagram.len(), size);
            assert_eq!(datagram[..23], [&[0xc0_u8, 0x1a, 0x2a, 0x3a, 0x4a, 8][..], &ID, &[8], &ID].concat());
        }
    }

    #[test]
    fn only_an_answer_with_the_same_id_twice_is_one() {
        assert_eq!(decode_answer(&answer(ID, ID)), Some(ID));
        assert_eq!(decode_answer(&answer(ID, [9; ID_LEN])), None);
        assert_eq!(decode_answer(&encode(ID, 1200)), None, "a question is no answer");
        let whole = answer(ID, ID);
        for length in 0..whole.len() {
            assert_eq!(decode_answer(&whole[..length]).is_some(), length == whole.len() - 4, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_panic(datagram in prop::collection::vec(any::<u8>(), 0..64)) {
            let _answered = decode_answer(&datagram);
        }
    }
}

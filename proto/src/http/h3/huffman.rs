//! Decoding of Huffman-coded strings (RFC 7541 section 5.2 and appendix B, which QPACK shares by RFC 9204 section
//! 4.1.2).
//!
//! The code is canonical: codes of one length are consecutive numbers given out in order of the symbols. So it is fully
//! described by how many codes of each length there are and by the symbols in the order of their codes. Encoding is
//! optional and left out: our own fields are short.

use super::error::{Code, Error};

/// Number of codes of 1, 2 … 30 bits (RFC 7541 appendix B).
const CODES_OF_LENGTH: [u32; 30] =
    [0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// Symbols in the order of their codes; the end-of-string symbol, with the last code, comes after them.
#[rustfmt::skip]
const SYMBOLS: [u8; 256] = [
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65,
    95, 98, 100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76,
    77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122, 38, 42, 44, 59,
    88, 90, 33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92,
    195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129,
    132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232,
    233, 1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182,
    183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235, 192, 193,
    200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245,
    246, 247, 248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20,
    21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249, 10, 13, 22,
];

const FAILED: Error = Error::connection(Code::QPACK_DECOMPRESSION_FAILED, "malformed Huffman code");

/// A code that is not complete yet, and where the codes of its length begin.
#[derive(Clone, Copy, Default)]
struct Partial {
    /// The bits so far.
    code: u32,
    /// How many there are.
    length: usize,
    /// The first code of this length.
    first_code: u32,
    /// The place of that code's symbol among [`SYMBOLS`].
    first_symbol: u32,
}

/// Decodes a Huffman-coded string; at most 8/5 the length of `input` comes out.
///
/// # Errors
/// Closes the connection with QPACK_DECOMPRESSION_FAILED if the string holds the end-of-string symbol or is padded with
/// more than 7 bits or with bits that are not its most significant ones (RFC 7541 section 5.2).
pub fn decode(input: &[u8]) -> Result<Vec<u8>, Error> {
    let mut output = Vec::with_capacity(input.len());
    let mut partial = Partial::default();
    for bit in input.iter().flat_map(|byte| (0..u8::BITS).rev().map(move |place| byte >> place & 1)) {
        match partial.push(bit)? {
            Step::More(longer) => partial = longer,
            Step::Symbol(symbol) => {
                output.push(symbol);
                partial = Partial::default();
            }
        }
    }
    if partial.is_padding() { Ok(output) } else { Err(FAILED) }
}

enum Step {
    More(Partial),
    Symbol(u8),
}

impl Partial {
    fn push(self, bit: u8) -> Result<Step, Error> {
        let codes = *CODES_OF_LENGTH.get(self.length).ok_or(FAILED)?;
        let code = self.code << 1 | u32::from(bit);
        let first_code = self.first_code << 1;
        let offset = code.wrapping_sub(first_code);
        if offset < codes {
            let place = usize::try_from(self.first_symbol.wrapping_add(offset)).map_err(|_impossible| FAILED)?;
            return SYMBOLS.get(place).map(|symbol| Step::Symbol(*symbol)).ok_or(FAILED);
        }
        Ok(Step::More(Self {
            code,
            length: self.length.saturating_add(1),
            first_code: first_code.wrapping_add(codes),
            first_symbol: self.first_symbol.wrapping_add(codes),
        }))
    }

    /// > A padding strictly longer than 7 bits MUST be treated as a decoding error. A padding not corresponding to the
    /// > most significant bits of the code for the EOS symbol MUST be treated as a decoding error. (RFC 7541 section
    /// > 5.2)
    const fn is_padding(self) -> bool {
        self.length < 8 && self.code.count_ones() as usize == self.length
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test")]

    use proptest::prelude::*;

    use super::*;

    /// Encodes a string, for tests of the decoder.
    pub(crate) fn encode(input: &[u8]) -> Vec<u8> {
        let bits: String = input.iter().map(|symbol| code_of(*symbol)).collect();
        let padded = format!("{bits}{}", "1".repeat(bits.len().next_multiple_of(8) - bits.len()));
        let octets = padded.as_bytes().chunks(8).map(|octet| str::from_utf8(octet).unwrap());
        octets.map(|octet| u8::from_str_radix(octet, 2).unwrap()).collect()
    }

    /// The code of a symbol as text of 0 and 1.
    fn code_of(symbol: u8) -> String {
        let mut place = SYMBOLS.iter().position(|candidate| *candidate == symbol).unwrap();
        let mut code = 0_usize;
        for (index, codes) in CODES_OF_LENGTH.iter().enumerate() {
            let codes = *codes as usize;
            if place < codes {
                return format!("{:0width$b}", code + place, width = index + 1);
            }
            place -= codes;
            code = (code + codes) << 1;
        }
        unreachable!("every symbol has a code")
    }

    /// Examples of RFC 7541 appendix C.4 and C.6.
    #[test]
    fn rfc_examples_decode() {
        let examples: [(&[u8], &str); 5] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
            (&[0x64, 0x02], "302"),
            (&[0xae, 0xc3, 0x77, 0x1a, 0x4b], "private"),
        ];
        for (coded, text) in examples {
            assert_eq!(decode(coded).unwrap(), text.as_bytes());
            assert_eq!(encode(text.as_bytes()), coded);
        }
    }

    #[test]
    fn every_symbol_is_there_once() {
        let mut symbols = SYMBOLS;
        symbols.sort_unstable();
        assert!(symbols.iter().copied().eq(0..=255));
        assert_eq!(CODES_OF_LENGTH.iter().sum::<u32>(), 257);
        assert_eq!(code_of(b'0'), "00000");
        assert_eq!(code_of(22), "1".repeat(28) + "10");
    }

    #[test]
    fn end_of_string_symbol_is_refused() {
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), Err(FAILED));
        assert_eq!(decode(&[0x07, 0xff, 0xff, 0xff, 0xff]), Err(FAILED));
    }

    #[test]
    fn padding_longer_than_seven_bits_is_refused() {
        assert_eq!(decode(&[0x07]), Ok(b"0".to_vec()));
        assert_eq!(decode(&[0x07, 0xff]), Err(FAILED));
        assert_eq!(decode(&[0xff]), Err(FAILED));
    }

    #[test]
    fn padding_of_other_bits_is_refused() {
        assert_eq!(decode(&[0x00]), Err(FAILED));
        assert_eq!(decode(&[0x06]), Err(FAILED));
    }

    proptest! {
        #[test]
        fn round_trip(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode(&encode(&text)), Ok(text));
        }

        #[test]
        fn decoded_string_is_the_only_one_of_its_code(coded in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(text) = decode(&coded) {
                prop_assert_eq!(encode(&text), coded);
            }
        }
    }
}

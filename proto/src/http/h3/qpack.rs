//! Field sections (RFC 9204 section 4.5) without a dynamic table, whose capacity both sides leave at 0.
//!
//! ```text
//! section         00 00 field lines          required insert count 0, base 0
//! indexed         1 T index(6)               T = 1: static table
//! name reference  01 N T index(4)  value
//! literal name    001 N H length(3) name  value
//! value           H length(7) bytes          H = 1: Huffman code
//! ```
//!
//! `0001…` and `0000…` refer to the dynamic table. N asks those on the way never to index the field.

mod integer;
mod static_table;

use super::super::field::Field;
use super::error::{Code, Error};
use super::huffman;
use super::section::FIELD_OVERHEAD;
use static_table::Match;

const TRUNCATED: Error = failed("field section ends inside a field line or holds too large an integer");
const DYNAMIC: Error = failed("reference to the dynamic table, which is empty");

const fn failed(reason: &'static str) -> Error {
    Error::connection(Code::QPACK_DECOMPRESSION_FAILED, reason)
}

/// Decodes a field section whose fields together count at most `limit` bytes (RFC 9114 section 4.2.2).
///
/// Bytes of a value that are not UTF-8 become U+FFFD; such values are opaque to us anyway (RFC 9110 section 5.5).
///
/// # Errors
/// Closes the connection with QPACK_DECOMPRESSION_FAILED for whatever cannot be decoded (RFC 9204 section 2.2); ends
/// the stream with H3_EXCESSIVE_LOAD if the fields exceed `limit`.
pub fn decode(mut section: &[u8], limit: usize) -> Result<Vec<Field>, Error> {
    decode_prefix(&mut section)?;
    let mut fields = Vec::new();
    let mut left = limit;
    while let Some(&first) = section.first() {
        let field = decode_line(first, &mut section)?;
        let size = field.name.len().saturating_add(field.value.len()).saturating_add(FIELD_OVERHEAD);
        left = left.checked_sub(size).ok_or(Error::stream(Code::EXCESSIVE_LOAD, "field section is too large"))?;
        fields.push(field);
    }
    Ok(fields)
}

/// > An endpoint MUST treat a field block with a Sign bit of 1 as invalid if the value of Required Insert Count is less
/// > than or equal to the value of Delta Base. (RFC 9204 section 4.5.1.2)
fn decode_prefix(section: &mut &[u8]) -> Result<(), Error> {
    let required_insert_count = integer::take(section, 8).ok_or(TRUNCATED)?;
    let negative_base = section.first().ok_or(TRUNCATED)? & 0x80 != 0;
    let _delta_base = integer::take(section, 7).ok_or(TRUNCATED)?;
    if required_insert_count != 0 {
        return Err(DYNAMIC);
    }
    if negative_base {
        return Err(failed("negative base"));
    }
    Ok(())
}

fn decode_line(first: u8, section: &mut &[u8]) -> Result<Field, Error> {
    if first & 0x80 != 0 {
        let (name, value) = static_entry(first & 0x40 != 0, integer::take(section, 6))?;
        return Ok(Field::new(name, value));
    }
    if first & 0x40 != 0 {
        let (name, _) = static_entry(first & 0x10 != 0, integer::take(section, 4))?;
        return Ok(Field::new(name, decode_string(section, 7)?));
    }
    if first & 0x20 != 0 {
        let name = decode_string(section, 3)?;
        return Ok(Field::new(name, decode_string(section, 7)?));
    }
    Err(DYNAMIC)
}

fn static_entry(is_static: bool, index: Option<u64>) -> Result<(&'static str, &'static str), Error> {
    let index = index.ok_or(TRUNCATED)?;
    if !is_static {
        return Err(DYNAMIC);
    }
    static_table::entry(index).ok_or(failed("index beyond the static table"))
}

/// A string whose length is in the `bits` low bits of its first byte; the bit above says whether it is Huffman-coded.
fn decode_string(section: &mut &[u8], bits: u32) -> Result<String, Error> {
    let is_huffman = section.first().ok_or(TRUNCATED)?.unbounded_shr(bits) & 1 != 0;
    let length = integer::take(section, bits).and_then(|length| usize::try_from(length).ok()).ok_or(TRUNCATED)?;
    let (coded, rest) = section.split_at_checked(length).ok_or(TRUNCATED)?;
    *section = rest;
    Ok(match is_huffman {
        true => String::from_utf8_lossy(&huffman::decode(coded)?).into_owned(),
        false => String::from_utf8_lossy(coded).into_owned(),
    })
}

/// Appends a field section to `out`: static entries where they fit, no Huffman code; secrets are marked never to be
/// indexed.
pub fn encode(fields: &[Field], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0]);
    for field in fields {
        let never_index = |bit: u8| if field.is_secret() { bit } else { 0 };
        match static_table::find(&field.name, &field.value) {
            Some(Match::Whole(index)) => {
                integer::put(index, 0xc0, 6, out);
                continue;
            }
            Some(Match::Name(index)) => integer::put(index, 0x50 | never_index(0x20), 4, out),
            None => encode_string(&field.name, 0x20 | never_index(0x10), 3, out),
        }
        encode_string(&field.value, 0, 7, out);
    }
}

fn encode_string(text: &str, pattern: u8, bits: u32, out: &mut Vec<u8>) {
    integer::put(text.len() as u64, pattern, bits, out);
    out.extend_from_slice(text.as_bytes());
}

/// Checks the peer's encoder stream (RFC 9204 section 4.3).
///
/// With a capacity of 0 nothing can be inserted, so the only instruction left is Set Dynamic Table Capacity 0, one
/// byte.
///
/// # Errors
/// Closes the connection with QPACK_ENCODER_STREAM_ERROR for any other instruction.
pub(super) fn check_encoder_stream(data: &[u8]) -> Result<(), Error> {
    const SET_CAPACITY_0: u8 = 0x20;
    if data.iter().any(|byte| *byte != SET_CAPACITY_0) {
        return Err(Error::connection(
            Code::QPACK_ENCODER_STREAM_ERROR,
            "insertion into a dynamic table of capacity 0",
        ));
    }
    Ok(())
}

/// Checks the peer's decoder stream (RFC 9204 section 4.4).
///
/// We never use the dynamic table, so there is nothing to acknowledge; only Stream Cancellation can come.
#[derive(Debug, Default)]
pub(super) struct DecoderStream {
    inside_integer: bool,
}

impl DecoderStream {
    /// # Errors
    /// Closes the connection with QPACK_DECODER_STREAM_ERROR for any other instruction.
    pub(super) fn handle(&mut self, data: &[u8]) -> Result<(), Error> {
        for byte in data {
            if self.inside_integer {
                self.inside_integer = byte & 0x80 != 0;
            } else if byte & 0xc0 == 0x40 {
                self.inside_integer = byte & 0x3f == 0x3f;
            } else {
                return Err(Error::connection(Code::QPACK_DECODER_STREAM_ERROR, "acknowledgement of nothing"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::huffman::tests::encode as huffman_encode;
    use super::*;

    const LIMIT: usize = 16_384;

    fn code(section: &[u8]) -> Code {
        let error = decode(section, LIMIT).unwrap_err();
        assert!(error.ends_connection());
        error.code()
    }

    fn connect_ip_request() -> Vec<Field> {
        vec![
            Field::new(":method", "CONNECT"),
            Field::new(":scheme", "https"),
            Field::new(":authority", "vpn.example:443"),
            Field::new(":path", "/.well-known/masque/ip/*/*/"),
            Field::new(":protocol", "connect-ip"),
            Field::new("capsule-protocol", "?1"),
        ]
    }

    #[test]
    fn request_is_encoded_as_worked_out_by_hand() {
        let mut expected = vec![0x00, 0x00, 0xcf, 0xd7, 0x50, 15];
        expected.extend(b"vpn.example:443");
        expected.extend([0x51, 27]);
        expected.extend(b"/.well-known/masque/ip/*/*/");
        expected.extend([0x27, 0x02]);
        expected.extend(b":protocol\x0aconnect-ip");
        expected.extend([0x27, 0x09]);
        expected.extend(b"capsule-protocol\x02?1");
        let mut out = Vec::new();
        encode(&connect_ip_request(), &mut out);
        assert_eq!(out, expected);
        assert_eq!(decode(&out, LIMIT), Ok(connect_ip_request()));
    }

    #[test]
    fn statuses_are_encoded_as_worked_out_by_hand() {
        let mut out = Vec::new();
        encode(&[Field::new(":status", "200")], &mut out);
        encode(&[Field::new(":status", "401")], &mut out);
        assert_eq!(out, b"\0\0\xd9\0\0\x5f\x09\x03401");
    }

    #[test]
    fn huffman_strings_decode_in_names_and_values() {
        let (name, value) = (huffman_encode(b"custom-key"), huffman_encode(b"custom-value"));
        let mut section = vec![0, 0, 0x20 | 0x08 | 7, u8::try_from(name.len()).unwrap() - 7];
        section.extend(name);
        section.push(0x80 | u8::try_from(value.len()).unwrap());
        section.extend(value);
        assert_eq!(decode(&section, LIMIT), Ok(vec![Field::new("custom-key", "custom-value")]));
    }

    #[test]
    fn secret_is_marked_never_to_be_indexed() {
        let mut out = Vec::new();
        encode(&[Field::new("authorization", "Bearer x"), Field::new("proxy-authorization", "y")], &mut out);
        assert_eq!(out.get(2..4), Some(&[0x7f, 84 - 15][..]));
        assert_eq!(out.get(13).map(|byte| byte & 0xf0), Some(0x30));
    }

    #[test]
    fn dynamic_table_is_refused() {
        let required_insert_count = [1, 0, 0xc1];
        let indexed = [0, 0, 0x80];
        let name_reference = [0, 0, 0x40, 0];
        let post_base_indexed = [0, 0, 0x10];
        let post_base_name = [0, 0, 0x00, 0];
        for section in [&required_insert_count[..], &indexed, &name_reference, &post_base_indexed, &post_base_name] {
            assert_eq!(code(section), Code::QPACK_DECOMPRESSION_FAILED);
        }
    }

    #[test]
    fn negative_base_is_refused_and_positive_is_not() {
        assert_eq!(code(&[0, 0x80, 0xc1]), Code::QPACK_DECOMPRESSION_FAILED);
        assert_eq!(decode(&[0, 0x05, 0xc1], LIMIT), Ok(vec![Field::new(":path", "/")]));
    }

    #[test]
    fn index_beyond_the_static_table_is_refused() {
        assert_eq!(decode(&[0, 0, 0xff, 98 - 63], LIMIT).unwrap().len(), 1);
        assert_eq!(code(&[0, 0, 0xff, 99 - 63]), Code::QPACK_DECOMPRESSION_FAILED);
    }

    #[test]
    fn section_cut_short_is_refused() {
        let mut whole = Vec::new();
        encode(&[Field::new(":status", "401"), Field::new("www-authenticate", "Bearer")], &mut whole);
        let line_ends = [2, 8, whole.len()];
        for end in (0..whole.len()).filter(|end| !line_ends.contains(end)) {
            assert_eq!(code(whole.get(..end).unwrap()), Code::QPACK_DECOMPRESSION_FAILED, "cut at {end}");
        }
    }

    #[test]
    fn bad_huffman_code_is_refused() {
        assert_eq!(code(&[0, 0, 0x51, 0x81, 0xff]), Code::QPACK_DECOMPRESSION_FAILED);
    }

    #[test]
    fn too_large_section_ends_the_stream_only() {
        let mut section = vec![0, 0];
        section.extend([0xc1; 100]);
        let size_of_one = ":path".len() + "/".len() + FIELD_OVERHEAD;
        assert_eq!(decode(&section, 100 * size_of_one).unwrap().len(), 100);
        let error = decode(&section, 100 * size_of_one - 1).unwrap_err();
        assert_eq!((error.code(), error.ends_connection()), (Code::EXCESSIVE_LOAD, false));
    }

    #[test]
    fn encoder_stream_may_only_set_capacity_0() {
        assert_eq!(check_encoder_stream(&[0x20, 0x20]), Ok(()));
        for insertion in [0x21, 0x3f, 0xc0, 0x41, 0x00] {
            assert_eq!(check_encoder_stream(&[insertion]).unwrap_err().code(), Code::QPACK_ENCODER_STREAM_ERROR);
        }
    }

    #[test]
    fn decoder_stream_may_only_cancel_streams() {
        let mut stream = DecoderStream::default();
        assert_eq!(stream.handle(&[0x44, 0x7f, 0x80]), Ok(()));
        assert_eq!(stream.handle(&[0x80, 0x01, 0x40]), Ok(()));
        for acknowledgement in [0x80, 0x00, 0x01] {
            let error = DecoderStream::default().handle(&[acknowledgement]).unwrap_err();
            assert_eq!(error.code(), Code::QPACK_DECODER_STREAM_ERROR);
        }
    }

    proptest! {
        #[test]
        fn round_trip(pairs in proptest::collection::vec(("[a-z:-]{0,20}", "\\PC{0,40}"), 0..8)) {
            let fields: Vec<Field> = pairs.into_iter().map(|(name, value)| Field::new(name, value)).collect();
            let mut section = Vec::new();
            encode(&fields, &mut section);
            prop_assert_eq!(decode(&section, LIMIT), Ok(fields));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut section in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _outcome = decode(&section, LIMIT);
            section.splice(0..0, [0, 0]);
            let _outcome = decode(&section, LIMIT);
        }
    }
}

//! Netlink attributes: type-length-value records, padded to four bytes, which nest.

use super::COMMENT;

/// Flag in an attribute's type: its value is a list of attributes.
const NESTED: u16 = 1 << 15;
/// Bits of the type field that hold the type.
const TYPE_MASK: u16 = 0x3fff;
/// Bytes of the length and type fields.
const HEADER: usize = 4;

/// A list of attributes being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The encoded list.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends an attribute with these value bytes.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(HEADER + value.len()).expect("attributes here are far below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a number in network byte order, as nftables wants all its numbers.
    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends a string with its terminating zero.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Appends user data that holds a comment, as nft(8) lists it.
    pub(super) fn comment(self, kind: u16, comment: &str) -> Self {
        let length = u8::try_from(comment.len() + 1).expect("comments are short");
        self.bytes(kind, &[&[COMMENT, length], comment.as_bytes(), &[0]].concat())
    }

    /// Appends a list of attributes as one attribute.
    pub(crate) fn nested(self, kind: u16, list: &Self) -> Self {
        self.list(kind, &list.0)
    }

    /// Appends an encoded list of attributes as one attribute.
    pub(crate) fn list(self, kind: u16, list: &[u8]) -> Self {
        self.bytes(kind | NESTED, list)
    }
}

/// Splits a list of attributes into type and value; stops at the first that is cut short.
pub(super) fn split(mut list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = list.split_first_chunk::<HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = list.get(HEADER..length)?;
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Finds the first attribute of a type in a list.
pub(crate) fn find(list: &[u8], kind: u16) -> Option<&[u8]> {
    split(list).find_map(|(found, value)| (found == kind).then_some(value))
}

/// Reads a value as a number in network byte order.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// Reads a value as a long number in network byte order.
pub(super) fn long(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// Reads the comment of user data.
pub(super) fn comment(user_data: &[u8]) -> Option<String> {
    let (&[kind, length], rest) = user_data.split_first_chunk()?;
    (kind == COMMENT).then(|| rest.get(..usize::from(length)).map(text))?
}

/// Reads a value as a string, with or without a terminating zero.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_terminated_and_padded() {
        let list = Attributes::new().text(1, "adit");
        assert_eq!(list.as_bytes(), [9, 0, 1, 0, b'a', b'd', b'i', b't', 0, 0, 0, 0]);
    }

    #[test]
    fn numbers_are_big_endian_and_nesting_is_flagged() {
        let list = Attributes::new().nested(4, &Attributes::new().number(2, 0x0102_0304));
        assert_eq!(list.as_bytes(), [12, 0, 4, 0x80, 8, 0, 2, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn written_attributes_are_found_again() {
        let list = Attributes::new().number(1, 7).text(2, "forward").bytes(3, &[1]);
        assert_eq!(find(list.as_bytes(), 1).and_then(number), Some(7));
        assert_eq!(find(list.as_bytes(), 2).map(text).as_deref(), Some("forward"));
        assert_eq!(find(list.as_bytes(), 3), Some([1].as_slice()));
        assert_eq!(find(list.as_bytes(), 4), None);
    }

    proptest! {
        #[test]
        fn splitting_any_bytes_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(split(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}

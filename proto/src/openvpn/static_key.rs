//! Keys of 2,048 bits that ends share beforehand, and the text files they come in.
//!
//! ```text
//! cipher of slot 0 (64)  MAC of slot 0 (64)  cipher of slot 1 (64)  MAC of slot 1 (64)
//! ```
//!
//! Which slot an end sends with is decided by its role, or by the option `key-direction`. Ciphers and MACs use as many
//! of the 64 bytes as they need, from the front.

use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Bytes of a key.
pub const KEY_LEN: usize = 256;

/// Bytes for one cipher or MAC.
const PART_LEN: usize = 64;

const LABEL: &str = "OpenVPN Static key V1";

/// Bytes of key in one line of a file.
const LINE_LEN: usize = 16;

/// Why a text is no key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The lines that a key stands between are not there.
    #[error("no lines BEGIN and END {0}")]
    Missing(&'static str),
    /// What stands between them is not encoded as it has to be.
    #[error("the key is not encoded as it has to be")]
    Encoding,
    /// It has another length.
    #[error("the key is cut short or too long")]
    Length,
}

/// Which half of a key is used for one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The first half.
    Zero,
    /// The second half.
    One,
}

/// A key that was shared beforehand, or one of the same form. Erased when dropped.
///
/// ```compile_fail
/// fn show(key: &adit_proto::openvpn::static_key::StaticKey) -> String { format!("{key:?}") }
/// ```
#[derive(ZeroizeOnDrop)]
pub struct StaticKey([u8; KEY_LEN]);

impl StaticKey {
    /// Takes random bytes, or bytes of the TLS exporter.
    pub const fn new(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads a key file, as `openvpn --genkey secret` writes it. Text around the key is passed over.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let digits: Zeroizing<Vec<u8>> =
            Zeroizing::new(between_lines(text, LABEL)?.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
        let bytes = Zeroizing::new(HEXLOWER_PERMISSIVE.decode(&digits).map_err(|_| KeyFileError::Encoding)?);
        Self::from_slice(&bytes).ok_or(KeyFileError::Length)
    }

    /// The key as a file has it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = format!("-----BEGIN {LABEL}-----\n");
        for line in self.0.chunks(LINE_LEN) {
            HEXLOWER_PERMISSIVE.encode_append(line, &mut text);
            text.push('\n');
        }
        Zeroizing::new(text + &format!("-----END {LABEL}-----\n"))
    }

    /// Both keys in one, of which neither can be told without the other.
    #[must_use]
    pub fn mixed_with(&self, other: &Self) -> Self {
        let mut mixed = Self(self.0);
        mixed.0.iter_mut().zip(other.0).for_each(|(byte, other)| *byte ^= other);
        mixed
    }

    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, as secret as the key.
    pub const fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The first bytes of what a slot has for its cipher.
    pub(super) fn cipher<const N: usize>(&self, slot: Slot) -> &[u8; N] {
        self.part(match slot {
            Slot::Zero => 0,
            Slot::One => 2,
        })
    }

    /// The first bytes of what a slot has for its MAC.
    pub(super) fn mac<const N: usize>(&self, slot: Slot) -> &[u8; N] {
        self.part(match slot {
            Slot::Zero => 1,
            Slot::One => 3,
        })
    }

    fn part<const N: usize>(&self, index: usize) -> &[u8; N] {
        const { assert!(N <= PART_LEN, "no cipher or MAC has more") };
        let (parts, _) = self.0.as_chunks::<PART_LEN>();
        parts.get(index).and_then(|part| part.first_chunk()).expect("a key has four parts")
    }
}

/// What stands between the lines that begin and end with that label.
pub(super) fn between_lines<'a>(text: &'a str, label: &'static str) -> Result<&'a str, KeyFileError> {
    let after = |text: &'a str, word: &str| {
        let line = format!("-----{word} {label}-----");
        text.split_once(&line).ok_or(KeyFileError::Missing(label))
    };
    let (_, rest) = after(text, "BEGIN")?;
    let (body, _) = after(rest, "END")?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counting() -> StaticKey {
        StaticKey::new(std::array::from_fn(|index| u8::try_from(index).unwrap()))
    }

    #[test]
    fn parts_lie_one_after_the_other() {
        let key = counting();
        assert_eq!(key.cipher::<2>(Slot::Zero), &[0, 1]);
        assert_eq!(key.mac::<2>(Slot::Zero), &[64, 65]);
        assert_eq!(key.cipher::<2>(Slot::One), &[128, 129]);
        assert_eq!(key.mac::<64>(Slot::One).last(), Some(&255));
    }

    #[test]
    fn file_has_sixteen_lines_of_digits() {
        let text = counting().to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 18);
        assert_eq!(lines[1], "000102030405060708090a0b0c0d0e0f");
        assert_eq!(lines[17], "-----END OpenVPN Static key V1-----");
        let commented = format!("#\n# 2048 bit OpenVPN static key\n#\n{}", text.replace('\n', "\r\n"));
        assert!(StaticKey::parse(&commented).is_ok_and(|key| key.0 == counting().0));
    }

    #[test]
    fn text_that_is_no_key_file_says_why() {
        let text = counting().to_text();
        let parse = |text: &str| StaticKey::parse(text).err();
        assert_eq!(parse(""), Some(KeyFileError::Missing(LABEL)));
        assert_eq!(parse(&text.replace("END", "HALT")), Some(KeyFileError::Missing(LABEL)));
        assert_eq!(parse(&text.replace("00010203", "000102")), Some(KeyFileError::Length));
        assert_eq!(parse(&text.replace("00010203", "0001020304")), Some(KeyFileError::Length));
        assert_eq!(parse(&text.replace("00010203", "0001020x")), Some(KeyFileError::Encoding));
    }

    #[test]
    fn mixing_twice_gives_the_key_again() {
        let other = StaticKey::new([0x5a; KEY_LEN]);
        let mixed = counting().mixed_with(&other);
        assert!(mixed.0 != counting().0 && mixed.0 != other.0);
        assert_eq!(mixed.mixed_with(&other).0, counting().0);
    }

    proptest! {
        #[test]
        fn keys_survive_being_written(bytes in proptest::collection::vec(any::<u8>(), KEY_LEN)) {
            let key = StaticKey::from_slice(&bytes).unwrap();
            prop_assert_eq!(StaticKey::parse(&key.to_text()).map(|key| key.0.to_vec()), Ok(bytes));
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,200}") {
            prop_assert!(StaticKey::parse(&text).is_err());
        }
    }
}

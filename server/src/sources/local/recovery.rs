//! Codes of 80 random bits that people keep on paper or get told: recovery codes, for who has lost the app that shows
//! codes, and one-time codes to set a password.

use adit_program::random::{NoRandomness, random};
use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use crate::identity::sha256;

/// Recovery codes of one user.
pub const COUNT: usize = 10;
/// Random bytes of a code: as many that a plain hash of them cannot be searched.
const BYTES: usize = 10;
/// Characters of a code.
const CHARACTERS: usize = 16;

/// A new code, which only whoever gets it knows.
pub struct Code(Zeroizing<[u8; BYTES]>);

impl Code {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random() -> Result<Self, NoRandomness> {
        Ok(Self(Zeroizing::new(random::<BYTES>()?)))
    }

    /// As people read and type it: four groups of four characters.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let plain = Zeroizing::new(BASE32_NOPAD.encode(self.0.as_slice()));
        let mut text = Zeroizing::new(String::with_capacity(CHARACTERS + 3));
        for (index, character) in plain.chars().enumerate() {
            if index > 0 && index % 4 == 0 {
                text.push('-');
            }
            text.push(character);
        }
        text
    }

    /// What the gateway keeps of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(self.0.as_slice())
    }
}

/// The hash of a code as somebody typed it, with or without dashes and in any case; `None` if it cannot be a code.
#[must_use]
pub fn hash_of(typed: &str) -> Option<[u8; 32]> {
    if typed.len() > 2 * CHARACTERS {
        return None;
    }
    let mut plain = Zeroizing::new(String::with_capacity(2 * CHARACTERS));
    let characters = typed.chars().filter(|character| !matches!(character, '-' | ' '));
    // Digits that base 32 has not, so nobody can mean them.
    plain.extend(characters.map(|character| match character.to_ascii_uppercase() {
        '0' => 'O',
        '1' => 'I',
        other => other,
    }));
    let bytes = Zeroizing::new(BASE32_NOPAD.decode(plain.as_bytes()).ok()?);
    (bytes.len() == BYTES).then(|| sha256(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_recognised_however_it_is_typed() {
        let code = Code::random().unwrap();
        let text = code.text();
        assert_eq!(text.len(), CHARACTERS + 3);
        let loose = text.to_lowercase().replace('-', " ").replace('o', "0").replace('i', "1");
        for typed in [text.as_str(), &text.replace('-', ""), &loose, &format!(" {} ", text.as_str())] {
            assert_eq!(hash_of(typed), Some(code.hash()), "{typed}");
        }
    }

    #[test]
    fn other_texts_are_no_codes_or_have_another_hash() {
        let code = Code::random().unwrap();
        let text = code.text();
        let longer = "A".repeat(1000);
        for wrong in ["", "123456", &text[1..], &format!("{}A", text.as_str()), "ÄÄÄÄ-ÄÄÄÄ-ÄÄÄÄ-ÄÄÄÄ", &longer]
        {
            assert_eq!(hash_of(wrong), None, "{wrong:?}");
        }
        assert_ne!(hash_of(&Code::random().unwrap().text()), Some(code.hash()));
        assert_ne!(hash_of("AAAA-AAAA-AAAA-AAAA"), Some(code.hash()));
    }
}

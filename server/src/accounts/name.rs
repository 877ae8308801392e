//! Names of users and devices.

use std::fmt;

/// What every device id begins with; no user name may.
pub(super) const DEVICE_PREFIX: &str = "dev-";
/// Longest user name, in bytes.
const MAX_USER: usize = 64;
/// Longest device name that is kept, in characters.
const MAX_DEVICE_NAME: usize = 64;

/// The canonical name of a user: 1 to 64 of `a-z 0-9 . _ - @`, beginning and ending with a letter or digit.
///
/// There is one form of each name, so every alias of a user meets the same policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(String);

/// Why a text is no user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub &'static str);

impl UserName {
    /// Parses a name; upper case becomes lower case.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.to_ascii_lowercase();
        if !(1..=MAX_USER).contains(&name.len()) {
            return Err(NameError("a user name has 1 to 64 characters"));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
        if !name.bytes().all(allowed) {
            return Err(NameError("a user name has only letters, digits, '.', '_', '-' and '@'"));
        }
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !edge(name.bytes().next()) || !edge(name.bytes().last()) {
            return Err(NameError("a user name begins and ends with a letter or digit"));
        }
        if name.starts_with(DEVICE_PREFIX) {
            return Err(NameError("names beginning with dev- are those of devices"));
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a device calls itself, made safe to show on a terminal: no control or formatting characters, at most 64
/// characters.
pub(super) fn clean_device_name(text: &str) -> String {
    let clean: String = text.chars().filter(|character| !is_invisible(*character)).take(MAX_DEVICE_NAME).collect();
    let clean = clean.trim();
    if clean.is_empty() { "unnamed".to_owned() } else { clean.to_owned() }
}

/// Whether a character controls or formats others, and nobody sees it.
pub(crate) fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_is_the_same_user_or_refused() {
        assert_eq!(UserName::parse("Alice").unwrap().as_str(), "alice");
        assert_eq!(UserName::parse("a.b-c_d@example.org").unwrap().as_str(), "a.b-c_d@example.org");
        for text in
            ["", " alice", "alice ", "alice.", ".alice", "al ice", "аlice", "a\0b", "a\nb", "dev-abc", "DEV-abc", "a/b"]
        {
            assert!(UserName::parse(text).is_err(), "{text:?}");
        }
        assert!(UserName::parse(&"a".repeat(65)).is_err());
    }

    #[test]
    fn device_name_cannot_disturb_a_terminal() {
        assert_eq!(clean_device_name("lap\u{1b}[31mtop\r\n"), "lap[31mtop");
        assert_eq!(clean_device_name("a\u{202e}b\u{200b}c"), "abc");
        assert_eq!(clean_device_name("\u{7}"), "unnamed");
        assert_eq!(clean_device_name(&"ä".repeat(100)).chars().count(), 64);
    }
}

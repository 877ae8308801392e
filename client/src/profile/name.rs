//! Names of profiles.

use std::fmt;
use std::str::FromStr;

use super::ProfileError;

/// Longest profile name, in bytes: leaves room for the run directory in a Unix socket's path (108 bytes).
const LONGEST_NAME: usize = 48;

/// The name of a profile: letters, digits, `.`, `_` and `-`, not beginning with `.` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileName(String);

impl ProfileName {
    /// The name a profile gets from its gateway's host name.
    ///
    /// # Errors
    /// `Name` if nothing usable is left of the host name.
    pub fn from_host(host: &str) -> Result<Self, ProfileError> {
        let name: String = host.chars().map(|c| if is_name_character(c) { c } else { '-' }).collect();
        let name: String = name.trim_start_matches(['.', '-']).chars().take(LONGEST_NAME).collect();
        name.parse()
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = ProfileError;

    fn from_str(name: &str) -> Result<Self, ProfileError> {
        let fits = !name.is_empty() && name.len() <= LONGEST_NAME;
        if fits && !name.starts_with(['.', '-']) && name.chars().all(is_name_character) {
            return Ok(Self(name.to_owned()));
        }
        Err(ProfileError::Name { name: name.to_owned() })
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "-x", "a b", "ä", &"x".repeat(49)] {
            assert!(bad.parse::<ProfileName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_becomes_a_valid_name() {
        assert_eq!(ProfileName::from_host("vpn.example.org").unwrap().as_str(), "vpn.example.org");
        assert_eq!(ProfileName::from_host("::1").unwrap().as_str(), "1");
        assert_eq!(ProfileName::from_host("2001:db8::1").unwrap().as_str(), "2001-db8--1");
        assert!(ProfileName::from_host(&"long.".repeat(30)).is_ok());
    }
}

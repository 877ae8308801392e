//! What sources know somebody by, where it has parts.

use std::fmt;

/// Somebody as an OpenID Connect provider knows them. The accounts keep both parts as one text, `ISSUER SUBJECT`:
/// another provider's user with the same subject is somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OidcSubject<'a> {
    /// The provider, exactly as it calls itself.
    pub issuer: &'a str,
    /// What it knows them by: the claim `sub`.
    pub subject: &'a str,
}

impl<'a> OidcSubject<'a> {
    /// The parts of a text that the accounts keep; `None` if it does not begin with a URL.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (issuer, subject) = text.split_once(' ')?;
        issuer.contains("://").then_some(Self { issuer, subject })
    }
}

impl fmt::Display for OidcSubject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.issuer, self.subject)
    }
}

/// The flags of `adit-server user link` that name somebody, to be pasted into a shell.
pub(super) fn link_flags(source: &str, subject: &str) -> String {
    match OidcSubject::parse(subject) {
        Some(OidcSubject { issuer, subject }) if source == "oidc" => {
            format!("--source {source} --issuer {} --subject {}", quoted(issuer), quoted(subject))
        }
        _ => format!("--source {source} --subject {}", quoted(subject)),
    }
}

/// A word for a shell, which takes nothing in it for more than a letter.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_and_subject_are_kept_as_one_text() {
        let alice = OidcSubject { issuer: "https://login.example.org/a", subject: "42 b" };
        assert_eq!(alice.to_string(), "https://login.example.org/a 42 b");
        assert_eq!(OidcSubject::parse(&alice.to_string()), Some(alice));
        assert_eq!(OidcSubject::parse("42 b"), None);
        assert_eq!(OidcSubject::parse("https://login.example.org/a"), None);
    }

    #[test]
    fn flags_can_be_pasted_whatever_a_source_says() {
        let oidc = link_flags("oidc", "https://login.example.org 42");
        assert_eq!(oidc, "--source oidc --issuer 'https://login.example.org' --subject '42'");
        assert_eq!(link_flags("ldap", "u-1"), "--source ldap --subject 'u-1'");
        assert_eq!(link_flags("radius", "http://a b"), "--source radius --subject 'http://a b'");
        assert_eq!(link_flags("ldap", "'; reboot; '"), r"--source ldap --subject ''\''; reboot; '\'''");
    }
}

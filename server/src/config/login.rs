//! The table `[login]`: who is asked about users, and how long a login lasts.

use std::time::Duration;

use adit_program::configuration::{Complaint, Given};
use adit_program::foreign_text::{LONGEST, printable};
use adit_proto::policy::{FormError, SecondFactor};

/// How users log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginConfig {
    /// Who is asked about a user, first asked first; never empty, nobody twice.
    pub sources: Vec<SourceName>,
    /// How long a login lasts.
    pub session_lifetime: Duration,
    /// How often a source is asked whether a user still may.
    pub recheck: Duration,
    /// When a second factor is asked for.
    pub second_factor: SecondFactor,
    /// What users read who are asked for their name or password.
    pub banner: Option<String>,
}

/// A source of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceName {
    /// The gateway's own store.
    Local,
    /// RADIUS servers.
    Radius,
    /// A directory.
    Ldap,
    /// An OpenID Connect provider.
    Oidc,
}

impl SourceName {
    pub(crate) const ALL: [Self; 4] = [Self::Local, Self::Radius, Self::Ldap, Self::Oidc];

    /// The word for it in the configuration, in policies and in the store.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Radius => "radius",
            Self::Ldap => "ldap",
            Self::Oidc => "oidc",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.word() == text)
    }
}

/// The list of sources, each named once.
pub(super) fn sources(given: &Given<'_>) -> Result<Vec<SourceName>, Complaint> {
    let known = SourceName::ALL.map(SourceName::word).join("\", \"");
    let source = |given: &Given<'_>| {
        let text = given.text()?;
        let unknown = || Complaint::unfit(format!("{text:?} is no source of users"), format!("write \"{known}\""));
        SourceName::parse(text).ok_or_else(unknown)
    };
    let sources = given.items(source)?;
    match (1..sources.len()).find(|later| sources[..*later].contains(&sources[*later])) {
        Some(again) => {
            let reason = format!("\"{}\" is named twice", sources[again].word());
            Err(Complaint::unfit(reason, "name each source once"))
        }
        None => Ok(sources),
    }
}

pub(super) fn second_factor(given: &Given<'_>) -> Result<SecondFactor, Complaint> {
    given.text()?.parse().map_err(|FormError { reason, next }| Complaint::unfit(reason, next))
}

/// One line that terminals show as it is.
pub(super) fn banner(given: &Given<'_>) -> Result<String, Complaint> {
    let text = given.text()?;
    if text.trim().is_empty() || printable(text) != text {
        let reason =
            format!("{} is empty, or more than one line, or longer than {LONGEST} characters", printable(text));
        return Err(Complaint::unfit(reason, "write one short line of plain text"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file::{Source, interpret};
    use super::*;

    fn read(table: &str) -> Result<LoginConfig, String> {
        let text = format!("public = [\"a.example\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n[login]\n{table}");
        let (config, problems) = interpret(&text, &Source::file(Path::new("server.toml")));
        match problems.as_slice() {
            [] => Ok(config.unwrap().login),
            [problem, ..] => Err(problem.to_string()),
        }
    }

    #[test]
    fn sources_are_asked_in_the_order_they_are_named() {
        assert_eq!(read("").unwrap().sources, [SourceName::Local]);
        let named = read("sources = [\"oidc\", \"local\", \"radius\", \"ldap\"]").unwrap().sources;
        assert_eq!(named, [SourceName::Oidc, SourceName::Local, SourceName::Radius, SourceName::Ldap]);
    }

    #[test]
    fn unknown_repeated_or_missing_source_is_refused() {
        assert!(read("sources = [\"pam\"]").unwrap_err().contains("no source of users"));
        assert!(read("sources = [\"local\", \"ldap\", \"local\"]").unwrap_err().contains("named twice"));
        assert!(read("sources = []").unwrap_err().contains("empty"));
    }

    #[test]
    fn second_factor_is_one_of_three_words() {
        assert_eq!(read("").unwrap().second_factor, SecondFactor::Device);
        assert_eq!(read("second_factor = \"always\"").unwrap().second_factor, SecondFactor::Always);
        assert_eq!(read("second_factor = \"never\"").unwrap().second_factor, SecondFactor::Never);
        assert!(read("second_factor = \"sometimes\"").is_err());
    }

    #[test]
    fn banner_is_one_line_that_a_terminal_shows_as_it_is() {
        assert_eq!(read("").unwrap().banner, None);
        assert_eq!(read("banner = \"Für Büro ✓\"").unwrap().banner.as_deref(), Some("Für Büro ✓"));
        let long = |length: usize| read(&format!("banner = \"{}\"", "a".repeat(length)));
        assert!(long(LONGEST).is_ok());
        for bad in [long(LONGEST + 1), long(0), read("banner = \"a\\nb\""), read("banner = \"\\u001b[2J\"")] {
            assert!(bad.unwrap_err().contains("one short line"));
        }
    }
}

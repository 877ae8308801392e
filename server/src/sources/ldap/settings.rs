//! The table `[ldap]`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use adit_program::configuration::{Complaint, Given};

use crate::config::SecretPlace;

/// Stands in a filter for the name that was typed, or that of the entry.
pub(crate) const USER: &str = "$user";
/// Stands in the filter of groups for the entry's distinguished name.
pub(crate) const ENTRY: &str = "$dn";

/// Which directory is asked, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LdapSettings {
    /// Its servers, first asked first.
    pub urls: Vec<LdapUrl>,
    /// The certificates that may vouch for the servers; the system's without.
    pub authority: Option<PathBuf>,
    /// As whom the gateway looks for entries; anonymously without.
    pub bind_dn: Option<String>,
    /// Where the password for that lies.
    pub bind_password: Option<SecretPlace>,
    /// Below which entry users are.
    pub base: Option<String>,
    /// Which entry is that of a user.
    pub user_filter: String,
    /// The attribute that names a user.
    pub name_attribute: String,
    /// The attribute that never changes and is never given to another.
    pub id_attribute: String,
    /// Below which entry groups are; nobody has groups without.
    pub group_base: Option<String>,
    /// Which entries are groups of a user.
    pub group_filter: String,
    /// The attribute that names a group.
    pub group_attribute: String,
    /// Whether members of groups in groups count, by a rule that Active Directory alone has.
    pub nested_groups: bool,
    /// How long each step may take.
    pub timeout: Duration,
}

/// A server of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapUrl {
    /// Whether the connection begins with TLS (`ldaps`), or changes to it before anything else (`ldap`).
    pub begins_with_tls: bool,
    /// Name or IPv4 address, which the server's certificate must have.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for LdapUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.begins_with_tls { "ldaps" } else { "ldap" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl LdapUrl {
    /// Reads `ldaps://HOST[:PORT]` or `ldap://HOST[:PORT]`.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn parse(given: &Given<'_>) -> Result<Self, Complaint> {
        let next = "write one such as \"ldaps://ldap.example.org\", or \"ldap://ldap.example.org\" for StartTLS";
        let refused = |reason: String| Complaint::unfit(reason, next);
        let text = given.text()?;
        let (begins_with_tls, rest) = match (text.strip_prefix("ldaps://"), text.strip_prefix("ldap://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(refused(format!("{given} is no server of a directory"))),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let usual = if begins_with_tls { 636 } else { 389 };
        let (host, port) = match rest.rsplit_once(':') {
            None => (rest, Some(usual)),
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let Some(port) = port.filter(|_| !host.is_empty() && host.bytes().all(is_name)) else {
            return Err(refused(format!("{given} is not SCHEME://HOST:PORT with a name or an IPv4 address")));
        };
        Ok(Self { begins_with_tls, host: host.to_ascii_lowercase(), port })
    }
}

/// A text that is not empty.
///
/// # Errors
/// It is empty.
pub(crate) fn some_text(given: &Given<'_>) -> Result<String, Complaint> {
    let text = given.text()?.trim();
    if text.is_empty() {
        return Err(Complaint::unfit("it is empty", "write a text, or remove the key"));
    }
    Ok(text.to_owned())
}

/// A filter that says of whom it speaks.
///
/// # Errors
/// Nothing in it stands for the user, or it is not in parentheses.
pub(crate) fn user_filter(given: &Given<'_>) -> Result<String, Complaint> {
    filter(given, &[USER])
}

/// A filter that says of whose groups it speaks.
///
/// # Errors
/// As [`user_filter`].
pub(crate) fn group_filter(given: &Given<'_>) -> Result<String, Complaint> {
    filter(given, &[ENTRY, USER])
}

fn filter(given: &Given<'_>, variables: &[&str]) -> Result<String, Complaint> {
    let text = some_text(given)?;
    if !text.starts_with('(') || !text.ends_with(')') {
        let next = "write a filter of RFC 4515 such as \"(uid=$user)\"";
        return Err(Complaint::unfit(format!("{given} is no filter in parentheses"), next));
    }
    if !variables.iter().any(|variable| text.contains(variable)) {
        let reason = format!("{given} finds the same for every user");
        return Err(Complaint::unfit(reason, format!("write {} where the user stands", variables.join(" or "))));
    }
    Ok(text)
}

/// The name of an attribute.
///
/// # Errors
/// It is none.
pub(crate) fn attribute(given: &Given<'_>) -> Result<String, Complaint> {
    let text = given.text()?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Complaint::unfit(format!("{given} is no attribute"), "write a name such as \"uid\""))
}

//! The table `[radius]`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_program::configuration::{Complaint, Given};

use crate::config::SecretPlace;

/// Port of a server where none is named (RFC 2865 section 3).
const PORT: u16 = 1812;
/// Port for accounting where none is named (RFC 2866 section 3).
const ACCOUNTING_PORT: u16 = 1813;

/// Which servers are asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadiusSettings {
    /// Servers that decide about logins, first asked first.
    pub servers: Vec<SocketAddr>,
    /// Where the secret lies that the gateway shares with all of them.
    pub secret: Option<SecretPlace>,
    /// How long one server is waited for.
    pub timeout: Duration,
    /// In which attribute groups come.
    pub groups: GroupAttribute,
    /// What the gateway calls itself.
    pub nas_identifier: String,
    /// Whether a reply without Message-Authenticator is refused.
    pub require_message_authenticator: bool,
    /// Servers that are told of sessions; empty tells nobody.
    pub accounting_servers: Vec<SocketAddr>,
    /// How often they are told of a session that goes on.
    pub accounting_interim: Duration,
}

/// The attribute of an acceptance that names groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupAttribute {
    /// Class.
    Class,
    /// Filter-Id.
    FilterId,
}

impl Default for RadiusSettings {
    /// Nothing is set: no server is asked.
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            secret: None,
            timeout: adit_proto::radius::patience::USUAL,
            groups: GroupAttribute::Class,
            nas_identifier: String::new(),
            require_message_authenticator: true,
            accounting_servers: Vec::new(),
            accounting_interim: Duration::ZERO,
        }
    }
}

impl GroupAttribute {
    /// Reads its word in the configuration.
    ///
    /// # Errors
    /// It is none of the words.
    pub(crate) fn parse(given: &Given<'_>) -> Result<Self, Complaint> {
        match given.text()? {
            "class" => Ok(Self::Class),
            "filter-id" => Ok(Self::FilterId),
            _ => Err(Complaint::unfit(format!("{given} carries no groups"), "write \"class\" or \"filter-id\"")),
        }
    }
}

/// A server that decides about logins.
///
/// # Errors
/// It is no address. A name is refused, since what it means could change.
pub(crate) fn server(given: &Given<'_>) -> Result<SocketAddr, Complaint> {
    address(given, PORT)
}

/// A server that is told of sessions.
///
/// # Errors
/// As [`server`].
pub(crate) fn accounting_server(given: &Given<'_>) -> Result<SocketAddr, Complaint> {
    address(given, ACCOUNTING_PORT)
}

fn address(given: &Given<'_>, port: u16) -> Result<SocketAddr, Complaint> {
    let text = given.text()?;
    let alone = || Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port));
    let address = text.parse::<SocketAddr>().ok().or_else(alone);
    let fits = |address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified();
    address.filter(fits).ok_or_else(|| {
        let next = format!("write one such as \"192.0.2.5\", \"192.0.2.5:{port}\" or \"[2001:db8::5]:{port}\"");
        Complaint::unfit(format!("\"{text}\" is not the address of a server"), next)
    })
}

/// What the gateway calls itself.
///
/// # Errors
/// It is empty, too long, or not plainly visible.
pub(crate) fn nas_identifier(given: &Given<'_>) -> Result<String, Complaint> {
    let text = given.text()?;
    if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(Complaint::unfit(format!("{given} cannot name the gateway"), "write 1 to 64 letters, digits, '-', '_' or '.'"))
}

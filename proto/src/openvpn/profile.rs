//! A profile of a stock client: the text of an `.ovpn` file.
//!
//! [`parse`] reads all of it and says of each option what becomes of it: it is honoured, and shows in [`Profile`]; it
//! is ignored, and named with the reason; or it is refused, and there is no profile. Refused is what would run a
//! program, what would change how packets look without being spoken here, what would weaken the connection when it is
//! left out, and what is unknown. All refusals are told at once.
//!
//! Keys and certificates may stand in the text, between lines such as `<ca>` and `</ca>`, or in files. Files are named
//! ([`Material::File`]), and not read here.

mod draft;
mod lines;
mod options;

use std::num::NonZeroU16;
use std::time::Duration;

use zeroize::Zeroizing;

use super::push::filter::Filter;
use super::push::{Dns, Redirect, Route};
use super::wrapping::tls_auth::{Digest, Direction};
use crate::sealing::suite::Suite;

/// Longest text, in bytes.
pub const MAX_LEN: usize = 1024 * 1024;

/// Most servers.
pub const MAX_REMOTES: usize = 64;

/// Where a key or certificate is. It may be secret, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// In the profile.
    Inline(Zeroizing<String>),
    /// In a file; where it is meant to be is up to who has the profile.
    File(String),
}

/// Over what a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Which addresses of a name are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// All.
    Any,
    /// Those of IPv4.
    V4,
    /// Those of IPv6.
    V6,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: NonZeroU16,
    /// Over what it is reached.
    pub transport: Transport,
    /// Which of its addresses are used.
    pub family: Family,
}

/// What hides control packets.
#[derive(Clone, PartialEq, Eq)]
pub enum Wrapping {
    /// Nothing.
    Plain,
    /// A key file, the digest of MACs, and the direction.
    Auth(Material, Digest, Direction),
    /// A key file.
    Crypt(Material),
    /// A file with the client's own key.
    CryptV2(Material),
}

/// What the name in the server's certificate has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// The common name.
    Name(String),
    /// What the common name begins with.
    NamePrefix(String),
    /// The whole subject, as openvpn writes it.
    Subject(String),
}

/// How the user logs in.
#[derive(Clone, PartialEq, Eq)]
pub enum UserLogin {
    /// By the certificate alone.
    None,
    /// Name and password are asked for.
    Ask,
    /// Both stand in a file, or in the profile.
    Stored(Material),
}

/// A question of the profile's own beside that for the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticChallenge {
    /// The question.
    pub text: String,
    /// Whether the answer may be seen while it is typed.
    pub echo: bool,
}

/// Everything that is honoured.
#[derive(Clone, PartialEq, Eq)]
pub struct Profile {
    /// The servers, in order; at least one.
    pub remotes: Vec<Remote>,
    /// Whether the order is drawn by lot.
    pub remote_random: bool,
    /// By whom the server's certificate has to be signed.
    pub ca: Option<Material>,
    /// The client's certificate.
    pub certificate: Option<Material>,
    /// Its key.
    pub key: Option<Material>,
    /// Certificates that are revoked.
    pub revoked: Option<Material>,
    /// SHA-256 of the server's certificate: one of these.
    pub fingerprints: Vec<[u8; 32]>,
    /// What the server's certificate has to say.
    pub server_name: Option<ServerName>,
    /// Whether it has to say that it is a server's.
    pub must_be_server: bool,
    /// What hides control packets.
    pub wrapping: Wrapping,
    /// How the user logs in.
    pub user_login: UserLogin,
    /// A question beside that for the password.
    pub static_challenge: Option<StaticChallenge>,
    /// Ciphers of data, in order; at least one.
    pub suites: Vec<Suite>,
    /// Routes beside those that the server pushes.
    pub routes: Vec<Route>,
    /// What else goes through the tunnel.
    pub redirect: Redirect,
    /// Resolvers and domains beside those that the server pushes.
    pub dns: Dns,
    /// Whether the server's routes and resolvers do not count.
    pub route_nopull: bool,
    /// Which of the options that the server pushes count.
    pub filters: Vec<Filter>,
    /// Whether IPv6 is blocked that the tunnel does not carry.
    pub block_v6: bool,
    /// Whether other resolvers than those of the tunnel are blocked.
    pub block_outside_dns: bool,
    /// Largest packet, in bytes.
    pub mtu: Option<u16>,
    /// Largest datagram that segments of TCP may make, in bytes.
    pub mssfix: Option<u16>,
    /// After how long a silence of one's own a ping is sent.
    pub ping: Option<Duration>,
    /// After how long a silence of the server the client connects anew.
    pub ping_restart: Option<Duration>,
    /// Whether a client that leaves says so.
    pub exit_notify: bool,
    /// After how long new keys are begun.
    pub renegotiate: Option<Duration>,
    /// After how many bytes new keys are begun.
    pub renegotiate_bytes: Option<u64>,
    /// How long the handshake may take.
    pub hand_window: Option<Duration>,
}

/// An option that nothing comes of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The line it is in, from 1.
    pub line: usize,
    /// Its name.
    pub option: String,
    /// Why that does no harm.
    pub reason: &'static str,
}

/// Something that has to be mended before there is a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {option}: {reason}")]
pub struct Refused {
    /// The line it is in, from 1; 0 if it is about the whole.
    pub line: usize,
    /// The option's name, or what is wrong.
    pub option: String,
    /// Why, and what to do.
    pub reason: String,
}

/// What a text comes to.
#[derive(Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Everything that is honoured.
    pub profile: Profile,
    /// What is not, and does no harm.
    pub ignored: Vec<Ignored>,
}

/// Reads a profile.
///
/// # Errors
/// Everything that has to be mended, in the order of the lines; at least one.
pub fn parse(text: &str) -> Result<Parsed, Vec<Refused>> {
    let mut draft = draft::Draft::default();
    if text.len() > MAX_LEN {
        draft.refuse(0, "profile", "is longer than 1 MiB, so it is none");
    } else {
        lines::read(text, &mut draft);
    }
    draft.finish()
}

#[cfg(test)]
mod tests;

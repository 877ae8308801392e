//! Profiles: what a client knows about one gateway, kept in one file that only its owner may read.
//!
//! `adit-client join` writes a profile. A profile that logs in with a bearer token is written by hand, mode 0600:
//!
//! ```toml
//! host = "vpn.example.org"
//! port = 443
//! authority = """
//! -----BEGIN CERTIFICATE-----
//! …
//! -----END CERTIFICATE-----
//! """
//! token = "…"
//! ```
//!
//! Either kind may say how its packets travel, in the tables `[esp]` and `[workers]`, which are kept when the profile
//! is saved. Profiles for AnyConnect gateways say in `[login]` how their user logs in. `docs/configuration.md` has all
//! keys with their defaults; its table is made of the rows in `profile/keys.rs`.

mod directories;
mod draft;
mod error;
mod keys;
mod login;
mod name;
mod password;
mod store;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod value;
mod written;

use std::fmt;
use std::net::SocketAddr;

use adit_proto::invite::Place;
use adit_proto::mark::Mark;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::captive_portal::CaptiveProbe;
use crate::protocols::{Candidates, Credentials, GatewayAccess, authority};

use written::Written;

pub use directories::Directories;
pub use error::ProfileError;
pub(crate) use error::file_failure;
#[cfg(feature = "host")]
pub(crate) use error::guard_failure;
pub use login::KeptLogin;
pub use name::ProfileName;
pub use store::{Entry, ProfileRoom, ProfileStore};
pub use tables::{EspTable, LoginTable, WorkersTable};

/// How a profile proves who its device is. The secrets are wiped from memory on drop.
#[derive(Clone)]
pub enum Identity {
    /// A device certificate, or that of a user at an AnyConnect gateway, and its key, both PEM.
    Certificate {
        /// The certificate.
        chain_pem: String,
        /// Its private key.
        key_pem: Zeroizing<String>,
    },
    /// A bearer token of `adit-server token`.
    Token(Zeroizing<String>),
    /// Nothing but the login of its user.
    Login,
}

/// Which protocol a gateway speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum GatewayProtocol {
    /// CONNECT-IP, as Adit's gateways do.
    #[default]
    #[serde(rename = "connect-ip")]
    ConnectIp,
    /// That of the AnyConnect family.
    #[serde(rename = "anyconnect")]
    AnyConnect,
}

/// Whether a host with a full tunnel may use its local networks beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LanAccess {
    /// Everything goes into the tunnel.
    #[default]
    Block,
    /// The networks of this host's links, as far as they are private, are used directly; names are not asked for there.
    Allow,
}

/// What a client knows about one gateway.
#[derive(Clone)]
pub struct Profile {
    /// Name of the profile, which is also its file's name.
    pub name: ProfileName,
    /// Host name or address of the gateway, which its certificate must bear.
    pub host: String,
    /// Port of the gateway: of UDP, or of TCP at AnyConnect gateways.
    pub port: u16,
    /// Where else the same gateway is reached.
    pub others: Vec<Place>,
    /// Which protocol it speaks.
    pub protocol: GatewayProtocol,
    /// The user the device belongs to, or who logs in; empty if unknown.
    pub user: String,
    /// The device's id at the gateway; empty if unknown.
    pub device: String,
    /// Addresses of the gateway: the one last reached first, then those its names had then.
    pub addresses: Vec<SocketAddr>,
    /// Whether this host is closed for what belongs in a full tunnel; `None` closes it for every full tunnel.
    pub kill_switch: Option<bool>,
    /// Whether a closed host may use its local networks.
    pub lan: LanAccess,
    /// Whom to ask whether the network has a captive portal.
    pub captive_probe: CaptiveProbe,
    /// Whether all traffic went into the tunnel when it was last connected.
    pub full_tunnel: bool,
    /// The gateway's certificate authority, PEM. For AnyConnect gateways there may be several, or none: then `pin`
    /// vouches for the gateway, or whom this host trusts.
    pub authority_pem: String,
    /// The SHA-256 of the SPKI of an AnyConnect gateway's authority, or of its own certificate.
    pub pin: Option<[u8; 32]>,
    /// The device's proof.
    pub identity: Identity,
    /// How its user logs in at an AnyConnect gateway.
    pub login: LoginTable,
    /// The ESP carrier.
    pub esp: EspTable,
    /// The packet path.
    pub workers: WorkersTable,
    /// What tells the client's own datagrams from all other packets of this host.
    pub mark: Mark,
}

impl Profile {
    /// Parses a profile file's text.
    ///
    /// # Errors
    /// `Syntax`, `UnknownKey` or `Invalid`, each naming the key or line.
    pub fn parse(name: ProfileName, text: &str) -> Result<Self, ProfileError> {
        draft::parse(name, text)
    }

    /// The profile file's text, secrets included.
    ///
    /// # Errors
    /// `Invalid` if a value cannot be written as TOML.
    pub fn encode(&self) -> Result<Zeroizing<String>, ProfileError> {
        let text = toml::to_string_pretty(&Written::of(self))
            .map_err(|error| ProfileError::invalid(&self.name, error.to_string()))?;
        Ok(Zeroizing::new(text))
    }

    /// The profile as [`crate::protocols::connect_ip::Connection::open`] wants it, to be tried at `addresses`.
    #[must_use]
    pub fn target(&self, addresses: Candidates, mark: Option<u32>) -> GatewayAccess {
        let credentials = match &self.identity {
            Identity::Certificate { chain_pem, key_pem } => {
                Credentials::Certificate { chain_pem: chain_pem.clone(), key_pem: key_pem.to_string() }
            }
            Identity::Token(token) => Credentials::Token(token.to_string()),
            Identity::Login => Credentials::Login,
        };
        let authority_pem = self.authority_pem.clone();
        let (host, port, pin) = (self.host.clone(), self.port, self.pin);
        GatewayAccess { host, port, addresses, authority_pem, pin, credentials, login: None, mark }
    }

    /// Where the gateway is reached; the first is what its certificate bears.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let first = Place { host: self.host.clone(), port: self.port };
        std::iter::once(first).chain(self.others.iter().cloned()).collect()
    }

    /// The gateway as `HOST:PORT`, with brackets around an IPv6 address.
    #[must_use]
    pub fn gateway(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile").field("name", &self.name).finish_non_exhaustive()
    }
}

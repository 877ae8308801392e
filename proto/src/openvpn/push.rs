//! The settings of a session, as servers push them and clients take them.
//!
//! ```text
//! PUSH_REPLY,option,option,…,push-continuation 2      more follows
//! PUSH_REPLY,option,option,…,push-continuation 1      the last of several
//! ```
//!
//! [`mod@write`] makes such messages of [`Settings`], and [`mod@read`] takes them. Only topology `subnet` is written;
//! `net30` and `p2p` are read, too. Options that are not known here are told by their names; those that would have data
//! compressed are refused, as they would change what every packet looks like.

pub mod dns;
pub mod filter;
pub mod read;
pub mod write;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zeroize::Zeroizing;

use super::negotiation::Format;
use crate::sealing::suite::Suite;

/// Most peer ids: they have 24 bits, and the highest one stands for none.
pub const MAX_PEER_ID: u32 = (1 << 24) - 2;

/// A route that the server wants to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// What it leads to; no host bits are set.
    pub to: IpNet,
    /// Whether it leads around the tunnel, over the network that the client is in.
    pub around: bool,
}

/// What `redirect-gateway` asks for: everything goes through the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Redirect {
    /// All of IPv4.
    pub v4: bool,
    /// All of IPv6.
    pub v6: bool,
    /// Not even the network that the client is in stays reachable.
    pub block_local: bool,
}

/// Who is asked for names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// The resolvers, in order.
    pub resolvers: Vec<IpAddr>,
    /// The domains that they are asked for; all names if there are none here.
    pub domains: Vec<String>,
    /// Domains that names without a dot are tried in.
    pub search: Vec<String>,
}

/// What stands in the place of a password from now on. It is secret, so `Debug` tells nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token.
    pub token: Zeroizing<String>,
    /// The name to give with it, if it is another than the user's; not empty.
    pub user: Option<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

/// How it is found out that the other end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Liveness {
    /// After how long a silence of one's own a ping is sent.
    pub ping: Option<Duration>,
    /// After how long a silence of the other end a client connects anew.
    pub restart: Option<Duration>,
    /// After how long a silence of the other end a client ends.
    pub exit: Option<Duration>,
}

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The client's IPv4 address, and the network that it is in.
    pub v4: Option<Ipv4Net>,
    /// The client's IPv6 address, and the network that it is in.
    pub v6: Option<Ipv6Net>,
    /// Where IPv4 routes lead, if it is not all the same.
    pub v4_gateway: Option<Ipv4Addr>,
    /// Where IPv6 routes lead, if it is not all the same.
    pub v6_gateway: Option<Ipv6Addr>,
    /// What leads through the tunnel, or around it.
    pub routes: Vec<Route>,
    /// What else goes through the tunnel.
    pub redirect: Redirect,
    /// Whether IPv6 is blocked that the tunnel does not carry.
    pub block_v6: bool,
    /// Whether other resolvers than those of the tunnel are blocked.
    pub block_outside_dns: bool,
    /// Who is asked for names.
    pub dns: Dns,
    /// Largest packet, in bytes.
    pub mtu: Option<u16>,
    /// Pings and their absence.
    pub liveness: Liveness,
    /// By what the server knows the client's data, up to [`MAX_PEER_ID`].
    pub peer_id: Option<u32>,
    /// The cipher of data.
    pub suite: Suite,
    /// The form of data.
    pub format: Format,
    /// Whether data keys come from the TLS exporter.
    pub key_export: bool,
    /// Whether either end may say EXIT in the control channel.
    pub exit_message: bool,
    /// Whether renegotiations have a key of tls-crypt of their own.
    pub dynamic_tls_crypt: bool,
    /// Whether a client that leaves says so.
    pub exit_notify: bool,
    /// After how long the client begins new keys; `None` leaves it to the client.
    pub renegotiate: Option<Duration>,
    /// How long the session may last.
    pub session_timeout: Option<Duration>,
    /// What stands in the place of the password from now on.
    pub token: Option<Token>,
}

impl Settings {
    /// Nothing but a cipher, in the form of data that every client knows.
    pub fn new(suite: Suite) -> Self {
        Self {
            v4: None,
            v6: None,
            v4_gateway: None,
            v6_gateway: None,
            routes: Vec::new(),
            redirect: Redirect::default(),
            block_v6: false,
            block_outside_dns: false,
            dns: Dns::default(),
            mtu: None,
            liveness: Liveness::default(),
            peer_id: None,
            suite,
            format: Format::V2,
            key_export: true,
            exit_message: false,
            dynamic_tls_crypt: false,
            exit_notify: false,
            renegotiate: None,
            session_timeout: None,
            token: None,
        }
    }
}

#[cfg(test)]
mod tests;

//! The protocols a client speaks to gateways, a module each, and the words all of them share: what they need to
//! connect, what they report, and why they fail.

pub mod anyconnect;
pub mod connect_ip;
mod data;
mod stream;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_net::quic;
use adit_proto::range::RouteRange;
use ipnet::IpNet;
use zeroize::Zeroizing;

pub use crate::gateway_addresses::Candidates;

/// How a client proves who it is.
pub enum Credentials {
    /// A device certificate chain and its key, both PEM.
    Certificate {
        /// The certificate chain, leaf first.
        chain_pem: String,
        /// The leaf's private key.
        key_pem: String,
    },
    /// A bearer token of `adit-server token`.
    Token(String),
    /// Nothing but the login of its user.
    Login,
}

/// Everything needed to reach one gateway.
pub struct GatewayAccess {
    /// Host name or address; also the name its certificate must bear.
    pub host: String,
    /// Port, of UDP or TCP.
    pub port: u16,
    /// Addresses to try, best first.
    pub addresses: Candidates,
    /// The gateway's certificate authority, PEM. At AnyConnect gateways there may be several, or none here: then the
    /// pin vouches for the gateway, or whom this host trusts.
    pub authority_pem: String,
    /// The SHA-256 of the SPKI of an AnyConnect gateway's authority, or of its own certificate.
    pub pin: Option<[u8; 32]>,
    /// The device's proof.
    pub credentials: Credentials,
    /// The session token of the user's last login, which this gateway gave.
    pub login: Option<Zeroizing<String>>,
    /// Mark of the outer socket (SO_MARK), so that policy routing exempts it; `None` leaves it unmarked.
    pub mark: Option<u32>,
}

impl GatewayAccess {
    /// Host and port as in a URL.
    pub(crate) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// Host and port as in a URL (RFC 3986 section 3.2); an IPv6 address goes into brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A connection that has network settings, and moves packets once it is attached. Its first event is always `Network`.
pub trait OpenConnection: Send + 'static {
    /// Packets from the gateway to other addresses than these are dropped from now on. At first there are none.
    fn admit(&mut self, addresses: Vec<IpAddr>);

    /// Starts moving packets between their source and the gateway. If the source fails, the connection ends.
    fn attach(&mut self);

    /// Waits for the next event. Cancel-safe. After `Closed` it returns `Closed` again.
    fn next_event(&mut self) -> impl Future<Output = ConnectionEvent> + Send;

    /// This host woke, after having slept for so long: what the gateway and the path knew of the connection may be
    /// forgotten. A connection that finds it so ends.
    fn handle_wake(&mut self, slept: Duration);

    /// Another connection is being made that is to take this one's place, or no more. One that goes over to other
    /// connections by itself makes none meanwhile, so that the gateway is asked on one at a time.
    fn make_way(&mut self, _is_replaced: bool) {}

    /// Counters now.
    fn stats(&self) -> ConnectionStats;

    /// Whether it goes on when this host gets another address. One over TCP does not: another is to take its place.
    fn outlives_moves(&self) -> bool;

    /// Says goodbye to the gateway and waits at most a second until that is heard.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// What the gateway gave the session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Inner addresses of this device.
    pub addresses: Vec<IpNet>,
    /// Ranges reachable through the gateway, as advertised.
    pub routes: Vec<RouteRange>,
    /// Whether it said that no range is. Without ranges, and without this, it has not said yet.
    pub has_no_routes: bool,
    /// Resolvers inside the tunnel.
    pub dns_servers: Vec<IpAddr>,
    /// Domains to ask them for; empty means all.
    pub dns_domains: Vec<String>,
}

impl NetworkSettings {
    /// Whether the gateway has said which ranges are reachable.
    #[must_use]
    pub fn tells_routes(&self) -> bool {
        self.has_no_routes || !self.routes.is_empty()
    }
}

/// Why a connection could not be made or ended.
///
/// Until the gateway has shown its certificate and proven its key, anybody on the way can cause what is told here:
/// `IdentityMismatch`, `Clock`, `BrokenOff` and `Unreachable` say what this host met, not what the gateway wants. All
/// else comes from the gateway itself, or from this host.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Somebody showed a certificate that is not this gateway's.
    #[error("the gateway's identity does not match: {0}")]
    IdentityMismatch(String),
    /// The dates in a certificate do not fit a clock.
    #[error("{0}")]
    Clock(String),
    /// The handshake was broken off, by the gateway or by somebody else.
    #[error("the handshake was broken off before the gateway had proven who it is: {0}")]
    BrokenOff(String),
    /// The gateway refused the certificate or token.
    #[error("the gateway refused this device: {0}")]
    Refused(String),
    /// The gateway wants the user to log in, for the first time or again.
    #[error("the gateway wants a login: {0}")]
    LoginNeeded(String),
    /// The gateway takes the device's certificate for expired, or for not valid yet.
    #[error("the gateway refused this device: its certificate is out of date")]
    OutOfDate,
    /// This host's network leads to no address of the gateway.
    #[error("no way to {address}: this host's network has no {family}, or no route there")]
    NoRoute {
        /// The address that was tried last.
        address: SocketAddr,
        /// Its address family.
        family: &'static str,
    },
    /// Nothing answered at any address.
    #[error("no answer from {0}")]
    Unreachable(String),
    /// This host's own firewall drops what is sent to the gateway.
    #[error("{0}")]
    Firewall(String),
    /// The way to the gateway takes too small packets for a tunnel.
    #[error(
        "the path to {address} is too narrow: it takes IP packets of {carries} bytes, and a tunnel needs {}",
        least_path_mtu(*address)
    )]
    NarrowPath {
        /// The address.
        address: SocketAddr,
        /// Bytes that passed.
        carries: u16,
    },
    /// The gateway answered, but not as its protocol says.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// This host refused (socket, permission).
    #[error("{0}")]
    Local(#[source] std::io::Error),
    /// The packet source failed: its TUN device was deleted.
    #[error("the source of packets failed: {0}")]
    Source(#[source] std::io::Error),
    /// The gateway restarts, and means to be back in so long a time.
    #[error("the gateway restarts, and is back in {} s", .0.as_secs())]
    Restarts(Duration),
    /// The gateway ended the session (shutting down, replaced, revoked …).
    #[error("the connection was closed: {0}")]
    Closed(String),
}

/// Bytes of the IP packets that a path must take for a tunnel.
fn least_path_mtu(address: SocketAddr) -> u16 {
    quic::MIN_UDP_PAYLOAD + udp_overhead(address)
}

/// Bytes of the IP and UDP headers of a datagram to an address.
pub(crate) const fn udp_overhead(address: SocketAddr) -> u16 {
    if address.is_ipv4() { 20 + 8 } else { 40 + 8 }
}

impl ConnectError {
    /// Whether anybody on the way could have caused this.
    pub(crate) fn is_unproven(&self) -> bool {
        match self {
            Self::IdentityMismatch(_)
            | Self::Clock(_)
            | Self::BrokenOff(_)
            | Self::Unreachable(_)
            | Self::NarrowPath { .. } => true,
            Self::Refused(_)
            | Self::LoginNeeded(_)
            | Self::NoRoute { .. }
            | Self::OutOfDate
            | Self::Firewall(_)
            | Self::Protocol(_)
            | Self::Local(_)
            | Self::Source(_)
            | Self::Restarts(_)
            | Self::Closed(_) => false,
        }
    }
}

/// What happens on an open connection.
#[derive(Debug)]
pub enum ConnectionEvent {
    /// New addresses, routes or DNS; replaces the former ones.
    Network(NetworkSettings),
    /// The largest packet the carrier takes changed, in bytes.
    Mtu(u16),
    /// Packets travel by another carrier than before.
    Carrier,
    /// Nothing that is sent is answered, if true, or it is again. The connection may go on: another one is to be made
    /// beside it meanwhile. One that goes over to other carriers by itself tells this only of those over TCP.
    Silent(bool),
    /// How long the user's login still lasts.
    LoginLasts(Duration),
    /// The connection ended.
    Closed(ConnectError),
}

/// Counters of one connection.
#[derive(Debug, Clone, Default)]
pub struct ConnectionStats {
    /// Name of the carrier in use, `esp`, `dtls`, `quic` or `tls`.
    pub carrier: &'static str,
    /// The cipher suite, while the carrier is `esp` or `dtls`.
    pub suite: Option<&'static str>,
    /// How often the keys of `esp` were replaced.
    pub rekeys: u32,
    /// Packets and bytes received from the gateway.
    pub rx_packets: u64,
    /// See `rx_packets`.
    pub rx_bytes: u64,
    /// Packets received by `esp` or `dtls` after one with a higher number: reordered on the way, or sent at the same
    /// moment by two workers of the gateway, which says nothing about the order within a flow.
    pub rx_reordered: u64,
    /// Packets and bytes sent to the gateway.
    pub tx_packets: u64,
    /// See `tx_packets`.
    pub tx_bytes: u64,
    /// Dropped packets by reason label (non-zero only).
    pub drops: Vec<(&'static str, u64)>,
    /// Round-trip time of the connection.
    pub rtt: Duration,
    /// The largest IP packet of QUIC that came through so far, in bytes; `None` without QUIC.
    pub path_mtu: Option<u16>,
    /// The gateway's address in use.
    pub remote: Option<SocketAddr>,
    /// What is in the way of UDP, in words, where the client chose TLS for that.
    pub not_by_udp: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_hosts_get_brackets() {
        assert_eq!(authority("2001:db8::1", 443), "[2001:db8::1]:443");
        assert_eq!(authority("gw.example", 8443), "gw.example:8443");
    }
}

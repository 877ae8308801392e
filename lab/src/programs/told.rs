//! What the programs tell as JSON, as far as those who run them read it. Nothing of the programs' own code is used for
//! that.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Deserialize;

/// A live session, as `adit-server sessions --json` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ToldSession {
    /// Number of the session, unique in one run of the gateway.
    pub session: u64,
    /// Inner addresses.
    pub addresses: Vec<IpAddr>,
    /// Outer address of the client.
    pub remote: SocketAddr,
    /// What serves the client, such as `connect-ip`.
    pub front_end: String,
    /// The client's name and version, where it says them.
    #[serde(default)]
    pub client: Option<String>,
    /// The group that its user has chosen, if one was.
    #[serde(default)]
    pub group: Option<String>,
    /// Carrier in use: `esp`, `dtls`, `quic` or `tls`.
    pub carrier: String,
    /// Cipher suite; not of `quic`.
    #[serde(default)]
    pub suite: Option<String>,
    /// Largest packet the carrier in use takes, in bytes.
    pub mtu: u16,
    /// Packets received from the client.
    pub rx_packets: u64,
    /// Packets received from the client after one that it sent later.
    pub reordered: u64,
    /// Dropped packets by reason; reasons without any are left out.
    pub drops: BTreeMap<String, u64>,
}

/// A client at a glance, as `adit-client status --json` tells it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ToldStatus {
    /// State of the life cycle, such as `connected`.
    pub state: String,
    /// Why it is not connected, where there is something to say.
    pub reason: Option<String>,
    /// Where the network's captive portal is, in the state `captive portal`.
    #[serde(default)]
    pub portal: Option<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Seconds since the state was entered; `None` while no client runs.
    pub since_seconds: Option<u64>,
    /// The gateway, as `HOST:PORT`.
    pub gateway: String,
    /// The TUN device, where the host is configured.
    pub tun: Option<String>,
    /// Inner addresses.
    pub addresses: Vec<IpNet>,
    /// How packets travel: `esp`, `dtls`, `quic` or `tls`.
    pub carrier: Option<String>,
    /// What is in the way of UDP, where the client chose `tls` for that.
    pub not_by_udp: Option<String>,
    /// Seconds since packets travel by it.
    pub carrier_seconds: Option<u64>,
    /// The largest outer packet that came through, in bytes.
    pub path_mtu: Option<u16>,
    /// The cipher suite, while packets travel by `esp` or `dtls`.
    pub suite: Option<String>,
    /// How often the keys of `esp` were replaced.
    pub rekeys: u32,
    /// Largest inner packet, in bytes.
    pub mtu: Option<u16>,
    /// Round-trip time to the gateway, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Dropped packets by reason; reasons without any are left out.
    pub drops: BTreeMap<String, u64>,
}

//! What a client says about itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::host_plan::{GuardStatus, HostPlan};
use crate::protocols::{ConnectionStats, NetworkSettings};

/// Most routes a status lists: enough for a person to read.
const MOST_ROUTES: usize = 256;

/// What a full tunnel without resolvers means.
pub(super) const NO_RESOLVER: &str = "the gateway gives no DNS servers: this host goes on asking its own, \
    through the tunnel; if they stand in the local network, no name resolves";

/// A client at a glance, as `adit-client status --json` prints it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Name of the profile.
    pub name: String,
    /// State of the life cycle: `disconnected`, `connecting`, `connected`, `reconnecting`, `captive portal`,
    /// `disconnecting`, `blocked` or `login needed`.
    pub state: String,
    /// Why it is not connected, if there is something to say.
    pub reason: Option<String>,
    /// The page of the network's captive portal, in the state `captive portal`.
    #[serde(default)]
    pub portal: Option<String>,
    /// What the user should know about a session that runs.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Settings of this host that another program changed; none if all hold.
    #[serde(default)]
    pub guards: Vec<GuardStatus>,
    /// Seconds since the state was entered; `None` when no client is running.
    pub since_seconds: Option<u64>,
    /// Seconds until the user's login ends by this host's clock; `None` if it does not, or there was none.
    #[serde(default)]
    pub login_seconds: Option<u64>,
    /// Whether half of the login's life is over, so that it is worth while to renew it.
    #[serde(default)]
    pub login_past_half: bool,
    /// The gateway, as `HOST:PORT`.
    pub gateway: String,
    /// The address of the gateway in use.
    pub remote: Option<SocketAddr>,
    /// The TUN device, if the host is configured.
    pub tun: Option<String>,
    /// Inner addresses.
    pub addresses: Vec<IpNet>,
    /// Destinations that go through the tunnel, at most 256 of them.
    pub routes: Vec<IpNet>,
    /// Number of destinations, all of them.
    pub routes_total: usize,
    /// Resolvers inside the tunnel.
    pub dns: Vec<IpAddr>,
    /// Resolvers of the networks that this host is in, as far as the client has asked them for its gateway's name.
    #[serde(default)]
    pub local_dns: Vec<IpAddr>,
    /// How packets travel: `esp`, `dtls`, `quic` or `tls`.
    pub carrier: Option<String>,
    /// What is in the way of UDP, where the client chose `tls` for that.
    #[serde(default)]
    pub not_by_udp: Option<String>,
    /// Seconds since packets travel by it.
    #[serde(default)]
    pub carrier_seconds: Option<u64>,
    /// The cipher suite, while packets travel by `esp` or `dtls`.
    #[serde(default)]
    pub suite: Option<String>,
    /// How often the keys of `esp` were replaced.
    #[serde(default)]
    pub rekeys: u32,
    /// Largest inner packet, in bytes.
    pub mtu: Option<u16>,
    /// The largest outer packet of QUIC that came through so far, in bytes; it looks for none above 1500.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// Round-trip time to the gateway, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Packets and bytes of the connection in use.
    pub counters: StatusCounters,
    /// Dropped packets by reason (non-zero only): those of the connection in use, and those of no connection since the
    /// client began.
    pub drops: BTreeMap<String, u64>,
}

/// Packets and bytes since the connection was made, seen from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatusCounters {
    /// Packets received from the gateway.
    pub rx_packets: u64,
    /// Bytes received from the gateway.
    pub rx_bytes: u64,
    /// Packets received by `esp` or `dtls` after one with a higher number: reordered on the way, or sent at the same
    /// moment by two workers of the gateway, which says nothing about the order within a flow.
    #[serde(default)]
    pub rx_reordered: u64,
    /// Packets sent to the gateway.
    pub tx_packets: u64,
    /// Bytes sent to the gateway.
    pub tx_bytes: u64,
}

impl Status {
    /// Adds what the gateway gave.
    pub(super) fn add_network(&mut self, network: &NetworkSettings) {
        let plan = HostPlan::new(network, true).unwrap_or_default();
        let mut routes: Vec<IpNet> = plan.tunnelled().collect();
        self.routes_total = routes.len();
        routes.truncate(MOST_ROUTES);
        self.routes = routes;
        if plan.lacks_resolver() {
            self.warnings.push(NO_RESOLVER.to_owned());
        }
        self.addresses.clone_from(&network.addresses);
        self.dns.clone_from(&network.dns_servers);
    }

    /// Adds the counters of a connection.
    pub(super) fn add_stats(&mut self, stats: ConnectionStats) {
        self.carrier = Some(stats.carrier.to_owned());
        self.not_by_udp = stats.not_by_udp;
        self.suite = stats.suite.map(str::to_owned);
        self.rekeys = stats.rekeys;
        self.path_mtu = stats.path_mtu;
        self.rtt_ms = Some(stats.rtt.as_secs_f64() * 1000.0);
        self.remote = stats.remote;
        self.add_drops(stats.drops);
        self.counters = StatusCounters {
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_reordered: stats.rx_reordered,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
        };
    }

    /// Adds dropped packets to those known already.
    pub(super) fn add_drops(&mut self, drops: Vec<(&'static str, u64)>) {
        for (reason, count) in drops {
            let sum = self.drops.entry(reason.to_owned()).or_default();
            *sum = sum.saturating_add(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::range::RouteRange;

    use super::*;

    #[test]
    fn long_route_lists_are_cut_and_counted() {
        let host = |n: u32| IpNet::from(IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n * 2)));
        let network = NetworkSettings {
            addresses: vec![host(0)],
            routes: (0..4096).map(|n| RouteRange::from(host(n))).collect(),
            ..NetworkSettings::default()
        };
        let mut status = Status::default();
        status.add_network(&network);
        assert_eq!((status.routes.len(), status.routes_total), (256, 4096));
    }

    #[test]
    fn drops_of_the_connection_and_of_none_are_added_up() {
        let mut status = Status::default();
        let stats = ConnectionStats {
            carrier: "esp",
            suite: Some("aes-256-gcm"),
            rekeys: 2,
            rx_reordered: 3,
            drops: vec![("too_big", 2), ("replayed", 1)],
            ..ConnectionStats::default()
        };
        status.add_stats(stats);
        status.add_drops(vec![("no_route", 4), ("too_big", 5)]);
        let drops: Vec<_> = status.drops.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
        assert_eq!(drops, [("no_route", 4), ("replayed", 1), ("too_big", 7)]);
        assert_eq!((status.carrier.as_deref(), status.suite.as_deref()), (Some("esp"), Some("aes-256-gcm")));
        assert_eq!((status.rekeys, status.counters.rx_reordered), (2, 3));
    }

    #[test]
    fn status_of_an_older_client_is_understood() {
        let mut value = serde_json::to_value(Status::default()).unwrap();
        let status = value.as_object_mut().unwrap();
        status.remove("not_by_udp");
        status.remove("suite");
        status.remove("carrier_seconds");
        status.remove("path_mtu");
        status.remove("rekeys");
        status.remove("portal");
        status.remove("local_dns");
        status.remove("login_seconds");
        status.remove("login_past_half");
        status["counters"].as_object_mut().unwrap().remove("rx_reordered");
        assert_eq!(serde_json::from_value::<Status>(value).unwrap(), Status::default());
    }

    #[test]
    fn status_has_the_documented_fields() {
        let value = serde_json::to_value(Status::default()).unwrap();
        for field in [
            "name",
            "state",
            "reason",
            "portal",
            "warnings",
            "guards",
            "since_seconds",
            "login_seconds",
            "gateway",
            "addresses",
            "routes",
            "dns",
            "local_dns",
            "carrier",
            "carrier_seconds",
            "path_mtu",
            "not_by_udp",
            "suite",
            "rekeys",
            "mtu",
            "rtt_ms",
            "counters",
            "drops",
        ] {
            assert!(value.get(field).is_some(), "{field}");
        }
    }
}

//! What these tests look at: the client's profile and word, the wire, and the kernel's counters.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use adit_lab::programs::{Client, ToldStatus};
use adit_lab::traffic::{Capture, Captured};
use adit_lab::{GATEWAY_V4, Host};
use adit_testing::eventually;

use crate::harness::Tunnel;

/// The cable between client and gateway, as each of them calls it.
pub(super) const CABLE: &str = "eth0";
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
/// The gateway's UDP port.
pub(super) const PORT: u16 = 443;

/// The client's only profile.
pub(super) fn profile(client: &Client) -> PathBuf {
    let files = fs::read_dir(client.folder().join("clients")).unwrap().map(|entry| entry.unwrap().path());
    let profiles: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    assert_eq!(profiles.len(), 1, "one profile: {profiles:?}");
    profiles.into_iter().next().unwrap()
}

/// Adds tables to the client's profile.
pub(super) fn extend_profile(client: &Client, tables: &str) {
    let path = profile(client);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}\n{tables}\n")).unwrap();
}

/// Waits until both ends of a client's session say that packets travel by `carrier`.
pub(super) fn stands(tunnel: &Tunnel, number: usize, carrier: &str) -> ToldStatus {
    let client = &tunnel.clients[number];
    eventually(&format!("packets of client {number} travel by {carrier}"), || {
        let status = client.status().unwrap();
        let address = status.addresses.first()?.addr();
        let session = tunnel.session_of(address)?;
        let both = status.carrier.as_deref() == Some(carrier) && session.carrier == carrier;
        (status.state == "connected" && both).then_some(status)
    })
}

/// Drops of forged, repeated or homeless datagrams, which an honest path has none of.
pub(super) fn suspicious(drops: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    const SUSPICIOUS: [&str; 8] = [
        "authentication_failed",
        "unknown_spi",
        "replayed",
        "too_old",
        "sequence_mismatch",
        "bad_padding",
        "unknown_next_header",
        "sa_retired",
    ];
    drops.iter().map(|(reason, count)| (reason.as_str(), *count)).filter(|(r, _)| SUSPICIOUS.contains(r)).collect()
}

/// A look at the cable between a client and the gateway.
pub(super) struct Wire {
    capture: Capture,
    link: usize,
}

/// A datagram of the tunnel.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) to_gateway: bool,
    pub(super) source: SocketAddr,
    /// Bytes of the UDP payload, or of all payloads the kernel moves together.
    pub(super) length: usize,
    /// The packet from its IP header on, cut after 2 KiB.
    pub(super) packet: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Datagram {
    /// Whether its first byte is that of an SPI, not of QUIC.
    pub(super) fn is_esp(&self) -> bool {
        self.payload.first().is_some_and(|first| (0x80..=0xbf).contains(first))
    }
}

impl Wire {
    pub(super) fn start(host: &Host) -> Self {
        Self { capture: Capture::start(host).unwrap(), link: host.link_index(CABLE).unwrap() }
    }

    /// The tunnel's datagrams so far; superpackets count as one.
    pub(super) fn datagrams(&self) -> Vec<Datagram> {
        self.capture.packets(|packet| self.is_outer(packet)).iter().filter_map(datagram).collect()
    }

    /// A datagram of ESP that the client sent, as soon as the capture has one.
    pub(super) fn sent_by_client(&self) -> Datagram {
        eventually("the client sends by ESP", || {
            self.datagrams().into_iter().find(|one| one.to_gateway && one.is_esp())
        })
    }

    /// Packets that bear `text` in clear.
    pub(super) fn plain(&self, text: &[u8]) -> Vec<Captured> {
        self.capture.packets(|packet| packet.link == self.link && packet.contains(text))
    }

    /// Packets of the tunnel that the network layer cut in pieces.
    pub(super) fn fragments(&self) -> Vec<Captured> {
        const MORE_OR_OFFSET: u16 = 0x3fff;
        const FRAGMENT_HEADER: u8 = 44;
        self.capture.packets(|packet| {
            packet.link == self.link
                && match packet.source {
                    IpAddr::V4(_) => u16::from_be_bytes([packet.bytes[6], packet.bytes[7]]) & MORE_OR_OFFSET != 0,
                    IpAddr::V6(_) => packet.bytes[6] == FRAGMENT_HEADER,
                }
        })
    }

    fn is_outer(&self, packet: &Captured) -> bool {
        packet.link == self.link && [packet.source, packet.destination].contains(&IpAddr::V4(GATEWAY_V4))
    }
}

/// The datagram in an IPv4 packet without options to or from the gateway's port.
fn datagram(packet: &Captured) -> Option<Datagram> {
    let field = |at: usize| packet.bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
    let to_gateway = packet.destination == IpAddr::V4(GATEWAY_V4);
    let fits = packet.bytes.first() == Some(&0x45) && packet.bytes.get(9) == Some(&UDP);
    let payload = packet.bytes.get(20 + UDP_HEADER..)?.to_vec();
    let tunnel = fits && field(if to_gateway { 22 } else { 20 }) == Some(PORT);
    let source = (packet.source, field(20)?).into();
    let length = usize::from(field(2)?).saturating_sub(20 + UDP_HEADER);
    tunnel.then(|| Datagram { to_gateway, source, length, packet: packet.bytes.clone(), payload })
}

/// What a host's kernel counted, by name (`/proc/net/snmp` and `snmp6`).
pub(crate) fn counters(host: &Host) -> BTreeMap<String, u64> {
    let [v4, v6] =
        host.run(|| ["snmp", "snmp6"].map(|name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap()));
    let mut counters = BTreeMap::new();
    let lines: Vec<Vec<&str>> = v4.lines().map(|line| line.split_whitespace().collect()).collect();
    for [names, values] in lines.as_chunks().0 {
        let protocol = names[0].trim_end_matches(':');
        for (name, value) in names.iter().zip(values).skip(1) {
            counters.insert(format!("{protocol}{name}"), value.parse().unwrap_or_default());
        }
    }
    let pair = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    counters.extend(v6.lines().filter_map(pair));
    counters
}

/// The counters of packets that arrived damaged, those that are not 0.
pub(super) fn damage(host: &Host) -> Vec<(String, u64)> {
    const DAMAGE: [&str; 10] = [
        "TcpInErrs",
        "TcpInCsumErrors",
        "UdpInCsumErrors",
        "Udp6InCsumErrors",
        "IcmpInCsumErrors",
        "Icmp6InCsumErrors",
        "IpInHdrErrors",
        "Ip6InHdrErrors",
        "IpReasmFails",
        "Ip6ReasmFails",
    ];
    let counters = counters(host);
    let mut found: Vec<_> =
        counters.iter().filter(|(name, value)| DAMAGE.contains(&name.as_str()) && **value > 0).collect();
    found.sort();
    let mut found: Vec<(String, u64)> = found.into_iter().map(|(name, value)| (name.clone(), *value)).collect();
    // Errors but for want of room, which is a matter of rates.
    for protocol in ["Udp", "Udp6"] {
        let of = |name: &str| counters.get(&format!("{protocol}{name}")).copied().unwrap_or_default();
        let others = of("InErrors").saturating_sub(of("RcvbufErrors") + of("MemErrors"));
        if others > 0 {
            found.push((format!("{protocol}InErrors"), others));
        }
    }
    found
}

/// Packets that the kernels of these hosts dropped because a queue was full, up to now: of links, and of sockets.
pub(super) fn full_queues(hosts: &[&Host]) -> u64 {
    hosts.iter().map(|host| links_full(host) + sockets_full(host)).sum()
}

/// Drops of all links, in both directions (`/proc/net/dev`).
fn links_full(host: &Host) -> u64 {
    const COLUMNS: [usize; 2] = [3, 11];
    let text = host.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let columns = text.lines().filter_map(|line| line.split_once(':')).map(|(_, columns)| columns);
    let drops = |columns: &str| {
        let columns: Vec<&str> = columns.split_whitespace().collect();
        COLUMNS.map(|at| columns[at].parse::<u64>().unwrap()).iter().sum::<u64>()
    };
    columns.map(drops).sum()
}

fn sockets_full(host: &Host) -> u64 {
    let counters = counters(host);
    ["UdpRcvbufErrors", "Udp6RcvbufErrors"].iter().filter_map(|name| counters.get(*name)).sum()
}

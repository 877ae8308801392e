//! What belongs in the tunnel never leaves beside it, whatever state the client is in.

use std::cell::Cell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use adit_lab::traffic::{Capture, Captured, ping};
use adit_lab::{GATEWAY_V4, GATEWAY_V6, Host};
use adit_testing::{PATIENCE, eventually};

use crate::harness::{Carrier, INTERNET, Options, Tunnel, reach};

/// The client's link to the gateway.
const OUTER_LINK: &str = "eth0";
/// What every UDP probe bears.
const MARK: &[u8] = b"adit-leak-probe";
/// Where a resolver file of the lab sends its questions at first; nobody is there.
const FIRST_RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// A resolver inside the tunnel.
const RESOLVER: &str = "198.51.100.2";
const DNS: u16 = 53;
/// The gateway as the client's host reaches it, and its UDP port.
const GATEWAY: [IpAddr; 2] = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)];
const PORT: u16 = 443;
/// Where a client asks for a page in clear, to see whether a portal answers: at the gateway's host, and at addresses
/// that nobody has.
const HTTP: u16 = 80;
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 80)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xcafe, 0, 0, 0, 0, 0x80))];
/// The client's address on its link to the gateway.
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 18);
/// What the gateway's host sends to the client's after each probe.
const AFTERWARDS: &str = "adit-after-probe";

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ICMPV6: u8 = 58;

/// A client's host with a look at what leaves it.
pub(crate) struct Watched {
    host: Host,
    gateway: Host,
    capture: Capture,
    outer: usize,
    probes: Cell<usize>,
}

impl Watched {
    pub(crate) fn new(tunnel: &Tunnel) -> Self {
        let (host, gateway) = (tunnel.client().host().clone(), tunnel.gateway.host().clone());
        let (capture, outer) = (Capture::start(&host).unwrap(), host.link_index(OUTER_LINK).unwrap());
        Self { host, gateway, capture, outer, probes: Cell::new(0) }
    }

    /// Sends what programs on the host would: echo requests, UDP, DNS to the resolver of the moment and to others, and
    /// TCP.
    fn probe(&self) {
        for target in INTERNET {
            ping(&self.host, target, Duration::from_millis(20)).unwrap();
        }
        self.host.run(|| {
            let mut targets: Vec<SocketAddr> = INTERNET.iter().map(|address| (*address, 9_999).into()).collect();
            let resolvers = INTERNET.into_iter().chain(GATEWAY).chain([IpAddr::V4(FIRST_RESOLVER)]);
            let resolvers = resolvers.chain(resolver_file());
            targets.extend(resolvers.map(|address| SocketAddr::new(address, DNS)));
            for target in targets {
                let any =
                    if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
                let socket = UdpSocket::bind((any, 0)).unwrap();
                // A host that knows no way says so at once, which is as good as the tunnel.
                drop(socket.send_to(MARK, target));
            }
            for target in INTERNET {
                drop(TcpStream::connect_timeout(&(target, 9_998).into(), Duration::from_millis(20)));
            }
        });
        self.wait_until_captured();
    }

    /// Waits until the capture has all that left up to now: what a neighbour sends after it comes behind it.
    fn wait_until_captured(&self) {
        self.probes.set(self.probes.get() + 1);
        let text = format!("{AFTERWARDS} {:06}", self.probes.get());
        let sent = text.clone();
        self.gateway.run(move || {
            let socket = UdpSocket::bind((GATEWAY_V4, 0)).unwrap();
            socket.send_to(sent.as_bytes(), (CLIENT, 9)).unwrap();
        });
        let seen = self.capture.wait_for(PATIENCE, |packet| packet.contains(text.as_bytes()));
        assert!(seen.is_some(), "the capture goes on");
    }

    /// What left by the outer link but the tunnel's own datagrams and the neighbours' talk. What the gateway sends came
    /// in.
    pub(crate) fn beside_the_tunnel(&self) -> Vec<Captured> {
        let left = |packet: &Captured| packet.link == self.outer && !GATEWAY.contains(&packet.source);
        self.capture.packets(|packet| {
            let is_clients_own = is_tunnel(packet) || is_look(packet) || is_refusal(packet);
            left(packet) && !is_clients_own && !is_answer(packet) && !is_neighbourly(packet)
        })
    }

    /// Probes, and expects nothing beside the tunnel up to now.
    pub(crate) fn assert_tight(&self, when: &str) {
        self.probe();
        let seen = self.beside_the_tunnel();
        let lines =
            seen.iter().map(|packet| format!("{} to {}: {:02x?}\n", packet.source, packet.destination, packet.bytes));
        assert!(seen.is_empty(), "{when}, these left beside the tunnel:\n{}", lines.collect::<String>());
    }

    /// Probes, and expects every kind of them in clear: nothing else would show that the capture sees what it should.
    pub(crate) fn assert_open(&self, when: &str) {
        self.probe();
        let seen = self.beside_the_tunnel();
        let has = |what: &str, filter: &dyn Fn(&Captured) -> bool| {
            assert!(seen.iter().any(filter), "{when}, {what} is not seen");
        };
        for target in INTERNET {
            for (what, protocols) in [("an echo request", [ICMP, ICMPV6]), ("TCP", [TCP, TCP])] {
                has(what, &|packet| packet.destination == target && protocols.contains(&protocol(packet)));
            }
            has("UDP", &|packet| packet.destination == target && port(packet) == Some(9_999) && packet.contains(MARK));
        }
        for resolver in INTERNET.into_iter().chain(GATEWAY).chain([IpAddr::V4(FIRST_RESOLVER)]) {
            has("DNS", &|packet| packet.destination == resolver && port(packet) == Some(DNS) && packet.contains(MARK));
        }
    }
}

/// The servers the host's programs ask for names.
fn resolver_file() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap();
    text.lines().filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok()).collect()
}

/// The upper-layer protocol; that of an IPv6 packet's first header.
fn protocol(packet: &Captured) -> u8 {
    packet.bytes[if packet.source.is_ipv4() { 9 } else { 6 }]
}

/// The destination port of a UDP packet without IP options.
fn port(packet: &Captured) -> Option<u16> {
    let udp = if packet.source.is_ipv4() { 20 } else { 40 };
    let field = packet.bytes.get(udp + 2..udp + 4)?.first_chunk().copied()?;
    (protocol(packet) == UDP).then(|| u16::from_be_bytes(field))
}

/// UDP to the gateway's port.
fn is_tunnel(packet: &Captured) -> bool {
    GATEWAY.contains(&packet.destination) && (port(packet) == Some(PORT) || is_of_connection(packet, PORT))
}

/// Of the client's look for a captive portal.
fn is_look(packet: &Captured) -> bool {
    is_of_connection(packet, HTTP) && GATEWAY.iter().chain(&NOBODY).any(|asked| *asked == packet.destination)
}

/// Whether a packet is of a connection over TCP to this port, without IP options.
fn is_of_connection(packet: &Captured, port: u16) -> bool {
    let at = if packet.source.is_ipv4() { 22 } else { 42 };
    protocol(packet) == TCP && packet.bytes.get(at..at + 2) == Some(&port.to_be_bytes())
}

/// The kernel's word to the gateway that nobody takes its datagrams any more (ICMP 3/3), as after a kill. It quotes
/// only them.
fn is_refusal(packet: &Captured) -> bool {
    let quoted = packet.bytes.get(28..).unwrap_or_default();
    let of_gateway =
        quoted.get(12..16) == Some(&GATEWAY_V4.octets()) && quoted.get(20..22) == Some(&PORT.to_be_bytes());
    protocol(packet) == ICMP && packet.bytes.get(20..22) == Some(&[3, 3]) && of_gateway
}

/// The kernel's word to the gateway's host that nobody listens where that sent [`AFTERWARDS`]: a closed host answers
/// who asks from outside.
fn is_answer(packet: &Captured) -> bool {
    protocol(packet) == ICMP && packet.bytes.get(20..22) == Some(&[3, 3]) && packet.contains(AFTERWARDS.as_bytes())
}

/// Neighbour discovery (RFC 4861, types 133 to 137) and multicast listening (RFC 3810, type 143), which never leave a
/// link. ARP is not captured at all.
pub(crate) fn is_neighbourly(packet: &Captured) -> bool {
    let hop_by_hop = protocol(packet) == HOP_BY_HOP;
    let kind = packet.bytes.get(if hop_by_hop { 48 } else { 40 });
    packet.source.is_ipv6()
        && (hop_by_hop || protocol(packet) == ICMPV6)
        && kind.is_some_and(|kind| matches!(kind, 133..=137 | 143))
}

/// Everything set up to the client's start, and the look at its host; shown to see what leaves it.
pub(crate) fn watched(carrier: Carrier) -> Option<(Tunnel, Watched)> {
    let settings: &[(&str, &str)] = &[("dns.servers", &format!(r#"["{RESOLVER}"]"#))];
    let mut tunnel = Tunnel::prepare_over(carrier, Options { clients: 1, settings })?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let control = Watched::new(&tunnel);
    control.assert_open("without a tunnel");
    tunnel.clients[0].up().unwrap();
    INTERNET.iter().for_each(|target| reach(tunnel.client().host(), *target));
    tunnel.travels_by(carrier);
    // From here on: a look that has not seen the control.
    let watched = Watched::new(&tunnel);
    Some((tunnel, watched))
}

pub(crate) fn wait_for_state(tunnel: &Tunnel, state: &str) {
    let what = format!("the client is {state}");
    eventually(&what, || (tunnel.client().status().unwrap().state == state).then_some(()));
}

#[test]
fn nothing_leaves_beside_a_tunnel_whose_gateway_is_there_or_gone() {
    beside_a_tunnel_whose_gateway_is_there_or_gone(Carrier::Esp);
    beside_a_tunnel_whose_gateway_is_there_or_gone(Carrier::Quic);
}

fn beside_a_tunnel_whose_gateway_is_there_or_gone(carrier: Carrier) {
    let Some((mut tunnel, watched)) = watched(carrier) else { return };
    watched.assert_tight("connected");
    let tunnelled = watched.capture.wait_for(PATIENCE, |packet| packet.link == watched.outer && is_tunnel(packet));
    assert!(tunnelled.is_some(), "the tunnel's own datagrams are seen");
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    wait_for_state(&tunnel, "reconnecting");
    watched.assert_tight("reconnecting");
    tunnel.gateway.start().unwrap();
    wait_for_state(&tunnel, "connected");
    watched.assert_tight("connected again");
    tunnel.gateway.kill();
    watched.assert_tight("with its gateway killed");
}

#[test]
fn nothing_leaves_a_client_whose_device_was_revoked() {
    a_client_whose_device_was_revoked(Carrier::Esp);
    a_client_whose_device_was_revoked(Carrier::Quic);
}

fn a_client_whose_device_was_revoked(carrier: Carrier) {
    let Some((tunnel, watched)) = watched(carrier) else { return };
    tunnel.gateway.admin(&["revoke", "user1"]).unwrap().success().unwrap();
    watched.assert_tight("just revoked");
    wait_for_state(&tunnel, "blocked");
    watched.assert_tight("blocked");
}

#[test]
fn nothing_leaves_after_a_client_was_killed_until_cleanup() {
    after_a_client_was_killed_until_cleanup(Carrier::Esp);
    after_a_client_was_killed_until_cleanup(Carrier::Quic);
}

fn after_a_client_was_killed_until_cleanup(carrier: Carrier) {
    let Some((mut tunnel, watched)) = watched(carrier) else { return };
    tunnel.clients[0].kill();
    watched.assert_tight("killed");
    tunnel.client().run(&["cleanup"]).unwrap().success().unwrap();
    Watched::new(&tunnel).assert_open("cleaned up");
}

#[test]
fn nothing_leaves_once_a_killed_client_is_up_again() {
    once_a_killed_client_is_up_again(Carrier::Esp);
    once_a_killed_client_is_up_again(Carrier::Quic);
}

fn once_a_killed_client_is_up_again(carrier: Carrier) {
    let Some((mut tunnel, watched)) = watched(carrier) else { return };
    tunnel.clients[0].kill();
    tunnel.clients[0].up().unwrap();
    watched.assert_tight("started again");
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    Watched::new(&tunnel).assert_open("ended");
}

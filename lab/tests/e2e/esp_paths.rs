//! ESP on paths that change: the client moves, a NAT forgets, a firewall drops ESP. Traffic goes on, in the same
//! session.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use adit_lab::traffic::{Capture, Dialogue, Direction, TcpServer, transfer};
use adit_lab::{GATEWAY_V4, Host, INTERNET_V4};
use adit_testing::{PATIENCE, eventually};
use ipnet::IpNet;

use crate::harness::{Carrier, INTERNET, Options, Tunnel, filter, flows, reach, unfilter};

/// Packets a second in each direction.
const RATE: u32 = 1_000;
/// The client's link to the gateway, and the gateway's to it.
const LINK: &str = "eth0";
/// The gateway's port.
const PORT: u16 = 443;
/// Matches an ESP datagram: the first two bits of the payload are 10 (as the protocol's document says).
const ESP: &str = "@th,64,2 2";
const BEFORE_ROUTING: &str = "prerouting priority -300";

/// One client on ESP.
fn connected() -> Option<Tunnel> {
    let tunnel = Tunnel::start_over(Carrier::Esp, Options::default())?;
    INTERNET.into_iter().for_each(|target| reach(tunnel.client().host(), target));
    Some(tunnel)
}

/// Numbered packets through the tunnel, both ways.
fn under_load(tunnel: &Tunnel) -> Dialogue {
    let start = Instant::now();
    let dialogue = Dialogue::start(tunnel.client().host(), &tunnel.internet, INTERNET_V4.into(), RATE).unwrap();
    flows(&dialogue, start);
    dialogue
}

/// What drops ESP on its way: at the gateway what the client sends, at the client what the gateway sends. Nobody is
/// told.
fn block(tunnel: &Tunnel, directions: &[Direction]) {
    for direction in directions {
        let (host, end) = end_of(tunnel, *direction);
        filter(host, "blocked", &[(BEFORE_ROUTING, &format!("udp {end} {PORT} {ESP} drop"))]);
    }
}

fn unblock(tunnel: &Tunnel, directions: &[Direction]) {
    directions.iter().for_each(|direction| unfilter(end_of(tunnel, *direction).0, "blocked"));
}

/// Where datagrams of one direction arrive, and on which of their ends the gateway's port is.
fn end_of(tunnel: &Tunnel, direction: Direction) -> (&Host, &'static str) {
    match direction {
        Direction::Upload => (tunnel.gateway.host(), "dport"),
        Direction::Download => (tunnel.client().host(), "sport"),
    }
}

/// Number and remote address of the only session.
fn session(tunnel: &Tunnel) -> (u64, SocketAddr) {
    let sessions = tunnel.gateway.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "there is one session: {sessions:?}");
    (sessions[0].session, sessions[0].remote)
}

/// Moves three times under load. How long a move takes, the tests of `proto::esp::path` ask under virtual time and
/// `adit-bench load --roam` measures.
fn assert_moves(tunnel: &Tunnel, what: &str, mut change: impl FnMut(u8)) {
    let (number, _) = session(tunnel);
    let dialogue = under_load(tunnel);
    for turn in 0..3 {
        let start = Instant::now();
        change(turn);
        // More than what was under way before the change.
        flows(&dialogue, Instant::now());
        assert_eq!(session(tunnel).0, number, "the session stays");
        tunnel.travels_by(Carrier::Esp);
        let [up, down] = dialogue.longest_silence(start, Instant::now());
        println!("{what}: silence of {up:?} at the gateway, {down:?} at the client");
    }
    for (direction, course) in ["to the gateway", "to the client"].into_iter().zip(dialogue.finish()) {
        assert_eq!(course.duplicated(), 0, "{what}, {direction}: nothing arrives twice");
    }
}

#[test]
fn client_that_gets_another_address_keeps_its_session() {
    let Some(tunnel) = connected() else { return };
    let host = tunnel.client().host();
    let (number, remote) = session(&tunnel);
    let address = |turn: u8| Ipv4Addr::from(GATEWAY_V4.to_bits() + 1 + u32::from(turn));
    assert_eq!(remote.ip(), IpAddr::V4(address(0)));
    let net = |turn| IpNet::new(address(turn).into(), 28).unwrap();
    assert_moves(&tunnel, "another address", |turn| {
        host.replace_address(LINK, net(turn), net(turn + 1)).unwrap();
    });
    eventually("the session's remote address follows", || {
        (session(&tunnel) == (number, SocketAddr::new(address(3).into(), remote.port()))).then_some(())
    });
    reach(host, INTERNET[0]);
}

#[test]
fn client_whose_nat_takes_another_port_keeps_its_session() {
    let Some(tunnel) = connected() else { return };
    let host = tunnel.client().host();
    let port = esp_port(&tunnel);
    assert_moves(&tunnel, "another port", |turn| {
        // A NAT without memory on the client's own host: what left is not remembered, as if the old mapping had gone.
        let mapped = 20_000 + u16::from(turn);
        let leaving = format!("ip daddr {GATEWAY_V4} udp dport {PORT} udp sport {port} udp sport set {mapped}");
        let coming = format!("ip saddr {GATEWAY_V4} udp sport {PORT} udp dport {mapped} udp dport set {port}");
        filter(host, "nat", &[("postrouting priority 0", &leaving), (BEFORE_ROUTING, &coming)]);
    });
}

/// The port from which the client sends ESP.
fn esp_port(tunnel: &Tunnel) -> u16 {
    let capture = Capture::start(tunnel.gateway.host()).unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    let is_esp = |payload: &[u8]| payload.first().is_some_and(|first| first >> 6 == 0b10);
    let seen =
        capture.wait_for(PATIENCE, |seen| seen.udp().is_some_and(|(_, to, payload)| to == PORT && is_esp(payload)));
    seen.unwrap().udp().unwrap().0
}

#[test]
fn tunnel_comes_up_and_stays_on_quic_where_esp_is_dropped_from_the_start() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let both = [Direction::Upload, Direction::Download];
    block(&tunnel, &both);
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    INTERNET.into_iter().for_each(|target| reach(tunnel.client().host(), target));
    let (number, _) = session(&tunnel);
    let dialogue = under_load(&tunnel);
    let start = Instant::now();
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in both {
            assert!(transfer(tunnel.client().host(), server.address(), direction, 2_000_000).unwrap().is_intact());
        }
    }
    tunnel.travels_by(Carrier::Quic);
    flows(&dialogue, Instant::now());
    println!("longest silences {:?}", dialogue.longest_silence(start, Instant::now()));
    let courses = dialogue.finish();
    assert!(courses.iter().all(|course| course.duplicated() == 0), "nothing arrives twice");
    unblock(&tunnel, &both);
    tunnel.travels_by(Carrier::Esp);
    assert_eq!(session(&tunnel).0, number, "the session stays");
}

#[test]
fn traffic_goes_on_by_quic_when_esp_is_dropped_to_the_gateway() {
    assert_falls_back_and_returns(&[Direction::Upload]);
}

#[test]
fn traffic_goes_on_by_quic_when_esp_is_dropped_to_the_client() {
    assert_falls_back_and_returns(&[Direction::Download]);
}

#[test]
fn traffic_goes_on_by_quic_when_esp_is_dropped_both_ways() {
    assert_falls_back_and_returns(&[Direction::Upload, Direction::Download]);
}

fn assert_falls_back_and_returns(blocked: &[Direction]) {
    let Some(tunnel) = connected() else { return };
    let (number, _) = session(&tunnel);
    let dialogue = under_load(&tunnel);

    let start = Instant::now();
    block(&tunnel, blocked);
    tunnel.travels_by(Carrier::Quic);
    flows(&dialogue, Instant::now());
    println!("{blocked:?}: silences {:?}", dialogue.longest_silence(start, Instant::now()));

    let removed = Instant::now();
    unblock(&tunnel, blocked);
    // Attempts are up to 16 s apart, and this is the longest wait there is.
    tunnel.travels_by(Carrier::Esp);
    println!("{blocked:?}: ESP is back after {:?}", removed.elapsed());
    flows(&dialogue, Instant::now());
    assert_eq!(session(&tunnel).0, number, "the session stays");
    for course in dialogue.finish() {
        println!("sent {}, lost {}, {} came late", course.sent, course.lost(), course.reordered());
        assert_eq!(course.duplicated(), 0, "nothing arrives twice");
    }
}

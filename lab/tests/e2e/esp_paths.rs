//! ESP on paths that change: the client moves, a NAT forgets, a firewall drops ESP. Traffic goes on, in the same session.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use adit_lab::traffic::{Capture, Course, Dialogue, Direction, TcpServer, transfer};
use adit_lab::{GATEWAY_V4, Host, INTERNET_V4};
use adit_testing::{PATIENCE, alone, eventually};
use ipnet::IpNet;

use crate::harness::{Carrier, INTERNET, Options, Tunnel, filter, reach, unfilter};

/// Packets a second in each direction.
const RATE: u32 = 1_000;
/// The client's link to the gateway, and the gateway's to it.
const LINK: &str = "eth0";
/// The gateway's port.
const PORT: u16 = 443;
/// What a move may cost: the specified 250 ms and the round trip of a lab, which is far below one of these milliseconds.
const MOVE_WITHIN: Duration = Duration::from_millis(251);
/// What a single move may cost on a machine that does much else.
const WORST_MOVE: Duration = Duration::from_secs(1);
/// Silence until packets take the other carrier.
const FALL_BACK_WITHIN: Duration = Duration::from_secs(3);
/// Time a tunnel under load has before something happens to it, and to settle afterwards.
const LEAD: Duration = Duration::from_secs(1);
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
    thread::sleep(LEAD);
    dialogue
}

/// Waits until packets arrive in both directions that did not before `since`.
fn flows(dialogue: &Dialogue, since: Instant) {
    eventually("packets flow both ways", || {
        dialogue.arrived_since(since).iter().all(|count| *count > 50).then_some(())
    });
}

/// What drops ESP on its way: at the gateway what the client sends, at the client what the gateway sends. Nobody is told.
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

/// Moves three times under load, and asks each time how long nothing came.
fn assert_moves(tunnel: &Tunnel, what: &str, mut change: impl FnMut(u8)) {
    let (number, _) = session(tunnel);
    let dialogue = under_load(tunnel);
    let mut silences = Vec::new();
    for turn in 0..3 {
        let start = Instant::now();
        change(turn);
        // Longer than the worst case, so that a longer silence is seen as such.
        thread::sleep(WORST_MOVE * 2);
        silences.push(dialogue.longest_silence(start, Instant::now()));
        assert_eq!(session(tunnel).0, number, "the session stays");
        tunnel.travels_by(Carrier::Esp);
    }
    let courses = dialogue.finish();
    for (direction, which) in [("to the gateway", 0), ("to the client", 1)] {
        let mut each: Vec<Duration> = silences.iter().map(|pair: &[Duration; 2]| pair[which]).collect();
        each.sort_unstable();
        println!("{what}, {direction}: longest silences {each:?}, lost {}", courses[which].lost());
        assert!(each[1] <= MOVE_WITHIN, "{what}, {direction}: half of the moves cost at most RTT + 250 ms: {each:?}");
        assert!(each[2] <= WORST_MOVE, "{what}, {direction}: every move costs at most {WORST_MOVE:?}: {each:?}");
        assert_eq!(courses[which].duplicated(), 0, "{what}, {direction}: nothing arrives twice");
    }
}

#[test]
fn client_that_gets_another_address_keeps_its_session() {
    let _alone = alone();
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
    let _alone = alone();
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
    let _alone = alone();
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
    thread::sleep(FALL_BACK_WITHIN);
    tunnel.travels_by(Carrier::Quic);
    let silences = dialogue.longest_silence(start, Instant::now());
    assert!(silences.iter().all(|silence| *silence < LEAD), "attempts at ESP interrupt nothing: {silences:?}");
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
    let _alone = alone();
    let Some(tunnel) = connected() else { return };
    let (number, _) = session(&tunnel);
    let dialogue = under_load(&tunnel);

    let start = Instant::now();
    block(&tunnel, blocked);
    tunnel.travels_by(Carrier::Quic);
    thread::sleep(LEAD);
    flows(&dialogue, Instant::now());
    let silences = dialogue.longest_silence(start, Instant::now());

    let removed = Instant::now();
    unblock(&tunnel, blocked);
    // Attempts are up to 16 s apart, and this is the longest wait there is.
    tunnel.travels_by(Carrier::Esp);
    let returned = removed.elapsed();
    thread::sleep(LEAD);
    let quiet = dialogue.longest_silence(removed, Instant::now());
    assert_eq!(session(&tunnel).0, number, "the session stays");
    let courses = dialogue.finish();
    println!("{blocked:?}: silences {silences:?}, ESP back after {returned:?} with silences {quiet:?}");
    for (which, course) in courses.iter().enumerate() {
        assert!(silences[which] <= FALL_BACK_WITHIN, "traffic is back within {FALL_BACK_WITHIN:?}: {silences:?}");
        assert!(quiet[which] <= WORST_MOVE, "the return interrupts nothing: {quiet:?}");
        assert_orderly(course);
    }
}

/// Nothing twice, and nothing out of order but what a change of carrier overtakes.
fn assert_orderly(course: &Course) {
    let (late, latest) = (course.reordered(), course.latest());
    println!("sent {}, lost {}, reordered {late} by at most {latest:?}", course.sent, course.lost());
    assert_eq!(course.duplicated(), 0, "nothing arrives twice");
    assert!(late <= 100 && latest <= WORST_MOVE, "{late} packets came late, by {latest:?}");
}

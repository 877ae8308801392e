//! A client that chooses by itself how its packets travel: over UDP where that passes, else over TCP.

mod changes;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use adit_lab::Host;
use adit_lab::programs::ToldSession;
use adit_lab::traffic::{Direction, TcpServer, transfer};
use adit_testing::eventually;

use crate::harness::{INTERNET, Options, Tunnel, filter, reach, unfilter};

const TRANSFER: u64 = 4 << 20;
/// The ports of the gateway, before anything else looks at what comes.
const BEFORE_ROUTING: &str = "prerouting priority -400";

/// A gateway that runs, and a client that has joined and does not.
fn joined() -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    Some(tunnel)
}

/// Has a network in front of the gateway drop what goes to its UDP port.
fn block_udp(gateway: &Host) {
    filter(gateway, "no_udp", &[(BEFORE_ROUTING, "udp dport 443 drop")]);
}

fn open_udp(gateway: &Host) {
    unfilter(gateway, "no_udp");
}

/// Waits until both ends say that packets travel by this.
fn comes_to(tunnel: &Tunnel, carrier: &str) {
    eventually(&format!("packets travel by {carrier}"), || {
        let near = tunnel.client().status().unwrap().carrier;
        let far = tunnel.gateway.sessions().unwrap().pop().map(|session| session.carrier);
        (near.as_deref() == Some(carrier) && far.as_deref() == Some(carrier)).then_some(())
    });
}

/// Waits until packets travel over UDP.
fn comes_to_udp(tunnel: &Tunnel) {
    eventually("packets travel over UDP", || {
        let status = tunnel.client().status().unwrap();
        let is_by_udp = matches!(status.carrier.as_deref(), Some("esp" | "quic"));
        assert!(!is_by_udp || status.not_by_udp.is_none(), "{status:?}");
        is_by_udp.then_some(())
    });
}

/// The only session.
fn session(tunnel: &Tunnel) -> ToldSession {
    let mut sessions = tunnel.gateway.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions.remove(0)
}

#[test]
fn client_connects_by_tls_where_udp_is_blocked_from_the_start_and_says_why() {
    let Some(mut tunnel) = joined() else { return };
    block_udp(tunnel.gateway.host());
    let began = Instant::now();
    tunnel.clients[0].up().unwrap();
    println!("connected after {:?}", began.elapsed());
    let status = tunnel.client().status().unwrap();
    assert_eq!(status.carrier.as_deref(), Some("tls"));
    assert!(status.not_by_udp.is_some(), "{status:?}");
    // The attempt over UDP has left nothing at the gateway.
    assert_eq!((session(&tunnel).session, session(&tunnel).carrier.as_str()), (1, "tls"));
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        assert!(transfer(tunnel.client().host(), server.address(), direction, TRANSFER).unwrap().is_intact());
    }
}

#[test]
fn client_that_may_only_use_udp_never_goes_by_tls() {
    let Some(tunnel) = joined() else { return };
    block_udp(tunnel.gateway.host());
    let refused = tunnel.client().run(&["up", "--carrier", "esp", "--timeout", "3s"]).unwrap();
    assert_eq!(refused.code, 5, "{refused:?}");
}

#[test]
fn gateway_without_tcp_is_reached_over_udp_in_one_session() {
    let Some(mut tunnel) = joined() else { return };
    filter(tunnel.gateway.host(), "no_tcp", &[(BEFORE_ROUTING, "tcp dport 443 drop")]);
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    let status = tunnel.client().status().unwrap();
    assert!(matches!(status.carrier.as_deref(), Some("esp" | "quic")) && status.not_by_udp.is_none(), "{status:?}");
    assert_eq!(session(&tunnel).session, 1);
}

#[test]
fn network_that_blocks_udp_is_remembered_until_udp_passes_there() {
    let Some(mut tunnel) = joined() else { return };
    let file = tunnel.client().folder().join("state/networks.json");
    let is_remembered = || fs::read_to_string(&file).unwrap_or_default().contains("eth0");
    block_udp(tunnel.gateway.host());
    tunnel.clients[0].up().unwrap();
    let first = tunnel.client().status().unwrap().not_by_udp.unwrap();
    assert!(!is_remembered() && !first.contains("as before"), "{first}");
    eventually("the network is remembered", || is_remembered().then_some(()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);

    let began = Instant::now();
    tunnel.clients[0].up().unwrap();
    println!("connected after {:?}", began.elapsed());
    let again = tunnel.client().status().unwrap().not_by_udp.unwrap();
    assert!(again.contains("as before in this network"), "{again}");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);

    open_udp(tunnel.gateway.host());
    tunnel.clients[0].up().unwrap();
    comes_to_udp(&tunnel);
    eventually("the network is forgotten", || (!is_remembered()).then_some(()));
}

//! Packets in records of DTLS, where UDP passes.

use std::time::{Duration, Instant};

use crate::harness::{answers, filter, run as run_on, unfilter};

use super::*;

/// How long openconnect waits before it tries DTLS again, and somewhat more.
const NEXT_TRY: Duration = Duration::from_secs(120);
const NO_UDP: &str = "no_udp";

/// Nothing comes to the gateway by UDP.
fn block_udp(tunnel: &Tunnel) {
    filter(tunnel.gateway.host(), NO_UDP, &[("input priority 0", "meta l4proto udp drop")]);
}

/// Waits until the session has this carrier, while packets go on.
fn comes_to(tunnel: &Tunnel, session: &ToldSession, carrier: &str, patience: Duration) -> ToldSession {
    let (deadline, host) = (Instant::now() + patience, tunnel.client().host());
    loop {
        // It may be lost as long as the other way is not noticed to be the better one.
        answers(host, INTERNET[0]);
        let told = tunnel.gateway.sessions().unwrap().pop().expect("the session goes on");
        assert_eq!((told.session, &told.addresses), (session.session, &session.addresses), "it is the same one");
        if told.carrier == carrier {
            reach_internet(host);
            return told;
        }
        assert!(Instant::now() < deadline, "never in {patience:?}: {carrier}, but {told:?}");
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn twenty_mebibytes_arrive_intact_each_way_in_records() {
    let _turn = alone();
    let Some(tunnel) = start() else { return };
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    let told = comes_to(&tunnel, &session, "dtls", PATIENCE);
    assert!(told.suite.as_ref().is_some_and(|suite| !suite.starts_with("TLS13_")), "{told:?}");
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let done = transfer(tunnel.client().host(), server.address(), direction, TRANSFER).unwrap();
            println!("{direction:?} with {address}: {:.0} Mbit/s", done.megabits_per_second());
            assert!(done.bytes == TRANSFER && done.is_intact(), "{direction:?} with {address}");
        }
    }
    let told = tunnel.gateway.sessions().unwrap().pop().unwrap();
    assert_eq!((told.session, told.carrier.as_str()), (session.session, "dtls"), "{told:?}");
}

#[test]
fn session_stays_on_tls_while_udp_is_blocked_and_comes_back_to_records() {
    let _turn = alone();
    let Some(tunnel) = start() else { return };
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    comes_to(&tunnel, &session, "dtls", PATIENCE);
    block_udp(&tunnel);
    comes_to(&tunnel, &session, "tls", NEXT_TRY);
    unfilter(tunnel.gateway.host(), NO_UDP);
    comes_to(&tunnel, &session, "dtls", NEXT_TRY);
}

#[test]
fn udp_that_is_blocked_from_the_start_costs_no_session() {
    let Some(tunnel) = start() else { return };
    block_udp(&tunnel);
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    // It tries for some seconds before it sets its device up.
    comes_to(&tunnel, &session, "tls", NEXT_TRY);
    let host = tunnel.client().host();
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    let done = transfer(host, server.address(), Direction::Download, 1 << 20).unwrap();
    assert!(done.bytes == 1 << 20 && done.is_intact());
    unfilter(tunnel.gateway.host(), NO_UDP);
    comes_to(&tunnel, &session, "dtls", NEXT_TRY);
}

#[test]
fn packets_are_as_large_as_the_path_takes() {
    /// Bytes of a UDP header and what it carries, and those of them that are not the packet's: of UDP 8, of the record
    /// 13, 8 and 16, of its type 1.
    const LARGEST: u16 = 1400;
    const OVERHEAD: u16 = 46;
    let Some(tunnel) = start() else { return };
    filter(tunnel.gateway.host(), "narrow", &[("input priority 0", &format!("udp length > {LARGEST} drop"))]);
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    let told = comes_to(&tunnel, &session, "dtls", NEXT_TRY);
    let host = tunnel.client().host();
    let link: u16 = run_on(host, &["cat", &format!("/sys/class/net/{LINK}/mtu")]).trim().parse().unwrap();
    assert_eq!((link, told.mtu), (LARGEST - OVERHEAD, LARGEST - OVERHEAD), "the client has found it, and we heard it");
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    for direction in [Direction::Upload, Direction::Download] {
        let done = transfer(host, server.address(), direction, 1 << 20).unwrap();
        assert!(done.bytes == 1 << 20 && done.is_intact(), "{direction:?}");
    }
}

#[test]
fn client_that_wants_no_records_is_not_disturbed() {
    let Some(tunnel) = start() else { return };
    let arguments = ["--user", "alice", "--passwd-on-stdin", "--no-dtls"];
    let (_stranger, session) = up(&tunnel, &arguments, &format!("{PASSWORD}\n"));
    let told = comes_to(&tunnel, &session, "tls", PATIENCE);
    assert!(told.suite.is_some_and(|suite| suite.starts_with("TLS13_")));
}

//! First flights of several datagrams, as those with post-quantum shares are, of which one is lost or comes late.

use adit_lab::GATEWAY_V4;
use adit_lab::traffic::{Capture, Captured};
use adit_netem::Profile;

use super::{BEFORE_ROUTING, ends, joined, met};
use crate::harness::{INTERNET, Options, Tunnel, filter, reach, unfilter};

/// Datagrams of a first flight are filled up to more than this (RFC 9000 section 14.1).
const FILLED: usize = 1_200;
/// Large datagrams of a direction that are lost, one each time: the first is number 0.
const LOST: [u32; 3] = [0, 1, 2];
/// Half of all frames come after those that were sent a third of a second later.
const MIXED_UP: &str = "delay_ms = 5\nreorder_percent = 50\nreorder_ms = 300";
const TURNS: usize = 3;

fn comes_up(tunnel: &mut Tunnel) {
    // Over UDP, however long that takes.
    tunnel.clients[0].up_with(&["--carrier", "quic"], &[]).unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
}

/// Large datagrams that the client sent before it had any from the gateway.
fn first_flight(capture: &Capture) -> usize {
    let is_quic = |seen: &Captured| seen.udp().is_some_and(|(from, to, _)| from == 443 || to == 443);
    let all = capture.packets(is_quic);
    let own = all.iter().take_while(|seen| seen.destination == GATEWAY_V4);
    own.filter(|seen| seen.udp().is_some_and(|(.., payload)| payload.len() >= FILLED)).count()
}

#[test]
fn handshake_outlives_the_loss_of_any_datagram_of_its_first_flights() {
    let Some(mut tunnel) = joined() else { return };
    let capture = Capture::start(tunnel.client().host()).unwrap();
    comes_up(&mut tunnel);
    assert!(first_flight(&capture) >= 2, "a first flight has two datagrams: {}", first_flight(&capture));
    drop(capture);
    for end in 0..2 {
        for number in LOST {
            let (host, port) = ends(&tunnel)[end];
            let host = host.clone();
            let lost = format!("udp {port} 443 meta length > {FILLED} numgen inc mod 1000000 {number} counter drop");
            filter(&host, "box", &[(BEFORE_ROUTING, &lost)]);
            comes_up(&mut tunnel);
            assert_eq!(met(&host), 1, "{port}, {number}: one was lost");
            unfilter(&host, "box");
        }
    }
}

#[test]
fn handshake_outlives_first_flights_that_are_mixed_up() {
    let profile = Profile::parse("mixed-up", MIXED_UP).unwrap();
    let Some(mut tunnel) = Tunnel::prepare_through(&profile, 1, Options::default()) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    for _ in 0..TURNS {
        comes_up(&mut tunnel);
    }
    let mixed_up: u64 = tunnel.lab.relayed().unwrap().iter().map(|counts| counts.held_back).sum();
    assert!(mixed_up > 0, "the relay had something to do");
}

//! Paths that are too narrow for a tunnel, or drop whatever bears an ECN mark.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use adit_lab::programs::Client;
use adit_lab::traffic::{Capture, Captured};
use adit_lab::{GATEWAY_V4, INTERNET_V4};
use adit_testing::{PATIENCE, eventually};
use nix::sys::socket::{setsockopt, sockopt};

use crate::harness::{Carrier, INTERNET, Options, Tunnel, filter, reach};

/// The client's link to the gateway.
const LINK: &str = "eth0";
const BEFORE_ROUTING: &str = "prerouting priority -400";
/// The exit code of a gateway that cannot be reached.
const UNREACHABLE: i32 = 5;
/// What packets with a mark hold.
const MARKED: [u8; 500] = [0xe7; 500];
/// Drops what bears an ECN mark on its way to the gateway.
const DROP_MARKED: [(&str, &str); 2] = [
    (BEFORE_ROUTING, "udp dport 443 ip ecn != not-ect drop"),
    (BEFORE_ROUTING, "udp dport 443 ip6 ecn != not-ect drop"),
];

fn joins(client: &Client, tunnel: &Tunnel, name: &str) {
    let link = tunnel.gateway.invite(name, &[]).unwrap();
    let joined = client.run(&["join", "--name", name, &link]).unwrap();
    assert_eq!(joined.code, 0, "{}", joined.stderr);
}

/// TCP cuts what it carries to what the path takes: a client that may choose goes that way.
fn goes_by_tls(tunnel: &mut Tunnel, name: &str) {
    tunnel.clients[0].up_with(&[name], &[]).unwrap();
    let told = tunnel.client().run(&["status", name]).unwrap().success().unwrap();
    assert!(told.contains("carrier    tls"), "{told}");
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
}

#[test]
fn narrow_path_is_named_and_passes_a_join() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    let name = GATEWAY_V4.to_string();
    let [client, gateway] = [tunnel.client().host().clone(), tunnel.gateway.host().clone()];
    // First the client's own link, then somewhere on the way, which nobody is told of.
    for on_own_link in [true, false] {
        let link_mtu = if on_own_link { 1280 } else { 1500 };
        client.set_mtu(LINK, link_mtu).unwrap();
        if !on_own_link {
            let too_large = "udp dport 443 udp length > 1260 drop";
            filter(&gateway, "narrow", &[(BEFORE_ROUTING, too_large)]);
        }
        let refused = tunnel.client().run(&["up", &name, "--carrier", "esp", "--timeout", "10s"]).unwrap();
        assert_eq!(refused.code, UNREACHABLE, "{}{}", refused.stdout, refused.stderr);
        let said = format!("the path to {GATEWAY_V4}:443 is too narrow");
        assert!(refused.stderr.contains(&said) && refused.stderr.contains("a tunnel needs 1359"), "{}", refused.stderr);
        // The host is closed, as its tunnel is known to be full.
        assert_eq!(tunnel.client().run(&["down", &name]).unwrap().code, 0);
        goes_by_tls(&mut tunnel, &name);
        joins(tunnel.client(), &tunnel, if on_own_link { "own" } else { "far" });
    }
}

#[test]
fn network_that_drops_ecn_marks_is_joined_and_used() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    filter(tunnel.gateway.host(), "unmarked", &DROP_MARKED);
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    tunnel.travels_by(Carrier::Esp);
    reach(tunnel.client().host(), INTERNET[0]);
    marked_packet_arrives(&tunnel);
}

#[test]
fn marks_that_a_network_begins_to_drop_are_left_out() {
    let Some(tunnel) = Tunnel::start_over(Carrier::Esp, Options::default()) else { return };
    eventually("outer datagrams bear the marks of their packets", || outer_is_marked(&tunnel).then_some(()));
    filter(tunnel.gateway.host(), "unmarked", &DROP_MARKED);
    marked_packet_arrives(&tunnel);
    assert!(!outer_is_marked(&tunnel), "which the network would have dropped");
    tunnel.travels_by(Carrier::Esp);
}

/// Waits until a packet of the client that bears ECT(0) arrives behind the gateway.
fn marked_packet_arrives(tunnel: &Tunnel) {
    let capture = Capture::start(&tunnel.internet).unwrap();
    eventually("a packet with ECT(0) comes through", || {
        send_marked(tunnel);
        capture.wait_for(Duration::from_millis(100), |seen| seen.contains(&MARKED)).map(drop)
    });
}

/// Whether the datagram of a packet with ECT(0) bears that mark when it leaves the client.
fn outer_is_marked(tunnel: &Tunnel) -> bool {
    let capture = Capture::start(tunnel.client().host()).unwrap();
    send_marked(tunnel);
    // Larger than a probe, which may bear the mark, too.
    let of_packet = |seen: &Captured| seen.destination == IpAddr::V4(GATEWAY_V4) && seen.bytes.len() > MARKED.len();
    let seen = capture.wait_for(PATIENCE, of_packet).expect("the packet leaves in a datagram");
    seen.bytes[1] & 3 == 2
}

fn send_marked(tunnel: &Tunnel) {
    tunnel.client().host().run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        setsockopt(&socket, sockopt::Ipv4Tos, &2).unwrap();
        socket.send_to(&MARKED, SocketAddr::new(INTERNET_V4.into(), 9)).unwrap();
    });
}

//! Which carrier a session uses, and what the wire shows of it.

use adit_lab::traffic::{UdpEcho, echo};

use super::observe::{Wire, extend_profile, stands};
use crate::harness::{INTERNET, Options, Tunnel, reach};

/// What the echo client fills its packets with.
const MARKER: &[u8] = &[0x5a; 32];
const ECHOES: u32 = 200;
const SIZE: usize = 700;
/// What the packets of both families hold, each way.
const CONTENTS: usize = 2 * 200 * SIZE;

/// Sends echoes through the tunnel; returns what the cable showed to the gateway and from it in bytes: ESP and others.
fn echoes(tunnel: &Tunnel) -> (Wire, [usize; 2], [usize; 2]) {
    let client = tunnel.client().host();
    let wire = Wire::start(client);
    for address in INTERNET {
        let server = UdpEcho::start(&tunnel.internet, address).unwrap();
        let report = echo(client, server.address(), ECHOES, 500, SIZE).unwrap();
        assert_eq!(report.lost(), 0, "{address}");
    }
    let datagrams = wire.datagrams();
    let bytes = |to_gateway, esp| {
        let these = datagrams.iter().filter(|one| one.to_gateway == to_gateway && one.is_esp() == esp);
        these.map(|one| one.length).sum()
    };
    let (esp, others) = ([true, false].map(|way| bytes(way, true)), [true, false].map(|way| bytes(way, false)));
    (wire, esp, others)
}

#[test]
fn packets_travel_by_esp_and_hardly_any_by_quic() {
    let Some(tunnel) = Tunnel::start(Options::default()) else { return };
    let status = stands(&tunnel, 0, "esp");
    assert_eq!(status.suite.as_deref(), Some("aes-256-gcm"));
    assert!(status.mtu.is_some_and(|mtu| mtu > 1280), "{:?}", status.mtu);
    let session = tunnel.session_of(status.addresses[0].addr()).unwrap();
    assert_eq!(session.suite.as_deref(), Some("aes-256-gcm"));
    assert!(session.mtu > 1280, "{}", session.mtu);
    let said = tunnel.client().run(&["status", "--json"]).unwrap().success().unwrap();
    assert!(said.contains(r#""rx_reordered""#), "{said}");
    let said = tunnel.gateway.admin(&["sessions", "--json"]).unwrap().success().unwrap();
    assert!(said.contains(r#""reordered""#), "{said}");

    let (wire, esp, others) = echoes(&tunnel);
    println!("bytes to the gateway and from it: ESP {esp:?}, others {others:?}");
    assert!(esp.iter().all(|seen| *seen > CONTENTS), "{esp:?} for {CONTENTS} each way");
    assert!(others.iter().all(|seen| *seen < CONTENTS / 20), "not in QUIC: {others:?}");
    assert_eq!(wire.plain(MARKER), [], "nothing is in clear");
}

/// Both ends stay with QUIC, and nothing that looks like ESP is sent.
fn assert_quic(tunnel: &Tunnel) {
    reach(tunnel.client().host(), INTERNET[0]);
    let (wire, esp, others) = echoes(tunnel);
    assert_eq!((esp, wire.datagrams().iter().filter(|one| one.is_esp()).count()), ([0, 0], 0));
    assert!(others.iter().all(|seen| *seen > CONTENTS), "{others:?}");
    assert_eq!(wire.plain(MARKER), [], "nothing is in clear");
    let status = stands(tunnel, 0, "quic");
    assert_eq!((status.suite, status.rekeys), (None, 0));
}

#[test]
fn packets_stay_in_quic_where_the_gateway_does_not_want_esp() {
    let settings = &[("esp.enabled", "false")];
    let Some(tunnel) = Tunnel::start(Options { clients: 1, settings }) else { return };
    assert_quic(&tunnel);
}

#[test]
fn packets_stay_in_quic_where_the_client_does_not_want_esp() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up_with(&["--carrier", "quic"], &[]).unwrap();
    assert_quic(&tunnel);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    extend_profile(tunnel.client(), "[esp]\nenabled = false");
    tunnel.clients[0].up().unwrap();
    assert_quic(&tunnel);
}

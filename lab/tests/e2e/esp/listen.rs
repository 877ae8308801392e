//! A gateway with several addresses answers from the one a client spoke to.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use adit_lab::traffic::{Capture, Captured, Direction, TcpServer, transfer};
use adit_lab::{GATEWAY_V4, OUTSIDE_V4};

use super::observe::{CABLE, PORT, profile, stands};
use crate::harness::{INTERNET, Options, Tunnel};

/// Who sent which kind of datagram: the gateway's side of the tunnel, and whether it is ESP.
type Seen = BTreeSet<(IpAddr, bool)>;

/// The datagrams from the gateway's port on the client's cable that answer what was sent to `asked`. Others may be late
/// ones of the connection by which the client joined.
fn answers(capture: &Capture, link: usize, asked: IpAddr) -> Seen {
    let datagrams = capture.packets(|packet| packet.link == link && packet.udp().is_some());
    let udp = |packet: &Captured| packet.udp().map(|(from, to, payload)| (from, to, payload.first().copied()));
    let asking = datagrams.iter().filter(|packet| packet.destination == asked).filter_map(udp);
    let ports: BTreeSet<u16> = asking.filter(|(_, to, _)| *to == PORT).map(|(from, ..)| from).collect();
    let kind = |packet: &Captured| {
        let (from, to, first) = udp(packet)?;
        let ours = [IpAddr::V4(GATEWAY_V4), IpAddr::V4(OUTSIDE_V4)].contains(&packet.source);
        (ours && from == PORT && ports.contains(&to)).then_some((packet.source, first? >> 6 == 0b10))
    };
    datagrams.iter().filter_map(kind).collect()
}

/// Has the client speak to `address`, and looks who answers.
fn assert_answers_from(listen: &str, address: IpAddr) {
    let public = format!("[\"{GATEWAY_V4}\", \"{OUTSIDE_V4}\"]");
    let settings = [("listen", listen), ("public", public.as_str())];
    let Some(mut tunnel) = Tunnel::prepare(Options { settings: &settings, ..Options::default() }) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let file = profile(tunnel.client());
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&GATEWAY_V4.to_string(), &address.to_string())).unwrap();
    let host = tunnel.client().host();
    let (capture, link) = (Capture::start(host).unwrap(), host.link_index(CABLE).unwrap());
    tunnel.clients[0].up().unwrap();
    let status = stands(&tunnel, 0, "esp");
    println!("{listen}: {:?}", status.gateway);
    let host = tunnel.client().host();
    for target in INTERNET {
        let server = TcpServer::start(&tunnel.internet, target).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            assert!(transfer(host, server.address(), direction, 2 << 20).unwrap().is_intact());
        }
    }
    stands(&tunnel, 0, "esp");
    assert_eq!(answers(&capture, link, address), Seen::from([(address, false), (address, true)]), "{listen} {address}");
}

#[test]
fn gateway_with_several_addresses_answers_from_the_one_that_was_asked() {
    let port = |address: IpAddr| SocketAddr::new(address, PORT);
    let listen = format!("[\"{}\", \"{}\"]", port(GATEWAY_V4.into()), port(OUTSIDE_V4.into()));
    for address in [GATEWAY_V4, OUTSIDE_V4] {
        assert_answers_from(&listen, address.into());
    }
}

#[test]
fn gateway_on_a_wildcard_answers_from_the_address_that_was_asked() {
    for listen in ["[\"[::]:443\"]", "[\"0.0.0.0:443\"]"] {
        assert_answers_from(listen, OUTSIDE_V4.into());
    }
}

//! Paths that are narrow from the start, and such that become too narrow for a tunnel over UDP under a session.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use adit_lab::Host;
use adit_lab::programs::ToldStatus;
use adit_lab::traffic::UdpEcho;
use adit_testing::{PATIENCE, eventually};

use super::{CABLE, amid_transfers, assert_carries, ends, joined};
use crate::esp::takes;
use crate::harness::{Carrier, INTERNET, Tunnel, answers, filter, reach, unfilter};

const TRANSFER: u64 = 1 << 20;
/// The widest that paths are here: what the lab's links take.
const ORDINARY: u32 = 1_500;
/// A path that takes less than a tunnel over UDP needs, which is 1,342 bytes for the least packets by ESP.
const TOO_NARROW: u32 = 1_300;
/// What paths take, and by what packets travel there.
const PATHS: [(u32, &str); 5] = [(1_280, "tls"), (1_340, "tls"), (1_400, "esp"), (1_492, "esp"), (9_000, "esp")];
/// Bytes around an inner packet by ESP over IPv4, with the most padding, and what a search leaves open.
const AROUND: u32 = 20 + 8 + 16 + 3 + 2 + 16 + 8;
/// What an inner packet has at most here: the gateway's default.
const LARGEST: u16 = 1_420;
/// A payload whose packet every tunnel has to carry, as it has 1,280 bytes.
const LARGE: usize = 1_280 - 20 - 8;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(20);

fn set_links(tunnel: &Tunnel, mtu: u32) {
    ends(tunnel).into_iter().for_each(|(host, _)| host.set_mtu(CABLE, mtu).unwrap());
}

/// Has something in the middle of the path drop whatever is larger, of any protocol, without a word.
fn black_hole(tunnel: &Tunnel, largest: u32) {
    for (host, _) in ends(tunnel) {
        let rule = format!("iifname \"{CABLE}\" meta length > {largest} drop");
        filter(host, "narrow", &[("prerouting priority -310", &rule)]);
    }
}

/// Waits until both ends say that packets travel by this.
fn comes_to(tunnel: &Tunnel, carrier: &str) -> ToldStatus {
    eventually(&format!("packets travel by {carrier}"), || {
        let near = tunnel.client().status().unwrap();
        let far = tunnel.gateway.sessions().unwrap().pop()?;
        (near.carrier.as_deref() == Some(carrier) && far.carrier == carrier).then_some(near)
    })
}

/// Sends large packets until one is answered that was sent from now on; says how long that took.
fn large_packets_pass(host: &Host, server: SocketAddr) -> Duration {
    host.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PAUSE)).unwrap();
        let (began, mut answer) = (Instant::now(), [0; LARGE]);
        while began.elapsed() < PATIENCE {
            // A refusal is as good as a loss.
            socket.send_to(&[0x1a; LARGE], server).ok();
            if socket.recv(&mut answer).is_ok_and(|length| length == LARGE) {
                return began.elapsed();
            }
        }
        panic!("no packet of 1,280 bytes comes back");
    })
}

#[test]
fn every_path_from_1280_bytes_on_is_used_by_the_carrier_that_can() {
    let Some(mut tunnel) = joined() else { return };
    for (mtu, carrier) in PATHS {
        set_links(&tunnel, mtu);
        tunnel.clients[0].up().unwrap();
        comes_to(&tunnel, carrier);
        // Behind a race that TLS has won, UDP is tried again before it is known what is wrong with it.
        eventually("the client says what is in the way of UDP", || {
            let why = tunnel.client().status().unwrap().not_by_udp;
            (why.is_some_and(|why| why.contains("narrow")) == (carrier == "tls")).then_some(())
        });
        let least = if carrier == "tls" { 1_280 } else { LARGEST.min(u16::try_from(mtu - AROUND).unwrap()) };
        let inner = eventually("packets are as large as the path takes", || {
            tunnel.client().status().unwrap().mtu.filter(|inner| (least..=LARGEST).contains(inner))
        });
        println!("{mtu}: {carrier}, inner packets of {inner} bytes");
        for address in INTERNET {
            eventually("the client's own kernel knows", || {
                ([inner, inner + 1].map(|size| takes(&tunnel, address, size)) == [true, false]).then_some(())
            });
        }
        assert_carries(&tunnel, TRANSFER, &format!("{mtu}"));
        assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    }
    // Somewhere on the way, which TCP is not told of either.
    set_links(&tunnel, ORDINARY);
    black_hole(&tunnel, 1_280);
    tunnel.clients[0].up().unwrap();
    comes_to(&tunnel, "tls");
    assert_carries(&tunnel, TRANSFER, "in the middle");
}

/// Brings a client up, has its path get too narrow amid transfers, and waits until the session has gone over to TLS.
fn leaves_udp(tunnel: &mut Tunnel, what: &str, shrink: impl FnOnce(&Tunnel)) {
    tunnel.clients[0].up().unwrap();
    let tunnel = &*tunnel;
    tunnel.travels_by(Carrier::Esp);
    let echo = UdpEcho::start(&tunnel.internet, INTERNET[0]).unwrap();
    let host = tunnel.client().host();
    large_packets_pass(host, echo.address());
    let (addresses, began) = (tunnel.client().inner_addresses().unwrap(), Instant::now());
    let status = amid_transfers(tunnel, 4 * TRANSFER, Duration::from_secs(6), what, || {
        shrink(tunnel);
        println!("{what}: large packets pass again after {:?}", large_packets_pass(host, echo.address()));
        comes_to(tunnel, "tls")
    });
    let why = status.not_by_udp.unwrap();
    assert!(why.contains("too narrow"), "{what}: {why}");
    let since = tunnel.client().status().unwrap().since_seconds.unwrap();
    assert!(since >= began.elapsed().as_secs(), "{what}: the session was never lost, it is there for {since} s");
    assert_eq!(tunnel.client().inner_addresses().unwrap(), addresses, "{what}");
    INTERNET.into_iter().for_each(|target| reach(host, target));
}

#[test]
fn session_whose_path_gets_too_narrow_goes_over_to_tls_or_says_so() {
    let Some(mut tunnel) = joined() else { return };
    leaves_udp(&mut tunnel, "its own link shrinks", |tunnel| set_links(tunnel, TOO_NARROW));
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    set_links(&tunnel, ORDINARY);
    leaves_udp(&mut tunnel, "the path shrinks unsaid", |tunnel| black_hole(tunnel, TOO_NARROW));
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    ends(&tunnel).into_iter().for_each(|(host, _)| unfilter(host, "narrow"));

    // One that QUIC has to find out about by itself.
    tunnel.clients[0].up_with(&["--carrier", "quic"], &[]).unwrap();
    eventually("QUIC has found the wide path", || {
        tunnel.client().status().unwrap().path_mtu.filter(|size| u32::from(*size) > 1_400)
    });
    let what = "the path of quic shrinks unsaid";
    amid_transfers(&tunnel, 4 * TRANSFER, Duration::from_secs(6), what, || black_hole(&tunnel, 1_400));
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    ends(&tunnel).into_iter().for_each(|(host, _)| unfilter(host, "narrow"));

    // A client that may only use UDP has no other way.
    tunnel.clients[0].up_with(&["--carrier", "esp"], &[]).unwrap();
    tunnel.travels_by(Carrier::Esp);
    black_hole(&tunnel, TOO_NARROW);
    eventually("the client says what is wrong", || {
        answers(tunnel.client().host(), INTERNET[0]);
        let status = tunnel.client().status().unwrap();
        status.reason.filter(|reason| reason.contains("too narrow"))
    });
}

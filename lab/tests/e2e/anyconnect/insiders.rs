//! What a session does not permit, by TLS as little as by records of DTLS: foreign sources, other clients, and what the
//! policy denies.

use std::net::IpAddr;

use adit_lab::programs::ToldSession;
use adit_lab::traffic::{Capture, inject, udp_packet};
use adit_testing::{PATIENCE, eventually};

use super::records::comes_to_at;
use super::{LINK, log_in_at, reach_internet, start_many, up_at};
use crate::harness::{INTERNET, Tunnel, ip};
use crate::logins::PASSWORD;
use crate::people::give_policy;
use crate::versions::Version;

const FORBIDDEN: &[u8] = b"adit-not-permitted";
const HONEST: &[u8] = b"adit-permitted";
const PERMITTED_PORT: u16 = 9;
/// The port that [`POLICY`] denies.
const DENIED_PORT: u16 = 10;
const POLICY: &str = "[[rules]]\ngroups = [\"*\"]\naction = \"deny\"\nto = [\"*\"]\nports = [\"udp/10\"]\n\
    [[rules]]\ngroups = [\"*\"]\naction = \"allow\"\nto = [\"*\"]\n";
/// Sources that are nobody's here, or only a host's own.
const FOREIGN: [&str; 3] = ["10.255.254.253", "2001:db8:bad::9", "127.0.0.9"];

#[test]
fn either_carrier_keeps_sources_neighbours_and_rules() {
    let Some(mut tunnel) = start_many(&[Version::Own, Version::Newest], &[]) else { return };
    tunnel.gateway.stop().unwrap();
    give_policy(&mut tunnel.gateway, POLICY);
    tunnel.gateway.start().unwrap();
    let arguments = ["--user", "alice", "--passwd-on-stdin", "--no-dtls"];
    let (_first, by_tls) = up_at(&tunnel, 0, &arguments, &format!("{PASSWORD}\n"));
    let (_second, by_dtls) = log_in_at(&tunnel, 1);
    comes_to_at(&tunnel, 1, &by_dtls, "dtls", PATIENCE);
    for (client, own, other, carrier) in [(0, &by_tls, &by_dtls, "tls"), (1, &by_dtls, &by_tls, "dtls")] {
        keeps(&tunnel, client, own, other);
        let told = tunnel.session_of(own.addresses[0]).unwrap();
        assert_eq!((told.session, told.carrier.as_str()), (own.session, carrier));
    }
}

/// Has a client send what it may not, and behind it what it may, which alone arrives.
fn keeps(tunnel: &Tunnel, client: usize, own: &ToldSession, other: &ToldSession) {
    let host = tunnel.clients[client].host();
    reach_internet(host);
    let [behind, beside] =
        [&tunnel.internet, tunnel.clients[1 - client].host()].map(|host| Capture::start(host).unwrap());
    let of_family = |addresses: &[IpAddr], like: IpAddr| {
        addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4()).unwrap()
    };
    let from = |source: IpAddr, port: u16, payload: &[u8]| {
        udp_packet((source, 40_000).into(), (of_family(&INTERNET, source), port).into(), 64, payload)
    };
    let foreign = FOREIGN.iter().map(|text| text.parse().unwrap()).chain(other.addresses.iter().copied());
    let mut forbidden: Vec<_> = foreign.map(|source| from(source, PERMITTED_PORT, FORBIDDEN)).collect();
    for neighbour in &other.addresses {
        ip(host, &format!("route replace {neighbour} dev {LINK}"));
        let source = of_family(&own.addresses, *neighbour);
        forbidden.push(udp_packet((source, 40_000).into(), (*neighbour, PERMITTED_PORT).into(), 64, FORBIDDEN));
    }
    forbidden.extend(own.addresses.iter().map(|source| from(*source, DENIED_PORT, FORBIDDEN)));
    inject(host, LINK, forbidden).unwrap();
    // The positive control, behind the others on the same way.
    inject(host, LINK, own.addresses.iter().map(|source| from(*source, PERMITTED_PORT, HONEST)).collect()).unwrap();
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let arrived = behind.wait_for(PATIENCE, |seen| seen.contains(HONEST) && family(&seen.destination));
        assert!(arrived.is_some(), "what is permitted arrives");
    }
    for capture in [&behind, &beside] {
        let seen = capture.packets(|seen| seen.contains(FORBIDDEN));
        assert!(seen.is_empty(), "{seen:?}");
    }
    let counted = eventually("each is counted", || {
        let drops = tunnel.session_of(own.addresses[0]).unwrap().drops;
        (drops.get("destination_isolated") == Some(&2)).then_some(drops)
    });
    assert_eq!(counted.get("source_not_leased"), Some(&4), "{counted:?}");
    assert_eq!(counted.get("source_loopback"), Some(&1), "{counted:?}");
}

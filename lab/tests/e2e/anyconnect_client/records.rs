//! Packets in records of DTLS, where UDP passes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use adit_lab::INTERNET_V4;
use adit_lab::programs::ToldSession;
use adit_lab::traffic::Dialogue;

use super::*;
use crate::harness::{Tunnel, answers, filter, unfilter};
use crate::leaks::Watched;

/// How long it takes at most until a client has noticed that nothing passes, or tries again, and somewhat more.
const NEXT_TRY: Duration = Duration::from_secs(120);
const NO_UDP: &str = "no_udp";
/// Packets a second in each direction.
const RATE: u32 = 200;
/// The link of the client's host to the gateway, and its addresses there.
pub(super) const OUTER_LINK: &str = "eth0";
const HOMES: [&str; 2] = ["192.0.2.18/28", "192.0.2.28/28"];

/// Nothing comes to the gateway by UDP.
fn block_udp(gateway: &Host) {
    filter(gateway, NO_UDP, &[("input priority 0", "meta l4proto udp drop")]);
}

/// Waits until a client's packets have this carrier. It has not connected anew since `connected`.
pub(super) fn comes_to(client: &Client, through: IpAddr, carrier: &str, connected: Instant) {
    let deadline = Instant::now() + NEXT_TRY;
    loop {
        // It may be lost as long as the other way is not noticed to be the better one.
        answers(client.host(), through);
        let least = connected.elapsed().as_secs().saturating_sub(1);
        let status = client.status().unwrap();
        assert!(status.state == "connected" && status.since_seconds >= Some(least), "{least} s: {status:?}");
        if status.carrier.as_deref() == Some(carrier) {
            return reach(client.host(), through);
        }
        assert!(Instant::now() < deadline, "never: {carrier}, but {status:?}");
        thread::sleep(Duration::from_millis(500));
    }
}

/// A gateway of ours with a client that has just connected.
fn start() -> Option<(Tunnel, Instant)> {
    let mut tunnel = gateway()?;
    add(tunnel.client(), &["--pin", &pin(&tunnel.gateway)]).success().unwrap();
    up(&mut tunnel.clients[0], &format!("{PASSWORD}\n"));
    Some((tunnel, Instant::now()))
}

fn session(tunnel: &Tunnel) -> ToldSession {
    tunnel.gateway.sessions().unwrap().pop().expect("the session goes on")
}

#[test]
fn twenty_mebibytes_arrive_intact_each_way_in_records_at_our_gateway() {
    let _turn = alone();
    let Some((tunnel, connected)) = start() else { return };
    let client = tunnel.client();
    comes_to(client, INTERNET[0], "dtls", connected);
    let told = session(&tunnel);
    assert_eq!((told.front_end.as_str(), told.carrier.as_str()), ("anyconnect", "dtls"), "{told:?}");
    assert_eq!(client.status().unwrap().suite, told.suite, "both ends tell the same cipher");
    for address in INTERNET {
        move_both_ways(client.host(), &tunnel.internet, address);
    }
    let after = session(&tunnel);
    assert_eq!((after.session, after.carrier.as_str()), (told.session, "dtls"), "{after:?}");
    assert_eq!(client.status().unwrap().carrier.as_deref(), Some("dtls"));
    run(client, &["down", "work"], "").success().unwrap();
    eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
}

#[test]
fn session_goes_on_over_tls_while_udp_is_blocked_and_comes_back_to_records() {
    let _turn = alone();
    let Some((tunnel, connected)) = start() else { return };
    let client = tunnel.client();
    comes_to(client, INTERNET[0], "dtls", connected);
    let told = session(&tunnel);
    block_udp(tunnel.gateway.host());
    comes_to(client, INTERNET[0], "tls", connected);
    move_both_ways(client.host(), &tunnel.internet, INTERNET[1]);
    unfilter(tunnel.gateway.host(), NO_UDP);
    comes_to(client, INTERNET[0], "dtls", connected);
    let after = session(&tunnel);
    assert_eq!((after.session, after.addresses), (told.session, told.addresses), "it is the same one");
}

#[test]
fn nothing_leaves_beside_the_tunnel_by_whichever_carrier_it_goes() {
    let _turn = alone();
    let Some((mut tunnel, connected)) = start() else { return };
    comes_to(tunnel.client(), INTERNET[0], "dtls", connected);
    let watched = Watched::new(&tunnel);
    watched.assert_tight("by records");
    block_udp(tunnel.gateway.host());
    comes_to(tunnel.client(), INTERNET[0], "tls", connected);
    watched.assert_tight("by TLS");
    unfilter(tunnel.gateway.host(), NO_UDP);
    tunnel.clients[0].kill();
    watched.assert_tight("killed");
    run(tunnel.client(), &["down", "work"], "").success().unwrap();
    Watched::new(&tunnel).assert_open("opened");
}

#[test]
fn client_connects_at_once_where_udp_is_blocked_from_the_start_and_comes_to_records_later() {
    let Some(mut tunnel) = gateway() else { return };
    block_udp(tunnel.gateway.host());
    add(tunnel.client(), &["--pin", &pin(&tunnel.gateway)]).success().unwrap();
    up(&mut tunnel.clients[0], &format!("{PASSWORD}\n"));
    let (client, connected) = (tunnel.client(), Instant::now());
    move_both_ways(client.host(), &tunnel.internet, INTERNET[0]);
    assert_eq!(client.status().unwrap().carrier.as_deref(), Some("tls"));
    unfilter(tunnel.gateway.host(), NO_UDP);
    comes_to(client, INTERNET[0], "dtls", connected);
}

#[test]
fn packets_are_as_large_as_the_path_takes() {
    /// What the cable takes, and the largest packet that is asked for and fits: beside it there are 20 bytes of IPv4, 8
    /// of UDP, 37 of the record and 1 of its type.
    const CABLE: u32 = 1400;
    const PACKET: u16 = 1320;
    let Some(mut tunnel) = gateway() else { return };
    // The cable is the first of both hosts.
    for host in [tunnel.client().host(), tunnel.gateway.host()] {
        host.set_mtu(OUTER_LINK, CABLE).unwrap();
    }
    add(tunnel.client(), &["--pin", &pin(&tunnel.gateway)]).success().unwrap();
    up(&mut tunnel.clients[0], &format!("{PASSWORD}\n"));
    let client = tunnel.client();
    comes_to(client, INTERNET[0], "dtls", Instant::now());
    eventually("both ends know it", || {
        (client.status().unwrap().mtu == Some(PACKET) && session(&tunnel).mtu == PACKET).then_some(())
    });
    move_both_ways(client.host(), &tunnel.internet, INTERNET[0]);
    assert_eq!(session(&tunnel).carrier, "dtls");
}

#[test]
fn client_that_gets_another_address_connects_anew_and_comes_back_to_records() {
    let Some((tunnel, connected)) = start() else { return };
    let client = tunnel.client();
    comes_to(client, INTERNET[0], "dtls", connected);
    let (before, inner) = (session(&tunnel), client.inner_addresses().unwrap());
    let [old, new] = HOMES.map(|text| text.parse().unwrap());
    client.host().replace_address(OUTER_LINK, old, new).unwrap();
    eventually("the session is one from the new address", || {
        let told = tunnel.gateway.sessions().unwrap().pop()?;
        (told.session != before.session && told.remote.ip() == new.addr()).then_some(())
    });
    eventually("the client has noticed", || (client.status().unwrap().state == "connected").then_some(()));
    comes_to(client, INTERNET[1], "dtls", Instant::now());
    assert_eq!(client.inner_addresses().unwrap(), inner, "the same addresses, and nobody was asked");
}

#[test]
fn new_keys_by_new_connections_cost_no_packet_under_load() {
    let _turn = alone();
    let Some(mut tunnel) = gateway() else { return };
    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("anyconnect.rekey_after", "5s");
    tunnel.gateway.start().unwrap();
    add(tunnel.client(), &["--pin", &pin(&tunnel.gateway)]).success().unwrap();
    up(&mut tunnel.clients[0], &format!("{PASSWORD}\n"));
    let (client, connected) = (tunnel.client(), Instant::now());
    comes_to(client, INTERNET[0], "dtls", connected);
    let inner = client.inner_addresses().unwrap();
    let dialogue = Dialogue::start(client.host(), &tunnel.internet, INTERNET_V4.into(), RATE).unwrap();
    let (mut sessions, deadline) = (BTreeSet::new(), Instant::now() + NEXT_TRY);
    while sessions.len() < 4 {
        assert!(Instant::now() < deadline, "no new connection: {sessions:?}");
        sessions.extend(tunnel.gateway.sessions().unwrap().pop().map(|told| told.session));
        thread::sleep(Duration::from_millis(200));
    }
    comes_to(client, INTERNET[1], "dtls", connected);
    for (way, course) in ["up", "down"].into_iter().zip(dialogue.finish()) {
        println!("{way}: {} packets, {} out of order", course.sent, course.reordered());
        assert_eq!((course.lost(), course.duplicated()), (0, 0), "{way}, of {} packets", course.sent);
    }
    assert_eq!(client.inner_addresses().unwrap(), inner);
}

with_each_version!(twenty_mebibytes_arrive_intact_each_way_in_records_at_ocserv);

fn twenty_mebibytes_arrive_intact_each_way_in_records_at_ocserv(version: Version) {
    let _turn = alone();
    let Some(mut ocserv) = Ocserv::start_with(version) else { return };
    add(&ocserv.client, &["--authority", &ocserv.certificate]).success().unwrap();
    let host = ocserv.client.host().clone();
    let before = host.snapshot().unwrap();
    up(&mut ocserv.client, &format!("{PASSWORD}\n"));
    let connected = Instant::now();
    let inside = Ocserv::ADDRESSES.map(|text| text.parse().unwrap());
    comes_to(&ocserv.client, inside[0], "dtls", connected);
    for address in inside {
        move_both_ways(&host, &ocserv.gateway, address);
    }
    let status = ocserv.client.status().unwrap();
    assert_eq!((status.state.as_str(), status.carrier.as_deref()), ("connected", Some("dtls")));
    run(&ocserv.client, &["down", "work"], "").success().unwrap();
    assert_as_before(&host, &before);
}

with_each_version!(session_at_ocserv_goes_on_over_tls_while_udp_is_blocked_and_comes_back_to_records);

fn session_at_ocserv_goes_on_over_tls_while_udp_is_blocked_and_comes_back_to_records(version: Version) {
    let _turn = alone();
    let Some(mut ocserv) = Ocserv::start_with(version) else { return };
    add(&ocserv.client, &["--authority", &ocserv.certificate]).success().unwrap();
    block_udp(&ocserv.gateway);
    up(&mut ocserv.client, &format!("{PASSWORD}\n"));
    let (client, connected) = (&ocserv.client, Instant::now());
    let inside = Ocserv::ADDRESSES[0].parse().unwrap();
    reach(client.host(), inside);
    assert_eq!(client.status().unwrap().carrier.as_deref(), Some("tls"));
    unfilter(&ocserv.gateway, NO_UDP);
    comes_to(client, inside, "dtls", connected);
    block_udp(&ocserv.gateway);
    comes_to(client, inside, "tls", connected);
    unfilter(&ocserv.gateway, NO_UDP);
    comes_to(client, inside, "dtls", connected);
}

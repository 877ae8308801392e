//! What a killed gateway or client leaves is mended by the next start or by `cleanup`.

use crate::harness::{Carrier, INTERNET, Options, Tunnel, assert_as_before, reach};

/// A resolver inside the tunnel, so that the client has a resolver file to change.
const SETTINGS: &[(&str, &str)] = &[("dns.servers", r#"["198.51.100.2"]"#)];

/// A tunnel, and what the hosts of gateway and client looked like before it was there.
fn started(carrier: Carrier) -> Option<(Tunnel, [String; 2])> {
    let mut tunnel = Tunnel::prepare_over(carrier, Options { clients: 1, settings: SETTINGS })?;
    let before = [tunnel.gateway.host().settled().unwrap(), tunnel.client().host().settled().unwrap()];
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    tunnel.travels_by(carrier);
    let during = [tunnel.gateway.host().snapshot().unwrap(), tunnel.client().host().snapshot().unwrap()];
    assert_ne!(during[0], before[0], "a running gateway changes its host");
    assert_ne!(during[1], before[1], "a running client changes its host");
    assert!(resolver(&during[1]).contains("nameserver 198.51.100.2"), "the client uses the tunnel's resolver");
    Some((tunnel, before))
}

/// The resolver file of a snapshot.
fn resolver(snapshot: &str) -> &str {
    snapshot.split_once("[resolv.conf]").unwrap().1
}

#[test]
fn orderly_stop_leaves_the_hosts_as_they_were() {
    orderly_stop(Carrier::Esp);
    orderly_stop(Carrier::Quic);
}

fn orderly_stop(carrier: Carrier) {
    let Some((mut tunnel, [gateway, client])) = started(carrier) else { return };
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    assert_as_before(tunnel.client().host(), &client);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    assert_as_before(tunnel.gateway.host(), &gateway);
}

#[test]
fn cleanup_mends_what_a_killed_client_left() {
    cleanup_after_killed_client(Carrier::Esp);
    cleanup_after_killed_client(Carrier::Quic);
}

fn cleanup_after_killed_client(carrier: Carrier) {
    let Some((mut tunnel, [_, client])) = started(carrier) else { return };
    tunnel.clients[0].kill();
    assert_ne!(tunnel.client().host().snapshot().unwrap(), client, "a killed client leaves something");
    tunnel.client().run(&["cleanup"]).unwrap().success().unwrap();
    assert_as_before(tunnel.client().host(), &client);
    tunnel.client().run(&["cleanup"]).unwrap().success().unwrap();
    assert_as_before(tunnel.client().host(), &client);
}

#[test]
fn next_start_mends_what_a_killed_client_left() {
    let Some((mut tunnel, [_, client])) = started(Carrier::Esp) else { return };
    tunnel.clients[0].kill();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    assert_as_before(tunnel.client().host(), &client);
}

#[test]
fn cleanup_mends_what_a_killed_gateway_left() {
    cleanup_after_killed_gateway(Carrier::Esp);
    cleanup_after_killed_gateway(Carrier::Quic);
}

fn cleanup_after_killed_gateway(carrier: Carrier) {
    let Some((mut tunnel, [gateway, _])) = started(carrier) else { return };
    tunnel.gateway.kill();
    assert_ne!(tunnel.gateway.host().snapshot().unwrap(), gateway, "a killed gateway leaves something");
    tunnel.gateway.admin(&["cleanup"]).unwrap().success().unwrap();
    assert_as_before(tunnel.gateway.host(), &gateway);
}

#[test]
fn next_start_mends_what_a_killed_gateway_left() {
    let Some((mut tunnel, [gateway, _])) = started(Carrier::Esp) else { return };
    tunnel.gateway.kill();
    tunnel.gateway.start().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    assert_as_before(tunnel.gateway.host(), &gateway);
}

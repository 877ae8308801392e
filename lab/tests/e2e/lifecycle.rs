//! The life of a client: in the background and in the foreground, connected, reconnecting, blocked, and gone without a
//! trace.

use adit_lab::Output;
use adit_lab::programs::{Client, TUN, ToldStatus};
use adit_lab::traffic::ping;
use adit_testing::{PATIENCE, eventually};
use nix::sys::signal::Signal;

use crate::harness::{Carrier, INTERNET, Options, Tunnel, answers, assert_as_before, reach};

/// A running gateway, a client that has joined, and what the client's host looks like.
fn joined() -> Option<(Tunnel, String)> {
    // A resolver inside the tunnel, so that the client has a resolver file to change.
    let settings = &[("dns.servers", r#"["198.51.100.2"]"#)];
    let mut tunnel = Tunnel::prepare(Options { clients: 1, settings })?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let before = tunnel.client().host().settled().unwrap();
    Some((tunnel, before))
}

/// Runs a command and expects it to succeed without a word of failure.
fn succeeds(client: &Client, arguments: &[&str]) -> String {
    let Output { code, stdout, stderr } = client.run(arguments).unwrap();
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}: {stdout}");
    stdout
}

/// Waits until the client says that it is in `state`.
fn stands(client: &Client, state: &str) -> ToldStatus {
    eventually(&format!("the client is {state}"), || {
        let status = client.status().unwrap();
        (status.state == state).then_some(status)
    })
}

#[test]
fn detached_client_stays_until_it_is_taken_down() {
    let Some((tunnel, before)) = joined() else { return };
    let client = tunnel.client();
    let said = succeeds(client, &["up", "--detach"]);
    assert!(said.contains("connected") && said.contains("down"), "{said}");
    for target in INTERNET {
        let first = ping(client.host(), target, PATIENCE).unwrap();
        assert!(first.rtt().is_some(), "the tunnel is usable at once, the first packet is answered: {first:?}");
    }
    let status = client.status().unwrap();
    assert_eq!((status.state.as_str(), status.tun.as_deref(), status.addresses.len()), ("connected", Some(TUN), 2));
    let again = client.run(&["up", "--detach"]).unwrap();
    assert_ne!(again.code, 0, "a second client of the same profile is refused: {}", again.stdout);

    let said = succeeds(client, &["down"]);
    assert!(said.contains("disconnected"), "{said}");
    assert_as_before(client.host(), &before);
    assert_eq!(client.status().unwrap().state, "disconnected");
    eventually("the gateway sees it leave", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    assert!(succeeds(client, &["down"]).contains("not running"), "a second `down` has nothing to do");
}

#[test]
fn interrupt_ends_a_client_in_the_foreground_and_a_gateway_without_a_trace() {
    let Some((mut tunnel, before)) = joined() else { return };
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    let process = tunnel.client().process().unwrap();
    process.signal(Signal::SIGINT).unwrap();
    assert_eq!(process.wait(PATIENCE).unwrap(), 0, "{}", process.tail());
    assert_as_before(tunnel.client().host(), &before);
    let process = tunnel.gateway.process().unwrap();
    process.signal(Signal::SIGINT).unwrap();
    assert_eq!(process.wait(PATIENCE).unwrap(), 0, "{}", process.tail());
    assert!(tunnel.gateway.inner_addresses().unwrap().is_empty(), "the device is gone");
}

#[test]
fn status_tells_the_states_of_a_client_on_esp_as_they_are() {
    status_tells_the_states(Carrier::Esp, &[]);
}

#[test]
fn status_tells_the_states_of_a_client_that_wants_quic_as_they_are() {
    status_tells_the_states(Carrier::Quic, &["--carrier", "quic"]);
}

fn status_tells_the_states(carrier: Carrier, arguments: &[&str]) {
    let Some((mut tunnel, before)) = joined() else { return };
    assert_eq!(tunnel.client().status().unwrap().state, "disconnected");
    tunnel.clients[0].up_with(arguments, &[]).unwrap();
    tunnel.travels_by(carrier);
    let status = stands(tunnel.client(), "connected");
    assert_eq!(status.reason, None);
    assert_eq!(status.suite.is_some(), carrier == Carrier::Esp);
    assert!(status.rtt_ms.is_some() && status.mtu.is_some() && status.since_seconds.is_some());
    assert!(status.carrier_seconds <= status.since_seconds && status.carrier_seconds.is_some(), "{status:?}");
    assert!(status.path_mtu.is_some_and(|mtu| (1359..=1500).contains(&mtu)), "{status:?}");

    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    let status = stands(tunnel.client(), "reconnecting");
    assert!(status.reason.is_some_and(|reason| !reason.is_empty()), "it says why");
    assert_eq!(status.addresses.len(), 2, "the host stays configured");
    tunnel.gateway.start().unwrap();
    stands(tunnel.client(), "connected");
    tunnel.travels_by(carrier);

    tunnel.gateway.admin(&["revoke", "user1"]).unwrap().success().unwrap();
    let status = stands(tunnel.client(), "blocked");
    assert!(status.reason.is_some_and(|reason| reason.contains("revoked")), "it says why");
    assert_eq!(status.carrier, None);
    assert!(!answers(tunnel.client().host(), INTERNET[0]));
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0, "a blocked client can still be ended");
    assert_as_before(tunnel.client().host(), &before);
}

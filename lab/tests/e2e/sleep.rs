//! Hosts that sleep, and programs that are stopped: traffic flows again at once, whatever the gateway did meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use adit_lab::traffic::ping;
use adit_testing::{PATIENCE, eventually};
use nix::sys::signal::Signal;

use crate::harness::{Carrier, INTERNET, Options, Tunnel, reach};
use crate::wrong_clock::WrongClock;

/// What is noticed as sleep, and some more.
const STOP: Duration = Duration::from_secs(6);
/// The goal is a second. What a busy machine adds comes on top.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// What a client says that woke.
const WOKE: &str = "this host slept";

fn connected(carrier: Carrier) -> Option<Tunnel> {
    let tunnel = Tunnel::start_over(carrier, Options::default())?;
    reach(tunnel.client().host(), INTERNET[0]);
    Some(tunnel)
}

/// Stops the client for a while in which something happens; returns when it goes on.
fn stop_while(tunnel: &mut Tunnel, happens: impl FnOnce(&mut Tunnel)) -> Instant {
    let stopped = Instant::now();
    tunnel.client().process().unwrap().signal(Signal::SIGSTOP).unwrap();
    happens(tunnel);
    thread::sleep((stopped + STOP).saturating_duration_since(Instant::now()));
    let woken = Instant::now();
    tunnel.client().process().unwrap().signal(Signal::SIGCONT).unwrap();
    woken
}

/// Expects the first answer through the tunnel soon after the client went on.
fn assert_flows_soon(tunnel: &Tunnel, woken: Instant, what: &str) {
    eventually("packets flow again", || {
        ping(tunnel.client().host(), INTERNET[0], Duration::from_millis(100)).unwrap().rtt()
    });
    let after = woken.elapsed();
    println!("{what}: packets flow {after:?} after waking");
    tunnel.client().process().unwrap().wait_for_line(WOKE, PATIENCE).unwrap();
    assert!(after <= BACK_WITHIN, "{what}: {after:?}");
}

#[test]
fn stopped_client_on_esp_whose_gateway_restarted_meanwhile_is_back_at_once() {
    back_after_restart(Carrier::Esp);
}

#[test]
fn stopped_client_on_quic_whose_gateway_restarted_meanwhile_is_back_at_once() {
    back_after_restart(Carrier::Quic);
}

fn back_after_restart(carrier: Carrier) {
    let Some(mut tunnel) = connected(carrier) else { return };
    let before = tunnel.client().inner_addresses().unwrap();
    let woken = stop_while(&mut tunnel, |tunnel| {
        tunnel.gateway.kill();
        tunnel.gateway.start().unwrap();
    });
    assert_flows_soon(&tunnel, woken, carrier.name());
    assert_eq!(tunnel.client().inner_addresses().unwrap(), before);
    tunnel.travels_by(carrier);
}

#[test]
fn stopped_client_whose_datagrams_nobody_knows_any_more_connects_anew_at_once() {
    let Some(mut tunnel) = connected(Carrier::Quic) else { return };
    let woken = stop_while(&mut tunnel, |tunnel| {
        // As where a NAT forgot the client, and gave its ports to somebody else. What a client asks every second
        // would tell it so after eight seconds.
        tunnel.gateway.host().forget(tunnel.client().host()).unwrap();
    });
    assert_flows_soon(&tunnel, woken, "forgotten ports");
}

#[test]
fn stopped_client_keeps_a_session_that_the_gateway_still_has() {
    let Some(mut tunnel) = connected(Carrier::Esp) else { return };
    let session = |tunnel: &Tunnel| tunnel.gateway.sessions().unwrap()[0].session;
    let before = session(&tunnel);
    let woken = stop_while(&mut tunnel, |_| {});
    assert_flows_soon(&tunnel, woken, "known session");
    assert_eq!(session(&tunnel), before, "the gateway answered, so nothing was made anew");
}

#[test]
fn host_that_slept_for_a_night_connects_anew_at_once() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let Some(clock) = WrongClock::new(tunnel.client().host(), 0) else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    tunnel.clients[0].up_with(&[], &clock.environment_of_sleep()).unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    let before = (tunnel.gateway.sessions().unwrap()[0].session, tunnel.client().inner_addresses().unwrap());
    let woken = Instant::now();
    clock.set(8 * 60 * 60);
    tunnel.client().process().unwrap().wait_for_line(WOKE, PATIENCE).unwrap();
    let session = eventually("there is another session", || {
        let sessions = tunnel.gateway.sessions().unwrap();
        sessions.iter().map(|session| session.session).find(|session| *session != before.0)
    });
    assert_flows_soon(&tunnel, woken, "8 h");
    let sessions: Vec<_> = tunnel.gateway.sessions().unwrap().iter().map(|session| session.session).collect();
    assert_eq!((sessions, tunnel.client().inner_addresses().unwrap()), (vec![session], before.1));
}

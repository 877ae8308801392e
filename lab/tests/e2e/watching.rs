//! What scripts hear of a client: `wait` and `status --follow`.

use std::thread;
use std::time::Duration;

use adit_lab::programs::Client;
use adit_lab::{Output, Process};
use adit_testing::{PATIENCE, eventually};
use serde_json::Value;

use crate::harness::{INTERNET, Options, Tunnel, answers, filter, run, unfilter};

/// The exit codes of what takes too long, and of what the gateway refuses.
const TIMED_OUT: i32 = 7;
const REFUSED: i32 = 3;
/// Long enough for whatever is to happen in these tests.
const LONG: &str = "60s";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A running gateway that gives DNS servers, and a client that has joined.
fn joined() -> Option<Tunnel> {
    let settings = &[("dns.servers", r#"["198.51.100.2"]"#)];
    let mut tunnel = Tunnel::prepare(Options { clients: 1, settings })?;
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    Some(tunnel)
}

/// Starts a command of the client.
fn start(client: &Client, arguments: &[&str]) -> Process {
    client.host().spawn(client.command(arguments)).unwrap()
}

fn wait(client: &Client, what: &str, timeout: &str) -> Output {
    client.host().output(client.command(&["wait", "--for", what, "--timeout", timeout]), PATIENCE * 4).unwrap()
}

fn assert_reached(output: &Output) {
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{}", output.stdout);
}

/// Cuts the client off from its gateway, or no more.
fn cut_off(tunnel: &Tunnel, is_cut: bool) {
    let gateway = tunnel.gateway.host();
    if is_cut {
        let rules = [("prerouting priority -400", "meta l4proto {tcp, udp} th dport 443 drop")];
        filter(gateway, "cut", &rules);
    } else {
        unfilter(gateway, "cut");
    }
}

/// Waits until a client that is cut off notices, which takes something to send: it is quiet otherwise.
fn notices(tunnel: &Tunnel) {
    eventually("the client notices", || {
        assert!(!answers(tunnel.client().host(), INTERNET[0]), "it is cut off");
        (tunnel.client().status().unwrap().state == "reconnecting").then_some(())
    });
}

#[test]
fn wait_returns_when_the_client_that_starts_later_has_what_is_asked_for() {
    let Some(mut tunnel) = joined() else { return };
    let early = wait(tunnel.client(), "connected", "1s");
    assert_eq!(early.code, TIMED_OUT, "{}", early.stdout);
    assert!(early.stderr.contains("none was running") && early.stderr.contains("up --detach"), "{}", early.stderr);
    let waiting =
        ["connected", "route", "dns"].map(|what| start(tunnel.client(), &["wait", "--for", what, "--timeout", LONG]));
    // They are to be there before the client is; should they be late, they find it running, which must do as well.
    thread::sleep(Duration::from_millis(300));
    assert!(waiting.iter().all(|process| process.try_wait().unwrap().is_none()), "nothing is there to be reached");
    tunnel.clients[0].up().unwrap();
    for process in waiting {
        assert_reached(&process.output(PATIENCE).unwrap());
    }
    for what in ["connected", "route", "dns"] {
        assert_reached(&wait(tunnel.client(), what, LONG));
    }
    let nobody = tunnel.client().run(&["wait", "nobody"]).unwrap();
    assert_eq!(nobody.code, 2, "a profile that is not there is not waited for: {}", nobody.stderr);
}

#[test]
fn wait_lasts_while_a_client_reconnects_and_ends_with_what_will_not_come() {
    let Some(mut tunnel) = joined() else { return };
    tunnel.clients[0].up().unwrap();
    cut_off(&tunnel, true);
    notices(&tunnel);
    let late = wait(tunnel.client(), "route", "2s");
    assert_eq!(late.code, TIMED_OUT, "{}", late.stdout);
    assert!(late.stderr.contains("it is reconnecting"), "{}", late.stderr);
    let waiting = start(tunnel.client(), &["wait", "--for", "route", "--timeout", LONG]);
    cut_off(&tunnel, false);
    assert_reached(&waiting.output(PATIENCE * 2).unwrap());

    tunnel.gateway.admin(&["revoke", "user1"]).unwrap().success().unwrap();
    eventually("the client is refused", || (tunnel.client().status().unwrap().state == "blocked").then_some(()));
    let refused = wait(tunnel.client(), "connected", LONG);
    assert_eq!(refused.code, REFUSED, "{}", refused.stdout);
    assert!(refused.stderr.contains("revoked") && refused.stderr.contains("next:"), "{}", refused.stderr);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
}

#[test]
fn wait_for_dns_lasts_until_the_resolver_is_set() {
    let Some(mut tunnel) = joined() else { return };
    let host = tunnel.client().host().clone();
    run(&host, &["mount", "--bind", RESOLV_CONF, RESOLV_CONF]);
    run(&host, &["mount", "-o", "remount,bind,ro", RESOLV_CONF]);
    tunnel.clients[0].up().unwrap();
    assert_reached(&wait(tunnel.client(), "route", LONG));
    let late = wait(tunnel.client(), "dns", "1s");
    assert_eq!(late.code, TIMED_OUT, "{}", late.stdout);
    assert!(late.stderr.contains("does not ask the tunnel's DNS servers"), "{}", late.stderr);
    let waiting = start(tunnel.client(), &["wait", "--for", "dns", "--timeout", LONG]);
    run(&host, &["mount", "-o", "remount,bind,rw", RESOLV_CONF]);
    assert_reached(&waiting.output(PATIENCE * 2).unwrap());
}

/// The events that a client has told.
fn events(follower: &Process) -> Vec<Value> {
    follower.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits for an event after the first `known` ones that has this state; returns it, and how many there are up to it.
fn event_in(follower: &Process, known: usize, state: &str) -> (Value, usize) {
    eventually(&format!("an event says {state}"), || {
        let all = events(follower);
        let found = all.iter().enumerate().skip(known).find(|(_, event)| event["state"] == state)?;
        Some((found.1.clone(), found.0 + 1))
    })
}

#[test]
fn follower_hears_of_a_lost_and_mended_connection_until_the_client_ends() {
    let Some(mut tunnel) = joined() else { return };
    let not_running = tunnel.client().run(&["status", "--follow", "--json"]).unwrap().success().unwrap();
    assert!(not_running.lines().count() == 1 && not_running.contains("\"disconnected\""), "{not_running}");
    tunnel.clients[0].up().unwrap();
    let follower = start(tunnel.client(), &["status", "--follow", "--json"]);
    let for_people = start(tunnel.client(), &["status", "--follow"]);
    let (first, seen) = event_in(&follower, 0, "connected");
    assert_eq!(seen, 1, "the first line says how it stands");
    assert!(first["addresses"].as_array().unwrap().len() == 2 && first["mtu"].is_u64(), "{first}");
    assert!(first["route"] == true && first["dns"] == true && first["exit"].is_null(), "{first}");
    let by_esp = |event: &Value| event["carrier"] == "esp";
    eventually("it hears when packets travel by esp", || events(&follower).iter().any(by_esp).then_some(()));

    cut_off(&tunnel, true);
    notices(&tunnel);
    let (away, seen) = event_in(&follower, seen, "reconnecting");
    assert!(away["carrier"].is_null() && away["route"] == false && !away["reason"].is_null(), "{away}");
    cut_off(&tunnel, false);
    let (_, seen) = event_in(&follower, seen, "connected");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    let (last, seen) = event_in(&follower, seen, "disconnected");
    assert_eq!((&last["exit"], seen), (&Value::from(0), events(&follower).len()), "the last line has the exit code");
    assert_eq!(follower.wait(PATIENCE).unwrap(), 0, "it ends with the client");
    assert_eq!(for_people.wait(PATIENCE).unwrap(), 0, "it ends with the client");
    let told = for_people.stdout();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains(": connected, by ") && lines.last().unwrap().ends_with("exit code 0"), "{told}");
    let times: Vec<String> = events(&follower).iter().map(|event| event["time"].to_string()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn follower_of_a_client_that_is_killed_says_so() {
    let Some(mut tunnel) = joined() else { return };
    tunnel.clients[0].up().unwrap();
    let follower = start(tunnel.client(), &["status", "--follow", "--json"]);
    event_in(&follower, 0, "connected");
    tunnel.clients[0].kill();
    assert_eq!(follower.wait(PATIENCE).unwrap(), 1, "{}", follower.stdout());
    assert!(follower.stderr().contains("it was killed"), "{}", follower.stderr());
    let all = events(&follower);
    assert!(all.iter().all(|event| event["exit"].is_null()), "{all:?}");
}

//! What scripts hear of a client: `wait`.

use std::thread;
use std::time::Duration;

use adit_lab::programs::Client;
use adit_lab::{Output, Process};
use adit_testing::{PATIENCE, eventually};

use crate::harness::{Options, Tunnel, filter, run, unfilter};

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
    eventually("the client notices", || (tunnel.client().status().unwrap().state == "reconnecting").then_some(()));
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

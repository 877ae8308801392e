//! A gateway that reads its configuration again while clients are connected.

use std::fs;
use std::thread;

use adit_lab::INTERNET_V4;
use adit_lab::programs::Gateway;
use adit_lab::traffic::{Direction, TcpServer, transfer};
use adit_testing::eventually;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{INTERNET, Options, Tunnel, reach};

const USAGE: i32 = 2;
/// Long enough that reloads come amid it.
const DOWNLOAD: u64 = 1 << 30;

/// Writes the gateway's file: as it was made, with these lines before its first table.
fn write(gateway: &Gateway, made: &str, lines: &str) {
    fs::write(gateway.folder().join("server.toml"), format!("{lines}\n{made}")).unwrap();
}

fn routes(tunnel: &Tunnel) -> Vec<Value> {
    let text = tunnel.client().run(&["status", "--json"]).unwrap().success().unwrap();
    let status: Value = serde_json::from_str(&text).unwrap();
    status["routes"].as_array().unwrap().clone()
}

/// The gateway's file with a key of the packet path changed, which waits for a restart.
fn with_other_workers(made: &str) -> String {
    assert!(made.contains("\n[workers]\n"), "{made}");
    made.replace("\n[workers]\n", "\n[workers]\nyields = 7\n")
}

/// Waits until the client is told of this route, or no longer.
fn has_route(tunnel: &Tunnel, route: &str, has: bool) {
    eventually(&format!("{route} is told: {has}"), || (routes(tunnel).contains(&route.into()) == has).then_some(()));
}

#[test]
fn what_is_live_reaches_sessions_and_nobody_is_dropped() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.run();
    let made = fs::read_to_string(tunnel.gateway.folder().join("server.toml")).unwrap();
    let session = tunnel.gateway.sessions().unwrap()[0].session;
    let narrow = format!("{INTERNET_V4}/32");
    let only_it = format!("routes = [\"{narrow}\"]");
    let server = TcpServer::start(&tunnel.internet, INTERNET[0]).unwrap();
    thread::scope(|scope| {
        let client = tunnel.client().host();
        let download = scope.spawn(|| transfer(client, server.address(), Direction::Download, DOWNLOAD).unwrap());
        let reload = || tunnel.gateway.admin_json(&["reload"]).unwrap();
        write(&tunnel.gateway, &made, &only_it);
        assert_eq!(reload()["applied"], serde_json::json!(["routes"]));
        has_route(&tunnel, &narrow, true);
        has_route(&tunnel, "0.0.0.0/0", false);
        // The same by a signal.
        write(&tunnel.gateway, &made, "");
        tunnel.gateway.process().unwrap().signal(Signal::SIGHUP).unwrap();
        has_route(&tunnel, "0.0.0.0/0", true);
        assert_eq!(reload()["applied"], serde_json::json!([]));
        assert!(download.join().unwrap().is_intact());
    });
    assert_eq!(tunnel.gateway.sessions().unwrap()[0].session, session);
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn reload_is_done_as_a_whole_or_not_at_all() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.run();
    let made = fs::read_to_string(tunnel.gateway.folder().join("server.toml")).unwrap();
    let only_it = format!("routes = [\"{INTERNET_V4}/32\"]");
    let bad_certificate =
        made.replace("\n[tls]\n", "\n[tls]\ncertificate = \"/nonexistent/cert.pem\"\nkey = \"/nonexistent/key.pem\"\n");
    for (made, line, word) in [
        (with_other_workers(&made), "", "workers.yields"),
        (made.clone(), "nonsense = 1", "nonsense"),
        (made.clone(), "policy = \"/nonexistent/policy.toml\"", "policy"),
        (bad_certificate, "", "/nonexistent"),
        (made.clone(), "log = \"loud=what\"", "log"),
    ] {
        write(&tunnel.gateway, &made, &format!("{only_it}\n{line}"));
        let refused = tunnel.gateway.admin(&["reload"]).unwrap();
        assert_eq!(refused.code, USAGE, "{refused:?}");
        assert!(refused.stderr.contains(word) && refused.stderr.contains("next:"), "{refused:?}");
    }
    assert!(routes(&tunnel).contains(&"0.0.0.0/0".into()), "nothing was applied");

    write(&tunnel.gateway, &with_other_workers(&made), &only_it);
    let preview = tunnel.gateway.admin(&["check"]).unwrap().success().unwrap();
    assert!(preview.contains("applies: routes; leaves for a restart: workers.yields"), "{preview}");
    let answer = tunnel.gateway.admin_json(&["reload", "--partial"]).unwrap();
    assert_eq!((&answer["applied"][0], &answer["restart_needed"][0]), (&"routes".into(), &"workers.yields".into()));
    has_route(&tunnel, "0.0.0.0/0", false);
    reach(tunnel.client().host(), INTERNET[0]);
}

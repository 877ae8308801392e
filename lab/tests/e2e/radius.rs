//! RADIUS servers beside a real gateway.

use adit_lab::Host;
use adit_program::durable_file;
use adit_testing::eventually;
use adit_testing::free_radius::{FreeRadius, Replies, SECRET};

use crate::harness::{INTERNET, Options, Tunnel, reach};

/// What the server was told of sessions, once that holds `what`.
fn told(server: &FreeRadius, what: &str) -> String {
    eventually(what, || Some(server.accounted()).filter(|text| text.contains(what)))
}

/// A server on the gateway's host, and the file with its secret there.
fn server_on(host: &Host) -> Option<(FreeRadius, String)> {
    let path = host.folder().join("radius.secret");
    durable_file::create(&path, SECRET.as_bytes(), 0o600).unwrap();
    let server = host.run(|| FreeRadius::start(Replies::Authentic))?;
    Some((server, path.display().to_string()))
}

#[test]
fn radius_servers_are_told_of_sessions_and_of_a_gateway_that_stops() {
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 2, ..Options::default() }) else { return };
    let Some((server, secret)) = server_on(tunnel.gateway.host()) else { return };
    tunnel.gateway.set("radius.accounting_servers", &server.accounting().to_string());
    tunnel.gateway.set("radius.secret_file", &secret);
    tunnel.run();
    told(&server, "User-Name = \"user2\"");
    reach(tunnel.clients[0].host(), INTERNET[0]);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    let text = told(&server, "Acct-Status-Type = Stop");
    let stop = text.split_once("Acct-Status-Type = Stop").unwrap().1;
    assert!(stop.contains("User-Name = \"user1\"") && stop.contains("User-Request"), "{text}");
    assert!(!stop.contains("Acct-Input-Octets = 0\n"), "it has sent something: {text}");
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    // The end of the other session is written when the gateway stops, and told when it begins again.
    tunnel.gateway.start().unwrap();
    let text = told(&server, "NAS-Reboot");
    let events: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("Acct-Status-Type = ")).collect();
    assert_eq!(events[..5], ["Accounting-On", "Start", "Start", "Stop", "Stop"], "{text}");
}

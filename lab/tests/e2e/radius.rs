//! RADIUS servers and a directory beside a real gateway.

use adit_lab::Host;
use adit_program::durable_file;
use adit_testing::eventually;
use adit_testing::free_radius::{FreeRadius, Replies, SECRET};

use crate::harness::{INTERNET, Options, Tunnel, reach};
use crate::people::{REFUSED, give_directory, join};

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

#[test]
fn user_of_a_radius_server_joins_with_password_and_code() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let Some((server, secret)) = server_on(tunnel.gateway.host()) else { return };
    tunnel.gateway.set("login.sources", "radius");
    tunnel.gateway.set("radius.servers", &server.authentication().to_string());
    tunnel.gateway.set("radius.secret_file", &secret);
    tunnel.gateway.start().unwrap();
    for answers in [["Builder", ""], ["builder", "654321"]] {
        let refused = join(&tunnel, tunnel.client(), "bob", &answers);
        assert_eq!(refused.code, REFUSED, "{}", refused.stderr);
    }
    let text = join(&tunnel, tunnel.client(), "bob", &["builder", "123456"]).success().unwrap();
    assert!(text.contains("as bob's device"), "{text}");
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn user_of_a_directory_joins_by_any_way_to_write_the_name() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let Some(_directory) = give_directory(&mut tunnel.gateway) else { return };
    tunnel.gateway.start().unwrap();
    for (user, password) in [("alice", "Wonderland"), ("ali*", "wonderland"), ("nobody", "wonderland")] {
        let refused = join(&tunnel, tunnel.client(), user, &[password]);
        assert_eq!(refused.code, REFUSED, "{user}: {}", refused.stderr);
    }
    let text = join(&tunnel, tunnel.client(), "ALICE", &["wonderland"]).success().unwrap();
    assert!(text.contains("as alice's device"), "{text}");
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
}

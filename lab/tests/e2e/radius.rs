//! RADIUS servers and a directory beside a real gateway.

use std::process::Command;

use adit_lab::programs::Client;
use adit_lab::{GATEWAY_V4, Host, Output};
use adit_program::durable_file;
use adit_testing::free_radius::{FreeRadius, Replies, SECRET};
use adit_testing::slapd::{READER, READER_PASSWORD, Slapd};
use adit_testing::{PATIENCE, eventually};

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

/// Has a user join without an invite, who types these answers one after the other.
fn join(tunnel: &Tunnel, client: &Client, user: &str, answers: &str) -> Output {
    let pin = tunnel.gateway.admin_json(&["check"]).unwrap();
    let pin = pin["fingerprint"].as_str().expect("check prints the fingerprint");
    let typed = client.host().folder().join("typed");
    std::fs::write(&typed, answers).unwrap();
    let gateway = GATEWAY_V4.to_string();
    let joining = client.command(&["join", &gateway, "--pin", pin, "--user", user, "--no-browser"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" <\"$0\""]).arg(typed).arg(joining.get_program()).args(joining.get_args());
    client.host().output(shell, PATIENCE).unwrap()
}

#[test]
fn user_of_a_radius_server_joins_with_password_and_code() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let Some((server, secret)) = server_on(tunnel.gateway.host()) else { return };
    tunnel.gateway.set("login.sources", "radius");
    tunnel.gateway.set("radius.servers", &server.authentication().to_string());
    tunnel.gateway.set("radius.secret_file", &secret);
    tunnel.gateway.start().unwrap();
    for answers in ["Builder\n", "builder\n654321\n"] {
        let refused = join(&tunnel, tunnel.client(), "bob", answers);
        assert_eq!(refused.code, 3, "{}", refused.stderr);
    }
    let text = join(&tunnel, tunnel.client(), "bob", "builder\n123456\n").success().unwrap();
    assert!(text.contains("as bob's device"), "{text}");
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn user_of_a_directory_joins_by_any_way_to_write_the_name() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    let host = tunnel.gateway.host().clone();
    let Some(server) = host.run(Slapd::start) else { return };
    let (secret, authority) = (host.folder().join("ldap.secret"), host.folder().join("ca.pem"));
    durable_file::create(&secret, READER_PASSWORD.as_bytes(), 0o600).unwrap();
    std::fs::copy(server.authority(), &authority).unwrap();
    let (address, port) = server.ldaps();
    for (key, value) in [
        ("login.sources", "ldap"),
        ("ldap.urls", &format!("ldaps://{address}:{port}")),
        ("ldap.authority", &authority.display().to_string()),
        ("ldap.bind_dn", READER),
        ("ldap.bind_password_file", &secret.display().to_string()),
        ("ldap.base", "ou=people,dc=lab"),
        ("ldap.group_base", "ou=groups,dc=lab"),
    ] {
        tunnel.gateway.set(key, value);
    }
    tunnel.gateway.start().unwrap();
    for (user, password) in [("alice", "Wonderland\n"), ("ali*", "wonderland\n"), ("nobody", "wonderland\n")] {
        let refused = join(&tunnel, tunnel.client(), user, password);
        assert_eq!(refused.code, 3, "{user}: {}", refused.stderr);
    }
    let text = join(&tunnel, tunnel.client(), "ALICE", "wonderland\n").success().unwrap();
    assert!(text.contains("as alice's device"), "{text}");
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
}

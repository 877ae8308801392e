//! The first contact with a gateway that no authority of the client's host vouches for.

use std::fs;
use std::process::Command;

use adit_lab::programs::Client;
use adit_lab::{GATEWAY_V4, Output};
use adit_testing::{PATIENCE, skip};

use super::{OTHER_IDENTITY, Ocserv, up};
use crate::harness::reach;
use crate::logins::{PASSWORD, gateway, run};
use crate::people::pin;

/// What `add` is told at these gateways.
fn arguments() -> Vec<String> {
    let url = format!("https://{GATEWAY_V4}");
    ["add", &url, "--protocol", "anyconnect", "--user", "alice", "--name", "work"].map(str::to_owned).to_vec()
}

/// Whether this machine has what runs a command at a terminal.
fn has_terminal() -> bool {
    let is_there = Command::new("script").arg("--version").output().is_ok();
    if !is_there {
        skip("needs script (the package bsdutils)");
    }
    is_there
}

/// Adds the gateway at a terminal, at which somebody types this. What the terminal shows is on standard output.
fn add_at_terminal(client: &Client, typed: &str) -> Output {
    let arguments = arguments();
    let command = client.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ");
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let host = client.host();
    host.output(host.with_input(&terminal, &format!("{typed}\n")).unwrap(), PATIENCE).unwrap()
}

fn profile(client: &Client) -> Option<String> {
    fs::read_to_string(client.folder().join("clients/work.toml")).ok()
}

#[test]
fn gateway_is_pinned_only_after_a_typed_yes_at_a_terminal_and_is_no_other_later() {
    if !has_terminal() {
        return;
    }
    let Some(mut ocserv) = Ocserv::start() else { return };
    let arguments = arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let piped = run(&ocserv.client, &arguments, "yes\n");
    assert_eq!(piped.code, OTHER_IDENTITY, "nobody is at a terminal: {piped:?}");
    assert!(piped.stderr.contains("--pin") && piped.stderr.contains("--authority"), "{piped:?}");
    assert!(!piped.stderr.contains(&ocserv.fingerprint), "nothing to copy into a script: {piped:?}");
    for answer in ["no", "y", "YES", "yes please", ""] {
        let said = add_at_terminal(&ocserv.client, answer);
        assert_eq!(said.code, OTHER_IDENTITY, "{answer}: {said:?}");
        assert!(said.stdout.contains(&ocserv.fingerprint), "the fingerprint is shown: {said:?}");
        assert_eq!(profile(&ocserv.client), None, "{answer}");
    }
    let said = add_at_terminal(&ocserv.client, "yes");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains(&GATEWAY_V4.to_string()) && said.stdout.contains("valid"), "{said:?}");
    assert!(profile(&ocserv.client).unwrap().contains(&ocserv.fingerprint));
    up(&mut ocserv.client, &format!("{PASSWORD}\n"));
    reach(ocserv.client.host(), Ocserv::ADDRESSES[0].parse().unwrap());
    run(&ocserv.client, &["down", "work"], "").success().unwrap();

    ocserv.restart_with_another_key();
    let other = run(&ocserv.client, &["up", "work"], &format!("{PASSWORD}\n"));
    assert_eq!(other.code, OTHER_IDENTITY, "{other:?}");
}

#[test]
fn authority_that_vouches_for_our_gateway_is_what_is_pinned() {
    if !has_terminal() {
        return;
    }
    let Some(tunnel) = gateway() else { return };
    let said = add_at_terminal(tunnel.client(), "yes");
    assert_eq!(said.code, 0, "{said:?}");
    let fingerprint = pin(&tunnel.gateway);
    assert!(said.stdout.contains(&fingerprint), "it is what `check` says at the gateway: {said:?}");
    assert!(profile(tunnel.client()).unwrap().contains(&fingerprint));
}

//! Users who join by a login and log in again: the real programs, a user of the gateway itself, and no invite.

use std::fs;
use std::process::Command;

use adit_lab::programs::Client;
use adit_lab::{GATEWAY_V4, Host, Output};
use adit_proto::invite::Invite;
use adit_testing::{PATIENCE, eventually};

use crate::harness::{INTERNET, Options, Tunnel, answers, reach};

const PASSWORD: &str = "correct horse battery";
const REFUSED: i32 = 3;
const OTHER_IDENTITY: i32 = 4;

/// A command whose standard input is this text.
fn with_input(host: &Host, command: &Command, input: &str) -> Command {
    let file = host.folder().join("input");
    fs::write(&file, input).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" <\"$INPUT\""]).arg(command.get_program()).args(command.get_args());
    shell.env("INPUT", file);
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// A gateway that runs and knows alice by her password.
fn gateway() -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    administrate(&tunnel, &["user", "add", "alice"], PASSWORD);
    tunnel.gateway.start().unwrap();
    Some(tunnel)
}

fn administrate(tunnel: &Tunnel, verb: &[&str], input: &str) {
    let host = tunnel.gateway.host();
    let command = with_input(host, &tunnel.gateway.command(verb), &format!("{input}\n"));
    host.output(command, PATIENCE).unwrap().success().unwrap();
}

/// The fingerprint of the gateway's authority, as an invite bears it.
fn pin(tunnel: &Tunnel) -> String {
    let link = tunnel.gateway.invite("somebody", &[]).unwrap();
    let invite: Invite = link.parse().unwrap();
    invite.pin.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(client: &Client, arguments: &[&str], input: &str) -> Output {
    let host = client.host();
    host.output(with_input(host, &client.command(arguments), input), PATIENCE).unwrap()
}

fn join(tunnel: &Tunnel, pin: &str, password: &str) -> Output {
    let (host, input) = (GATEWAY_V4.to_string(), format!("alice\n{password}\n"));
    run(tunnel.client(), &["join", &host, "--pin", pin, "--name", "work"], &input)
}

fn state(tunnel: &Tunnel) -> String {
    tunnel.client().status().unwrap().state
}

#[test]
fn user_joins_with_a_password_and_stays_connected_over_a_restart_of_the_gateway() {
    let Some(mut tunnel) = gateway() else { return };
    let pin = pin(&tunnel);
    let wrong = join(&tunnel, &pin, "wrong horse battery");
    assert_eq!(wrong.code, REFUSED, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("not accepted"), "{}", wrong.stderr);
    let said = join(&tunnel, &pin, PASSWORD).success().unwrap();
    assert!(said.contains("as alice's device") && said.contains("until "), "{said}");
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);

    tunnel.gateway.stop().unwrap();
    eventually("the client notices", || (state(&tunnel) != "connected").then_some(()));
    tunnel.gateway.start().unwrap();
    eventually("nobody is asked again", || (state(&tunnel) == "connected").then_some(()));
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn gateway_that_is_another_hears_no_password() {
    let Some(tunnel) = gateway() else { return };
    let stranger = join(&tunnel, &"ab".repeat(32), PASSWORD);
    assert_eq!(stranger.code, OTHER_IDENTITY, "{}", stranger.stderr);
    // Without a public certificate nothing that this host trusts vouches for the gateway.
    let host = GATEWAY_V4.to_string();
    let public = run(tunnel.client(), &["join", &host, "--name", "work"], "alice\n");
    assert_eq!(public.code, OTHER_IDENTITY, "{}", public.stderr);
    join(&tunnel, &pin(&tunnel), PASSWORD).success().unwrap();
}

#[test]
fn login_that_was_ended_is_needed_again_and_a_new_one_connects_without_a_new_start() {
    let Some(mut tunnel) = gateway() else { return };
    join(&tunnel, &pin(&tunnel), PASSWORD).success().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);

    administrate(&tunnel, &["user", "reset", "alice"], "another horse battery");
    // However the session ended: the next connection comes with a login that is void.
    tunnel.gateway.stop().unwrap();
    tunnel.gateway.start().unwrap();
    eventually("a login is needed", || (state(&tunnel) == "login needed").then_some(()));
    assert!(!answers(tunnel.client().host(), INTERNET[0]), "the host stays closed");

    let old = run(tunnel.client(), &["login", "work"], &format!("alice\n{PASSWORD}\n"));
    assert_eq!(old.code, REFUSED, "{}", old.stderr);
    assert_eq!(state(&tunnel), "login needed");
    run(tunnel.client(), &["login", "work", "--user", "alice"], "another horse battery\n").success().unwrap();
    eventually("the client connects", || (state(&tunnel) == "connected").then_some(()));
    reach(tunnel.client().host(), INTERNET[0]);

    // A login beside a live session keeps it.
    let since = tunnel.client().status().unwrap().since_seconds.unwrap();
    run(tunnel.client(), &["login", "work", "--user", "alice"], "another horse battery\n").success().unwrap();
    let status = tunnel.client().status().unwrap();
    assert!(status.state == "connected" && status.since_seconds.unwrap() >= since, "{status:?}");
}

#[test]
fn disabled_user_is_out_at_once_and_cannot_log_in() {
    let Some(mut tunnel) = gateway() else { return };
    join(&tunnel, &pin(&tunnel), PASSWORD).success().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    tunnel.gateway.admin(&["user", "disable", "alice"]).unwrap().success().unwrap();
    eventually("the session ends", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    eventually("the client knows", || (state(&tunnel) != "connected").then_some(()));
    let refused = join(&tunnel, &pin(&tunnel), PASSWORD);
    assert_eq!(refused.code, 2, "the profile is there: {}", refused.stderr);
    let login = run(tunnel.client(), &["login", "work"], &format!("alice\n{PASSWORD}\n"));
    assert_eq!(login.code, REFUSED, "{}", login.stderr);
    // Enabled again, the device needs a login: what it had is void for ever.
    tunnel.gateway.admin(&["user", "enable", "alice"]).unwrap().success().unwrap();
    run(tunnel.client(), &["login", "work"], &format!("alice\n{PASSWORD}\n")).success().unwrap();
    tunnel.clients[0].stop().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn client_without_a_login_that_lasts_ends_with_exit_3() {
    let Some(tunnel) = gateway() else { return };
    join(&tunnel, &pin(&tunnel), PASSWORD).success().unwrap();
    administrate(&tunnel, &["user", "reset", "alice"], "another horse battery");
    let up = tunnel.client().run(&["up"]).unwrap();
    assert_eq!(up.code, REFUSED, "{}", up.stderr);
    assert!(up.stderr.contains("adit-client login"), "{}", up.stderr);
}

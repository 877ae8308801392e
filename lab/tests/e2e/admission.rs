//! Who is let in, and what those who are not are told.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use adit_lab::programs::{Client, Gateway};
use adit_lab::traffic::{Heartbeat, UdpEcho};
use adit_lab::{GATEWAY_V6, Output};
use adit_proto::invite::Invite;
use adit_testing::{PATIENCE, eventually};

use crate::harness::{Carrier, INTERNET, Options, Tunnel, preloaded};

const AUTHENTICATION_REFUSED: i32 = 3;
const IDENTITY_MISMATCH: i32 = 4;
const UNREACHABLE: i32 = 5;

/// A library for a disk on which no file gets a profile's name.
const BROKEN_DISK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
int linkat(int a, const char *from, int b, const char *to, int flags) { errno = EIO; return -1; }
int rename(const char *from, const char *to) {
  static int (*real)(const char *, const char *);
  if (!real) real = dlsym(RTLD_NEXT, "rename");
  if (strstr(to, ".toml")) { errno = EIO; return -1; }
  return real(from, to);
}
"#;

/// Replies that another user gets while it is looked whether a revoked one gets any.
const REPLIES: usize = 20;

/// Checks the exit code, that the message names each of `words`, and that nothing panicked.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = format!("{}{}", output.stdout, output.stderr).to_lowercase();
    assert_eq!(output.code, code, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn prepared(clients: usize) -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options { clients, settings: &[] })?;
    tunnel.gateway.start().unwrap();
    Some(tunnel)
}

fn altered(link: &str, alter: impl FnOnce(&mut Invite)) -> String {
    let mut invite: Invite = link.parse().unwrap();
    alter(&mut invite);
    invite.to_string()
}

/// The only profile of a client.
fn profile(client: &Client) -> PathBuf {
    let folder = client.folder().join("clients");
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "toml"));
    file.expect("the client has a profile")
}

/// Replaces the gateway by another one at the same address, with an authority of its own.
fn replace_gateway(tunnel: &mut Tunnel) {
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    let folder = tunnel.gateway.folder();
    fs::rename(folder, folder.with_extension("first")).unwrap();
    tunnel.gateway.init().unwrap().success().unwrap();
    tunnel.gateway.start().unwrap();
}

#[test]
fn invite_admits_one_device() {
    let Some(tunnel) = prepared(2) else { return };
    let link = tunnel.gateway.invite("alice", &[]).unwrap();
    tunnel.clients[0].join(&link).unwrap().success().unwrap();
    assert_refused(&tunnel.clients[1].join(&link).unwrap(), AUTHENTICATION_REFUSED, &["used", "next:"]);
    assert!(!tunnel.clients[1].folder().join("clients").read_dir().is_ok_and(|mut files| files.next().is_some()));
}

#[test]
fn invite_works_again_for_the_device_whose_profile_could_not_be_saved() {
    let Some(tunnel) = prepared(2) else { return };
    let [client, other] = &tunnel.clients[..] else { panic!("two clients") };
    let Some(broken_disk) = preloaded(client.host().folder(), "disk", BROKEN_DISK) else { return };
    let link = tunnel.gateway.invite("alice", &[]).unwrap();
    let mut command = client.command(&["join", &link]);
    command.env("LD_PRELOAD", broken_disk);
    let failed = client.host().output(command, PATIENCE).unwrap();
    assert_refused(&failed, 1, &["run the same `join` again"]);
    // For nobody else, who has another key.
    assert_refused(&other.join(&link).unwrap(), AUTHENTICATION_REFUSED, &["used", "next:"]);
    client.join(&link).unwrap().success().unwrap();
    let devices = tunnel.gateway.admin_json(&["devices"]).unwrap();
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(1), "{devices}");
    let files = client.folder().join("clients").read_dir().unwrap().count();
    assert_eq!(files, 1, "the key is in the profile, and nowhere else");
}

#[test]
fn invite_with_a_wrong_code_is_refused() {
    let Some(tunnel) = prepared(1) else { return };
    let link = tunnel.gateway.invite("alice", &[]).unwrap();
    let wrong = altered(&link, |invite| invite.code[3] ^= 1);
    assert_refused(&tunnel.client().join(&wrong).unwrap(), AUTHENTICATION_REFUSED, &["invite", "next:"]);
    tunnel.client().join(&link).unwrap().success().unwrap();
}

#[test]
fn invite_with_a_wrong_pin_is_an_identity_mismatch_and_stays_usable() {
    let Some(tunnel) = prepared(1) else { return };
    let link = tunnel.gateway.invite("alice", &[]).unwrap();
    let wrong = altered(&link, |invite| invite.pin[3] ^= 1);
    assert_refused(&tunnel.client().join(&wrong).unwrap(), IDENTITY_MISMATCH, &["identity", "next:"]);
    tunnel.client().join(&link).unwrap().success().unwrap();
}

#[test]
fn expired_invite_is_refused() {
    let Some(mut tunnel) = Tunnel::prepare(Options { clients: 1, settings: &[("invite_lifetime", "1s")] }) else {
        return;
    };
    tunnel.gateway.start().unwrap();
    let made = Instant::now();
    let link = tunnel.gateway.invite("alice", &[]).unwrap();
    eventually("the invite expires", || (made.elapsed() > Duration::from_millis(2_100)).then_some(()));
    assert_refused(&tunnel.client().join(&link).unwrap(), AUTHENTICATION_REFUSED, &["expired", "next:"]);
}

#[test]
fn another_gateway_at_the_same_address_is_an_identity_mismatch() {
    let Some(mut tunnel) = prepared(2) else { return };
    let link = tunnel.gateway.invite("alice", &[]).unwrap();
    tunnel.clients[0].join(&link).unwrap().success().unwrap();
    let unused = tunnel.gateway.invite("bob", &[]).unwrap();
    replace_gateway(&mut tunnel);
    assert_refused(&tunnel.clients[1].join(&unused).unwrap(), IDENTITY_MISMATCH, &["identity", "next:"]);
    assert_refused(
        &tunnel.clients[0].run(&["up", "--timeout", "3s"]).unwrap(),
        IDENTITY_MISMATCH,
        &["identity", "next:"],
    );
}

#[test]
fn gateway_without_the_expected_name_is_an_identity_mismatch() {
    let Some(tunnel) = prepared(1) else { return };
    let link = tunnel.gateway.invite("alice", &[]).unwrap();
    let wrong = altered(&link, |invite| invite.host = GATEWAY_V6.to_string());
    assert_refused(&tunnel.client().join(&wrong).unwrap(), IDENTITY_MISMATCH, &["next:"]);
    tunnel.client().join(&link).unwrap().success().unwrap();
    // The same gateway under an address that its certificate does not bear.
    let file = profile(tunnel.client());
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("host", _)) => format!("host = \"{GATEWAY_V6}\""),
        Some(("addresses", _)) => "addresses = []".to_owned(),
        Some(_) | None => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    assert!(text.contains(&GATEWAY_V6.to_string()), "{text}");
    fs::write(&file, text).unwrap();
    assert_refused(&tunnel.client().run(&["up", "--timeout", "3s"]).unwrap(), IDENTITY_MISMATCH, &["next:"]);
}

#[test]
fn certificate_of_another_authority_is_refused() {
    let Some(mut tunnel) = prepared(2) else { return };
    tunnel.join(0);
    replace_gateway(&mut tunnel);
    tunnel.join(1);
    // The first client now knows the new gateway, but shows the certificate of the old one.
    let part = |client: &Client| fs::read_to_string(profile(client)).unwrap().parse::<toml::Table>().unwrap();
    let (old, new) = (part(&tunnel.clients[0]), part(&tunnel.clients[1]));
    let mut mixed = new;
    for key in ["certificate", "key"] {
        mixed.insert(key.to_owned(), old[key].clone());
    }
    fs::write(profile(&tunnel.clients[0]), toml::to_string(&mixed).unwrap()).unwrap();
    assert_refused(&tunnel.clients[0].run(&["up"]).unwrap(), AUTHENTICATION_REFUSED, &["refused", "next:"]);
    tunnel.clients[1].up().unwrap();
}

#[test]
fn gateway_that_does_not_answer_is_unreachable() {
    let Some(mut tunnel) = prepared(1) else { return };
    let link = tunnel.gateway.invite("alice", &[]).unwrap();
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    assert_refused(&tunnel.client().join(&link).unwrap(), UNREACHABLE, &["next:"]);
}

#[test]
fn revoked_device_on_esp_is_out_and_stays_out() {
    revoked_device_is_out_and_stays_out(Carrier::Esp);
}

#[test]
fn revoked_device_on_quic_is_out_and_stays_out() {
    revoked_device_is_out_and_stays_out(Carrier::Quic);
}

fn revoked_device_is_out_and_stays_out(carrier: Carrier) {
    let Some(mut tunnel) = Tunnel::start_over(carrier, Options { clients: 2, settings: &[] }) else { return };
    let servers = INTERNET.map(|address| UdpEcho::start(&tunnel.internet, address).unwrap());
    let beats = [0, 1].map(|number| {
        servers.each_ref().map(|server| Heartbeat::start(tunnel.clients[number].host(), server.address()).unwrap())
    });
    for beat in beats.iter().flatten() {
        eventually("traffic flows", || (beat.replies() > 0).then_some(()));
    }

    revoke(&tunnel.gateway, "user1");
    eventually("the revoked device's session ends", || (tunnel.gateway.sessions().unwrap().len() == 1).then_some(()));
    let others_are_answered = || {
        for beat in &beats[1] {
            let before = beat.replies();
            eventually("the other user is not touched", || (beat.replies() >= before + REPLIES).then_some(()));
        }
    };
    // What was under way when the session ended has arrived before these replies; nothing comes after it.
    others_are_answered();
    let last = beats[0].each_ref().map(Heartbeat::replies);
    others_are_answered();
    assert_eq!(beats[0].each_ref().map(Heartbeat::replies), last, "no reply comes after the session's end");
    tunnel.clients[0].kill();
    assert_refused(&tunnel.clients[0].run(&["up"]).unwrap(), AUTHENTICATION_REFUSED, &["revoked", "next:"]);
}

#[test]
fn disabled_user_is_out_until_enabled_again() {
    let Some(mut tunnel) = Tunnel::start_over(Carrier::Esp, Options { clients: 2, settings: &[] }) else { return };
    let sessions = |tunnel: &Tunnel, count| {
        eventually("sessions begin and end", || (tunnel.gateway.sessions().unwrap().len() == count).then_some(()));
    };
    sessions(&tunnel, 2);
    tunnel.gateway.admin(&["user", "disable", "user1"]).unwrap().success().unwrap();
    sessions(&tunnel, 1);
    tunnel.clients[0].kill();
    assert_refused(&tunnel.clients[0].run(&["up"]).unwrap(), AUTHENTICATION_REFUSED, &["disabled", "next:"]);

    tunnel.gateway.admin(&["user", "enable", "user1"]).unwrap().success().unwrap();
    tunnel.clients[0].up().unwrap();
    sessions(&tunnel, 2);
}

fn revoke(gateway: &Gateway, name: &str) {
    gateway.admin(&["revoke", name]).unwrap().success().unwrap();
}

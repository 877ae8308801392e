//! Clients that show the certificate of a device: alone, or with the password of its user.

use std::fs;
use std::path::PathBuf;

use adit_testing::{PATIENCE, eventually};
use nix::sys::signal::Signal;

use super::{NO_COOKIE, NO_LOGIN, cookie_with, reach_internet, run, start_with, up};
use crate::harness::Tunnel;
use crate::logins::{PASSWORD, set_up_app};
use crate::people::{add_user, join};
use crate::versions::{Version, with_each_version};

const BANNER: &str = "F\u{fc}r B\u{fc}ro 100%";

/// The options of a stranger that shows the certificate of the native client, which is in its profile.
fn shown(tunnel: &Tunnel) -> Vec<String> {
    let client = tunnel.client();
    let is_profile = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let mut files = fs::read_dir(client.folder().join("clients")).unwrap().map(|entry| entry.unwrap().path());
    let profile = fs::read_to_string(files.find(is_profile).unwrap()).unwrap();
    let profile = profile.parse::<toml::Table>().unwrap();
    let option = |(option, key): (&str, &str)| {
        let path = client.folder().join(format!("{key}.pem"));
        fs::write(&path, profile[key].as_str().unwrap()).unwrap();
        [option.to_owned(), path.display().to_string()]
    };
    [("--certificate", "certificate"), ("--sslkey", "key")].into_iter().flat_map(option).collect()
}

/// The ids of all devices.
fn devices(tunnel: &Tunnel) -> Vec<String> {
    let told = tunnel.gateway.admin_json(&["devices"]).unwrap();
    let ids = told["devices"].as_array().unwrap().iter().map(|device| device["id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// The device of the only session.
fn device_of_session(tunnel: &Tunnel) -> String {
    let told = tunnel.gateway.admin_json(&["sessions"]).unwrap();
    told["sessions"][0]["device"].as_str().unwrap().to_owned()
}

with_each_version!(certificate_of_a_device_is_all_that_it_takes_until_it_is_revoked);

fn certificate_of_a_device_is_all_that_it_takes_until_it_is_revoked(version: Version) {
    let Some(mut tunnel) = start_with(version) else { return };
    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("login.banner", BANNER);
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let shown = shown(&tunnel);
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    let without = run(&tunnel, &[], "");
    assert_eq!(without.code, NO_LOGIN, "without it somebody has to log in: {without:?}");
    let cookie = cookie_with(&tunnel, &shown, "");
    let alone = run(&tunnel, &["--cookie-on-stdin"], &format!("{cookie}\n"));
    assert_eq!(alone.code, NO_COOKIE, "a cookie without the certificate is worth nothing: {alone:?}");

    let (stranger, session) = up(&tunnel, &shown, "");
    assert_eq!(session.front_end, "anyconnect");
    assert_eq!(vec![device_of_session(&tunnel)], devices(&tunnel), "it is the device of the certificate");
    reach_internet(tunnel.client().host());
    assert!(stranger.0.stdout().contains(BANNER), "its user is asked nothing, and reads it: {}", stranger.0.tail());
    stranger.0.signal(Signal::SIGINT).unwrap();
    assert_eq!(stranger.0.wait(PATIENCE).unwrap(), 0);
    eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    let (stranger, again) = up(&tunnel, &shown, "");
    assert_eq!(again.addresses, session.addresses, "the same device");
    tunnel.gateway.admin(&["revoke", "user1"]).unwrap().success().unwrap();
    assert_eq!(stranger.0.wait(PATIENCE).unwrap(), NO_LOGIN, "the client is told to end");
    let out = run(&tunnel, &shown, "");
    assert_eq!(out.code, NO_LOGIN, "{out:?}");
    assert!(out.stderr.contains("revoked"), "and its user reads why: {out:?}");
}

with_each_version!(device_that_was_enrolled_by_a_login_needs_the_password_of_its_user_and_no_code);

fn device_that_was_enrolled_by_a_login_needs_the_password_of_its_user_and_no_code(version: Version) {
    let Some(tunnel) = start_with(version) else { return };
    join(&tunnel, tunnel.client(), "alice", &[PASSWORD]).success().unwrap();
    add_user(&tunnel.gateway, "bob", "battery horse correct");
    set_up_app(&tunnel.gateway);
    let shown = shown(&tunnel);
    let log_in = |user: &'static str| {
        let shown = shown.iter().map(String::as_str);
        shown.chain(["--user", user, "--passwd-on-stdin"]).collect::<Vec<&str>>()
    };
    let before = devices(&tunnel);
    let wrong = run(&tunnel, &log_in("alice"), "wrong horse battery\n");
    assert_eq!(wrong.code, NO_LOGIN, "{wrong:?}");
    let other = run(&tunnel, &log_in("bob"), "battery horse correct\n");
    assert_eq!(other.code, NO_LOGIN, "{other:?}");
    assert!(other.stderr.contains("another user"), "{other:?}");
    let alone = run(&tunnel, &["--user", "alice", "--passwd-on-stdin"], &format!("{PASSWORD}\n"));
    assert_eq!(alone.code, NO_LOGIN, "without the certificate a code is asked for: {alone:?}");

    let cookie = cookie_with(&tunnel, &log_in("alice"), &format!("{PASSWORD}\n"));
    let taken = run(&tunnel, &["--cookie-on-stdin"], &format!("{cookie}\n"));
    assert_eq!(taken.code, NO_COOKIE, "the cookie is the device's: {taken:?}");
    let (_stranger, _session) = up(&tunnel, &log_in("alice"), &format!("{PASSWORD}\n"));
    reach_internet(tunnel.client().host());
    assert_eq!(devices(&tunnel), before, "no further device");
    assert_eq!(vec![device_of_session(&tunnel)], before);
}

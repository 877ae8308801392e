//! What the stock client ends with, and what its user reads, where there is no session or no longer one. Wrong
//! passwords and codes, groups, certificates, and users who are disabled are in the other tests of this front-end.

use adit_testing::{PATIENCE, eventually};

use super::{NO_COOKIE, NO_LOGIN, cookie, run, run_at, start_many, up};
use crate::harness::Tunnel;
use crate::versions::{Version, with_each_version};

const WITH_COOKIE: [&str; 1] = ["--cookie-on-stdin"];
/// Shorter than the patience of these tests, and long enough to connect.
const LIFETIME: &str = "15s";

/// The device of the only session.
fn device(tunnel: &Tunnel) -> String {
    let told = tunnel.gateway.admin_json(&["sessions"]).unwrap();
    told["sessions"][0]["device"].as_str().unwrap().to_owned()
}

with_each_version!(gateway_that_is_full_a_device_that_is_revoked_and_a_login_that_is_over_are_told);

fn gateway_that_is_full_a_device_that_is_revoked_and_a_login_that_is_over_are_told(version: Version) {
    let Some(mut tunnel) = start_many(&[version, version], &[("limits.sessions", "1")]) else { return };
    let (first, second) = (cookie(&tunnel), cookie(&tunnel));
    let (stranger, _session) = up(&tunnel, &WITH_COOKIE, &format!("{first}\n"));
    let full = run_at(&tunnel, 1, &WITH_COOKIE, &format!("{second}\n"));
    assert_eq!(full.code, NO_LOGIN, "{full:?}");
    assert!(full.stderr.contains("no room for another session"), "{full:?}");

    tunnel.gateway.admin(&["revoke", &device(&tunnel)]).unwrap().success().unwrap();
    assert_eq!(stranger.0.wait(PATIENCE).unwrap(), NO_LOGIN, "the client is told to end");
    assert!(stranger.0.stderr().contains("this device was revoked"), "{}", stranger.0.stderr());
    let revoked = run(&tunnel, &WITH_COOKIE, &format!("{first}\n"));
    assert_eq!(revoked.code, NO_COOKIE, "{revoked:?}");
    eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    // The positive control: there was nothing wrong with the other one.
    drop(up(&tunnel, &WITH_COOKIE, &format!("{second}\n")));

    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("login.session_lifetime", LIFETIME);
    tunnel.gateway.start().unwrap();
    let third = cookie(&tunnel);
    let (stranger, _session) = up(&tunnel, &WITH_COOKIE, &format!("{third}\n"));
    assert_eq!(stranger.0.wait(PATIENCE).unwrap(), NO_LOGIN, "the client is told to end");
    assert!(stranger.0.stderr().contains("login of this device's user is over"), "{}", stranger.0.stderr());
    let over = run(&tunnel, &WITH_COOKIE, &format!("{third}\n"));
    assert_eq!(over.code, NO_COOKIE, "{over:?}");
}

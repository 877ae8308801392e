//! What users are asked, and how clients answer that know it beforehand.

use std::process::Command;

use adit_lab::GATEWAY_V4;
use adit_testing::{PATIENCE, eventually};
use nix::sys::signal::Signal;

use super::{NO_LOGIN, cookie_with, log_in, reach_internet, run, start, start_with, up};
use crate::harness::{INTERNET, Tunnel, answers};
use crate::logins::PASSWORD;
use crate::people::{give_policy, join};
use crate::versions::{Version, with_each_version};

const CHOSEN: &str = "staple horse battery";
const BANNER: &str = "For staff only.";

/// Alice's usual group reaches nothing of the internet, and one that she may choose does.
const POLICY: &str = "[groups.usual]\nmembers = [\"alice\"]\nroutes = [\"10.1.0.0/16\"]\n\
    [groups.full]\noffered = true\nmembers = [\"alice\"]\nroutes = [\"0.0.0.0/0\", \"::/0\"]\n\
    [groups.other]\noffered = true\nmembers = [\"bob\"]\n";

with_each_version!(client_that_posts_no_xml_logs_in_as_well);

fn client_that_posts_no_xml_logs_in_as_well(version: Version) {
    let Some(tunnel) = start_with(version) else { return };
    let plain = ["--no-xmlpost", "--user", "alice", "--passwd-on-stdin"];
    let wrong = run(&tunnel, &plain, "wrong horse battery\n");
    assert_eq!(wrong.code, NO_LOGIN, "{wrong:?}");
    assert!(wrong.stderr.contains("is not accepted"), "{wrong:?}");
    let (_stranger, session) = up(&tunnel, &plain, &format!("{PASSWORD}\n"));
    assert_eq!(session.addresses.len(), 2, "{session:?}");
    reach_internet(tunnel.client().host());
}

/// The headers with which clients bind a login to the connections it is used on.
const BINDING: [&str; 3] =
    ["X-AnyConnect-STRAP-Pubkey: ", "X-AnyConnect-STRAP-DH-Pubkey: ", "X-AnyConnect-STRAP-Verify: "];

with_each_version!(client_that_would_bind_its_login_to_its_connections_gets_in);

fn client_that_would_bind_its_login_to_its_connections_gets_in(version: Version) {
    let Some(tunnel) = start_with(version) else { return };
    let arguments = ["--user", "alice", "--passwd-on-stdin", "--dump-http-traffic", "-v"];
    let (stranger, session) = up(&tunnel, &arguments, &format!("{PASSWORD}\n"));
    let sent = || [stranger.0.stdout(), stranger.0.stderr()].concat();
    for header in BINDING {
        assert!(sent().contains(header), "the control: {header}: {}", sent());
    }
    reach_internet(tunnel.client().host());
    // It comes again with another key, which is signed with the one before.
    let signed = || sent().matches(BINDING[2]).count();
    let before = signed();
    stranger.0.signal(Signal::SIGUSR2).unwrap();
    let newer = || tunnel.gateway.sessions().unwrap().pop().filter(|now| now.session != session.session);
    eventually("it connects anew", newer);
    assert!(signed() > before, "the control: {}", sent());
    reach_internet(tunnel.client().host());
}

#[test]
fn gateway_for_cisco_s_clients_has_what_they_look_for_and_serves_others_as_before() {
    let Some(mut tunnel) = start() else { return };
    let looks = |tunnel: &Tunnel| {
        let url = format!("https://{GATEWAY_V4}/1/VPNManifest.xml");
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", &url]);
        tunnel.client().host().output(curl, PATIENCE).unwrap().success().unwrap()
    };
    assert_eq!(looks(&tunnel), "404", "no stranger learns what kind of gateway it is");
    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("anyconnect.cisco", "true");
    tunnel.gateway.start().unwrap();
    assert_eq!(looks(&tunnel), "200");
    let (_stranger, _session) = log_in(&tunnel, PASSWORD);
    reach_internet(tunnel.client().host());
}

with_each_version!(user_who_comes_with_a_one_time_code_chooses_a_password);

fn user_who_comes_with_a_one_time_code_chooses_a_password(version: Version) {
    let Some(tunnel) = start_with(version) else { return };
    let code = || {
        let reset = tunnel.gateway.admin_json(&["user", "reset", "alice", "--link"]).unwrap();
        reset["code"].as_str().unwrap().to_owned()
    };
    let plain = ["--no-xmlpost", "--user", "alice", "--passwd-on-stdin", "--authenticate"];
    let said = run(&tunnel, &plain, &format!("{}\n{PASSWORD}\n", code()));
    assert_eq!(said.code, 0, "also without XML: {said:?}");
    // The first is no password that anybody may have: another is asked for.
    let (_stranger, _session) = log_in(&tunnel, &format!("{}\nshort\n{CHOSEN}", code()));
    reach_internet(tunnel.client().host());
    let old = run(&tunnel, &["--user", "alice", "--passwd-on-stdin"], &format!("{PASSWORD}\n"));
    assert_eq!(old.code, NO_LOGIN, "{old:?}");
    let new = run(&tunnel, &["--user", "alice", "--passwd-on-stdin", "--authenticate"], &format!("{CHOSEN}\n"));
    assert_eq!(new.code, 0, "{new:?}");
}

with_each_version!(user_reads_the_banner_and_chooses_a_group_that_is_offered);

fn user_reads_the_banner_and_chooses_a_group_that_is_offered(version: Version) {
    let Some(mut tunnel) = start_with(version) else { return };
    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("login.banner", BANNER);
    give_policy(&mut tunnel.gateway, POLICY);
    tunnel.gateway.start().unwrap();
    let as_alice = |group| ["--user", "alice", "--passwd-on-stdin", "--authgroup", group];
    let typed = format!("{PASSWORD}\n");

    let other = run(&tunnel, &as_alice("other"), &typed);
    assert_eq!(other.code, NO_LOGIN, "{other:?}");
    assert!(other.stderr.contains("may not choose this group") && other.stderr.contains(BANNER), "{other:?}");
    for way in [&["--authgroup", "full"][..], &["--no-xmlpost", "--authgroup", "full"], &["--usergroup", "full"]] {
        let options = [&["--user", "alice", "--passwd-on-stdin"], way].concat();
        let cookie = cookie_with(&tunnel, &options, &typed);
        assert!(cookie.ends_with(".full"), "{way:?}");
    }

    let host = tunnel.client().host();
    let (stranger, session) = up(&tunnel, &as_alice("full"), &typed);
    assert_eq!(session.group.as_deref(), Some("full"), "administrators see it");
    reach_internet(host);
    assert!(!stranger.0.stdout().contains(BANNER), "it was read when its user logged in: {}", stranger.0.tail());
    stranger.0.signal(Signal::SIGUSR2).unwrap();
    let newer = || tunnel.gateway.sessions().unwrap().pop().filter(|now| now.session != session.session);
    eventually("it connects anew", newer);
    reach_internet(host);
    drop(stranger);
    eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));

    let (_stranger, session) = up(&tunnel, &as_alice("default"), &typed);
    assert_eq!(session.group, None);
    eventually("what the usual group has no route to is refused", || {
        assert!(!answers(host, INTERNET[0]));
        tunnel.session_of(session.addresses[0]).unwrap().drops.get("no_route").map(drop)
    });
}

#[test]
fn native_client_shows_the_banner_too() {
    let Some(mut tunnel) = start() else { return };
    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("login.banner", BANNER);
    tunnel.gateway.start().unwrap();
    let joined = join(&tunnel, tunnel.client(), "alice", &[PASSWORD]);
    assert!(joined.stderr.contains(BANNER), "{joined:?}");
    joined.success().unwrap();
}

//! What ocserv does to a session of our client: new keys, an end, and a ban.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use adit_lab::GATEWAY_V4;
use adit_lab::traffic::Dialogue;
use adit_testing::{PATIENCE, alone, eventually};

use super::records::{OUTER_LINK, comes_to};
use super::{CLOSED, Ocserv, add, has_login, up};
use crate::harness::reach;
use crate::logins::{PASSWORD, run};
use crate::people::REFUSED;
use crate::versions::{Version, with_each_version};

/// Packets a second in each direction.
const RATE: u32 = 200;
/// What ocserv says when another connection takes the place of the present one: "re-use", or "reuse".
const TAKEN_OVER: &str = "disconnecting previous user session due to session re";
/// How long some new keys may take.
const SOME_REKEYS: Duration = Duration::from_secs(120);

fn inside() -> IpAddr {
    Ocserv::ADDRESSES[0].parse().unwrap()
}

/// An ocserv with these lines besides, and a client that is connected and whose packets travel in records.
fn start(version: Version, lines: &str) -> Option<(Ocserv, Instant)> {
    let mut ocserv = Ocserv::start_prepared(version, &[Ocserv::PASSWORDS, lines].concat(), |_folder| ())?;
    add(&ocserv.client, &["--authority", &ocserv.certificate]).success().unwrap();
    up(&mut ocserv.client, &format!("{PASSWORD}\n"));
    let connected = Instant::now();
    comes_to(&ocserv.client, inside(), "dtls", connected);
    Some((ocserv, connected))
}

/// Has an administrator's program do something; that of this machine speaks to the newest ocserv as well.
fn occtl(ocserv: &Ocserv, arguments: &[&str]) {
    let mut command = Command::new("occtl");
    command.arg("--socket-file").arg(ocserv.gateway.folder().join("occtl.sock")).args(arguments);
    ocserv.gateway.output(command, PATIENCE).unwrap().success().unwrap();
}

with_each_version!(new_keys_at_ocserv_by_a_new_tunnel_cost_no_packet_of_ours_under_load);

fn new_keys_at_ocserv_by_a_new_tunnel_cost_no_packet_of_ours_under_load(version: Version) {
    let _turn = alone();
    let lines = "rekey-time = 10\nrekey-method = new-tunnel\n";
    let Some((ocserv, connected)) = start(version, lines) else { return };
    let inner = ocserv.client.inner_addresses().unwrap();
    let dialogue = Dialogue::start(ocserv.client.host(), &ocserv.gateway, inside(), RATE).unwrap();
    let tunnels = || ocserv.process.stderr().matches(TAKEN_OVER).count();
    let (before, deadline) = (tunnels(), Instant::now() + SOME_REKEYS);
    while tunnels() < before + 3 {
        assert!(Instant::now() < deadline, "no new tunnels: {}", ocserv.process.tail());
        std::thread::sleep(Duration::from_millis(200));
    }
    comes_to(&ocserv.client, inside(), "dtls", connected);
    let [up, down] = dialogue.finish();
    println!("up: {} packets, {} lost; down: {}, {} lost", up.sent, up.lost(), down.sent, down.lost());
    assert_eq!(up.lost(), 0, "what the client sends waits for the new tunnel");
    assert_eq!(ocserv.client.inner_addresses().unwrap(), inner);
}

with_each_version!(other_ways_to_new_keys_at_ocserv_leave_a_session_as_it_is);

fn other_ways_to_new_keys_at_ocserv_leave_a_session_as_it_is(version: Version) {
    let _turn = alone();
    let Some((ocserv, connected)) = start(version, "rekey-time = 5\nrekey-method = ssl\n") else { return };
    let dialogue = Dialogue::start(ocserv.client.host(), &ocserv.gateway, inside(), RATE).unwrap();
    // Four times as long as the keys are to serve.
    std::thread::sleep(Duration::from_secs(20));
    for (way, course) in ["up", "down"].into_iter().zip(dialogue.finish()) {
        assert_eq!((course.lost(), course.duplicated()), (0, 0), "{way}, of {} packets", course.sent);
    }
    comes_to(&ocserv.client, inside(), "dtls", connected);
    assert!(!ocserv.process.stderr().contains(TAKEN_OVER), "{}", ocserv.process.tail());
}

with_each_version!(session_that_ocserv_ends_needs_a_login_and_goes_on_after_it);

fn session_that_ocserv_ends_needs_a_login_and_goes_on_after_it(version: Version) {
    let Some((ocserv, _connected)) = start(version, "") else { return };
    occtl(&ocserv, &["disconnect", "user", "alice"]);
    eventually("the client says that a login is needed", || {
        let status = ocserv.client.status().unwrap();
        (status.state == "login needed").then_some(())
    });
    let login = run(&ocserv.client, &["login", "work", "--user", "alice"], &format!("{PASSWORD}\n"));
    login.success().unwrap();
    eventually("the client is connected", || (ocserv.client.status().unwrap().state == "connected").then_some(()));
    reach(ocserv.client.host(), inside());
}

/// An address that is in no network of the gateway's host: ocserv bans nobody there.
const ELSEWHERE: &str = "203.0.113.9";

/// Gives the client's host that address, from which it reaches the gateway.
fn come_from_elsewhere(ocserv: &Ocserv) {
    let (gateway, address) = (format!("{GATEWAY_V4}/32"), format!("{ELSEWHERE}/32"));
    let client = ocserv.client.host();
    for (host, arguments) in [
        (client, &["address", "add", &address, "dev", "lo"][..]),
        (client, &["route", "add", &gateway, "dev", OUTER_LINK, "src", ELSEWHERE]),
        (&ocserv.gateway, &["route", "add", &address, "dev", OUTER_LINK]),
    ] {
        let mut command = Command::new("ip");
        command.args(arguments);
        host.output(command, PATIENCE).unwrap().success().unwrap();
    }
}

with_each_version!(ban_of_ocserv_after_wrong_passwords_is_told_and_ends_with_it);

fn ban_of_ocserv_after_wrong_passwords_is_told_and_ends_with_it(version: Version) {
    let lines = "max-ban-score = 25\nban-reset-time = 600\nmin-reauth-time = 600\n";
    let lines = [Ocserv::PASSWORDS, lines].concat();
    let Some(mut ocserv) = Ocserv::start_prepared(version, &lines, |_folder| ()) else { return };
    come_from_elsewhere(&ocserv);
    add(&ocserv.client, &["--authority", &ocserv.certificate]).success().unwrap();
    let wrong = || run(&ocserv.client, &["up", "work"], "wrong horse battery\n");
    let first = wrong();
    assert!(first.code == REFUSED && first.stderr.contains("Login failed"), "the control: {first:?}");
    let banned = eventually("the client's address is banned", || {
        let tried = wrong();
        (tried.code != REFUSED).then_some(tried)
    });
    assert_eq!(banned.code, CLOSED, "{banned:?}");
    assert!(banned.stderr.contains("broken off") && banned.stderr.contains("wrong passwords"), "{banned:?}");
    // Whoever knows the password is banned as well.
    let tried = run(&ocserv.client, &["up", "work"], &format!("{PASSWORD}\n"));
    assert!(tried.code == CLOSED && !has_login(&ocserv.client), "{tried:?}");
    occtl(&ocserv, &["unban", "ip", ELSEWHERE]);
    up(&mut ocserv.client, &format!("{PASSWORD}\n"));
    reach(ocserv.client.host(), inside());
}

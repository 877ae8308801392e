//! The stock openconnect at our gateway: it logs in as its user would, and its packets travel over TLS or DTLS.
//!
//! Where it is not installed these tests skip themselves with a loud word, but fail where `CI` is set.

mod certificates;
mod forms;
mod hostile;
mod records;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use adit_lab::programs::ToldSession;
use adit_lab::traffic::{Capture, Direction, TcpServer, inject, transfer, udp_packet};
use adit_lab::{GATEWAY_V4, Host, Output, Process};
use adit_testing::{PATIENCE, alone, eventually, skip};
use nix::sys::signal::Signal;

use crate::harness::{INTERNET, Tunnel, reach};
use crate::logins::{App, PASSWORD, code_of_app, gateway, set_up_app};

/// The TUN device of the stranger.
const LINK: &str = "oc0";
const TRANSFER: u64 = 20 << 20;
/// Its exit codes: what it ends with when nobody logs in, and when its cookie is worth nothing.
const NO_LOGIN: i32 = 1;
const NO_COOKIE: i32 = 2;
const FORGED: &[u8] = b"adit-forged-source";
const HONEST: &[u8] = b"adit-honest-source";

/// Sets the stranger's device up, and sends what is for the internet host through it.
const SCRIPT: &str = "#!/bin/sh -e
[ \"$reason\" = connect ] || exit 0
ip link set dev \"$TUNDEV\" up mtu \"$INTERNAL_IP4_MTU\"
ip address add \"$INTERNAL_IP4_ADDRESS/32\" dev \"$TUNDEV\"
ip address add \"$INTERNAL_IP6_NETMASK\" dev \"$TUNDEV\" nodad
for address in $THROUGH; do ip route replace \"$address\" dev \"$TUNDEV\"; done
";

/// A gateway that knows alice, on a machine with openconnect.
fn start() -> Option<Tunnel> {
    if Command::new("openconnect").arg("--version").output().is_err() {
        skip("needs openconnect (the package of that name)");
        return None;
    }
    gateway()
}

/// openconnect in the client's host.
fn openconnect(tunnel: &Tunnel, arguments: &[&str], input: &str) -> Command {
    let host = tunnel.client().host();
    let script = host.folder().join("script");
    fs::write(&script, SCRIPT).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("openconnect");
    command.args(["--no-system-trust", "--non-inter", "--interface", LINK, "--script"]).arg(script);
    command.arg("--cafile").arg(tunnel.gateway.folder().join("state/authority.pem"));
    command.args(arguments).arg(format!("https://{GATEWAY_V4}/"));
    command.env("THROUGH", INTERNET.map(|address| address.to_string()).join(" "));
    host.with_input(&command, input).unwrap()
}

/// Runs it to its end.
fn run(tunnel: &Tunnel, arguments: &[&str], input: &str) -> Output {
    tunnel.client().host().output(openconnect(tunnel, arguments, input), PATIENCE).unwrap()
}

/// openconnect with a session, which is killed at the end of a test.
struct Stranger(Process);

impl Drop for Stranger {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what openconnect said last:\n{}", self.0.tail());
        }
        self.0.kill();
    }
}

/// Starts it and waits for its session.
fn up(tunnel: &Tunnel, arguments: &[&str], input: &str) -> (Stranger, ToldSession) {
    let process = tunnel.client().host().spawn(openconnect(tunnel, arguments, input)).unwrap();
    let stranger = Stranger(process);
    let session = eventually("openconnect has a session", || {
        assert_eq!(stranger.0.try_wait().unwrap(), None, "{}", stranger.0.tail());
        tunnel.gateway.sessions().unwrap().pop()
    });
    (stranger, session)
}

/// Logs in as alice with this on standard input: each line answers a form.
fn log_in(tunnel: &Tunnel, input: &str) -> (Stranger, ToldSession) {
    up(tunnel, &["--user", "alice", "--passwd-on-stdin"], &format!("{input}\n"))
}

/// The cookie of a login of alice's.
fn cookie(tunnel: &Tunnel) -> String {
    cookie_with(tunnel, &["--user", "alice", "--passwd-on-stdin"], &format!("{PASSWORD}\n"))
}

/// The cookie of a login with these options, and this on standard input.
fn cookie_with(tunnel: &Tunnel, arguments: &[&str], input: &str) -> String {
    let said = run(tunnel, &[arguments, &["--authenticate"]].concat(), input).success().unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("COOKIE='")).unwrap();
    line.trim_end_matches('\'').to_owned()
}

fn reach_internet(host: &Host) {
    INTERNET.into_iter().for_each(|target| reach(host, target));
}

#[test]
fn user_logs_in_with_a_password_and_twenty_mebibytes_arrive_intact_each_way() {
    let _turn = alone();
    let Some(tunnel) = start() else { return };
    let wrong = run(&tunnel, &["--user", "alice", "--passwd-on-stdin"], "wrong horse battery\n");
    assert_eq!(wrong.code, NO_LOGIN, "{wrong:?}");
    assert!(wrong.stderr.contains("is not accepted"), "the user reads why: {wrong:?}");
    assert!(tunnel.gateway.sessions().unwrap().is_empty());

    let arguments = ["--user", "alice", "--passwd-on-stdin", "--no-dtls"];
    let (_stranger, session) = up(&tunnel, &arguments, &format!("{PASSWORD}\n"));
    assert_eq!((session.front_end.as_str(), session.carrier.as_str()), ("anyconnect", "tls"));
    assert!(session.suite.as_ref().is_some_and(|suite| suite.starts_with("TLS13_")), "{session:?}");
    assert!(session.client.as_ref().is_some_and(|client| client.contains("VPN Agent v")), "{session:?}");
    assert_eq!(session.addresses.len(), 2, "one of each family");
    let host = tunnel.client().host();
    reach_internet(host);
    for address in INTERNET {
        let server = TcpServer::start(&tunnel.internet, address).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let done = transfer(host, server.address(), direction, TRANSFER).unwrap();
            println!("{direction:?} with {address}: {:.0} Mbit/s", done.megabits_per_second());
            assert!(done.bytes == TRANSFER && done.is_intact(), "{direction:?} with {address}");
        }
    }
}

#[test]
fn second_factor_is_asked_for_in_a_form_of_its_own() {
    let Some(tunnel) = start() else { return };
    let App { secret, confirmed, .. } = set_up_app(&tunnel.gateway);
    let refused = run(&tunnel, &["--user", "alice", "--passwd-on-stdin"], &format!("{PASSWORD}\n000000\n"));
    assert_eq!(refused.code, NO_LOGIN, "{refused:?}");
    assert!(refused.stderr.contains("is not accepted"), "{refused:?}");
    let code = code_of_app(&secret, confirmed + 1);
    let (_stranger, _session) = log_in(&tunnel, &format!("{PASSWORD}\n{code}"));
    reach_internet(tunnel.client().host());
}

#[test]
fn client_comes_back_with_its_addresses_and_no_question_after_the_gateway_was_killed() {
    let Some(mut tunnel) = start() else { return };
    let (stranger, before) = log_in(&tunnel, PASSWORD);
    reach_internet(tunnel.client().host());
    tunnel.gateway.kill();
    tunnel.gateway.start().unwrap();
    let back = || tunnel.gateway.sessions().unwrap().pop();
    let after = eventually("openconnect is back", || {
        back().or_else(|| {
            assert_eq!(stranger.0.try_wait().unwrap(), None, "{}", stranger.0.tail());
            None
        })
    });
    assert_eq!(after.addresses, before.addresses);
    reach_internet(tunnel.client().host());

    // As it does where its network changes, and when its keys are old.
    stranger.0.signal(Signal::SIGUSR2).unwrap();
    let newer = eventually("it connects anew", || back().filter(|now| now.session != after.session));
    assert_eq!(newer.addresses, before.addresses);
    reach_internet(tunnel.client().host());
}

#[test]
fn client_that_logs_out_or_is_shut_out_does_not_come_back_with_its_cookie() {
    let Some(tunnel) = start() else { return };
    let cookie = || cookie(&tunnel);
    let with = ["--cookie-on-stdin"];
    let none = run(&tunnel, &with, "webvpn=bm9uc2Vuc2U\n");
    assert_eq!(none.code, NO_COOKIE, "nobody makes a cookie: {none:?}");

    let (first, second) = (cookie(), cookie());
    let (stranger, _session) = up(&tunnel, &with, &format!("{first}\n"));
    reach_internet(tunnel.client().host());
    stranger.0.signal(Signal::SIGINT).unwrap();
    assert_eq!(stranger.0.wait(PATIENCE).unwrap(), 0);
    eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    let out = run(&tunnel, &with, &format!("{first}\n"));
    assert_eq!(out.code, NO_COOKIE, "its user has logged out: {out:?}");

    let (stranger, _session) = up(&tunnel, &with, &format!("{second}\n"));
    tunnel.gateway.admin(&["user", "disable", "alice"]).unwrap().success().unwrap();
    assert_eq!(stranger.0.wait(PATIENCE).unwrap(), NO_LOGIN, "the client is told to end");
    assert!(stranger.0.stderr().contains("disabled"), "and why: {}", stranger.0.stderr());
    let out = run(&tunnel, &with, &format!("{second}\n"));
    assert_eq!(out.code, NO_COOKIE, "{out:?}");
}

#[test]
fn client_beyond_the_limit_of_devices_is_told_so_and_gets_in_once_another_has_logged_out() {
    let Some(mut tunnel) = start() else { return };
    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("limits.devices_per_user", "1");
    tunnel.gateway.start().unwrap();
    let (first, second) = (cookie(&tunnel), cookie(&tunnel));
    let laptop = ["--cookie-on-stdin", "--local-hostname", "laptop"];
    let phone = ["--cookie-on-stdin", "--local-hostname", "phone"];
    let (stranger, _session) = up(&tunnel, &laptop, &format!("{first}\n"));
    let refused = run(&tunnel, &phone, &format!("{second}\n"));
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("as many devices as may be"), "the user reads why: {refused:?}");
    assert_eq!(tunnel.gateway.sessions().unwrap().len(), 1, "the first one's goes on");
    stranger.0.signal(Signal::SIGINT).unwrap();
    assert_eq!(stranger.0.wait(PATIENCE).unwrap(), 0);
    eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    let (_stranger, _session) = up(&tunnel, &phone, &format!("{second}\n"));
}

#[test]
fn forged_sources_do_not_pass() {
    let Some(tunnel) = start() else { return };
    let (_stranger, session) = log_in(&tunnel, PASSWORD);
    let host = tunnel.client().host();
    reach_internet(host);
    let behind = Capture::start(&tunnel.internet).unwrap();
    let packet = |source: IpAddr, payload: &[u8]| {
        let target = INTERNET.into_iter().find(|target| target.is_ipv4() == source.is_ipv4()).unwrap();
        udp_packet((source, 40_000).into(), (target, 9).into(), 64, payload)
    };
    let forged: [IpAddr; 3] = ["10.255.254.253", "2001:db8:bad::9", "127.0.0.9"].map(|text| text.parse().unwrap());
    inject(host, LINK, forged.map(|source| packet(source, FORGED)).to_vec()).unwrap();
    // The positive control, behind the forged ones on the same way.
    inject(host, LINK, session.addresses.iter().map(|own| packet(*own, HONEST)).collect()).unwrap();
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let arrived = behind.wait_for(PATIENCE, |seen| seen.contains(HONEST) && family(&seen.destination));
        assert!(arrived.is_some(), "an honest packet arrives");
    }
    assert!(behind.packets(|seen| seen.contains(FORGED)).is_empty(), "nothing forged arrives");
    let drops = tunnel.session_of(session.addresses[0]).unwrap().drops;
    assert_eq!(drops.get("source_not_leased"), Some(&2), "{drops:?}");
    assert_eq!(drops.get("source_loopback"), Some(&1), "{drops:?}");
}

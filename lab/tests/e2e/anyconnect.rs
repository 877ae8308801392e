//! The stock openconnect at our gateway: it logs in as its user would, and its packets travel over TLS or DTLS.
//!
//! Most tests run with the machine's own and with the newest. Where one of them is missing they skip themselves with a
//! loud word, but fail where `CI` is set.

pub(crate) mod browsers;
mod certificates;
mod forms;
mod hostile;
mod insiders;
mod records;
mod refusals;
mod roads;
mod told;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;

use adit_lab::programs::ToldSession;
use adit_lab::traffic::{Direction, TcpServer, transfer};
use adit_lab::{GATEWAY_V4, Host, Output, Process};
use adit_testing::{PATIENCE, alone, eventually};
use ipnet::IpNet;
use nix::sys::signal::Signal;

use crate::harness::{INTERNET, Options, Tunnel, preloaded, reach};
use crate::logins::{App, PASSWORD, code_of_app, gateway, set_up_app};
use crate::people::add_user;
use crate::versions::{Version, with_each_version};

/// The TUN device of the stranger.
const LINK: &str = "oc0";
const TRANSFER: u64 = 20 << 20;
/// The link by which it reaches the gateway.
const OUTER_LINK: &str = "eth0";
/// Its exit codes: what it ends with when nobody logs in, and when its cookie is worth nothing.
const NO_LOGIN: i32 = 1;
const NO_COOKIE: i32 = 2;

/// Says the banner, sets the stranger's device up, and sends what is for the internet host through it.
const SCRIPT: &str = "#!/bin/sh -e
[ \"$reason\" = connect ] || exit 0
echo \"$CISCO_BANNER\"
ip link set dev \"$TUNDEV\" up mtu \"$INTERNAL_IP4_MTU\"
ip address add \"$INTERNAL_IP4_ADDRESS/32\" dev \"$TUNDEV\"
ip address add \"$INTERNAL_IP6_NETMASK\" dev \"$TUNDEV\" nodad
for address in $THROUGH; do ip route replace \"$address\" dev \"$TUNDEV\"; done
";

/// Has a program take it for half a minute later than it is: the present code of the app has been used to set it up.
const LATER: &str = r#"
#include <time.h>
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec + 30;
  return now.tv_sec + 30;
}
"#;

/// A gateway that knows alice, and a client with the machine's own openconnect.
fn start() -> Option<Tunnel> {
    start_with(Version::Own)
}

/// As [`start`], with this openconnect.
fn start_with(version: Version) -> Option<Tunnel> {
    let program = version.program("openconnect")?;
    let tunnel = gateway()?;
    install(tunnel.client().host(), &program);
    Some(tunnel)
}

/// A gateway that knows alice, with these settings, and a client with each of these.
fn start_many(versions: &[Version], settings: &[(&str, &str)]) -> Option<Tunnel> {
    let programs: Option<Vec<_>> = versions.iter().map(|version| version.program("openconnect")).collect();
    let programs = programs?;
    let mut tunnel = Tunnel::prepare(Options { clients: versions.len(), settings })?;
    add_user(&tunnel.gateway, "alice", PASSWORD);
    tunnel.gateway.start().unwrap();
    tunnel.clients.iter().zip(&programs).for_each(|(client, program)| install(client.host(), program));
    Some(tunnel)
}

/// Has a host use this openconnect.
fn install(host: &Host, program: &Path) {
    symlink(program, host.folder().join("openconnect")).unwrap();
}

/// openconnect in the host of a client.
fn openconnect(tunnel: &Tunnel, client: usize, arguments: &[&str], input: &str) -> Command {
    let host = tunnel.clients[client].host();
    let script = host.folder().join("script");
    fs::write(&script, SCRIPT).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(host.folder().join("openconnect"));
    command.args(["--no-system-trust", "--non-inter", "--interface", LINK, "--script"]).arg(script);
    command.arg("--cafile").arg(tunnel.gateway.folder().join("state/authority.pem"));
    command.args(arguments).arg(format!("https://{GATEWAY_V4}/"));
    command.env("THROUGH", INTERNET.map(|address| address.to_string()).join(" "));
    host.with_input(&command, input).unwrap()
}

/// Runs it to its end.
fn run(tunnel: &Tunnel, arguments: &[&str], input: &str) -> Output {
    run_at(tunnel, 0, arguments, input)
}

/// As [`run`], in the host of that client.
fn run_at(tunnel: &Tunnel, client: usize, arguments: &[&str], input: &str) -> Output {
    tunnel.clients[client].host().output(openconnect(tunnel, client, arguments, input), PATIENCE).unwrap()
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
    up_at(tunnel, 0, arguments, input)
}

/// As [`up`], in the host of that client.
fn up_at(tunnel: &Tunnel, client: usize, arguments: &[&str], input: &str) -> (Stranger, ToldSession) {
    let host = tunnel.clients[client].host();
    let own: Vec<IpAddr> = host.addresses(OUTER_LINK).unwrap().iter().map(IpNet::addr).collect();
    let stranger = Stranger(host.spawn(openconnect(tunnel, client, arguments, input)).unwrap());
    let session = eventually("openconnect has a session", || {
        assert_eq!(stranger.0.try_wait().unwrap(), None, "{}", stranger.0.tail());
        tunnel.gateway.sessions().unwrap().into_iter().find(|told| own.contains(&told.remote.ip()))
    });
    (stranger, session)
}

/// Logs in as alice with this on standard input: each line answers a form.
fn log_in(tunnel: &Tunnel, input: &str) -> (Stranger, ToldSession) {
    up(tunnel, &["--user", "alice", "--passwd-on-stdin"], &format!("{input}\n"))
}

/// Logs in as alice with her password in the host of that client.
fn log_in_at(tunnel: &Tunnel, client: usize) -> (Stranger, ToldSession) {
    up_at(tunnel, client, &["--user", "alice", "--passwd-on-stdin"], &format!("{PASSWORD}\n"))
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

with_each_version!(user_logs_in_with_a_password_and_twenty_mebibytes_arrive_intact_each_way);

fn user_logs_in_with_a_password_and_twenty_mebibytes_arrive_intact_each_way(version: Version) {
    let _turn = alone();
    let Some(tunnel) = start_with(version) else { return };
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

with_each_version!(second_factor_is_asked_for_in_a_form_of_its_own);

fn second_factor_is_asked_for_in_a_form_of_its_own(version: Version) {
    let Some(tunnel) = start_with(version) else { return };
    let App { secret, confirmed, .. } = set_up_app(&tunnel.gateway);
    let refused = run(&tunnel, &["--user", "alice", "--passwd-on-stdin"], &format!("{PASSWORD}\n000000\n"));
    assert_eq!(refused.code, NO_LOGIN, "{refused:?}");
    assert!(refused.stderr.contains("is not accepted"), "{refused:?}");
    let code = code_of_app(&secret, confirmed + 1);
    let (_stranger, _session) = log_in(&tunnel, &format!("{PASSWORD}\n{code}"));
    reach_internet(tunnel.client().host());
}

with_each_version!(client_that_has_the_app_itself_fills_its_code_in);

fn client_that_has_the_app_itself_fills_its_code_in(version: Version) {
    let Some(tunnel) = start_with(version) else { return };
    let App { secret, .. } = set_up_app(&tunnel.gateway);
    let host = tunnel.client().host();
    let Some(later) = preloaded(host.folder(), "later", LATER) else { return };
    let token = format!("base32:{secret}");
    let arguments = ["--user", "alice", "--passwd-on-stdin", "--token-mode", "totp", "--token-secret", &token];
    let mut command =
        openconnect(&tunnel, 0, &[&arguments[..], &["--authenticate"]].concat(), &format!("{PASSWORD}\n"));
    command.env("LD_PRELOAD", later);
    let said = host.output(command, PATIENCE).unwrap().success().unwrap();
    assert!(said.contains("COOKIE="), "{said}");
}

with_each_version!(client_comes_back_with_its_addresses_and_no_question_after_the_gateway_was_killed);

fn client_comes_back_with_its_addresses_and_no_question_after_the_gateway_was_killed(version: Version) {
    let Some(mut tunnel) = start_with(version) else { return };
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

with_each_version!(client_that_logs_out_or_is_shut_out_does_not_come_back_with_its_cookie);

fn client_that_logs_out_or_is_shut_out_does_not_come_back_with_its_cookie(version: Version) {
    let Some(tunnel) = start_with(version) else { return };
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

with_each_version!(client_that_leaves_without_logging_out_comes_back_with_its_cookie);

fn client_that_leaves_without_logging_out_comes_back_with_its_cookie(version: Version) {
    let Some(tunnel) = start_with(version) else { return };
    let (cookie, with) = (cookie(&tunnel), ["--cookie-on-stdin"]);
    let (stranger, before) = up(&tunnel, &with, &format!("{cookie}\n"));
    stranger.0.signal(Signal::SIGHUP).unwrap();
    assert_eq!(stranger.0.wait(PATIENCE).unwrap(), 0);
    eventually("the session is over", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    let (_stranger, after) = up(&tunnel, &with, &format!("{cookie}\n"));
    assert_eq!(after.addresses, before.addresses);
    reach_internet(tunnel.client().host());
}

with_each_version!(client_beyond_the_limit_of_devices_is_told_so_and_gets_in_once_another_has_logged_out);

fn client_beyond_the_limit_of_devices_is_told_so_and_gets_in_once_another_has_logged_out(version: Version) {
    let Some(mut tunnel) = start_with(version) else { return };
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

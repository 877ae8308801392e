//! Users who join by a login and log in again: the real programs, a user of the gateway itself, and no invite.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::SystemTime;

use adit_lab::programs::{Client, Gateway};
use adit_lab::{GATEWAY_V4, Host, Output, Process};
use adit_program::durable_file;
use adit_testing::{PATIENCE, eventually};
use aws_lc_rs::hmac;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::{INTERNET, Options, Tunnel, answers, reach};
use crate::people::{REFUSED, pin};

pub(crate) const PASSWORD: &str = "correct horse battery";
const OTHER_IDENTITY: i32 = 4;

/// Starts a command whose standard input is what is written to the file that comes with it.
pub(crate) fn with_fifo(host: &Host, command: &Command) -> (Process, fs::File) {
    let fifo = host.folder().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" <\"$INPUT\""]).arg(command.get_program()).args(command.get_args());
    shell.env("INPUT", &fifo);
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let process = host.spawn(shell).unwrap();
    // Waits for the shell, which opens the other end.
    (process, fs::OpenOptions::new().write(true).open(&fifo).unwrap())
}

/// The half minute that it is since 1970, by which apps count.
pub(crate) fn step() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 30
}

/// The code that an app shows in this half minute which has this secret (RFC 6238).
pub(crate) fn code_of_app(secret: &str, step: u64) -> String {
    let decoded = data_of_base32(secret);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &decoded);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let bytes = tag.as_ref();
    let offset = usize::from(bytes[19] & 15);
    let number = u32::from_be_bytes(bytes[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// The bytes of a text in base 32 (RFC 4648).
fn data_of_base32(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        _ => letter - b'2' + 26,
    };
    let bits: Vec<u8> = text.bytes().flat_map(|letter| (0..5).rev().map(move |bit| value(letter) >> bit & 1)).collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit)).collect()
}

/// An app that shows codes, as it was set up.
pub(crate) struct App {
    pub(crate) secret: String,
    /// The half minute whose code confirmed it.
    pub(crate) confirmed: u64,
    /// One of the codes that stand for it once.
    pub(crate) recovery: String,
}

/// Sets up an app for alice at a gateway that knows her.
pub(crate) fn set_up_app(gateway: &Gateway) -> App {
    let (setting_up, mut typed) = with_fifo(gateway.host(), &gateway.command(&["user", "totp", "alice"]));
    setting_up.wait_for_line("It counts once", PATIENCE).unwrap();
    let said = setting_up.stdout();
    let is_secret = |line: &&str| line.len() == 32 && line.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let secret = said.lines().map(str::trim).find(is_secret).unwrap().to_owned();
    let confirmed = step();
    writeln!(typed, "{}", code_of_app(&secret, confirmed)).unwrap();
    drop(typed);
    let said = setting_up.output(PATIENCE).unwrap().success().unwrap();
    let recovery = said.lines().next_back().unwrap().trim().to_owned();
    App { secret, confirmed, recovery }
}

/// A gateway that runs and knows alice by her password.
pub(crate) fn gateway() -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    administrate(&tunnel, &["user", "add", "alice"], PASSWORD);
    tunnel.gateway.start().unwrap();
    Some(tunnel)
}

fn administrate(tunnel: &Tunnel, verb: &[&str], input: &str) {
    let host = tunnel.gateway.host();
    let command = host.with_input(&tunnel.gateway.command(verb), &format!("{input}\n")).unwrap();
    host.output(command, PATIENCE).unwrap().success().unwrap();
}

/// Runs a client's command to its end, with this on standard input.
pub(crate) fn run(client: &Client, arguments: &[&str], input: &str) -> Output {
    let host = client.host();
    host.output(host.with_input(&client.command(arguments), input).unwrap(), PATIENCE).unwrap()
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
    let pin = pin(&tunnel.gateway);
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
fn log_names_nobody_unless_the_trail_is_asked_for_which_says_who_did_what() {
    let Some(mut tunnel) = gateway() else { return };
    let pin = pin(&tunnel.gateway);
    let said = |tunnel: &Tunnel| tunnel.gateway.process().unwrap().stderr();
    assert_eq!(join(&tunnel, &pin, "wrong horse battery").code, REFUSED);
    tunnel.gateway.admin(&["user", "unlock", "alice"]).unwrap().success().unwrap();
    let silent = said(&tunnel);
    assert!(silent.contains("login refused") && silent.contains("administered"), "the positive control: {silent}");
    assert!(!silent.contains("alice"), "{silent}");

    tunnel.gateway.stop().unwrap();
    tunnel.gateway.set("log", "info,trail=debug");
    tunnel.gateway.start().unwrap();
    assert_eq!(join(&tunnel, &pin, "another wrong horse").code, REFUSED);
    join(&tunnel, &pin, PASSWORD).success().unwrap();
    tunnel.clients[0].up().unwrap();
    tunnel.gateway.admin(&["user", "disable", "alice"]).unwrap().success().unwrap();
    tunnel.gateway.admin(&["user", "disable", "nobody"]).unwrap();
    eventually("the session ends", || said(&tunnel).contains("session ended").then_some(()));
    let trail = said(&tunnel);
    for parts in [
        &["login refused of", "name=\"alice\"", "address=", "cause=\"wrong password\""][..],
        &["login accepted of", "user=\"alice\"", "source=\"local\"", "methods=\"password\"", "address="],
        &["device enrolled as", "user=\"alice\"", "device=\"dev-"],
        &["session of", "user=\"alice\"", "device=\"dev-", "remote="],
        &["administered", "uid=0", "verb=\"/user/disable\"", "whom=\"alice\"", "done=true"],
        &["administered", "uid=0", "verb=\"/user/disable\"", "whom=\"nobody\"", "done=false"],
        &["session ended", "reason=\"this user is disabled\"", "rx_bytes="],
    ] {
        assert!(trail.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?}: {trail}");
    }
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
    join(&tunnel, &pin(&tunnel.gateway), PASSWORD).success().unwrap();
}

#[test]
fn login_that_was_ended_is_needed_again_and_a_new_one_connects_without_a_new_start() {
    let Some(mut tunnel) = gateway() else { return };
    join(&tunnel, &pin(&tunnel.gateway), PASSWORD).success().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);

    administrate(&tunnel, &["user", "reset", "alice"], "another horse battery");
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
    join(&tunnel, &pin(&tunnel.gateway), PASSWORD).success().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    tunnel.gateway.admin(&["user", "disable", "alice"]).unwrap().success().unwrap();
    eventually("the session ends", || tunnel.gateway.sessions().unwrap().is_empty().then_some(()));
    eventually("the client knows", || (state(&tunnel) != "connected").then_some(()));
    let refused = join(&tunnel, &pin(&tunnel.gateway), PASSWORD);
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
fn second_factor_is_asked_for_where_there_is_no_device_yet() {
    let Some(tunnel) = gateway() else { return };
    let App { secret, confirmed: now, recovery } = set_up_app(&tunnel.gateway);
    let (pin, host) = (pin(&tunnel.gateway), GATEWAY_V4.to_string());
    let join = |code: &str| {
        let input = format!("alice\n{PASSWORD}\n{code}\n");
        run(tunnel.client(), &["join", &host, "--pin", &pin, "--name", "work", "--replace"], &input)
    };
    for (code, why) in [("000000", "it is wrong"), (&code_of_app(&secret, now), "it has set the app up")] {
        let refused = join(code);
        assert_eq!(refused.code, REFUSED, "{why}: {}", refused.stderr);
    }
    join(&code_of_app(&secret, now + 1)).success().unwrap();
    join(&recovery).success().unwrap();
    assert_eq!(join(&recovery).code, REFUSED, "a recovery code is good once");
    // The certificate of the device is a factor.
    run(tunnel.client(), &["login", "work", "--user", "alice"], &format!("{PASSWORD}\n")).success().unwrap();
}

#[test]
fn public_certificate_vouches_for_the_gateway_until_a_device_has_joined() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    administrate(&tunnel, &["user", "add", "alice"], PASSWORD);
    let folder = tunnel.gateway.host().folder().to_owned();
    let [authority, certificate, key] = ["authority.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
    let issuer_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    fs::write(&authority, params.self_signed(&issuer_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, issuer_key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![GATEWAY_V4.to_string()]).unwrap();
    fs::write(&certificate, leaf.signed_by(&leaf_key, &issuer).unwrap().pem()).unwrap();
    durable_file::create(&key, leaf_key.serialize_pem().as_bytes(), 0o600).unwrap();
    tunnel.gateway.set("tls.certificate", &certificate.display().to_string());
    tunnel.gateway.set("tls.key", &key.display().to_string());
    tunnel.gateway.start().unwrap();

    let host = GATEWAY_V4.to_string();
    let join = |flags: &[&str]| {
        let arguments = [&["join", &host, "--name", "work"], flags].concat();
        run(tunnel.client(), &arguments, &format!("alice\n{PASSWORD}\n"))
    };
    assert_eq!(join(&[]).code, OTHER_IDENTITY, "the system does not know the authority");
    join(&["--authority", &authority.display().to_string()]).success().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn client_without_a_login_that_lasts_ends_with_exit_3() {
    let Some(tunnel) = gateway() else { return };
    join(&tunnel, &pin(&tunnel.gateway), PASSWORD).success().unwrap();
    administrate(&tunnel, &["user", "reset", "alice"], "another horse battery");
    let up = tunnel.client().run(&["up"]).unwrap();
    assert_eq!(up.code, REFUSED, "{}", up.stderr);
    assert!(up.stderr.contains("adit-client login"), "{}", up.stderr);
}

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use super::*;
use crate::config::parse_public_address;
use crate::init::{Wishes, init};

const START: &str = "public = [\"vpn.example.org\"]\nroutes = [\"10.1.0.0/16\"]\n[pool]\nv4 = \"10.77.0.0/24\"\n";

/// A gateway's files, and what it was started with.
struct Gateway {
    _directory: tempfile::TempDir,
    file: PathBuf,
    policy: PathBuf,
    reloading: Reloading,
}

impl Gateway {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (file, policy) = (directory.path().join("server.toml"), directory.path().join("policy.toml"));
        let public = vec![parse_public_address("vpn.example.org").unwrap()];
        let wishes = Wishes { config: None, directory: Some(directory.path().to_owned()), public, listen: Vec::new() };
        let made = init(&wishes, SystemTime::now()).unwrap();
        assert_eq!(made.config, file);
        let mut source = Source::file(&file);
        source.overrides.flags = vec![("state_dir".to_owned(), made.state_dir.path().display().to_string())];
        fs::write(&file, START).unwrap();
        let values = Config::values(&source).unwrap();
        Self { _directory: directory, file, policy, reloading: Reloading::new(source, values, None) }
    }

    fn write(&self, text: &str) {
        fs::write(&self.file, text).unwrap();
    }

    fn write_policy(&self, text: &str) {
        fs::write(&self.policy, text).unwrap();
    }

    fn prepare(&self) -> Result<Prepared, String> {
        self.reloading.prepare(false).map_err(|refusal| refusal.0)
    }

    fn reload(&mut self) -> ReloadAnswer {
        let prepared = self.prepare().unwrap();
        self.reloading.settle(prepared)
    }
}

#[test]
fn keys_that_changed_are_applied_once() {
    let mut gateway = Gateway::new();
    gateway.write(&START.replace("10.1.0.0/16", "10.2.0.0/16"));
    let prepared = gateway.prepare().unwrap();
    assert_eq!(prepared.config.routes, ["10.2.0.0/16".parse().unwrap()]);
    let answer = gateway.reload();
    assert_eq!((answer.applied, answer.generation), (vec!["routes".to_owned()], 1));
    assert_eq!(gateway.reload(), ReloadAnswer { generation: 2, ..ReloadAnswer::default() });
}

#[test]
fn key_that_needs_a_restart_keeps_all_from_being_applied_unless_that_is_wanted() {
    let mut gateway = Gateway::new();
    gateway.write(&START.replace("10.1.0.0/16", "10.2.0.0/16").replace("10.77.0.0/24", "10.78.0.0/24"));
    let refusal = gateway.prepare().err().unwrap();
    assert!(refusal.starts_with("pool.v4: changed, and counts after a restart only"), "{refusal}");
    let prepared = gateway.reloading.prepare(true).unwrap();
    assert_eq!(prepared.config.pool.v4, "10.77.0.0/24".parse().ok(), "the pool stays as it was");
    let answer = gateway.reloading.settle(prepared);
    assert_eq!((answer.applied, answer.restart_needed), (vec!["routes".to_owned()], vec!["pool.v4".to_owned()]));
    // It still waits for the restart.
    assert!(gateway.prepare().is_err());
    gateway.write(&START.replace("10.1.0.0/16", "10.2.0.0/16"));
    assert_eq!(gateway.reload().lines(), ["nothing changed"]);
}

#[test]
fn bad_file_changes_nothing_and_is_named_with_its_line() {
    let mut gateway = Gateway::new();
    for (text, named) in [
        (START.replace("10.1.0.0/16", "10.1.0.0/99"), "routes"),
        (format!("{START}nonsense = 1\n"), "nonsense"),
        ("public = [".to_owned(), "line 1"),
    ] {
        gateway.write(&text);
        let refusal = gateway.prepare().err().unwrap();
        assert!(refusal.contains(named) && refusal.contains("server.toml"), "{refusal}");
    }
    fs::remove_file(&gateway.file).unwrap();
    assert!(gateway.prepare().err().unwrap().contains("cannot be read"));
    gateway.write(START);
    assert_eq!(gateway.reload().lines(), ["nothing changed"]);
}

#[test]
fn policy_is_read_again_and_one_that_fails_its_tests_is_refused() {
    /// Alice reaches one network, and a test says so.
    const POLICY: &str = "[groups.staff]\nmembers = [\"alice\"]\n[[rules]]\ngroups = [\"staff\"]\naction = \"allow\"\n\
        to = [\"10.1.0.0/16\"]\n[[tests]]\nuser = \"alice\"\nallow = [\"tcp 10.1.2.3:443\"]\n";
    let mut gateway = Gateway::new();
    gateway.write_policy(POLICY);
    gateway.write(&format!("policy = {:?}\n{START}", gateway.policy));
    let answer = gateway.reload();
    assert_eq!((answer.applied, gateway.reloading.policy.is_some()), (vec!["policy".to_owned()], true));
    assert_eq!(gateway.reload().lines(), ["nothing changed"]);

    gateway.write_policy(&POLICY.replace("to = [\"10.1.0.0/16\"]", "to = [\"10.3.0.0/16\"]"));
    let refusal = gateway.prepare().err().unwrap();
    assert!(refusal.contains("fails tests of its own") && refusal.contains("policy.toml"), "{refusal}");
    gateway.write_policy("[[rules]]\nactoin = \"allow\"\n");
    let refusal = gateway.prepare().err().unwrap();
    assert!(refusal.contains("actoin") && refusal.contains("policy.toml"), "{refusal}");

    gateway.write_policy(&POLICY.replace("10.1.0.0/16", "10.0.0.0/8"));
    let prepared = gateway.prepare().unwrap();
    assert_eq!(prepared.answer().applied, ["policy (its text)"]);
    gateway.reloading.settle(prepared);
    assert_eq!(gateway.reload().lines(), ["nothing changed"]);
    gateway.write(START);
    let answer = gateway.reload();
    assert_eq!((answer.applied, gateway.reloading.policy.is_none()), (vec!["policy".to_owned()], true));
}

/// Keys that count after a restart only: what is bound, opened or laid out at the start.
const RESTART: &[&str] = &[
    "listen",
    "listen_tcp",
    "state_dir",
    "runtime_dir",
    "tun.name",
    "tun.mtu",
    "pool.v4",
    "pool.v6",
    "limits.pending_sessions",
    "anyconnect.enabled",
    "anyconnect.tls12",
    "anyconnect.dtls_port",
    "anyconnect.cisco",
    "oidc.listen",
    "radius.accounting_servers",
    "radius.accounting_interim",
    "esp.enabled",
    "workers.count",
    "workers.yields",
    "workers.tun_offload",
    "workers.udp_offload",
    "workers.quic_threads",
];

/// Keys that count for sessions, or logins, that begin then.
const NEW_SESSIONS: &[&str] = &[
    "anyconnect.rekey_after",
    "login.session_lifetime",
    "esp.suites",
    "esp.vouched",
    "esp.rekey_after",
    "esp.rekey_packets",
];

#[test]
fn every_key_is_live_but_for_those_that_are_named_here() {
    let of = |applies| -> Vec<&str> { KEYS.rows().filter(|key| key.applies == applies).map(|key| key.name).collect() };
    assert_eq!(of(Applies::Restart), RESTART);
    assert_eq!(of(Applies::NewSessions), NEW_SESSIONS);
}

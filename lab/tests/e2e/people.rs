//! Users without invites: what they type, the sources that know them, and how they join.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use adit_lab::programs::{Client, Gateway};
use adit_lab::{GATEWAY_V4, Output};
use adit_program::durable_file;
use adit_testing::PATIENCE;
use adit_testing::slapd::{READER, READER_PASSWORD, Slapd};

use crate::harness::Tunnel;

/// The exit code of who is not let in.
pub(crate) const REFUSED: i32 = 3;

/// What profiles of these users are called.
pub(crate) const PROFILE: &str = "work";

/// Makes a user of the gateway itself, running or not.
pub(crate) fn add_user(gateway: &Gateway, name: &str, password: &str) {
    let host = gateway.host();
    let command = host.with_input(&gateway.command(&["user", "add", name]), &format!("{password}\n")).unwrap();
    host.output(command, PATIENCE).unwrap().success().unwrap();
}

/// The fingerprint of the gateway's authority.
pub(crate) fn pin(gateway: &Gateway) -> String {
    let checked = gateway.admin_json(&["check"]).unwrap();
    checked["fingerprint"].as_str().expect("check prints the fingerprint").to_owned()
}

/// Has a user of a client join, who types these answers one after the other.
pub(crate) fn join(tunnel: &Tunnel, client: &Client, user: &str, answers: &[&str]) -> Output {
    join_at(&GATEWAY_V4.to_string(), tunnel, client, user, answers)
}

/// As [`join`], at another address of the gateway.
pub(crate) fn join_at(place: &str, tunnel: &Tunnel, client: &Client, user: &str, answers: &[&str]) -> Output {
    let pin = pin(&tunnel.gateway);
    answer(client, &["join", place, "--pin", &pin, "--name", PROFILE, "--user", user, "--no-browser"], answers)
}

/// Has the user of a client log in again.
pub(crate) fn log_in(client: &Client, user: &str, answers: &[&str]) -> Output {
    answer(client, &["login", PROFILE, "--user", user, "--no-browser"], answers)
}

fn answer(client: &Client, arguments: &[&str], answers: &[&str]) -> Output {
    let input: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
    let host = client.host();
    host.output(host.with_input(&client.command(arguments), &input).unwrap(), PATIENCE).unwrap()
}

/// Gives a gateway that does not run a policy.
pub(crate) fn give_policy(gateway: &mut Gateway, text: &str) {
    let path = gateway.folder().join("policy.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    gateway.set("policy", path.to_str().unwrap());
}

/// Starts a directory on the host of a gateway that does not run, and has the gateway ask it; `None`, loudly, where it
/// is not installed.
pub(crate) fn give_directory(gateway: &mut Gateway) -> Option<Arc<Slapd>> {
    let host = gateway.host().clone();
    let directory = Arc::new(host.run(Slapd::start)?);
    let (secret, authority) = (host.folder().join("ldap.secret"), host.folder().join("ca.pem"));
    durable_file::create(&secret, READER_PASSWORD.as_bytes(), 0o600).unwrap();
    fs::copy(directory.authority(), &authority).unwrap();
    let (address, port) = directory.ldaps();
    for (key, value) in [
        ("login.sources", "ldap,local"),
        ("ldap.urls", &format!("ldaps://{address}:{port}")),
        ("ldap.authority", &authority.display().to_string()),
        ("ldap.bind_dn", READER),
        ("ldap.bind_password_file", &secret.display().to_string()),
        ("ldap.base", "ou=people,dc=lab"),
        ("ldap.group_base", "ou=groups,dc=lab"),
    ] {
        gateway.set(key, value);
    }
    Some(directory)
}

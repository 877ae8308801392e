//! Bad configurations and hosts: one clear message each, and nothing left behind.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use adit_lab::programs::Gateway;
use adit_lab::{GATEWAY_V6, Host, OUTSIDE_V4};
use adit_testing::PATIENCE;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::{Options, Tunnel, assert_as_before};

const OTHER: i32 = 1;
const USAGE: i32 = 2;
const PERMISSION: i32 = 6;
/// A user without any privilege.
const NOBODY: u32 = 65_534;

fn prepared() -> Option<Tunnel> {
    Tunnel::prepare(Options::default())
}

/// Runs the gateway, expects it to refuse with `code` and a message with `words`, and to leave its host as it was.
fn assert_refuses(gateway: &Gateway, code: i32, words: &[&str]) {
    assert_command_refuses(gateway.host(), gateway.command(&["run"]), code, words);
}

/// The same for any command.
fn assert_command_refuses(host: &Host, command: Command, code: i32, words: &[&str]) {
    let before = host.settled().unwrap();
    let output = host.output(command, PATIENCE).unwrap();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, code, "{said}");
    for word in words {
        assert!(said.to_lowercase().contains(&word.to_lowercase()), "{word:?} is not in: {said}");
    }
    assert!(said.contains("next:"), "there is a next step: {said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_as_before(host, &before);
}

fn add_line(gateway: &Gateway, line: &str) {
    let file = gateway.folder().join("server.toml");
    let text = fs::read_to_string(&file).unwrap();
    // Before the first table, so that it is a key of the top level.
    fs::write(&file, format!("{line}\n{text}")).unwrap();
}

/// A private key below the gateway's folder.
fn key_file(gateway: &Gateway) -> PathBuf {
    fn find(folder: PathBuf) -> Option<PathBuf> {
        let entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let key = entries.iter().find(|path| path.extension().is_some_and(|extension| extension == "key"));
        key.cloned().or_else(|| entries.into_iter().filter(|path| path.is_dir()).find_map(find))
    }
    find(gateway.folder().to_owned()).expect("the gateway has a key file")
}

#[test]
fn unknown_key_is_named_with_the_key_it_resembles() {
    let Some(tunnel) = prepared() else { return };
    add_line(&tunnel.gateway, "masquerde = true");
    assert_refuses(&tunnel.gateway, USAGE, &["masquerde", "did you mean", "masquerade"]);
}

#[test]
fn all_problems_are_told_at_once() {
    let Some(tunnel) = prepared() else { return };
    add_line(&tunnel.gateway, "masquerde = true\nlease_cooldown = \"soon\"");
    assert_refuses(&tunnel.gateway, USAGE, &["masquerde", "lease_cooldown"]);
}

#[test]
fn pool_that_overlaps_the_hosts_network_is_refused() {
    let Some(mut tunnel) = prepared() else { return };
    tunnel.gateway.set("pool.v4", "192.0.2.0/24");
    assert_refuses(&tunnel.gateway, USAGE, &["pool.v4", "192.0.2."]);
}

#[test]
fn both_pools_that_overlap_the_hosts_networks_are_refused_at_once() {
    let Some(mut tunnel) = prepared() else { return };
    tunnel.gateway.set("pool.v4", "198.51.100.0/24");
    tunnel.gateway.set("pool.v6", "2001:db8:0:1::/64");
    let words = ["pool.v4", &OUTSIDE_V4.to_string(), "pool.v6", &GATEWAY_V6.to_string()];
    assert_refuses(&tunnel.gateway, USAGE, &words);
}

#[test]
fn missing_key_file_is_named() {
    let Some(tunnel) = prepared() else { return };
    let key = key_file(&tunnel.gateway);
    fs::remove_file(&key).unwrap();
    assert_refuses(&tunnel.gateway, USAGE, &[key.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn key_file_that_cannot_be_read_is_named() {
    let Some(tunnel) = prepared() else { return };
    let key = key_file(&tunnel.gateway);
    // Root may read any file, but nobody can read a folder.
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert_refuses(&tunnel.gateway, USAGE, &[key.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn key_file_that_others_can_read_is_refused() {
    let Some(tunnel) = prepared() else { return };
    let key = key_file(&tunnel.gateway);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    assert_refuses(&tunnel.gateway, USAGE, &[key.file_name().unwrap().to_str().unwrap(), "chmod 600"]);
}

#[test]
fn port_in_use_is_named() {
    let Some(tunnel) = prepared() else { return };
    let taken = tunnel.gateway.host().run(|| UdpSocket::bind("[::]:443").unwrap());
    assert_refuses(&tunnel.gateway, OTHER, &["443", "in use"]);
    drop(taken);
}

#[test]
fn missing_tun_device_is_a_permission_failure() {
    let Some(tunnel) = prepared() else { return };
    hide_tun_device(tunnel.gateway.host());
    assert_refuses(&tunnel.gateway, PERMISSION, &["/dev/net/tun"]);
}

#[test]
fn missing_capability_is_a_permission_failure() {
    let Some(tunnel) = prepared() else { return };
    let gateway = &tunnel.gateway;
    let mut command = without_capabilities(&tunnel, gateway.host(), &gateway.command(&["run"]), gateway.folder());
    command.env("ADIT_RUNTIME_DIR", gateway.folder().join("run"));
    assert_command_refuses(gateway.host(), command, PERMISSION, &["CAP_NET_ADMIN"]);
}

#[test]
fn client_without_the_capability_says_so_and_changes_nothing() {
    let Some(mut tunnel) = prepared() else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let client = tunnel.client();
    let command = without_capabilities(&tunnel, client.host(), &client.command(&["up"]), client.folder());
    assert_command_refuses(client.host(), command, PERMISSION, &["CAP_NET_ADMIN"]);
}

/// The same command for nobody, who gets everything but capabilities: readable files, a low port, a TUN device that
/// opens.
fn without_capabilities(tunnel: &Tunnel, host: &Host, original: &Command, folder: &Path) -> Command {
    hide_tun_device(host);
    host.run(|| {
        let all = Mode::from_bits_truncate(0o666);
        mknod("/dev/net/tun", SFlag::S_IFCHR, all, makedev(10, 200)).unwrap();
        fs::set_permissions("/dev/net/tun", Permissions::from_mode(0o666)).unwrap();
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").unwrap();
    });
    let program = tunnel.lab.folder().join("program");
    fs::copy(original.get_program(), &program).unwrap();
    fs::set_permissions(tunnel.lab.folder(), Permissions::from_mode(0o755)).unwrap();
    give(folder.to_owned());
    let mut command = Command::new(program);
    command.args(original.get_args()).uid(NOBODY).gid(NOBODY);
    command
}

#[test]
fn client_without_a_tun_device_says_so_and_changes_nothing() {
    let Some(mut tunnel) = prepared() else { return };
    tunnel.gateway.start().unwrap();
    tunnel.join(0);
    let client = tunnel.client();
    hide_tun_device(client.host());
    assert_command_refuses(client.host(), client.command(&["up"]), PERMISSION, &["/dev/net/tun"]);
}

/// Gives a folder and everything in it to nobody.
fn give(path: PathBuf) {
    chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(&path).unwrap() {
            give(entry.unwrap().path());
        }
    }
}

/// Puts an empty folder in the place of `/dev/net`, in this host only.
fn hide_tun_device(host: &Host) {
    let none = None::<&str>;
    host.run(move || mount(Some("empty"), "/dev/net", Some("tmpfs"), MsFlags::empty(), none).unwrap());
}

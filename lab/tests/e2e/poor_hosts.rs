//! Gateways on hosts that lack something: settings they may change, IPv6, a device, a capability.

use std::fs;
use std::process::Command;

use adit_lab::{Host, Output};
use adit_testing::PATIENCE;
use adit_testing::namespace::mount_settings_read_only;
use nix::mount::{MsFlags, mount};

use crate::harness::{INTERNET, Options, Tunnel, answers, assert_as_before, reach, sysctl};

/// Writes settings below `/proc/sys/net`.
fn set(host: &Host, settings: &[(&str, &str)]) {
    settings.iter().for_each(|(key, value)| sysctl(host, &format!("net/{key}"), value));
}

/// Starts a gateway that should end at once; returns its exit code and what it said.
fn refused(tunnel: &Tunnel, command: Command) -> (i32, String) {
    let Output { code, stdout, stderr } = tunnel.gateway.host().output(command, PATIENCE).unwrap();
    (code, stdout + &stderr)
}

fn connects_and_reaches_ipv4(tunnel: &mut Tunnel) {
    tunnel.join(0);
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
}

#[test]
fn gateway_serves_where_settings_are_read_only_but_right() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    set(tunnel.gateway.host(), &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
    tunnel.gateway.host().run(mount_settings_read_only);
    tunnel.gateway.start().unwrap();
    connects_and_reaches_ipv4(&mut tunnel);
    reach(tunnel.client().host(), INTERNET[1]);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
}

#[test]
fn setting_that_a_gateway_needs_and_may_not_make_is_named_with_its_cure() {
    let Some(tunnel) = Tunnel::prepare(Options::default()) else { return };
    tunnel.gateway.host().run(mount_settings_read_only);
    let (code, said) = refused(&tunnel, tunnel.gateway.command(&["run"]));
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("--sysctl net.ipv4.ip_forward=1") && !said.contains("run as root"), "{said}");
}

#[test]
fn gateway_without_ipv6_says_so_and_carries_ipv4() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    assert!(!tunnel.gateway.admin(&["check"]).unwrap().success().unwrap().contains("IPv6 is off"));
    set(tunnel.gateway.host(), &[("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")]);
    let foretold = tunnel.gateway.admin(&["check"]).unwrap().success().unwrap();
    assert!(foretold.contains("net.ipv6.conf.all.disable_ipv6 is 1"), "{foretold}");
    tunnel.gateway.start().unwrap();
    connects_and_reaches_ipv4(&mut tunnel);
    assert!(tunnel.client().status().unwrap().addresses.iter().all(|address| address.addr().is_ipv4()));
    assert!(!answers(tunnel.client().host(), INTERNET[1]));
    tunnel.clients[0].stop().unwrap();
    tunnel.gateway.stop().unwrap();

    // With IPv6 the same gateway serves it: nothing but the setting kept it from that.
    set(tunnel.gateway.host(), &[("ipv6/conf/all/disable_ipv6", "0"), ("ipv6/conf/default/disable_ipv6", "0")]);
    tunnel.gateway.start().unwrap();
    tunnel.clients[0].up().unwrap();
    assert_eq!(tunnel.client().status().unwrap().addresses.len(), 2);
}

#[test]
fn new_links_without_ipv6_do_not_keep_a_gateway_from_it() {
    let Some(mut tunnel) = Tunnel::prepare(Options::default()) else { return };
    set(tunnel.gateway.host(), &[("ipv6/conf/default/disable_ipv6", "1")]);
    tunnel.gateway.start().unwrap();
    connects_and_reaches_ipv4(&mut tunnel);
    reach(tunnel.client().host(), INTERNET[1]);
}

#[test]
fn missing_device_is_named_with_what_a_container_needs() {
    let Some(tunnel) = Tunnel::prepare(Options::default()) else { return };
    let empty = tunnel.gateway.host().folder().join("empty");
    fs::create_dir(&empty).unwrap();
    tunnel.gateway.host().run(move || {
        mount(Some(&empty), "/dev/net", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    });
    let (code, said) = refused(&tunnel, tunnel.gateway.command(&["run"]));
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("--device /dev/net/tun"), "{said}");
}

#[test]
fn root_without_a_capability_is_told_which_one() {
    let Some(tunnel) = Tunnel::prepare(Options::default()) else { return };
    let command = tunnel.gateway.command(&["run"]);
    let mut poor = Command::new("setpriv");
    poor.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]).arg(command.get_program());
    poor.args(command.get_args());
    let (code, said) = refused(&tunnel, poor);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("--cap-add NET_ADMIN") && !said.contains("run as root"), "{said}");
}

/// Runs shell commands in the gateway's host, with its folder as `$1`.
fn shell(tunnel: &Tunnel, commands: &str) {
    let mut command = Command::new("sh");
    command.args(["-ec", commands, "sh"]).arg(tunnel.gateway.folder());
    tunnel.gateway.host().output(command, PATIENCE).unwrap().success().unwrap();
}

/// A gateway that is stopped, with a device that was connected once; `disk` prepared what the gateway's folder is on.
fn known_device(disk: &str) -> Option<Tunnel> {
    let mut tunnel = Tunnel::prepare(Options::default())?;
    shell(&tunnel, disk);
    tunnel.gateway.start().unwrap();
    connects_and_reaches_ipv4(&mut tunnel);
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    Some(tunnel)
}

/// Starts the gateway again and expects it to serve the device, to store nothing, and to leave its host as it was.
fn serves_without_a_disk(tunnel: &mut Tunnel) {
    let before = tunnel.gateway.host().settled().unwrap();
    tunnel.gateway.start().unwrap();
    tunnel.clients[0].up().unwrap();
    reach(tunnel.client().host(), INTERNET[0]);
    let Output { code, stdout, stderr } = tunnel.gateway.admin(&["invite", "bob"]).unwrap();
    assert_ne!(code, 0, "nothing can be stored: {stdout}{stderr}");
    let said = tunnel.gateway.process().unwrap().stderr();
    assert!(said.contains("the disk is full or read-only"), "{said}");
    assert_eq!(tunnel.clients[0].stop().unwrap(), 0);
    assert_eq!(tunnel.gateway.stop().unwrap(), 0);
    assert_as_before(tunnel.gateway.host(), &before);
}

#[test]
fn gateway_on_a_full_disk_serves_the_devices_it_knows() {
    let small = "mkdir $1.disk; mount -t tmpfs -o size=1m,mode=755 none $1.disk; cp -a $1/. $1.disk; \
                 mount --bind $1.disk $1";
    let Some(mut tunnel) = known_device(small) else { return };
    shell(&tunnel, "head -c 4m /dev/zero >$1/fill || true");
    serves_without_a_disk(&mut tunnel);
    shell(&tunnel, "rm $1/fill");
    tunnel.gateway.start().unwrap();
    tunnel.gateway.invite("bob", &[]).unwrap();
}

#[test]
fn gateway_with_a_read_only_state_directory_serves_the_devices_it_knows() {
    let Some(mut tunnel) = known_device("mount --bind $1/state $1/state") else { return };
    shell(&tunnel, "mount -o remount,bind,ro $1/state");
    serves_without_a_disk(&mut tunnel);
    shell(&tunnel, "mount -o remount,bind,rw $1/state");
    tunnel.gateway.start().unwrap();
    tunnel.gateway.invite("bob", &[]).unwrap();
}

//! Becoming able to make namespaces: as root at once, otherwise in a user namespace.

use std::fs::{self, OpenOptions};
use std::path::Path;

use adit_program::exit::{Exit, Failure};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

/// What a lab needs: `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_SYS_ADMIN` (linux/capability.h).
const NEEDED_CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 21;

/// The device behind every TUN.
const TUN_DEVICE: &str = "/dev/net/tun";

/// Makes the process able to build a lab; must be called while it has a single thread.
///
/// # Errors
/// Fails with exit code 6 where the system permits neither, and names the setting that would.
pub fn enter_user_namespace() -> Result<(), Failure> {
    if !has_needed_capabilities() {
        let (uid, gid) = (Uid::effective(), Gid::effective());
        unshare(CloneFlags::CLONE_NEWUSER).map_err(refused_namespace)?;
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    }
    check_tun_device()
}

/// Tells whether a lab can be built now, without changing anything.
///
/// # Errors
/// Fails with exit code 6 and what is missing.
pub fn check_permission() -> Result<(), Failure> {
    if !has_needed_capabilities() {
        return Err(Failure::new(
            Exit::Permission,
            "lab",
            "CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN are needed to make network namespaces",
            "run it as root",
        ));
    }
    check_tun_device()
}

fn has_needed_capabilities() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_capabilities(&status).is_some_and(|held| held & NEEDED_CAPABILITIES == NEEDED_CAPABILITIES)
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn check_tun_device() -> Result<(), Failure> {
    let Err(error) = OpenOptions::new().read(true).write(true).open(TUN_DEVICE) else { return Ok(()) };
    let next = if Path::new(TUN_DEVICE).exists() {
        "run it as root, or give your user access: chmod 0666 /dev/net/tun"
    } else {
        "load the module (modprobe tun), or give the container the device /dev/net/tun"
    };
    Err(Failure::new(Exit::Permission, TUN_DEVICE, error.to_string(), next))
}

fn refused_namespace(error: Errno) -> Failure {
    let restricted = |path: &str| fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
    let forbidden = |path: &str| fs::read_to_string(path).is_ok_and(|value| value.trim() == "0");
    let next = if restricted("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") {
        "run it as root, or: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else if forbidden("/proc/sys/kernel/unprivileged_userns_clone") {
        "run it as root, or: sysctl -w kernel.unprivileged_userns_clone=1"
    } else if forbidden("/proc/sys/user/max_user_namespaces") {
        "run it as root, or: sysctl -w user.max_user_namespaces=10000"
    } else {
        "run it as root; in a container, allow user namespaces or add CAP_SYS_ADMIN and CAP_NET_ADMIN"
    };
    Failure::new(Exit::Permission, "user namespace", format!("the system refused to make one: {error}"), next)
}

fn write(path: &str, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| {
        Failure::new(Exit::Permission, path, format!("could not be written: {error}"), "run it as root")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_capabilities_are_read_as_hexadecimal() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        assert_eq!(effective_capabilities(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn refusal_is_a_permission_failure_with_a_next_step() {
        let failure = refused_namespace(Errno::EPERM);
        assert_eq!(failure.exit, Exit::Permission);
        assert!(failure.next.contains("root"));
    }
}

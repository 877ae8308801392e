//! Fresh network namespaces for tests that need no more than one.

use std::future::Future;
use std::path::Path;
use std::process::Command;
use std::{fs, thread};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use crate::skip;

/// Runs a test in a network namespace of its own, on a thread of its own. Skips it without root.
///
/// # Panics
/// As the test does.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !Uid::effective().is_root() {
        return skip("needs root to make a network namespace");
    }
    if !Path::new("/dev/net/tun").exists() {
        return skip("needs /dev/net/tun");
    }
    let body = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// As [`in_namespace`], for a test that awaits.
///
/// # Panics
/// As the test does.
pub fn in_namespace_async<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime needs only descriptors").block_on(test());
    });
}

/// Makes `/proc/sys` read-only for the calling thread and its children, as container runtimes do.
///
/// # Panics
/// Without root.
pub fn make_settings_read_only() {
    unshare(CloneFlags::CLONE_NEWNS).expect("root may make a mount namespace");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("root may change its own mounts");
    mount_settings_read_only();
}

/// Makes `/proc/sys` read-only in the mount namespace of the calling thread, whose mounts are its own.
///
/// # Panics
/// Without root.
pub fn mount_settings_read_only() {
    const SETTINGS: &str = "/proc/sys";
    for flags in [MsFlags::MS_BIND, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY] {
        mount(Some(SETTINGS), SETTINGS, None::<&str>, flags, None::<&str>).expect("root may mount");
    }
}

/// Runs `ip` with arguments separated by single spaces.
///
/// # Panics
/// Where it fails.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// Brings a link up that sends nothing of its own accord.
///
/// # Panics
/// Where the link does not exist.
pub fn up(link: &str) {
    let no_ipv6 = fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1");
    no_ipv6.expect("the link exists and root may set it up");
    ip(&format!("link set {link} up"));
}

//! Network namespaces for tests.

use std::future::Future;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

/// Runs a test in a network namespace of its own, on a thread of its own; without root, says that it is skipped.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !Uid::effective().is_root() || !Path::new("/dev/net/tun").exists() {
        assert!(std::env::var_os("CI").is_none(), "needs root and /dev/net/tun");
        // Past the test runner's capture.
        return io::stderr().write_all(b"*** SKIPPED: needs root and /dev/net/tun ***\n").unwrap();
    }
    let body = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with arguments separated by single spaces.
pub(crate) fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

/// Brings a link up that sends nothing of its own accord.
pub(crate) fn up(link: &str) {
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1").unwrap();
    ip(&format!("link set {link} up"));
}

//! Fresh network namespaces for tests.

use std::io::Write as _;
use std::{future::Future, thread};

use nix::{sched::CloneFlags, unistd::Uid};

/// Says that a test is skipped, past the test runner's capture; where `CI` is set it fails instead.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    let name = thread::current().name().unwrap_or("test").to_owned();
    std::io::stderr().write_all(format!("*** SKIPPED: {name}: {reason} ***\n").as_bytes()).unwrap();
}

/// Runs a test in a network namespace of its own, on a thread of its own; without root, says that it is skipped.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !Uid::effective().is_root() {
        return skip("needs root to make a network namespace");
    }
    let body = || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// As [`in_namespace`], for a test that awaits.
pub(crate) fn in_namespace_async<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
}

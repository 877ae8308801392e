//! Fresh network namespaces for tests.

use std::{future::Future, thread};

use nix::{sched::CloneFlags, unistd::Uid};

/// Runs a test in a network namespace of its own, on a thread of its own; without root, says that it is skipped.
pub(super) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !Uid::effective().is_root() {
        println!("SKIPPED: needs root to make a network namespace");
        return;
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
pub(super) fn in_namespace_async<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
}

//! Tasks in the threads of a runtime that belongs to a lab host.

use std::io;

use adit_lab::Host;
use adit_program::task::{self, Task};
use tokio::runtime::{Builder, Runtime};

/// Starts a runtime with so many threads, all of them in a host.
///
/// # Errors
/// The system gives no threads.
pub(crate) fn in_host(host: &Host, threads: usize) -> io::Result<Runtime> {
    // Threads belong to the host whose thread starts them.
    host.run(move || Builder::new_multi_thread().worker_threads(threads).enable_all().build())
}

/// Starts a task in a runtime's threads.
pub(crate) fn on<F: Future<Output: Send + 'static> + Send + 'static>(runtime: &Runtime, future: F) -> Task<F::Output> {
    let _entered = runtime.enter();
    task::spawn(future)
}

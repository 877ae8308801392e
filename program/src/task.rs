//! Tasks that end with their owner.

use std::future::Future;

use tokio_util::task::AbortOnDropHandle;

/// A running task; dropping it aborts the task.
pub type Task<T = ()> = AbortOnDropHandle<T>;

/// Starts a future as a task of the current tokio runtime, owned by the returned handle.
#[must_use = "dropping the task aborts it"]
pub fn spawn<F>(future: F) -> Task<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "this is the one place that owns what it spawns")]
    AbortOnDropHandle::new(tokio::spawn(future))
}

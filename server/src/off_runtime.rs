//! Work that waits for a disk or the kernel, where it keeps no thread of the runtime waiting.

use std::panic::resume_unwind;

use tokio::task::{JoinError, spawn_blocking};

/// Does such work. If it panics, so does this.
pub(crate) async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    off_runtime_or(|panicked| resume_unwind(panicked.into_panic()), work).await
}

/// Does such work. If it panics, `broken` says what came of it.
pub(crate) async fn off_runtime_or<T: Send + 'static>(
    broken: impl FnOnce(JoinError) -> T,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    spawn_blocking(work).await.unwrap_or_else(broken)
}

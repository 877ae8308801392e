//! Queues around a worker: how long what waits may wait, and when to try again what was refused.
//!
//! The clock is a closure wherever most calls need none: it is read only if the answer depends on it.

pub mod offload_pause;
pub mod patience;
pub mod standing_queue;

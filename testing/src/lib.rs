//! What tests of several crates share. No program depends on it.

pub mod namespace;
mod skip;
mod wait;

pub use skip::skip;
pub use wait::{PATIENCE, alone, eventually};

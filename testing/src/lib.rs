//! What tests of several crates share. No program depends on it.
//!
//! One `unsafe` block is here beside those of `net` and `host`: an allocator that counts can only be made with it.

pub mod browser;
pub mod counting_allocator;
pub mod free_radius;
pub mod namespace;
pub mod oidc_provider;
mod server_process;
mod skip;
pub mod slapd;
mod wait;

pub use skip::skip;
pub use wait::{PATIENCE, alone, eventually};

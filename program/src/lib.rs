//! What each program of Adit has, whatever it does: exit codes and failures for people, configuration by rows, output,
//! log, signals, tasks that end with their owner.
//!
//! Nothing here knows VPNs or packets.

#![forbid(unsafe_code)]

pub mod causes;
pub mod closest;
pub mod configuration;
pub mod durable_file;
pub mod exit;
pub mod file_lock;
pub mod foreign_text;
pub mod guarded_file;
#[cfg(feature = "service")]
pub mod log;
pub mod output;
pub mod prompt;
#[cfg(feature = "terminal")]
pub mod qr_code;
pub mod random;
pub mod rights;
#[cfg(feature = "service")]
pub mod service;
pub mod signals;
pub mod task;
pub mod toml_error;

//! What each program of Adit has, whatever it does: exit codes and failures for people, tasks that end with their owner.
//!
//! Nothing here knows VPNs, packets or configuration.

#![forbid(unsafe_code)]

pub mod exit;
pub mod task;

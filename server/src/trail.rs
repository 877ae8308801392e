//! Who did what.
//!
//! The log names nobody above DEBUG. Whoever has to tell afterwards who logged in from where and by what, who was
//! refused and why, and which administrator changed what, finds that at DEBUG under a target of its own: the filter
//! `info,trail=debug` shows it and no other detail.

/// The target of events that name people, devices and addresses.
pub(crate) const TRAIL: &str = "trail";

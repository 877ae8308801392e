//! `adit-bench` as those who call it see it: exit codes, reports, files, and nothing left behind.
//!
//! One program, since linking costs more than most of these tests take.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failed expectation ends a test, which says what it saw"
)]

mod anyconnect;
mod compare;
mod demo;
mod harness;
mod impair;
mod load;
mod logins;
mod measure;
mod networks;
mod report;

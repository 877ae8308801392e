//! Tests that cannot run here.

use std::env;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::thread;

/// Says that the calling test is skipped and why, past the test runner's capture.
///
/// # Panics
/// Where the environment variable `CI` is set: there every test has to run.
pub fn skip(reason: impl Display) {
    assert!(env::var_os("CI").is_none(), "a test cannot run, and in CI every test must: {reason}");
    let test = thread::current().name().unwrap_or("test").to_owned();
    // In one piece, as other tests write at the same time; a closed output has no reader to warn.
    let _closed = io::stderr().write_all(format!("\n*** SKIPPED: {test} ***\n{reason}\n\n").as_bytes());
}

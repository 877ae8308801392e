//! What a program prints: results on standard output; failures and what is said in passing on standard error.
//!
//! A reader that has gone away is no reason to fail: it had enough.

use std::io::{self, Write};

use serde::Serialize;

use crate::exit::Failure;

/// Prints text as it is on standard output.
pub fn raw(text: &str) {
    write(text).ok();
}

/// Prints text and a line end on standard output, for a program that goes on doing so; says whether anybody reads it.
pub fn is_line_read(text: &str) -> bool {
    write(&format!("{text}\n")).is_ok()
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Prints text and a line end on standard output.
pub fn line(text: &str) {
    raw(&format!("{text}\n"));
}

/// Prints a value as one line of JSON on standard output.
///
/// # Panics
/// If the value cannot be JSON, such as a map whose keys are not strings.
pub fn json(value: &impl Serialize) {
    line(&serde_json::to_string(value).expect("what programs print has strings as keys"));
}

/// Prints text as it is on standard error.
pub fn raw_error(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// Prints text and a line end on standard error.
pub fn note(text: &str) {
    raw_error(&format!("{text}\n"));
}

/// Prints a failure on standard error.
pub fn failure(failure: &Failure) {
    note(&format!("error: {failure}"));
}

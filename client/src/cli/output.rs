//! What the program prints: results to standard output, failures to standard error.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the one place that prints")]

use std::io::Write;

use adit_program::exit::Failure;
use serde::Serialize;

/// Prints one line of a result.
pub(super) fn line(text: &str) {
    raw(&format!("{text}\n"));
}

/// Prints a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(error) => eprintln!("error: {error}"),
    }
}

/// Prints text as it is. A reader that has gone away is no reason to fail.
pub(super) fn raw(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

/// Prints a failure.
pub(super) fn failure(failure: &Failure) {
    eprintln!("error: {failure}");
}

/// Passes on what a detached process said about its failure.
pub(super) fn error_text(text: &str) {
    eprint!("{text}");
}

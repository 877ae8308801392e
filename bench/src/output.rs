//! What the program says to whoever started it.

use std::io::{self, Write as _};

/// Writes a line to the standard output.
pub(crate) fn line(text: &str) {
    // Whoever closed the output does not want to read it.
    let _closed = writeln!(io::stdout().lock(), "{text}");
}

/// Writes a line about what went wrong to the standard error.
pub(crate) fn error(text: &str) {
    let _closed = writeln!(io::stderr().lock(), "adit-bench: {text}");
}

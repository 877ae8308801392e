//! Questions to git.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A commit's name as people write it.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}

/// What git says to a question; fails with what it says of the reason.
pub(super) fn git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("git");
    // Hooks are for people who change a repository.
    command.args(["-c", "core.hooksPath=/dev/null"]).arg("-C").arg(folder).args(arguments).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().map_err(|error| format!("git: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if status.success() { Ok(text(&stdout)) } else { Err(text(&stderr)) }
}

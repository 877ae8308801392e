//! Exit codes of the Adit programs, and the error that carries one to `main`.

use std::fmt;

/// What a program tells its caller when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Ok = 0,
    /// A failure without a code of its own.
    Other = 1,
    /// A flag or the configuration is wrong.
    Usage = 2,
    /// The gateway refused the credentials.
    AuthRefused = 3,
    /// The gateway is not the one the profile or invite names.
    IdentityMismatch = 4,
    /// Nothing answered.
    Unreachable = 5,
    /// A permission or capability is missing.
    Permission = 6,
    /// It took longer than allowed.
    TimedOut = 7,
    /// A benchmark found a regression.
    Regression = 8,
    /// A benchmark could not decide.
    Inconclusive = 9,
    /// This system cannot do it.
    Unsupported = 127,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure as a user sees it: the thing, the reason, the next step, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code of the program.
    pub exit: Exit,
    /// The thing that failed, such as a file, a flag or a peer.
    pub what: String,
    /// Why it failed.
    pub reason: String,
    /// What the user can do about it; empty when there is nothing to say.
    pub next: String,
}

impl Failure {
    /// Makes a failure of its four parts.
    pub fn new(exit: Exit, what: impl Into<String>, reason: impl Into<String>, next: impl Into<String>) -> Self {
        Self { exit, what: what.into(), reason: reason.into(), next: next.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)?;
        if !self.next.is_empty() {
            write!(f, "\n  next: {}", self.next)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_thing_reason_and_next_step() {
        let failure = Failure::new(Exit::Usage, "server.toml", "unknown key `pol`", "did you mean `pool`?");
        assert_eq!(failure.to_string(), "server.toml: unknown key `pol`\n  next: did you mean `pool`?");
    }
}

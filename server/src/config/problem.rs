//! Problems of a configuration, as their author reads them.

use std::fmt;
use std::path::PathBuf;

use adit_program::configuration::Problem;
use adit_program::exit::{Exit, Failure};

/// All problems of a configuration; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The configuration file.
    pub path: PathBuf,
    /// The problems, in the order of the file where possible.
    pub problems: Vec<Problem>,
    /// The exit code they amount to.
    pub exit: Exit,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Failure::from(self.clone()))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// The failure as the user of a verb sees it: a line for each problem.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        self.into()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let count = error.problems.len();
        let mut reason = format!("{count} {}", if count == 1 { "problem" } else { "problems" });
        for problem in &error.problems {
            reason.push_str("\n  ");
            reason.push_str(&problem.to_string());
        }
        let next = format!("mend them, then run `adit-server check --config {}`", error.path.display());
        Self::new(error.exit, error.path.display().to_string(), reason, next)
    }
}

//! A policy file that was read.

use std::fmt;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use adit_program::configuration::Problem;
use adit_program::exit::{Exit, Failure};
use adit_program::guarded_file::{Access, GuardError, Readers};
use adit_proto::policy::{Action, FailedTest, PolicyDocument};

use crate::config::{Config, guard};

use super::{fit, reader};

/// Largest policy file that is read, in bytes.
const MAX_FILE: usize = 4 * 1024 * 1024;

/// A policy, and the file it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// The file, for messages.
    pub path: PathBuf,
    /// What it says.
    pub document: PolicyDocument,
}

/// All problems of a policy file; at least one. Each names its file and line, and the thing in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The file.
    pub path: PathBuf,
    /// The problems, in the order of the file.
    pub problems: Vec<Problem>,
}

impl PolicyFile {
    /// Reads a policy file, which nobody but its owner and root may change. Its tests are not run.
    ///
    /// # Errors
    /// All problems found.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let failed = |problem| PolicyError { path: path.to_owned(), problems: vec![problem] };
        let bytes = bytes(path).map_err(|error| {
            let next = if error.is_missing() {
                "name another file, or remove the key `policy`".to_owned()
            } else {
                error.next
            };
            failed(Problem::new(path.display().to_string(), error.reason, next))
        })?;
        let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= MAX_FILE).ok_or_else(|| {
            failed(Problem::new(
                path.display().to_string(),
                "is not a policy file",
                "write it in TOML, in UTF-8, and within 4 MiB",
            ))
        })?;
        Self::parse(path, text)
    }

    /// Reads the text of a policy file.
    ///
    /// # Errors
    /// All problems found.
    pub fn parse(path: &Path, text: &str) -> Result<Self, PolicyError> {
        match reader::read(path, text) {
            Ok(document) => Ok(Self { path: path.to_owned(), document }),
            Err(problems) => Err(PolicyError { path: path.to_owned(), problems }),
        }
    }

    /// The policy of a gateway, if its configuration names one: read, and compared with the rest of the configuration.
    ///
    /// # Errors
    /// All problems found.
    pub fn of(config: &Config) -> Result<Option<Self>, PolicyError> {
        let Some(path) = &config.policy else { return Ok(None) };
        let policy = Self::read(path)?;
        let problems = policy.misfits(config);
        if problems.is_empty() { Ok(Some(policy)) } else { Err(PolicyError { path: policy.path, problems }) }
    }

    /// What it says that this gateway cannot do.
    pub fn misfits(&self, config: &Config) -> Vec<Problem> {
        fit::misfits(self, config)
    }

    /// The resolvers that groups tell their members of.
    pub fn resolvers(&self) -> impl Iterator<Item = IpAddr> {
        let told = self.document.groups().iter().filter_map(|group| group.settings.dns.as_ref());
        told.flat_map(|dns| dns.value.iter().copied())
    }

    /// The tests in it that it does not pass.
    pub fn failed_tests(&self) -> Vec<Problem> {
        self.document.failed_tests().iter().map(|failed| self.failed_test(failed)).collect()
    }

    fn failed_test(&self, failed: &FailedTest<'_>) -> Problem {
        let groups = failed.test.groups.iter().map(|group| format!("group {}", self.group_name(*group)));
        let who: Vec<String> = failed.test.user.iter().cloned().chain(groups).collect();
        let thing = format!("test of {}: {}", who.join(", "), failed.attempt);
        let by = match failed.got.rule.and_then(|rule| self.document.rules().get(rule)) {
            Some(rule) => format!("by the rule in line {}", rule.line),
            None if failed.got.action == Action::Deny => "for no rule matches".to_owned(),
            None => "for there are no rules".to_owned(),
        };
        let reason = format!("is {} {by}, and should be {}", past(failed.got.action), past(failed.expected));
        Problem::new(self.place(failed.test.line, &thing), reason, "mend the rules or the test")
    }

    /// A thing in the file, with its line.
    pub(super) fn place(&self, line: usize, thing: &str) -> String {
        format!("{}:{line}: {thing}", self.path.display())
    }

    /// The name of a group.
    pub(crate) fn group_name(&self, group: usize) -> &str {
        self.document.groups().get(group).map_or("?", |group| &group.name)
    }
}

/// What is in a file, and of one that is too large a little more than a policy may have: a policy that ends in the
/// midst of its rules would be another one.
fn bytes(path: &Path) -> Result<Vec<u8>, GuardError> {
    let file = guard().open(path, Access::Read, Readers::Everybody)?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| GuardError::system(path, error))?;
    Ok(bytes)
}

/// What was done to a flow.
fn past(action: Action) -> &'static str {
    match action {
        Action::Allow => "allowed",
        Action::Deny => "denied",
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.clone().into_failure())
    }
}

impl std::error::Error for PolicyError {}

impl PolicyError {
    /// The failure as the user of a verb sees it: a line for each problem.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        let count = self.problems.len();
        let mut reason = format!("{count} {}", if count == 1 { "problem" } else { "problems" });
        for problem in &self.problems {
            reason.push_str(&format!("\n  {problem}"));
        }
        let next = format!("mend them, then run `adit-server policy check {}`", self.path.display());
        Failure::new(Exit::Usage, self.path.display().to_string(), reason, next)
    }
}

#[cfg(test)]
mod tests;

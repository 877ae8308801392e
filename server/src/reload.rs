//! Reading the configuration again while the gateway runs: all of what changed, or nothing.
//!
//! What can fail comes first: everything is read and checked, the policy's own tests are run, and the firewall is
//! loaded in one transaction. After that only values are swapped in memory, so a gateway never stands between two
//! configurations. Nobody is dropped: sessions are told of new routes and resolvers as they go on.

use std::fmt::Write as _;
use std::sync::Arc;

use adit_program::configuration::{Applies, Problem, Values};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::config::keys::KEYS;
use crate::config::{Config, ConfigError, Source};
use crate::policy::{PolicyError, PolicyFile};

/// What stands in reports for the text of the policy file.
const POLICY_TEXT: &str = "policy (its text)";

/// Asks for a reload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Whether to apply what can be, though other keys changed that need a restart.
    #[serde(default)]
    pub partial: bool,
    /// Whether only to say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a reload did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// Keys that apply to the sessions there are.
    pub applied: Vec<String>,
    /// Keys that apply to sessions that begin from now on.
    pub new_sessions: Vec<String>,
    /// Keys that changed, too, and count after a restart only.
    pub restart_needed: Vec<String>,
    /// How many reloads this run of the gateway has seen.
    pub generation: u64,
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReloadRefusal(pub String);

/// A reload that somebody waits for.
pub struct ReloadOrder {
    /// What is asked.
    pub request: ReloadRequest,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<ReloadAnswer, ReloadRefusal>>,
}

/// The configuration a gateway runs with, and where it is read again.
pub struct Reloading {
    source: Source,
    /// As read: those of keys that need a restart are of the start.
    values: Values,
    policy: Option<Arc<PolicyFile>>,
    generation: u64,
}

/// A configuration that was read again and found good.
pub struct Prepared {
    values: Values,
    /// What counts now.
    pub config: Config,
    /// The policy that counts now.
    pub policy: Option<Arc<PolicyFile>>,
    answer: ReloadAnswer,
}

impl Reloading {
    /// Begins with what the gateway was started with.
    pub fn new(source: Source, values: Values, policy: Option<Arc<PolicyFile>>) -> Self {
        Self { source, values, policy, generation: 0 }
    }

    /// Reads and checks everything again, and changes nothing.
    ///
    /// # Errors
    /// What is wrong, in words for the administrator, with file and line.
    pub fn prepare(&self, partial: bool) -> Result<Prepared, ReloadRefusal> {
        let newer = Config::values(&self.source).map_err(of_config)?;
        let changed = self.values.differing(&newer, &KEYS);
        let named = |when| changed.iter().filter(|key| key.applies == when).map(|key| key.name.to_owned()).collect();
        let mut answer = ReloadAnswer {
            applied: named(Applies::Live),
            new_sessions: named(Applies::NewSessions),
            restart_needed: named(Applies::Restart),
            generation: self.generation.saturating_add(1),
        };
        if !partial && !answer.restart_needed.is_empty() {
            let keys = answer.restart_needed.join(", ");
            let next = "restart the gateway, or apply the rest with `adit-server reload --partial`";
            return Err(ReloadRefusal(format!("{keys}: changed, and counts after a restart only; {next}")));
        }
        let mut values = self.values.clone();
        for key in changed.iter().filter(|key| key.applies != Applies::Restart) {
            values.take_over(key.name, &newer);
        }
        let config = Config::of_values(&values, &self.source).map_err(of_config)?;
        let policy = self.read_policy(&config)?;
        if policy.is_some() && self.policy.is_some() && policy != self.policy {
            answer.applied.push(POLICY_TEXT.to_owned());
        }
        Ok(Prepared { values, config, policy, answer })
    }

    /// The policy as it is now; the one there is, if it has not changed.
    fn read_policy(&self, config: &Config) -> Result<Option<Arc<PolicyFile>>, ReloadRefusal> {
        let refused = |error: PolicyError| ReloadRefusal(error.to_string());
        let Some(policy) = PolicyFile::of(config).map_err(refused)? else { return Ok(None) };
        if let Some(known) = self.policy.as_ref().filter(|known| ***known == policy) {
            return Ok(Some(Arc::clone(known)));
        }
        let failed = policy.failed_tests();
        if failed.is_empty() { Ok(Some(Arc::new(policy))) } else { Err(of_tests(&policy, &failed)) }
    }

    /// What was prepared counts from now on.
    pub fn settle(&mut self, prepared: Prepared) -> ReloadAnswer {
        self.values = prepared.values;
        self.policy = prepared.policy;
        self.generation = prepared.answer.generation;
        prepared.answer
    }
}

impl Prepared {
    /// What the reload does.
    pub fn answer(&self) -> &ReloadAnswer {
        &self.answer
    }
}

impl ReloadAnswer {
    /// In words, for the log and the command line: one line for each kind of key.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let lines = self.kinds(["applied", "applied to new sessions", "after a restart only"]);
        if lines.is_empty() { vec!["nothing changed".to_owned()] } else { lines }
    }

    /// What a reload would do, in words.
    #[must_use]
    pub fn preview(&self) -> String {
        let kinds = self.kinds(["applies", "applies to new sessions", "leaves for a restart"]);
        if kinds.is_empty() { "changes nothing".to_owned() } else { kinds.join("; ") }
    }

    fn kinds(&self, words: [&str; 3]) -> Vec<String> {
        let keys = [&self.applied, &self.new_sessions, &self.restart_needed];
        let kinds = words.iter().zip(keys).filter(|(_, keys)| !keys.is_empty());
        kinds.map(|(word, keys)| format!("{word}: {}", keys.join(", "))).collect()
    }
}

fn of_config(error: ConfigError) -> ReloadRefusal {
    ReloadRefusal(error.to_string())
}

fn of_tests(policy: &PolicyFile, failed: &[Problem]) -> ReloadRefusal {
    let mut text = format!("{}: the policy fails tests of its own", policy.path.display());
    for problem in failed {
        // Writing to a text does not fail.
        write!(text, "\n  {problem}").ok();
    }
    ReloadRefusal(text)
}

#[cfg(test)]
mod tests;

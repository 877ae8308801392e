//! `adit-server policy check` and `explain`.

use std::path::PathBuf;

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Place, Refusal, ask, columns};
use crate::config::{Config, Problem};
use crate::policy::explain::Explanation;
use crate::policy::{PolicyError, PolicyFile};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Check a policy file and run the tests in it
    Check {
        /// The file [default: the one that the configuration names]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct ExplainFlags {
    /// The user
    user: String,
    /// tcp, udp or icmp
    protocol: String,
    /// An address or a name, with a port for tcp and udp
    #[arg(value_name = "DEST[:PORT]")]
    destination: String,
}

/// Checks a policy file: its form, its tests, and whether it fits the gateway.
pub(super) fn check(place: &Place, file: Option<PathBuf>) -> Result<(), Refusal> {
    let config = place.load();
    let path = match (file, &config) {
        (Some(path), _) => path,
        (None, Ok(Config { policy: Some(path), .. })) => path.clone(),
        (None, Ok(config)) => return Err(no_policy(config).into()),
        (None, Err(error)) => return Err(error.clone().into()),
    };
    let policy = PolicyFile::read(&path).map_err(Refusal::from)?;
    let misfits = config.as_ref().map_or_else(|_| Vec::new(), |config| policy.misfits(config));
    let problems: Vec<Problem> = misfits.into_iter().chain(policy.failed_tests()).collect();
    if !problems.is_empty() {
        return Err(PolicyError { path, problems }.into());
    }
    let counts = [policy.document.groups().len(), policy.document.rules().len(), policy.document.tests().len()];
    let unread = config.err().map(|error| error.path.display().to_string());
    if place.json {
        let [groups, rules, tests] = counts;
        output::json(&json!({
            "ok": true, "policy": path, "groups": groups, "rules": rules, "tests": tests, "compared": unread.is_none(),
        }));
        return Ok(());
    }
    let [groups, rules, tests] = counts;
    output::line(&format!("{} is good: groups {groups}, rules {rules}, tests passed {tests}", path.display()));
    if let Some(config) = unread {
        output::line(&format!("warning: it was not compared with a gateway, since {config} cannot be used"));
    }
    Ok(())
}

fn no_policy(config: &Config) -> Failure {
    let next = "name a file, or set `policy` in the configuration";
    Failure::new(Exit::Usage, config.path.display().to_string(), "names no policy", next)
}

impl From<PolicyError> for Refusal {
    fn from(error: PolicyError) -> Self {
        Self { problems: error.problems.clone(), failure: error.into_failure() }
    }
}

/// Says what happens to what a user tries, and why.
pub(super) fn explain(place: &Place, flags: &ExplainFlags) -> Result<(), Refusal> {
    let ExplainFlags { user, protocol, destination } = flags;
    let body = json!({ "user": user, "protocol": protocol, "destination": destination });
    let answer = ask::ask(&place.load()?, "POST", "/explain", &body)?;
    if place.json {
        output::json(&answer);
        return Ok(());
    }
    output::line(&text(&answer)?);
    Ok(())
}

fn text(answer: &Value) -> Result<String, Failure> {
    let told = Explanation::deserialize(answer).map_err(|error| {
        Failure::new(Exit::Other, "gateway", error.to_string(), "use the adit-server that is running")
    })?;
    let file = told.policy.as_deref().unwrap_or_default();
    let groups: Vec<_> =
        told.groups.iter().map(|group| format!("{} ({file}:{}): {}", group.name, group.line, group.reason)).collect();
    let lines: Vec<String> = told.class.iter().map(ToString::to_string).collect();
    let mut facts = vec![("user", user(&told)), ("policy", told.policy.clone().unwrap_or_else(|| "none".to_owned()))];
    facts.extend(several("groups", groups));
    facts.push((
        "class",
        if lines.is_empty() { "no rules".to_owned() } else { format!("rules in lines {}", lines.join(", ")) },
    ));
    let settings = told.settings.iter().map(|setting| {
        format!("{} = {} ({file}:{}, group {})", setting.key, setting.value, setting.line, setting.group)
    });
    facts.extend(several("settings", settings.collect()));
    let mut text = columns::aligned(&facts);
    for verdict in &told.verdicts {
        let what = if verdict.action == "allow" { "allowed" } else { "denied" };
        let route = verdict.route.as_ref().map(|route| format!("; route {route}")).unwrap_or_default();
        let at = if told.attempt.contains(&verdict.address.to_string()) {
            String::new()
        } else {
            format!(" at {}", verdict.address)
        };
        text.push_str(&format!("\n{}{at} is {what}: {}{route}", told.attempt, verdict.reason));
    }
    Ok(text)
}

fn user(told: &Explanation) -> String {
    let Explanation { user, source, known, .. } = told;
    if *known { format!("{user}, of source {source}") } else { format!("{user}, whom this gateway does not know yet") }
}

/// A fact with several values, one in a line.
fn several(name: &'static str, values: Vec<String>) -> Vec<(&'static str, String)> {
    if values.is_empty() {
        return vec![(name, "none".to_owned())];
    }
    let names = std::iter::once(name).chain(std::iter::repeat(""));
    names.zip(values).collect()
}

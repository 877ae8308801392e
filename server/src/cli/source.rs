//! `adit-server source`: whether the servers of a source of users answer.

use adit_program::exit::{Exit, Failure};
use adit_program::output;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Place, Refusal, columns, small_runtime};
use crate::config::{ConfigError, Problem, SourceName};
use crate::sources::status::{self, ServerStatus};

#[derive(Debug, Subcommand)]
pub(super) enum SourceVerb {
    /// Ask each server of a source whether it is there and takes this gateway's secret, without a login
    Check {
        /// The source
        name: Asked,
    },
}

/// A source that has servers which can be asked without a user.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Asked {
    Ldap,
    Oidc,
    Radius,
}

/// Does a verb of `adit-server source`. No gateway needs to run, and a running one is not disturbed.
pub(super) fn source(place: &Place, verb: &SourceVerb) -> Result<(), Refusal> {
    let SourceVerb::Check { name } = verb;
    let source = match name {
        Asked::Ldap => SourceName::Ldap,
        Asked::Oidc => SourceName::Oidc,
        Asked::Radius => SourceName::Radius,
    };
    let config = place.load()?;
    let wrong =
        |problem: Problem| ConfigError { path: config.path.clone(), problems: vec![problem], exit: Exit::Usage };
    let servers = small_runtime()?.block_on(status::of(source, &config)).map_err(wrong)?;
    print(place, source, &servers);
    match servers.iter().find_map(|server| server.problem.as_ref().map(|problem| (server, problem))) {
        None => Ok(()),
        Some((server, problem)) => {
            let next = "mend that, or remove the server; logins use the others meanwhile";
            Err(Failure::new(Exit::Unreachable, server.server.clone(), problem.clone(), next).into())
        }
    }
}

fn print(place: &Place, source: SourceName, servers: &[ServerStatus]) {
    // Of a failure the one object is printed by whoever ends the program.
    let all_answer = servers.iter().all(|server| server.problem.is_none());
    if place.json {
        if all_answer {
            let servers: Vec<Value> =
                servers.iter().map(|server| json!({ "server": server.server, "answers": true })).collect();
            output::json(&json!({ "source": source.word(), "servers": servers }));
        }
        return;
    }
    let rows: Vec<[String; 2]> = servers
        .iter()
        .map(|server| [server.server.clone(), if server.problem.is_none() { "answers" } else { "fails" }.to_owned()])
        .collect();
    output::line(&columns::table(["SERVER", "STATE"], &rows));
}

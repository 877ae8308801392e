//! Whether the servers of a source answer, asked without a user.

#[cfg(feature = "oidc")]
use super::oidc;
use super::{ldap, radius};
use crate::config::{Config, Problem, SourceName};

/// One server of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its address.
    pub server: String,
    /// What is wrong with it, in words; `None` where it answers.
    pub problem: Option<String>,
}

impl ServerStatus {
    #[cfg(any(feature = "radius", feature = "ldap", feature = "oidc"))]
    pub(super) fn new(server: impl ToString, answer: Result<(), String>) -> Self {
        Self { server: server.to_string(), problem: answer.err() }
    }
}

/// Asks each server of a source in turn.
///
/// # Errors
/// What is wrong with the settings, or that the source has no such servers.
pub async fn of(source: SourceName, config: &Config) -> Result<Vec<ServerStatus>, Problem> {
    match source {
        SourceName::Radius => radius::status(config).await,
        SourceName::Ldap => ldap::status(config).await,
        #[cfg(feature = "oidc")]
        SourceName::Oidc => oidc::status(config).await,
        #[cfg(not(feature = "oidc"))]
        SourceName::Oidc => Err(super::not_built_with("oidc")),
        SourceName::Local => {
            let next = "its logins show whether it works";
            Err(Problem::new(source.word(), "has no server that can be asked without a user", next))
        }
    }
}

//! The sources of users that the configuration names.

use std::sync::Arc;

use adit_program::exit::{Exit, Failure};

use crate::accounts::sqlite::Store;
use crate::config::{Config, Problem, SourceName};
use crate::identity::ServiceKey;
use crate::sources::local::Local;
use crate::sources::{Source, ldap, radius};

use super::RAISE_LIMITS;

/// Who knows users.
#[derive(Default)]
pub(super) struct Sources {
    /// First asked first.
    pub(super) chain: Vec<Arc<dyn Source>>,
}

impl Sources {
    /// Makes the sources. None of their servers is asked, so a gateway also starts while they are away.
    pub(super) fn make(config: &Config, store: &Arc<Store>, key: &ServiceKey) -> Result<Self, Failure> {
        let mut sources = Self::default();
        for name in &config.login.sources {
            let source = match name {
                SourceName::Local => local(config, store, key)?,
                SourceName::Radius => radius::source(config).map_err(failure)?,
                SourceName::Ldap => ldap::source(config).map_err(failure)?,
                SourceName::Oidc => {
                    return Err(failure(Problem::new("oidc", "it cannot be used yet", "do without oidc")));
                }
            };
            sources.chain.push(source);
        }
        Ok(sources)
    }
}

fn local(config: &Config, store: &Arc<Store>, key: &ServiceKey) -> Result<Arc<dyn Source>, Failure> {
    let local = Local::new(Arc::clone(store), key, config.login.second_factor);
    let local = local.map_err(|error| Failure::new(Exit::Other, "hash workers", error.to_string(), RAISE_LIMITS))?;
    Ok(Arc::new(local))
}

fn failure(problem: Problem) -> Failure {
    Failure::new(Exit::Usage, problem.what, problem.reason, problem.next)
}

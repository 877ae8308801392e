//! The sources of users that the configuration names, and where browsers come back to.

use std::sync::Arc;

use adit_net::tls::ServerIdentity;
use adit_program::exit::{Exit, Failure};
#[cfg(feature = "oidc")]
use adit_program::task;
use adit_program::task::Task;

use crate::accounts::sqlite::Store;
use crate::config::{Config, Problem, SourceName};
use crate::core::personal::TermsInForce;
use crate::identity::ServiceKey;
use crate::sources::local::Local;
#[cfg(feature = "oidc")]
use crate::sources::oidc::{Oidc, StoredTokens};
use crate::sources::{Source, ldap, radius};
#[cfg(feature = "oidc")]
use crate::web::Listener;

use super::RAISE_LIMITS;

/// Who knows users.
#[derive(Default)]
pub(super) struct Sources {
    /// First asked first.
    pub(super) chain: Vec<Arc<dyn Source>>,
    #[cfg(feature = "oidc")]
    browsers: Option<Browsers>,
}

/// The source whose users log in in a browser, and where that comes back to.
#[cfg(feature = "oidc")]
struct Browsers {
    oidc: Arc<Oidc>,
    listeners: Vec<Listener>,
}

impl Sources {
    /// Makes the sources. None of their servers is asked, so a gateway also starts while they are away.
    pub(super) fn make(
        config: &Config,
        store: &Arc<Store>,
        key: &ServiceKey,
        identity: &Arc<ServerIdentity>,
        terms: &TermsInForce,
    ) -> Result<Self, Failure> {
        let mut sources = Self::default();
        for name in &config.login.sources {
            let source = match name {
                SourceName::Local => local(config, store, key, terms)?,
                SourceName::Radius => radius::source(config).map_err(failure)?,
                SourceName::Ldap => ldap::source(config).map_err(failure)?,
                SourceName::Oidc => sources.oidc(config, store, key, identity)?,
            };
            sources.chain.push(source);
        }
        Ok(sources)
    }

    #[cfg(feature = "oidc")]
    fn oidc(
        &mut self,
        config: &Config,
        store: &Arc<Store>,
        key: &ServiceKey,
        identity: &Arc<ServerIdentity>,
    ) -> Result<Arc<dyn Source>, Failure> {
        let tokens = Arc::new(StoredTokens::new(Arc::clone(store), key));
        let public = config.public.first().map_or("", |public| &public.host);
        let oidc = Arc::new(Oidc::new(config.oidc.clone(), public, tokens).map_err(failure)?);
        let listen = config.oidc.listen.iter().map(|address| Listener::bind(*address, Arc::clone(identity)));
        self.browsers = Some(Browsers { oidc: Arc::clone(&oidc), listeners: listen.collect::<Result<_, _>>()? });
        Ok(oidc)
    }

    #[cfg(not(feature = "oidc"))]
    fn oidc(
        &mut self,
        _config: &Config,
        _store: &Arc<Store>,
        _key: &ServiceKey,
        _identity: &Arc<ServerIdentity>,
    ) -> Result<Arc<dyn Source>, Failure> {
        Err(failure(crate::sources::not_built_with("oidc")))
    }

    /// Starts what has to run for them beside the gateway; it ends with the tasks.
    pub(super) fn serve(self) -> Vec<Task> {
        #[cfg(feature = "oidc")]
        if let Some(Browsers { oidc, listeners }) = self.browsers {
            let pages = listeners.into_iter().map(|listener| task::spawn(listener.serve(Arc::clone(&oidc))));
            let mut tasks: Vec<Task> = pages.collect();
            tasks.push(task::spawn(async move { oidc.look_after().await }));
            return tasks;
        }
        Vec::new()
    }
}

fn local(
    config: &Config,
    store: &Arc<Store>,
    key: &ServiceKey,
    terms: &TermsInForce,
) -> Result<Arc<dyn Source>, Failure> {
    let (terms, otherwise) = (terms.clone(), config.login.second_factor);
    let local = Local::new(Arc::clone(store), key, otherwise);
    let local = local.map_err(|error| Failure::new(Exit::Other, "hash workers", error.to_string(), RAISE_LIMITS))?;
    Ok(Arc::new(local.asking_each(move |user| terms.second_factor_of(user, otherwise))))
}

fn failure(problem: Problem) -> Failure {
    Failure::new(Exit::Usage, problem.what, problem.reason, problem.next)
}

//! The sources of users that the configuration names, and where browsers come back to.

use std::net::TcpListener;
use std::sync::Arc;

use adit_program::exit::{Exit, Failure};
#[cfg(feature = "oidc")]
use adit_program::task;
use adit_program::task::Task;

use crate::accounts::sqlite::Store;
use crate::config::{Config, Problem, SourceName};
use crate::core::personal::TermsInForce;
use crate::identity::ServiceKey;
#[cfg(feature = "oidc")]
use crate::listener;
use crate::listener::Guest;
use crate::sources::local::Local;
#[cfg(feature = "oidc")]
use crate::sources::oidc::{Oidc, StoredTokens};
use crate::sources::{Source, ldap, radius};

use super::RAISE_LIMITS;

/// Who knows users.
#[derive(Default)]
pub(super) struct Sources {
    /// First asked first.
    pub(super) chain: Vec<Arc<dyn Source>>,
    #[cfg(feature = "oidc")]
    browsers: Option<Browsers>,
}

/// The source whose users log in in a browser, and where that comes back to beside the gateway's own addresses.
#[cfg(feature = "oidc")]
struct Browsers {
    oidc: Arc<Oidc>,
    sockets: Vec<TcpListener>,
}

impl Sources {
    /// Makes the sources. None of their servers is asked, so a gateway also starts while they are away.
    pub(super) fn make(
        config: &Config,
        store: &Arc<Store>,
        key: &ServiceKey,
        terms: &TermsInForce,
    ) -> Result<Self, Failure> {
        let mut sources = Self::default();
        for name in &config.login.sources {
            let source = match name {
                SourceName::Local => local(config, store, key, terms)?,
                SourceName::Radius => radius::source(config).map_err(failure)?,
                SourceName::Ldap => ldap::source(config).map_err(failure)?,
                SourceName::Oidc => sources.oidc(config, store, key)?,
            };
            sources.chain.push(source);
        }
        Ok(sources)
    }

    #[cfg(feature = "oidc")]
    fn oidc(&mut self, config: &Config, store: &Arc<Store>, key: &ServiceKey) -> Result<Arc<dyn Source>, Failure> {
        let tokens = Arc::new(StoredTokens::new(Arc::clone(store), key));
        let public = config.public.first().map_or("", |public| &public.host);
        let oidc = Arc::new(Oidc::new(config.oidc.clone(), public, tokens).map_err(failure)?);
        let elsewhere = config.oidc.listen.iter().filter(|address| !config.listens_on_tcp(**address));
        let sockets = elsewhere.map(|address| listener::bind(*address, "oidc.listen", ""));
        self.browsers = Some(Browsers { oidc: Arc::clone(&oidc), sockets: sockets.collect::<Result<_, _>>()? });
        Ok(oidc)
    }

    #[cfg(not(feature = "oidc"))]
    fn oidc(&mut self, _config: &Config, _store: &Arc<Store>, _key: &ServiceKey) -> Result<Arc<dyn Source>, Failure> {
        Err(failure(crate::sources::not_built_with("oidc")))
    }

    /// Starts what has to run for them beside the gateway; it ends with the tasks.
    pub(super) fn serve(self) -> Vec<Task> {
        #[cfg(feature = "oidc")]
        if let Some(Browsers { oidc, .. }) = self.browsers {
            return vec![task::spawn(async move { oidc.look_after().await })];
        }
        Vec::new()
    }

    /// The pages of a login in a browser.
    pub(super) fn pages(&self) -> Option<Arc<dyn Guest>> {
        #[cfg(feature = "oidc")]
        if let Some(Browsers { oidc, .. }) = &self.browsers {
            return Some(Arc::<Oidc>::clone(oidc));
        }
        None
    }

    /// Where else than at the gateway's own addresses these pages are wanted.
    pub(super) fn take_sockets(&mut self) -> Vec<TcpListener> {
        #[cfg(feature = "oidc")]
        if let Some(browsers) = &mut self.browsers {
            return std::mem::take(&mut browsers.sockets);
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
    let terms = terms.clone();
    let local = Local::new(Arc::clone(store), key, config.login.second_factor);
    let local = local.map_err(|error| Failure::new(Exit::Other, "hash workers", error.to_string(), RAISE_LIMITS))?;
    Ok(Arc::new(local.asking_each(move |user| terms.second_factor_of(user))))
}

fn failure(problem: Problem) -> Failure {
    Failure::new(Exit::Usage, problem.what, problem.reason, problem.next)
}

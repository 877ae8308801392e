//! The sources of users that the configuration names, and where browsers come back to.

#[cfg(feature = "oidc")]
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_program::exit::{Exit, Failure};
#[cfg(feature = "oidc")]
use adit_program::task::{self, Task};

use super::RAISE_LIMITS;
use super::followers::Follower;
use crate::accounts::sqlite::Store;
use crate::config::{Config, Problem, SecondFactor, SourceName};
use crate::core::local::LocalCore;
use crate::core::personal::TermsInForce;
use crate::identity::ServiceKey;
#[cfg(feature = "oidc")]
use crate::listener;
use crate::listener::Guest;
use crate::sources::local::Local;
#[cfg(feature = "oidc")]
use crate::sources::oidc::{Oidc, Registered, StoredTokens};
use crate::sources::{Source, ldap, radius};

/// Who knows users, and what of that stays the same over reloads.
pub(super) struct Sources {
    store: Arc<Store>,
    key: ServiceKey,
    terms: TermsInForce,
    kept: Mutex<Kept>,
}

/// What was made once and is used again.
#[derive(Default)]
struct Kept {
    /// It has threads of its own.
    local: Option<Arc<dyn Source>>,
    /// It has the refresh tokens of its users, and is the one that browsers come back to.
    #[cfg(feature = "oidc")]
    oidc: Option<Arc<Oidc>>,
    /// What runs beside the gateway for it.
    #[cfg(feature = "oidc")]
    tasks: Vec<Task>,
    /// Where browsers come back to beside the gateway's own addresses.
    #[cfg(feature = "oidc")]
    sockets: Vec<TcpListener>,
    /// Whether browsers have been given where to come back to; that is done at the start.
    #[cfg(feature = "oidc")]
    listens: bool,
}

/// Sources that a configuration wants; none of them is asked yet.
pub(super) struct Made {
    /// First asked first.
    pub(super) chain: Vec<Arc<dyn Source>>,
    #[cfg(feature = "oidc")]
    oidc: Option<(Arc<Oidc>, Option<Registered>)>,
}

impl Sources {
    /// Has nothing made yet.
    pub(super) fn new(store: Arc<Store>, key: ServiceKey, terms: TermsInForce) -> Self {
        Self { store, key, terms, kept: Mutex::default() }
    }

    /// Makes the sources that a configuration names. None of their servers is asked, so a gateway also starts, and
    /// takes a reload, while they are away.
    pub(super) fn make(&self, config: &Config) -> Result<Made, Failure> {
        let mut made = Made {
            chain: Vec::new(),
            #[cfg(feature = "oidc")]
            oidc: None,
        };
        for name in &config.login.sources {
            let source = match name {
                SourceName::Local => self.local()?,
                SourceName::Radius => radius::source(config).map_err(failure)?,
                SourceName::Ldap => ldap::source(config).map_err(failure)?,
                SourceName::Oidc => self.oidc(config, &mut made)?,
            };
            made.chain.push(source);
        }
        Ok(made)
    }

    fn local(&self) -> Result<Arc<dyn Source>, Failure> {
        let mut kept = self.kept();
        if let Some(local) = &kept.local {
            return Ok(Arc::clone(local));
        }
        let terms = self.terms.clone();
        let local = Local::new(Arc::clone(&self.store), &self.key, SecondFactor::Always);
        let local =
            local.map_err(|error| Failure::new(Exit::Other, "hash workers", error.to_string(), RAISE_LIMITS))?;
        let local: Arc<dyn Source> = Arc::new(local.asking_each(move |user| terms.second_factor_of(user)));
        kept.local = Some(Arc::clone(&local));
        Ok(local)
    }

    #[cfg(feature = "oidc")]
    fn oidc(&self, config: &Config, made: &mut Made) -> Result<Arc<dyn Source>, Failure> {
        let (settings, public) = (config.oidc.clone(), config.public.first().map_or("", |public| &public.host));
        let known = self.kept().oidc.clone();
        let (oidc, registered) = match known {
            Some(oidc) => {
                let registered = oidc.prepare(settings, public).map_err(failure)?;
                (oidc, Some(registered))
            }
            None if self.kept().listens && !settings.listen.is_empty() => {
                let next = "restart the gateway, or take oidc.listen out: users then type a code at the provider";
                let reason = "names oidc for the first time, and where its browsers come back to is bound at the start";
                return Err(Failure::new(Exit::Usage, "login.sources", reason, next));
            }
            None => {
                let tokens = Arc::new(StoredTokens::new(Arc::clone(&self.store), &self.key));
                (Arc::new(Oidc::new(settings, public, tokens).map_err(failure)?), None)
            }
        };
        made.oidc = Some((Arc::clone(&oidc), registered));
        Ok(oidc)
    }

    #[cfg(not(feature = "oidc"))]
    fn oidc(&self, _config: &Config, _made: &mut Made) -> Result<Arc<dyn Source>, Failure> {
        Err(failure(crate::sources::not_built_with("oidc")))
    }

    /// Puts sources in force that were made: those that go by other settings do so, and what has to run for new ones
    /// runs. To be called within the runtime.
    fn keep(&self, made: Made) -> Vec<Arc<dyn Source>> {
        #[cfg(feature = "oidc")]
        if let Some((oidc, registered)) = made.oidc {
            let mut kept = self.kept();
            match registered {
                Some(registered) => oidc.follow(registered),
                None => {
                    let looked_after = Arc::clone(&oidc);
                    kept.tasks.push(task::spawn(async move { looked_after.look_after().await }));
                    kept.oidc = Some(oidc);
                }
            }
        }
        made.chain
    }

    /// Puts the sources of the start in force, and binds where else than at the gateway's own addresses browsers come
    /// back to.
    #[cfg_attr(
        not(feature = "oidc"),
        expect(unused_variables, clippy::unnecessary_wraps, reason = "only OpenID Connect sends browsers anywhere")
    )]
    pub(super) fn start(&self, made: Made, config: &Config) -> Result<Vec<Arc<dyn Source>>, Failure> {
        #[cfg(feature = "oidc")]
        {
            let is_wanted = |address: &&SocketAddr| made.oidc.is_some() && !config.listens_on_tcp(**address);
            let elsewhere = config.oidc.listen.iter().filter(is_wanted);
            let sockets = elsewhere.map(|address| listener::bind(*address, "oidc.listen", ""));
            self.kept().sockets = sockets.collect::<Result<_, _>>()?;
            self.kept().listens = true;
        }
        Ok(self.keep(made))
    }

    /// The pages of a login in a browser.
    pub(super) fn pages(&self) -> Option<Arc<dyn Guest>> {
        #[cfg(feature = "oidc")]
        if let Some(oidc) = &self.kept().oidc {
            return Some(Arc::<Oidc>::clone(oidc));
        }
        None
    }

    /// Where else than at the gateway's own addresses these pages are wanted.
    pub(super) fn take_sockets(&self) -> Vec<TcpListener> {
        #[cfg(feature = "oidc")]
        return std::mem::take(&mut self.kept().sockets);
        #[cfg(not(feature = "oidc"))]
        Vec::new()
    }

    /// Has the logins of a core follow reloads.
    pub(super) fn follower(self: &Arc<Self>, core: Arc<LocalCore>) -> Follower {
        let sources = Arc::clone(self);
        Box::new(move |config| {
            let made = sources.make(config)?;
            let (sources, core) = (Arc::clone(&sources), Arc::clone(&core));
            Ok(Box::new(move || core.replace_sources(sources.keep(made))))
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure(problem: Problem) -> Failure {
    Failure::new(Exit::Usage, problem.what, problem.reason, problem.next)
}

#[cfg(test)]
mod tests;

//! What a gateway loads and binds before it touches the host.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use adit_net::quic;
use adit_net::tls::ServerIdentity;
use adit_program::exit::{Exit, Failure};
use adit_program::random::random;
use adit_proto::address_pool::AddressPool;

use super::listen::Sockets;
use super::sources::Sources;
use super::{AsRead, RESTORE_KEYS, public_certificate};
use crate::accounts::sqlite::Store;
use crate::config::Config;
use crate::core::leases::restore_pool;
use crate::core::login::logins::Logins;
use crate::core::personal::{PersonalTerms, TermsInForce};
use crate::identity::{Authority, IdentityError, ServiceKey};
use crate::policy::PolicyFile;
use crate::state_files::StateFiles;

/// Everything a gateway needs before it touches the host.
pub(super) struct Loaded {
    pub(super) config: Arc<Config>,
    pub(super) as_read: AsRead,
    pub(super) store: Arc<Store>,
    pub(super) authority: Arc<Authority>,
    pub(super) keys: quic::EndpointKeys,
    pub(super) identity: Arc<ServerIdentity>,
    pub(super) pool: AddressPool,
    pub(super) terms: TermsInForce,
    pub(super) sockets: Sockets,
    pub(super) logins: Arc<Logins>,
    pub(super) sources: Arc<Sources>,
}

impl Loaded {
    pub(super) fn load(config: Config, as_read: AsRead) -> Result<Self, Failure> {
        let StateFiles { store, authority, keys, policy } =
            StateFiles::load(&config).map_err(|error| error.into_failure())?;
        let identity = Arc::new(issue(&authority, &config)?);
        identity.show_to_public(public_certificate::read(&config)?);
        let remembered = store.leases().map_err(|error| Store::failure(&config.state_dir.store(), error))?;
        let pool = restore_pool(&config, remembered, Instant::now());
        if let Some(policy) = &policy {
            warn_of_failed_tests(policy);
        }
        let sockets = Sockets::bind(&config)?;
        let store = Arc::new(store);
        store.limit_devices(config.limits.devices_per_user);
        let key = ServiceKey::load_or_create(&config.state_dir).map_err(IdentityError::into_failure)?;
        let terms = PersonalTerms::new(&config, pool.gateway(), policy.map(Arc::new));
        let terms: TermsInForce = terms.into();
        let logins = logins(&config, &store, &key, &terms)?;
        let sources = Sources::new(Arc::clone(&store), key, terms.clone());
        let chain = sources.start(sources.make(&config)?, &config)?;
        let (logins, sources) = (Arc::new(logins.over(chain)), Arc::new(sources));
        Ok(Self {
            config: Arc::new(config),
            as_read,
            store,
            authority: Arc::new(authority),
            keys,
            identity,
            pool,
            terms,
            sockets,
            logins,
            sources,
        })
    }
}

/// Logins over no source yet. Each lasts as its user's groups say.
fn logins(config: &Config, store: &Arc<Store>, key: &ServiceKey, terms: &TermsInForce) -> Result<Logins, Failure> {
    let secret = random().map_err(|error| Failure::new(Exit::Other, "logins", error.to_string(), "try again"))?;
    let terms = terms.clone();
    let logins = Logins::new(Vec::new(), Arc::clone(store), key, secret, config.login.session_lifetime);
    Ok(logins.lasting_each(move |known| terms.lifetime_of(&known.into())))
}

/// A policy that fails its own tests is better than no gateway.
fn warn_of_failed_tests(policy: &PolicyFile) {
    let failed = policy.failed_tests().len();
    if failed > 0 {
        tracing::warn!(failed, "the policy fails tests of its own; `adit-server policy check` names them");
    }
}

fn issue(authority: &Authority, config: &Config) -> Result<ServerIdentity, Failure> {
    let issued =
        authority.issue_server(&config.certificate_names(), SystemTime::now()).map_err(IdentityError::into_failure)?;
    ServerIdentity::new(issued.chain, issued.key)
        .map_err(|error| Failure::new(Exit::Other, "the gateway's certificate", error.to_string(), RESTORE_KEYS))
}

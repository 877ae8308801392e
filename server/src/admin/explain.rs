//! What an administrator asks about the policy.

use std::net::IpAddr;
use std::sync::Arc;

use adit_program::causes::with_causes;
use adit_proto::address_pool::{AddressPool, PoolConfig};
use adit_proto::policy::{Attempt, Place, Subject};
use serde::{Deserialize, Serialize};

use super::{Admin, AdminRefusal, bad_request, user_name};
use crate::accounts::{Accounts as _, StoreFault};
use crate::config::SourceName;
use crate::core::personal::PersonalTerms;
use crate::policy::PolicyFile;
use crate::policy::explain::{Explanation, explain, resolve};

/// Asks what happens to what a user tries to reach.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The user.
    pub user: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// An address or a name, with a port for TCP and UDP.
    pub destination: String,
}

impl Admin {
    pub(super) fn explain(&self, request: &ExplainRequest) -> Result<Explanation, AdminRefusal> {
        let user = user_name(&request.user)?;
        let attempt = Attempt::new(&request.protocol, &request.destination);
        let attempt = attempt.map_err(|error| bad_request(error.to_string()))?;
        let addresses = match &attempt.to {
            Place::Address(address) => vec![*address],
            Place::Name(name) => addresses_of(name)?,
        };
        let person = self.store.person(user.as_str()).map_err(|error| unreadable(&error))?;
        let unknown = Subject { user: user.as_str(), source: SourceName::Local.word(), source_groups: &[] };
        let subject = person.as_ref().map_or(unknown, Subject::from);
        let told = explain(&*self.personal_terms()?, &subject, &attempt, &addresses);
        Ok(Explanation { known: person.is_some(), ..told })
    }

    /// The terms in force, or those that a start would put in force.
    fn personal_terms(&self) -> Result<Arc<PersonalTerms>, AdminRefusal> {
        if let Some(live) = &self.live {
            return Ok(live.personal_terms());
        }
        let config = &**self.config.load();
        let policy = PolicyFile::of(config).map_err(|error| bad_request(error.to_string()))?;
        let pools = PoolConfig { v4: config.pool.v4, v6: config.pool.v6, cooldown: config.lease_cooldown };
        Ok(Arc::new(PersonalTerms::new(config, AddressPool::new(pools).gateway(), policy.map(Arc::new))))
    }
}

fn unreadable(error: &StoreFault) -> AdminRefusal {
    AdminRefusal { status: 503, message: with_causes(error) }
}

fn addresses_of(name: &str) -> Result<Vec<IpAddr>, AdminRefusal> {
    let next = "ask for one of its addresses instead, or mend the look-up of names on this host";
    resolve(name).map_err(|error| bad_request(format!("{name} has no address here: {error}; {next}")))
}

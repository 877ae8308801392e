//! The parts of a running gateway that follow a reload, each by keys of its own.

use std::sync::Arc;
use std::time::SystemTime;

use adit_net::tls::ServerIdentity;
use adit_program::exit::{Exit, Failure};
use adit_program::log::{self, Log};
use arc_swap::ArcSwap;

use super::{clock, public_certificate};
use crate::accounts::sqlite::Store;
use crate::acme;
use crate::config::Config;
use crate::core::local::LocalCore;
use crate::enroll::Enrollment;
use crate::front_ends::anyconnect;
use crate::front_ends::connect_ip::FrontEnd;
use crate::identity::Authority;
use crate::sources::radius::SessionAccounting;

/// Makes what a part wants of a configuration, as far as that can fail, and changes nothing.
pub(super) type Follower = Box<dyn Fn(&Config) -> Result<PutInForce, Failure> + Send + Sync>;

/// Puts in force what was made.
pub(super) type PutInForce = Box<dyn FnOnce() + Send>;

/// What is logged.
pub(super) fn log(log: Log) -> Follower {
    let log = Arc::new(log);
    Box::new(move |config| {
        let log = Arc::clone(&log);
        let filter =
            log::filter(&config.log).map_err(|reason| Failure::new(Exit::Usage, "log", reason, "write \"info\""))?;
        Ok(Box::new(move || {
            if let Err(error) = log.change(filter) {
                tracing::error!(error, "the log goes on as before");
            }
        }))
    })
}

/// How many sessions there may be, how long an address rests, and what users read who begin a login.
pub(super) fn core(core: Arc<LocalCore>) -> Follower {
    follower(core, |core, config| {
        core.set_limits(config.limits.sessions, config.lease_cooldown);
        core.set_banner(config.login.banner.clone());
    })
}

/// How many devices a user may enrol.
pub(super) fn store(store: Arc<Store>) -> Follower {
    follower(store, |store, config| store.limit_devices(config.limits.devices_per_user))
}

/// How RADIUS servers are told of sessions.
pub(super) fn accounting(accounting: SessionAccounting) -> Follower {
    Box::new(move |config| {
        accounting
            .prepare(config)
            .map_err(|problem| Failure::new(Exit::Usage, problem.what, problem.reason, problem.next))
    })
}

/// How long certificates of devices are valid.
pub(super) fn enrollment(enrollment: Arc<Enrollment>) -> Follower {
    follower(enrollment, |enrollment, config| {
        enrollment.set_certificates(config.certificate_lifetime, config.certificate_renewal)
    })
}

/// What sessions may choose of ESP.
pub(super) fn front_end(front_end: Arc<FrontEnd>) -> Follower {
    follower(front_end, |front_end, config| front_end.set_esp(config.esp.settings()))
}

/// When clients of the AnyConnect family connect anew.
pub(super) fn anyconnect(front_end: Arc<anyconnect::FrontEnd>) -> Follower {
    follower(front_end, |front_end, config| front_end.set_rekey_after(config.anyconnect.rekey_after))
}

/// The certificates that clients are shown. That of the gateway's own authority is issued anew for other names; the
/// public one is read again whether or not its key has changed.
pub(super) fn certificates(
    identity: Arc<ServerIdentity>,
    authority: Arc<Authority>,
    current: Arc<ArcSwap<Config>>,
) -> Follower {
    Box::new(move |config| {
        let has_other_names = config.certificate_names() != current.load().certificate_names();
        let own = has_other_names.then(|| clock::certified(&authority, config, SystemTime::now())).transpose()?;
        if let Some(problem) = acme::problems(config).into_iter().next() {
            return Err(Failure::new(Exit::Usage, problem.what, problem.reason, problem.next));
        }
        let public = public_certificate::read(config)?;
        let identity = Arc::clone(&identity);
        Ok(Box::new(move || {
            if let Some(own) = own {
                identity.renew(own);
            }
            identity.show_to_public(public);
        }))
    })
}

/// A part that needs to make nothing that could fail.
fn follower<T: Send + Sync + 'static>(part: Arc<T>, set: fn(&T, &Config)) -> Follower {
    Box::new(move |config| {
        let (part, config) = (Arc::clone(&part), config.clone());
        Ok(Box::new(move || set(&part, &config)))
    })
}

#[cfg(test)]
mod tests;

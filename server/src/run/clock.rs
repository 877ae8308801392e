//! What depends on the host's clock, which may be set at any time: the gateway's own certificate, and the ends of those
//! it has issued, with which sessions end.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_net::tls::{Certified, ServerIdentity};
use adit_program::exit::{Exit, Failure};
use arc_swap::ArcSwap;

use super::RESTORE_KEYS;
use crate::accounts::sqlite::{HostClock, Store, StoreError, boot_began_at, was_set};
use crate::config::Config;
use crate::core::local::LocalCore;
use crate::identity::{Authority, IdentityError};

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the store notes for how long the host has run: so much of it a restart may lose.
const NOTE_EVERY: Duration = Duration::from_secs(10 * 60);
/// How old the gateway's own certificate may become; it lives for longer than that.
const RENEW_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
/// The pause after a certificate that could not be issued.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How far the clock may lie before the certificate's issue, which is less than it begins before that.
const BEFORE_ISSUE: Duration = Duration::from_secs(30 * 60);

/// Issues the gateway's certificate anew when it is old or the clock has left its life, and moves the ends of devices'
/// certificates along with a clock that was set.
pub(super) async fn look_after(
    identity: Arc<ServerIdentity>,
    authority: Arc<Authority>,
    config: Arc<ArcSwap<Config>>,
    store: Arc<Store>,
    core: Arc<LocalCore>,
) {
    let mut issued = SystemTime::now();
    let mut began = None;
    let (mut next_try, mut noted) = (Instant::now(), Instant::now());
    loop {
        let now = SystemTime::now();
        if is_due(issued, now) && Instant::now() >= next_try {
            next_try = Instant::now() + RETRY_AFTER;
            // Asked before the configuration: a reload first changes that, and then what is shown.
            let turn = identity.turn();
            if renew(&identity, turn, &authority, &config.load(), now) {
                issued = now;
            }
        }
        let begins = boot_began_at(now).ok();
        if let Some(begins) = begins {
            let is_set = began.is_none_or(|began| was_set(began, begins));
            if (is_set || noted.elapsed() >= NOTE_EVERY) && follow(&store, &core, is_set).await {
                (began, noted) = (Some(begins), Instant::now());
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether a certificate issued at one time is to be replaced at another.
fn is_due(issued: SystemTime, now: SystemTime) -> bool {
    match now.duration_since(issued) {
        Ok(age) => age >= RENEW_AFTER,
        Err(early) => early.duration() >= BEFORE_ISSUE,
    }
}

/// Issues the gateway's certificate anew, unless another was put in force since this turn of its identity.
pub(super) fn renew(
    identity: &ServerIdentity,
    turn: u64,
    authority: &Authority,
    config: &Config,
    now: SystemTime,
) -> bool {
    match certified(authority, config, now) {
        Ok(certified) => {
            if !identity.renew_if(turn, certified) {
                return false;
            }
            tracing::info!("the gateway's certificate was renewed");
            true
        }
        Err(failure) => {
            tracing::warn!(reason = failure.reason, "the gateway's certificate could not be renewed; trying again");
            false
        }
    }
}

/// A certificate of the gateway's own authority for the names that it has now.
pub(super) fn certified(authority: &Authority, config: &Config, now: SystemTime) -> Result<Certified, Failure> {
    let issued = authority.issue_server(&config.certificate_names(), now).map_err(IdentityError::into_failure)?;
    Certified::new(issued.chain, issued.key)
        .map_err(|error| Failure::new(Exit::Other, "the gateway's certificate", error.to_string(), RESTORE_KEYS))
}

/// Has the store take note of the time, and the sessions, too, if the clock was set. False if it is to be tried again.
async fn follow(store: &Arc<Store>, core: &Arc<LocalCore>, is_set: bool) -> bool {
    let (store, core) = (Arc::clone(store), Arc::clone(core));
    let following = move || {
        let moved = store.follow_clock(HostClock)?;
        if is_set {
            // Sessions that were opened by the other clock learn when their certificates end.
            core.end_expired(&core.sessions().all(), HostClock);
        }
        Ok::<_, StoreError>(moved)
    };
    match tokio::task::spawn_blocking(following).await {
        Ok(Ok(None)) => true,
        Ok(Ok(Some(seconds))) => {
            tracing::warn!(seconds, "the clock was set; certificates and invites of this boot end that much later");
            true
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "the store cannot take note of the time");
            false
        }
        Err(_panicked) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_is_due_when_it_is_old_and_when_the_clock_has_left_its_life() {
        let (issued, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
        assert!(!is_due(issued, issued) && !is_due(issued, issued + 29 * day));
        assert!(!is_due(issued, issued - Duration::from_secs(60)), "it is dated back");
        for set in [issued + 30 * day, issued + 4000 * day, issued - day, SystemTime::UNIX_EPOCH] {
            assert!(is_due(issued, set));
        }
    }
}

//! What is looked after beside the sessions for as long as the gateway runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_host::PolicyTable;
use adit_net::tls::ServerIdentity;
use adit_program::task::{self, Task};
use adit_proto::packet::icmp::GatewayAddresses;
use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::Notify;

use super::{clock, memory, names, public_certificate, recheck, resolver};
use crate::accounts::sqlite::{HostClock, Store, Written};
use crate::admin::GatewayView;
use crate::config::Config;
use crate::core::local::LocalCore;
use crate::core::overdue;
use crate::core::sessions::{Ending, SessionTable};
use crate::identity::Authority;
use crate::listener::Challenges;

/// How often the store forgets what is over.
const PRUNE_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// What leads to the file of this host's time zone, which bears the zone's name.
const LOCALTIME: &str = "/etc/localtime";
/// How often it is looked who has used up a quota.
const QUOTA_PACE: Duration = Duration::from_secs(1);
/// How often it is tried to write revocations that the disk has not taken.
const WRITE_RETRY: Duration = Duration::from_secs(5);

/// What upkeep looks at.
pub(super) struct Upkeep {
    /// As the gateway was started with it.
    pub(super) config: Arc<Config>,
    /// As it counts now.
    pub(super) current: Arc<ArcSwap<Config>>,
    /// What holds clients to their policy; empty without one.
    pub(super) policy_table: Arc<ArcSwapOption<PolicyTable>>,
    /// The gateway's addresses in the pools.
    pub(super) own: GatewayAddresses,
    pub(super) core: Arc<LocalCore>,
    pub(super) store: Arc<Store>,
    pub(super) sessions: Arc<SessionTable>,
    pub(super) authority: Arc<Authority>,
    pub(super) identity: Arc<ServerIdentity>,
    /// Where ACME authorities find their answers.
    pub(super) challenges: Arc<Challenges>,
    /// What administrators see.
    pub(super) view: Arc<GatewayView>,
}

impl Upkeep {
    /// Starts it; it ends with the tasks.
    pub(super) fn start(self) -> Vec<Task> {
        let Self { config, current, policy_table, own, core, store, sessions, authority, identity, challenges, view } =
            self;
        let renewed = Arc::<Notify>::default();
        let mut tasks = vec![
            task::spawn(memory::look_after(sessions)),
            task::spawn(prune(Arc::clone(&store))),
            task::spawn(overdue::look_after(Arc::clone(&core))),
            task::spawn(recheck::look_after(Arc::clone(&core), Arc::clone(&store), Arc::clone(&current))),
            task::spawn(write_revocations(Arc::clone(&store), Arc::clone(&core))),
        ];
        let follow = public_certificate::follow(Arc::clone(&identity), Arc::clone(&current), Arc::clone(&renewed));
        tasks.push(task::spawn(follow));
        tasks.extend(look_after_acme(&current, challenges, renewed, view));
        tasks.push(task::spawn(names::look_up(policy_table, Arc::clone(&current))));
        tasks.push(task::spawn(count_quotas(Arc::clone(&core))));
        tasks.push(task::spawn(clock::look_after(identity, authority, current, store, core)));
        tasks.push(task::spawn(async move { resolver::warn_of_unhelpful(&config, own).await }));
        tasks
    }
}

/// Looks after the certificates that the gateway gets itself.
#[cfg(feature = "acme")]
fn look_after_acme(
    current: &Arc<ArcSwap<Config>>,
    challenges: Arc<Challenges>,
    renewed: Arc<Notify>,
    view: Arc<GatewayView>,
) -> Option<Task> {
    let renewal = super::acme::Renewal { config: Arc::clone(current), challenges, renewed, view };
    Some(task::spawn(super::acme::look_after(renewal)))
}

/// A gateway that was built without ACME gets none.
#[cfg(not(feature = "acme"))]
fn look_after_acme(
    _current: &Arc<ArcSwap<Config>>,
    _challenges: Arc<Challenges>,
    _renewed: Arc<Notify>,
    _view: Arc<GatewayView>,
) -> Option<Task> {
    None
}

/// Looks every second who has used up a quota.
async fn count_quotas(core: Arc<LocalCore>) {
    let zone = hosts_zone();
    loop {
        tokio::time::sleep(QUOTA_PACE).await;
        // Only groups have quotas.
        if core.personal_terms().policy().is_some()
            && let Ok(now) = Timestamp::try_from(SystemTime::now())
        {
            core.count_quotas(zone.to_datetime(now).date());
        }
    }
}

/// The time zone of this host; UTC where it has none.
fn hosts_zone() -> TimeZone {
    let linked = std::fs::read_link(LOCALTIME).unwrap_or_default();
    let name = linked.to_str().and_then(|path| path.split_once("zoneinfo/")).map_or("UTC", |(_, name)| name);
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

async fn prune(store: Arc<Store>) {
    loop {
        tokio::time::sleep(PRUNE_INTERVAL).await;
        let store = Arc::clone(&store);
        let prune = move || {
            // First, or what a wrong clock has given would seem to be long over.
            store.follow_clock(HostClock).and_then(|_set_by| store.prune(HostClock))
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(prune).await {
            tracing::warn!(%error, "store not pruned");
        }
    }
}

/// Writes revocations, which hold already, as soon as the disk takes them.
async fn write_revocations(store: Arc<Store>, core: Arc<LocalCore>) {
    let mut told = None;
    loop {
        match store.revocations() {
            Written::All => store.revocations_added().await,
            Written::NotYet { .. } => {
                let _added_or_time_to_retry = tokio::time::timeout(WRITE_RETRY, store.revocations_added()).await;
            }
        }
        let writing = Arc::clone(&store);
        match tokio::task::spawn_blocking(move || writing.write_revocations()).await {
            Ok(Ok(devices)) => {
                told = None;
                // One of them may have come in since the revocation was asked for.
                for device in &devices {
                    core.shut_out(device, Ending::Revoked);
                }
            }
            Ok(Err(error)) => {
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    tracing::warn!(error, "revocations hold, but are not written; a restart would forget them");
                }
                told = Some(error);
            }
            Err(_panicked) => {}
        }
    }
}

//! Puts a configuration that was read again in force.

use std::sync::Arc;

use adit_host::{HostChanges, HostError, PolicyTable};
use adit_program::causes::with_causes;
use adit_program::exit::Failure;
use adit_program::service;
use adit_proto::packet::icmp::GatewayAddresses;
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::followers::{Follower, PutInForce};
use super::network;
use crate::config::Config;
use crate::core::enforcement::RuleTable;
use crate::core::local::LocalCore;
use crate::core::personal::PersonalTerms;
use crate::off_runtime::off_runtime;
use crate::reload::{Prepared, ReloadAnswer, ReloadRefusal, ReloadRequest, Reloading};

/// What a reload reaches of a running gateway.
pub(super) struct Reachable {
    pub(super) reloading: Reloading,
    pub(super) core: Arc<LocalCore>,
    /// What the administration goes by.
    pub(super) config: Arc<ArcSwap<Config>>,
    /// What holds clients to their policy; empty without one.
    pub(super) policy_table: Arc<ArcSwapOption<PolicyTable>>,
    /// The gateway's addresses in the pools.
    pub(super) own: GatewayAddresses,
    /// The parts with keys of their own.
    pub(super) followers: Vec<Follower>,
}

impl Reachable {
    /// Reads the configuration again and puts it in force, and logs what became of it.
    pub(super) async fn reload(
        &mut self,
        request: ReloadRequest,
        changes: &mut HostChanges,
    ) -> Result<ReloadAnswer, ReloadRefusal> {
        if request.dry_run {
            return self.prepare(request.partial).map(|(prepared, _dropped)| prepared.answer().clone());
        }
        service::reloading();
        let done = match self.prepare(request.partial) {
            Ok((prepared, followed)) => self.put_in_force(prepared, followed, changes).await,
            Err(refusal) => Err(refusal),
        };
        service::ready();
        match &done {
            Ok(answer) => {
                tracing::info!(generation = answer.generation, "reloaded: {}", answer.lines().join("; "));
            }
            Err(refusal) => tracing::error!("not reloaded: {refusal}"),
        }
        done
    }

    /// Reads everything again, and has each part make what it wants: all that can fail but for the kernel.
    fn prepare(&self, partial: bool) -> Result<(Prepared, Vec<PutInForce>), ReloadRefusal> {
        let prepared = self.reloading.prepare(partial)?;
        let followed = self.followers.iter().map(|follow| follow(&prepared.config)).collect::<Result<_, _>>();
        let refused = |Failure { what, reason, next, .. }| ReloadRefusal(format!("{what}: {reason}; {next}"));
        Ok((prepared, followed.map_err(refused)?))
    }

    async fn put_in_force(
        &mut self,
        prepared: Prepared,
        followed: Vec<PutInForce>,
        changes: &mut HostChanges,
    ) -> Result<ReloadAnswer, ReloadRefusal> {
        let mut config = prepared.config.clone();
        // As at the start, where the warning was given.
        config.leave_out_ipv6();
        let terms = PersonalTerms::new(&config, self.own, prepared.policy.clone());
        let former = changes
            .change_firewall(|rules| network::set_live_rules(rules, &config, prepared.policy.as_deref()))
            .await
            .map_err(|error| refused("the firewall cannot be loaded", &error))?;
        if let Err(refusal) = self.replace_policy(terms, &config.tun.name, changes).await {
            let Some(former) = former else { return Err(refusal) };
            let taken_back = changes.change_firewall(|rules| *rules = former).await;
            return Err(and_also(refusal, "the new firewall stays, since the former one cannot be loaded", taken_back));
        }
        // From here on nothing fails. First the configuration: what was made by the former one is not shown later.
        self.config.store(Arc::new(config));
        followed.into_iter().for_each(|put_in_force| put_in_force());
        Ok(self.reloading.settle(prepared))
    }

    /// Puts terms in force, with or without a policy; if that fails, all is as before.
    async fn replace_policy(
        &self,
        terms: PersonalTerms,
        tun: &str,
        changes: &mut HostChanges,
    ) -> Result<(), ReloadRefusal> {
        let core = Arc::clone(&self.core);
        let done = match (core.personal_terms().policy().is_some(), terms.policy().is_some()) {
            (false, true) => {
                let table = changes.load_idle_policy_table(tun).await.map_err(not_enforced)?;
                let of_core: Arc<dyn RuleTable> = Arc::<PolicyTable>::clone(&table);
                let brought = off_runtime(move || core.bring_policy(terms, of_core)).await;
                if let Err(error) = brought {
                    // It is idle, so it is in nobody's way.
                    let unloaded = changes.unload_policy_table().await;
                    return Err(and_also(not_enforced(error), "the policy's idle table cannot be removed", unloaded));
                }
                self.policy_table.store(Some(table));
                Ok(())
            }
            (true, false) => self.remove_policy(terms, changes).await,
            (true, true) | (false, false) => off_runtime(move || core.replace_terms(terms)).await,
        };
        done.map_err(not_enforced)
    }

    /// Puts terms without a policy in force. While the kernel removes the policy's table, no session begins.
    async fn remove_policy(&self, terms: PersonalTerms, changes: &mut HostChanges) -> Result<(), HostError> {
        let core = Arc::clone(&self.core);
        let (hold, held) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let releasing = spawn_blocking(move || {
            core.release_policy(terms, || {
                // Nobody listens only if the gateway ends.
                hold.send(()).ok();
                told.blocking_recv().unwrap_or_else(|_ended| Err(interrupted()))
            })
        });
        if held.await.is_ok() {
            let removed = changes.unload_policy_table().await;
            if removed.is_ok() {
                self.policy_table.store(None);
            }
            tell.send(removed).ok();
        }
        releasing.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }
}

fn interrupted() -> HostError {
    let source = std::io::ErrorKind::Interrupted.into();
    HostError::System { doing: "remove the policy's table".to_owned(), source }
}

fn not_enforced(error: HostError) -> ReloadRefusal {
    refused("the policy cannot be enforced", &error)
}

/// A refusal, after which what had been done was taken back; where that failed, it says so as well.
fn and_also<T>(refusal: ReloadRefusal, what: &str, taken_back: Result<T, HostError>) -> ReloadRefusal {
    match taken_back {
        Ok(_) => refusal,
        Err(error) => ReloadRefusal(format!("{}; and {what}: {}; restart the gateway", refusal.0, with_causes(&error))),
    }
}

fn refused(what: &str, error: &HostError) -> ReloadRefusal {
    ReloadRefusal(format!("{what}: {}", with_causes(error)))
}

#[cfg(test)]
mod tests;

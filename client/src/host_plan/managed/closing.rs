//! When this host is closed for what belongs in a full tunnel, and what a closed host still lets through.

use std::collections::BTreeSet;

use adit_host::{HostChanges, HostError, KillSwitch, LanNetwork, ProtectedTunnel};
use adit_program::causes::with_causes;
use adit_proto::mark::Mark;
use nix::unistd::geteuid;

use super::own_networks::OwnNetwork;
use super::{local_networks, own_networks};
use crate::host_plan::plan::HostPlan;
use crate::profile::{LanAccess, Profile, ProfileName};

/// What became of a kill switch that should be closed.
const NOT_CLOSED: &str = "the kill switch cannot be closed: only the routes keep traffic in the tunnel";

/// The kill switch of one profile.
#[derive(Debug, Clone)]
pub struct Closing {
    profile: ProfileName,
    wanted: Option<bool>,
    remembers_full_tunnel: bool,
    mark: Mark,
    lan: LanAccess,
}

/// What a closed host may use beside a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Beside {
    lan: BTreeSet<LanNetwork>,
    inner_links: BTreeSet<String>,
}

impl Beside {
    /// The links that lead to containers and virtual machines.
    pub(super) fn inner<'a>(links: impl Iterator<Item = &'a str>) -> Self {
        Self { lan: BTreeSet::new(), inner_links: links.map(str::to_owned).collect() }
    }

    /// The links that lead to containers and virtual machines.
    pub(super) fn inner_links(&self) -> Vec<String> {
        self.inner_links.iter().cloned().collect()
    }

    /// Local networks, too.
    pub(super) fn allow(&mut self, networks: &BTreeSet<OwnNetwork>) {
        let lan = |network: &OwnNetwork| LanNetwork { link: network.link.clone(), prefix: network.prefix };
        self.lan = networks.iter().map(lan).collect();
    }
}

impl Closing {
    /// As the profile says, unless `wanted` says otherwise for this time.
    #[must_use]
    pub fn of(profile: &Profile, wanted: Option<bool>) -> Self {
        Self {
            profile: profile.name.clone(),
            wanted: wanted.or(profile.kill_switch),
            remembers_full_tunnel: profile.full_tunnel,
            mark: profile.mark,
            lan: profile.lan,
        }
    }

    /// Closes the host before there is a tunnel, if that is known to be a full one or wanted anyhow, or if the host is
    /// closed by a client before this one. Otherwise it is open afterwards.
    ///
    /// # Errors
    /// The kernel's refusal of what the profile demands.
    pub async fn begin(&self, changes: &mut HostChanges) -> Result<(), HostError> {
        if self.wanted.unwrap_or_else(|| self.remembers_full_tunnel || changes.is_closed()) {
            let beside = self.beside(changes).await?;
            self.close(changes, None, &beside).await
        } else {
            changes.open_kill_switch().await
        }
    }

    /// Whether the host is closed for a plan.
    pub(super) fn closes(&self, plan: &HostPlan) -> bool {
        plan.full_tunnel && self.wanted != Some(false)
    }

    /// Closes the host for everything but a tunnel.
    pub(super) async fn close_around(
        &self,
        changes: &mut HostChanges,
        tunnel: ProtectedTunnel,
        beside: &Beside,
    ) -> Result<(), HostError> {
        self.close(changes, Some(tunnel), beside).await
    }

    /// Leaves the host closed, as far as it is, without a tunnel.
    pub(super) async fn leave(&self, changes: &mut HostChanges) -> Result<(), HostError> {
        if !changes.is_closed() {
            return Ok(());
        }
        let beside = self.beside(changes).await?;
        self.close(changes, None, &beside).await
    }

    /// Whether the local networks may be used beside a full tunnel.
    pub(super) fn allows_lan(&self) -> bool {
        self.lan == LanAccess::Allow
    }

    /// What may be used while there is no tunnel.
    async fn beside(&self, changes: &HostChanges) -> Result<Beside, HostError> {
        let survey = changes.netlink().survey().await?;
        let own = own_networks::own_networks(&survey, own_networks::forwards);
        let mut beside = Beside::inner(own.iter().map(|own| own.link.as_str()));
        if self.allows_lan() {
            beside.allow(&local_networks::local_networks(&survey, ""));
        }
        Ok(beside)
    }

    /// A kernel that cannot close the host is no reason to be without a tunnel, unless the profile says so.
    async fn close(
        &self,
        changes: &mut HostChanges,
        tunnel: Option<ProtectedTunnel>,
        beside: &Beside,
    ) -> Result<(), HostError> {
        let switch = KillSwitch {
            profile: self.profile.to_string(),
            user: geteuid().as_raw(),
            mark: self.mark,
            tunnel,
            lan: beside.lan.iter().cloned().collect(),
            inner_links: beside.inner_links.iter().cloned().collect(),
        };
        match changes.close_kill_switch(&switch).await {
            Err(error) if error.is_missing_firewall() && self.wanted != Some(true) && !changes.is_closed() => {
                tracing::warn!("{NOT_CLOSED}");
                tracing::debug!(error = with_causes(&error), "the kill switch cannot be closed");
                Ok(())
            }
            done => done,
        }
    }
}

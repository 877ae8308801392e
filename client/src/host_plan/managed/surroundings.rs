//! What else the host is connected to, which goes on beside a tunnel or is named.

use std::collections::BTreeSet;

use adit_host::{HostError, ProtectedTunnel, Survey};
use adit_program::causes::with_causes;

use super::closing::{Beside, Closing};
use super::{ManagedHost, local_networks, overlaps, own_networks};
use crate::host_plan::HostPlan;

impl ManagedHost {
    /// Finds what else this host is connected to.
    pub(super) fn look_around(&mut self, plan: &HostPlan, survey: &Survey) {
        let mut own = own_networks::own_networks(survey, own_networks::forwards);
        own.retain(|own| plan.claims.iter().any(|claim| claim.prefix().contains(&own.prefix)));
        self.beside = Beside::inner(own.iter().map(|own| own.link.as_str()));
        if plan.full_tunnel && self.closing.as_ref().is_some_and(Closing::allows_lan) {
            let local = local_networks::local_networks(survey, &self.link);
            self.beside.allow(&local);
            own.extend(local.into_iter().filter(local_networks::needs_route));
        }
        let overlaps = overlaps::overlaps(survey, plan, &self.link, &own);
        if overlaps.iter().any(|overlap| !self.overlaps.contains(overlap)) {
            tracing::warn!("a network of this host and the tunnel's overlap; see `adit-client status`");
        }
        (self.own, self.overlaps, self.tunnels) = (own, overlaps, overlaps::tunnels(survey));
    }

    /// Closes the host for everything but a full tunnel, and what may be used beside it; returns whether it is closed.
    pub(super) async fn close_around(&mut self, plan: &HostPlan) -> Result<bool, HostError> {
        let Some(closing) = self.closing.as_ref().filter(|closing| closing.closes(plan)) else { return Ok(false) };
        let tunnel = ProtectedTunnel { link: self.link.clone(), addresses: plan.inner_addresses() };
        closing.close_around(&mut self.changes, tunnel, &self.beside).await?;
        Ok(true)
    }

    /// Forgets the host's own networks whose links are gone or down: nobody took their routes away from us.
    pub(super) async fn forget_own_networks(&mut self) {
        if self.own.is_empty() {
            return;
        }
        let (standing, gone): (BTreeSet<_>, BTreeSet<_>) = self.own.iter().cloned().partition(own_networks::stands);
        self.own = standing;
        for own in gone {
            if let Err(error) = self.changes.remove_route(&self.own_route(&own)).await {
                tracing::debug!(error = with_causes(&error), link = own.link, "route not removed");
            }
        }
    }

    /// Takes in which networks of this host's own have come and gone.
    pub(super) async fn follow_links(&mut self) {
        let Some(plan) = self.plan.clone() else { return };
        let survey = match self.changes.netlink().survey().await {
            Ok(survey) => survey,
            Err(error) => return tracing::debug!(error = with_causes(&error), "links not looked at"),
        };
        let (before, beside) = (self.own.clone(), self.beside.clone());
        self.look_around(&plan, &survey);
        if self.beside != beside
            && let Err(error) = self.close_around(&plan).await
        {
            tracing::warn!("the kill switch does not follow the networks of this host");
            tracing::debug!(error = with_causes(&error), "the kill switch is as it was before");
        }
        for gone in before.difference(&self.own) {
            if let Err(error) = self.changes.remove_route(&self.own_route(gone)).await {
                tracing::debug!(error = with_causes(&error), link = gone.link, "route not removed");
            }
        }
        self.add_own_networks().await;
        self.let_answers_out(&plan).await;
    }

    /// Keeps the host's own networks out of the tunnel. One whose link is gone meanwhile needs no route.
    pub(super) async fn add_own_networks(&mut self) {
        for own in self.own.clone() {
            if let Err(error) = self.changes.add_route(&self.own_route(&own)).await {
                tracing::warn!("a network of this host's own goes through the tunnel: it gets no route");
                tracing::debug!(
                    error = with_causes(&error),
                    link = own.link,
                    "no route to a network of the host's own"
                );
            }
        }
    }
}

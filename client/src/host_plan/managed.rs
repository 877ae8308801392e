//! Applies plans to the host, and later plans by their difference.

mod answers;
mod closing;
mod error;
mod local_networks;
mod overlaps;
mod own_networks;
mod settings;
mod slot;
mod surroundings;

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use adit_host::{Family, GuardReport, HostChanges, HostError, LinkSettings, Route, RouteTarget, Rule};
use adit_net::tun::LARGEST_PACKET;
use adit_program::causes::with_causes;
use adit_program::exit::Failure;
use adit_program::file_lock::FileLock;
use adit_proto::mark::Mark;
use adit_proto::packet::IPV6_MIN_MTU;

use super::hooks::{GuardState, GuardStatus, HostFault, HostHooks, InForce};
use super::plan::{Claim, HostPlan};
use crate::packet_source::BoxFuture;
use crate::protocols::NetworkSettings;

use closing::Beside;
use own_networks::OwnNetwork;

pub use closing::Closing;
pub use error::{HostSetupError, journal_failure};
pub use slot::{FIRST_TABLE, Slot, open_tun};

/// Metric of routes into the tunnel.
const TUNNEL_METRIC: u32 = 100;
/// Metric of routes to the host's own networks: a tunnel's route to the same addresses comes first.
const OWN_METRIC: u32 = 150;
/// Metric of "unreachable" routes: behind the tunnel's, so that one can be added before the other is removed.
const NOWHERE_METRIC: u32 = 200;
/// The host as one session configures it.
#[derive(Debug)]
pub struct ManagedHost {
    changes: HostChanges,
    link: String,
    slot: Slot,
    run: PathBuf,
    mark: Mark,
    prepared: bool,
    /// What is in force; `None` while the host stands between two plans. What is on it then, the changes know.
    plan: Option<HostPlan>,
    /// The host's own networks among what the plan claims.
    own: BTreeSet<OwnNetwork>,
    /// Links that are tunnels of others.
    tunnels: BTreeSet<String>,
    beside: Beside,
    /// What the plan takes away from the host's networks.
    overlaps: Vec<String>,
    /// Why the device has no IPv6, where it should.
    without_ipv6: Option<String>,
    /// Why others get no answers beside the tunnel, where they should.
    unanswered: Option<String>,
    /// Where the session comes from in which this client was started, if over the network.
    started_from: Option<IpAddr>,
    mtu: u16,
    gso_max_segs: Option<u32>,
    full_tunnel: Option<FileLock>,
    closing: Option<Closing>,
}

impl ManagedHost {
    /// Prepares to configure the host for the TUN device `link`; nothing is changed yet.
    ///
    /// `run` is the directory of lock files.
    pub fn new(changes: HostChanges, link: &str, slot: Slot, run: &Path) -> Self {
        Self {
            changes,
            link: link.to_owned(),
            slot,
            run: run.to_owned(),
            mark: Mark::CLIENT,
            prepared: false,
            plan: None,
            own: BTreeSet::new(),
            tunnels: BTreeSet::new(),
            beside: Beside::default(),
            overlaps: Vec::new(),
            without_ipv6: None,
            unanswered: None,
            started_from: None,
            mtu: IPV6_MIN_MTU,
            gso_max_segs: None,
            full_tunnel: None,
            closing: None,
        }
    }

    /// Limits how many packets of a flow the kernel hands over together through the TUN device.
    #[must_use]
    pub fn with_gso_max_segs(mut self, segments: u32) -> Self {
        self.gso_max_segs = Some(segments);
        self
    }

    /// Takes another mark than [`Mark::CLIENT`] for that of the outer sockets.
    #[must_use]
    pub fn with_mark(mut self, mark: Mark) -> Self {
        self.mark = mark;
        self
    }

    /// Takes note of where the session comes from in which this client was started, to warn before it is cut.
    #[must_use]
    pub fn with_started_from(mut self, peer: Option<IpAddr>) -> Self {
        self.started_from = peer;
        self
    }

    /// Closes the host for what belongs in a full tunnel; see [`Closing::begin`] for what to do before.
    #[must_use]
    pub fn with_kill_switch(mut self, closing: Closing) -> Self {
        self.closing = Some(closing);
        self
    }

    /// Brings the host in line with the gateway's settings. New things are added before old ones go, so that packets
    /// never find a gap through which to leave the tunnel. Called again after a failure, it goes on from where it
    /// stopped.
    ///
    /// # Errors
    /// See [`HostSetupError`]. What was done up to then is in the journal and undone by [`Self::undo`].
    pub async fn apply(&mut self, settings: &NetworkSettings) -> Result<(), HostSetupError> {
        // The tunnel is about to stand, so nobody has anything more to do at a captive portal.
        self.changes.close_portal_way()?;
        let plan = HostPlan::new(&self.within_reach(settings).await, host_has_ipv6())?;
        if self.plan.as_ref() == Some(&plan) {
            return Ok(());
        }
        let survey = self.changes.netlink().survey().await?;
        if let Some((address, link)) = overlaps::taken_address(&survey, &plan, &self.link) {
            return Err(HostSetupError::AddressTaken { address, link: link.to_owned() });
        }
        if plan.full_tunnel && self.full_tunnel.is_none() {
            let lock = slot::lock(&self.run, "full-tunnel").map_err(HostSetupError::Lock)?;
            self.full_tunnel = Some(lock.ok_or(HostSetupError::SecondFullTunnel)?);
        }
        // Another program may have renamed the device or set it down just now.
        self.changes.hold().await;
        let old = self.plan.take();
        self.look_around(&plan, &survey);
        let closed = self.close_around(&plan).await?;
        if !self.prepared {
            self.prepare().await?;
            self.prepared = true;
        }
        // First, so that what is open goes on when the rules come.
        self.let_answers_out(&plan).await;
        self.add(&plan).await?;
        self.add_own_networks().await;
        if old.is_none_or(|old| old.dns != plan.dns) {
            self.set_dns(&plan).await?;
        }
        self.remove_others(&plan).await?;
        if !closed {
            self.changes.open_kill_switch().await?;
        }
        if !plan.full_tunnel {
            self.full_tunnel = None;
        }
        self.plan = Some(plan);
        Ok(())
    }

    /// Sets the TUN device's MTU, but never below what IPv6 needs.
    ///
    /// # Errors
    /// `Change` if the kernel refuses.
    pub async fn set_mtu(&mut self, mtu: u16) -> Result<(), HostSetupError> {
        let largest = u16::try_from(LARGEST_PACKET).expect("the largest packet has 9216 bytes");
        let mtu = mtu.clamp(IPV6_MIN_MTU, largest);
        if mtu != self.mtu && self.prepared {
            self.changes
                .set_link(&self.link, LinkSettings { mtu: Some(mtu.into()), ..LinkSettings::default() })
                .await?;
        }
        self.mtu = mtu;
        Ok(())
    }

    /// What the user should know about the host as it is configured.
    pub fn warnings(&self) -> Vec<String> {
        self.without_ipv6.iter().chain(&self.unanswered).chain(&self.overlaps).cloned().collect()
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// What could not be undone stays in the journal.
    pub async fn undo(&mut self) -> Result<(), HostError> {
        self.plan = None;
        self.prepared = false;
        self.full_tunnel = None;
        self.changes.undo().await
    }

    /// Undoes everything, but leaves the host closed if it is.
    ///
    /// # Errors
    /// As [`Self::undo`].
    pub async fn undo_but_stay_closed(&mut self) -> Result<(), HostError> {
        self.plan = None;
        self.prepared = false;
        self.full_tunnel = None;
        if let Some(closing) = &self.closing {
            closing.leave(&mut self.changes).await?;
        }
        self.changes.undo_but_kill_switch().await
    }

    /// Makes the link ready for its first addresses.
    async fn prepare(&mut self) -> Result<(), HostSetupError> {
        self.loosen_reverse_path().await?;
        self.limit_superpackets().await;
        let settings = LinkSettings { mtu: Some(self.mtu.into()), up: Some(true), ..LinkSettings::default() };
        Ok(self.changes.set_link(&self.link, settings).await?)
    }

    /// Makes the kernel's superpackets fit one UDP send, which costs nothing but speed where it cannot be done.
    async fn limit_superpackets(&mut self) {
        if self.gso_max_segs.is_none() {
            return;
        }
        let settings = LinkSettings { gso_max_segs: self.gso_max_segs, ..LinkSettings::default() };
        if let Err(error) = self.changes.set_link(&self.link, settings).await {
            tracing::debug!(error = with_causes(&error), "the device's largest superpacket cannot be set");
        }
    }

    /// Adds all that the plan wants; what is there already stays as it is.
    async fn add(&mut self, plan: &HostPlan) -> Result<(), HostError> {
        for address in &plan.addresses {
            self.changes.add_address(&self.link, *address).await?;
        }
        // What leads nowhere is there first, so that what leads into the tunnel never stands alone.
        let routes: Vec<Route> = plan.claims.iter().rev().map(|claim| self.route(claim)).collect();
        self.changes.add_routes(&routes).await?;
        for rule in rules(plan, &self.slot, self.mark) {
            self.changes.add_rule(&rule).await?;
        }
        Ok(())
    }

    /// Removes all that the plan does not want, whatever earlier plan it is of.
    async fn remove_others(&mut self, plan: &HostPlan) -> Result<(), HostError> {
        let rules = rules(plan, &self.slot, self.mark);
        for rule in self.changes.rules().iter().filter(|rule| !rules.contains(rule)) {
            self.changes.remove_rule(rule).await?;
        }
        let claims = plan.claims.iter().map(|claim| self.route(claim));
        let routes: HashSet<Route> = claims.chain(self.own.iter().map(|own| self.own_route(own))).collect();
        self.changes.remove_routes(|route| !routes.contains(route)).await?;
        for address in self.changes.addresses(&self.link) {
            if !plan.addresses.contains(&address) {
                self.changes.remove_address(&self.link, address).await?;
            }
        }
        Ok(())
    }

    async fn set_dns(&mut self, plan: &HostPlan) -> Result<(), HostError> {
        match &plan.dns {
            Some(dns) => self.changes.set_dns(&self.link, dns).await,
            None => self.changes.clear_dns().await,
        }
    }

    fn route(&self, claim: &Claim) -> Route {
        let (target, metric) = match claim {
            Claim::Tunnel(_) => (RouteTarget::Link(self.link.clone()), TUNNEL_METRIC),
            Claim::Nowhere(_) => (RouteTarget::Unreachable, NOWHERE_METRIC),
        };
        Route { table: self.slot.table(), prefix: claim.prefix(), target, metric: Some(metric) }
    }

    fn own_route(&self, own: &OwnNetwork) -> Route {
        let target = RouteTarget::Link(own.link.clone());
        Route { table: self.slot.table(), prefix: own.prefix, target, metric: Some(OWN_METRIC) }
    }
}

impl HostHooks for ManagedHost {
    fn apply<'a>(&'a mut self, settings: &'a NetworkSettings) -> BoxFuture<'a, Result<(), HostFault>> {
        Box::pin(async move { Self::apply(self, settings).await.map_err(HostFault::from) })
    }

    fn set_mtu(&mut self, mtu: u16) -> BoxFuture<'_, Result<(), HostFault>> {
        Box::pin(async move { Self::set_mtu(self, mtu).await.map_err(HostFault::from) })
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.changes.changed())
    }

    fn hold(&mut self) -> BoxFuture<'_, Vec<GuardStatus>> {
        Box::pin(async move {
            self.forget_own_networks().await;
            // What is missing now matters more than what is new.
            let reports = self.changes.hold().await;
            self.follow_links().await;
            reports.into_iter().map(guard_status).collect()
        })
    }

    fn undo(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { Self::undo(self).await.map_err(|error| journal_failure(self.changes.journal(), &error)) })
    }

    fn undo_but_stay_closed(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let undone = Self::undo_but_stay_closed(self).await;
            undone.map_err(|error| journal_failure(self.changes.journal(), &error))
        })
    }

    fn device(&self) -> Option<&str> {
        Some(&self.link)
    }

    fn is_tunnel(&self, link: &str) -> bool {
        self.tunnels.contains(link)
    }

    fn in_force(&self) -> InForce {
        let now = self.changes.in_force();
        let asks_nobody = self.plan.as_ref().is_some_and(|plan| plan.dns.is_none());
        InForce { routes: self.plan.is_some() && now.others, resolver: asks_nobody || now.resolver }
    }

    fn warnings(&self) -> Vec<String> {
        Self::warnings(self)
    }
}

fn guard_status(report: GuardReport) -> GuardStatus {
    let GuardReport { guard, state, reason, times } = report;
    let state = match state {
        adit_host::GuardState::Mended => GuardState::Mended,
        adit_host::GuardState::Broken => GuardState::Broken,
    };
    GuardStatus { guard, state, reason, times }
}

/// The rules that make packets look up the tunnel's table: one for each family in which it claims something.
fn rules(plan: &HostPlan, slot: &Slot, mark: Mark) -> Vec<Rule> {
    let priority = slot.priority(plan.full_tunnel);
    let rule = |family| Rule { family, unless: mark, table: slot.table(), priority };
    let families = [(Family::V4, false), (Family::V6, true)];
    families.into_iter().filter(|(_, ipv6)| plan.claims_family(*ipv6)).map(|(family, _)| rule(family)).collect()
}

fn host_has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all").exists()
}

#[cfg(test)]
mod tests {
    use adit_proto::range::RouteRange;
    use ipnet::IpNet;

    use super::*;

    fn plan(routes: &[&str]) -> HostPlan {
        let settings = NetworkSettings {
            addresses: vec!["10.64.3.2/32".parse().unwrap()],
            routes: routes.iter().map(|text| RouteRange::from(text.parse::<IpNet>().unwrap())).collect(),
            ..NetworkSettings::default()
        };
        HostPlan::new(&settings, true).unwrap()
    }

    #[test]
    fn rules_exist_for_claimed_families_only_and_spare_marked_packets() {
        let run = tempfile::tempdir().unwrap();
        let slot = Slot::for_test(run.path());
        let split = rules(&plan(&["10.0.0.0/8"]), &slot, Mark::CLIENT);
        assert_eq!(split.len(), 1);
        let rule = split[0];
        assert_eq!((rule.family, rule.unless, rule.table), (Family::V4, Mark::CLIENT, 44311));
        let full = rules(&plan(&["0.0.0.0/0"]), &slot, Mark::CLIENT);
        assert_eq!(full.iter().map(|rule| rule.family).collect::<Vec<_>>(), [Family::V4, Family::V6]);
        assert!(full[0].priority > split[0].priority && full[0].priority < 32766);
    }
}

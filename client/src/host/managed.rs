//! Applies plans to the host, and later plans by their difference.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use adit_net::host::{Family, HostChanges, HostError, LinkSettings, Route, RouteTarget, Rule};
use adit_net::tun::LARGEST_PACKET;
use adit_proto::exit::{Exit, Failure};
use ipnet::IpNet;
use nix::fcntl::Flock;

use super::plan::{Claim, Plan, PlanError};
use super::slot::{self, Slot};
use super::{MARK, SMALLEST_MTU};
use crate::connection::NetworkSettings;

/// Metric of routes into the tunnel.
const TUNNEL_METRIC: u32 = 100;
/// Metric of "unreachable" routes: behind the tunnel's, so that one can be added before the other is removed.
const NOWHERE_METRIC: u32 = 200;
/// Value of `rp_filter` that checks sources against any route, not only against the one back (kernel's ip-sysctl).
const LOOSE: &str = "2";

/// Why the host could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum HostSetupError {
    /// The gateway's settings make no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The host refused a change.
    #[error(transparent)]
    Change(#[from] HostError),
    /// Another client holds the default routes.
    #[error("another client on this host has a full tunnel")]
    SecondFullTunnel,
    /// A lock file could not be used.
    #[error("lock the default routes")]
    Lock(#[source] io::Error),
}

impl HostSetupError {
    /// The error and its causes in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        describe(self)
    }

    /// Whether a permission or capability is missing.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        match self {
            Self::Change(error) => error.is_permission_denied(),
            Self::Lock(error) => error.kind() == io::ErrorKind::PermissionDenied,
            Self::Plan(_) | Self::SecondFullTunnel => false,
        }
    }
}

/// An error and its causes in one line, each said once.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// A [`Failure`] for a journal that could not be opened or undone.
pub(crate) fn journal_failure(what: &str, error: &HostError) -> Failure {
    let reason = describe(error);
    if matches!(error, HostError::Busy { .. }) {
        return Failure::new(Exit::Usage, what, "a client is running with this profile", "see `adit-client status`");
    }
    if error.is_permission_denied() {
        let next = "run as root, or give the program CAP_NET_ADMIN; in a container, add `--cap-add NET_ADMIN`";
        return Failure::new(Exit::Permission, what, reason, next);
    }
    Failure::new(Exit::Other, what, reason, "run `adit-client cleanup`")
}

/// The host as one session configures it.
#[derive(Debug)]
pub struct ManagedHost {
    changes: HostChanges,
    link: String,
    slot: Slot,
    run: PathBuf,
    plan: Option<Plan>,
    mtu: u16,
    full_tunnel: Option<Flock<File>>,
}

impl ManagedHost {
    /// Prepares to configure the host for the TUN device `link`; nothing is changed yet.
    ///
    /// `run` is the directory of lock files.
    #[must_use]
    pub fn new(changes: HostChanges, link: &str, slot: Slot, run: &Path) -> Self {
        Self {
            changes,
            link: link.to_owned(),
            slot,
            run: run.to_owned(),
            plan: None,
            mtu: SMALLEST_MTU,
            full_tunnel: None,
        }
    }

    /// The TUN device.
    #[must_use]
    pub fn link(&self) -> &str {
        &self.link
    }

    /// Brings the host in line with the gateway's settings. New things are added before old ones go, so that packets never
    /// find a gap through which to leave the tunnel.
    ///
    /// # Errors
    /// See [`HostSetupError`]. What was done up to then is in the journal and undone by [`Self::undo`].
    pub async fn apply(&mut self, settings: &NetworkSettings) -> Result<(), HostSetupError> {
        let plan = Plan::new(settings, host_has_ipv6())?;
        if self.plan.as_ref() == Some(&plan) {
            return Ok(());
        }
        if plan.full_tunnel && self.full_tunnel.is_none() {
            let lock = slot::lock(&self.run, "full-tunnel").map_err(HostSetupError::Lock)?;
            self.full_tunnel = Some(lock.ok_or(HostSetupError::SecondFullTunnel)?);
        }
        if self.plan.is_none() {
            self.prepare(&plan).await?;
        }
        let old = self.plan.clone().unwrap_or_default();
        self.add(&old, &plan).await?;
        self.set_dns(&old, &plan).await?;
        self.remove(&old, &plan).await?;
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
        let largest = u16::try_from(LARGEST_PACKET).unwrap_or(u16::MAX);
        let mtu = mtu.clamp(SMALLEST_MTU, largest);
        if mtu != self.mtu && self.plan.is_some() {
            self.changes.set_link(&self.link, LinkSettings { mtu: Some(mtu.into()), up: None }).await?;
        }
        self.mtu = mtu;
        Ok(())
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// What could not be undone stays in the journal.
    pub async fn undo(&mut self) -> Result<(), HostError> {
        self.plan = None;
        self.full_tunnel = None;
        self.changes.undo().await
    }

    /// Makes the link ready for its first addresses.
    async fn prepare(&mut self, plan: &Plan) -> Result<(), HostError> {
        let wants_ipv6 = plan.addresses.iter().any(|address| address.addr().is_ipv6());
        let disabled = format!("net.ipv6.conf.{}.disable_ipv6", self.link);
        if wants_ipv6 && read_sysctl(&disabled).as_deref() == Some("1") {
            self.changes.set_sysctl(&disabled, "0").await?;
        }
        // A strict reverse-path check looks routes up without our mark, finds the tunnel, and drops the gateway's answers.
        if has_strict_reverse_path() {
            self.changes.set_sysctl("net.ipv4.conf.all.rp_filter", LOOSE).await?;
        }
        let settings = LinkSettings { mtu: Some(self.mtu.into()), up: Some(true) };
        self.changes.set_link(&self.link, settings).await
    }

    async fn add(&mut self, old: &Plan, new: &Plan) -> Result<(), HostError> {
        for address in new.addresses.difference(&old.addresses) {
            self.changes.add_address(&self.link, *address).await?;
        }
        for claim in new.claims.difference(&old.claims) {
            self.changes.add_route(&self.route(claim)).await?;
        }
        let old_rules = self.rules(old);
        for rule in self.rules(new).iter().filter(|rule| !old_rules.contains(rule)) {
            self.changes.add_rule(rule).await?;
        }
        Ok(())
    }

    async fn remove(&mut self, old: &Plan, new: &Plan) -> Result<(), HostError> {
        let new_rules = self.rules(new);
        for rule in self.rules(old).iter().filter(|rule| !new_rules.contains(rule)) {
            self.changes.remove_rule(rule).await?;
        }
        for claim in old.claims.difference(&new.claims) {
            self.changes.remove_route(&self.route(claim)).await?;
        }
        for address in old.addresses.difference(&new.addresses) {
            self.changes.remove_address(&self.link, *address).await?;
        }
        Ok(())
    }

    async fn set_dns(&mut self, old: &Plan, new: &Plan) -> Result<(), HostError> {
        match &new.dns {
            Some(_) if new.dns == old.dns => Ok(()),
            Some(dns) => self.changes.set_dns(&self.link, dns).await,
            None if old.dns.is_some() => self.changes.clear_dns().await,
            None => Ok(()),
        }
    }

    fn route(&self, claim: &Claim) -> Route {
        let (target, metric) = match claim {
            Claim::Tunnel(_) => (RouteTarget::Link(self.link.clone()), TUNNEL_METRIC),
            Claim::Nowhere(_) => (RouteTarget::Unreachable, NOWHERE_METRIC),
        };
        Route { table: self.slot.table(), prefix: claim.prefix(), target, metric: Some(metric) }
    }

    fn rules(&self, plan: &Plan) -> Vec<Rule> {
        rules(plan, &self.slot)
    }
}

/// The rules that make packets look up the tunnel's table: one for each family in which it claims something.
fn rules(plan: &Plan, slot: &Slot) -> Vec<Rule> {
    let rule =
        |family| Rule { family, unless_mark: MARK, table: slot.table(), priority: slot.priority(plan.full_tunnel) };
    let families = [(Family::V4, false), (Family::V6, true)];
    families.into_iter().filter(|(_, ipv6)| plan.claims_family(*ipv6)).map(|(family, _)| rule(family)).collect()
}

fn host_has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all").exists()
}

/// Whether any interface checks that answers would leave by the way a packet came in.
fn has_strict_reverse_path() -> bool {
    if read_sysctl("net.ipv4.conf.all.rp_filter").as_deref() == Some(LOOSE) {
        return false;
    }
    let Ok(interfaces) = fs::read_dir("/proc/sys/net/ipv4/conf") else { return false };
    // `default` counts too: interfaces to come inherit it.
    interfaces.flatten().any(|interface| {
        let value = fs::read_to_string(interface.path().join("rp_filter"));
        value.is_ok_and(|value| value.trim() == "1")
    })
}

/// Reads a sysctl whose interface name holds no dot.
fn read_sysctl(key: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(key.replace('.', "/"));
    fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
}

/// The claimed prefixes as a status shows them.
pub(crate) fn claimed_prefixes(settings: &NetworkSettings) -> Vec<IpNet> {
    let plan = Plan::new(settings, true).unwrap_or_default();
    let tunnelled = plan.claims.iter().filter(|claim| matches!(claim, Claim::Tunnel(_)));
    tunnelled.map(Claim::prefix).collect()
}

#[cfg(test)]
mod tests {
    use adit_proto::range::RouteRange;

    use super::*;

    fn plan(routes: &[&str]) -> Plan {
        let settings = NetworkSettings {
            addresses: vec!["10.64.3.2/32".parse().unwrap()],
            routes: routes.iter().map(|text| RouteRange::from(text.parse::<IpNet>().unwrap())).collect(),
            ..NetworkSettings::default()
        };
        Plan::new(&settings, true).unwrap()
    }

    #[test]
    fn rules_exist_for_claimed_families_only_and_spare_marked_packets() {
        let run = tempfile::tempdir().unwrap();
        let slot = Slot::for_test(run.path());
        let split = rules(&plan(&["10.0.0.0/8"]), &slot);
        assert_eq!(split.len(), 1);
        assert!(
            split.iter().all(|rule| rule.family == Family::V4 && rule.unless_mark == 0xAD17 && rule.table == 44311)
        );
        let full = rules(&plan(&["0.0.0.0/0"]), &slot);
        assert_eq!(full.iter().map(|rule| rule.family).collect::<Vec<_>>(), [Family::V4, Family::V6]);
        assert!(full[0].priority > split[0].priority && full[0].priority < 32766);
    }

    #[test]
    fn described_error_says_each_cause_once() {
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = HostSetupError::Change(HostError::System { doing: "add route 10.0.0.0/8".into(), source: cause });
        assert_eq!(error.describe(), "add route 10.0.0.0/8: permission denied");
        assert!(error.is_permission_denied());
    }
}

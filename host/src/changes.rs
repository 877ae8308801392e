//! Host changes, each written to the undo journal before it is made.

mod bounds;
pub(crate) mod forwarding;
mod resolver;
mod tables;
mod undo;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_program::causes::with_causes;
use adit_program::guarded_file::Guard;
use ipnet::IpNet;

use crate::answers::LoadedAnswers;
use crate::dns::{Reach, SystemBus};
use crate::error::HostError;
use crate::firewall::{ForeignChains, Table, Tracking};
use crate::guard::{History, HostWatch, SwitchWatch};
use crate::journal::{Change, Journal, RecordedLink, WithoutDisk};
use crate::kill_switch::ClosedKillSwitch;
use crate::namespace;
use crate::netlink::{LinkSettings, Netlink, Route, RouteTarget, Rule};
use crate::policy_table::PolicyTable;
use crate::{guard, sysctl};

use resolver::ResolverGuard;
pub(crate) use resolver::{PartFound, ResolverPart, Wanted};

/// The file in which the C library looks for resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where the host's resolver is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// The resolver's file. Default: `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The bus on which systemd-resolved is looked for. Default: the system bus.
    pub bus: SystemBus,
    /// Whether the resolver may be changed at all; a journal that says it was is refused otherwise. Default: true.
    pub resolver: bool,
    /// Whom the journal may belong to. Default: root and the user of this process.
    pub guard: Guard,
    /// What happens when the disk is full or read-only. Default: nothing is changed that cannot be written down.
    pub without_disk: WithoutDisk,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            resolv_conf: PathBuf::from(RESOLV_CONF),
            bus: SystemBus::default(),
            resolver: true,
            guard: Guard::default(),
            without_disk: WithoutDisk::Refuse,
        }
    }
}

/// What was found of a dead process, and undone. A kill switch is not: it stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Number of changes that were undone.
    pub undone: usize,
}

/// Undoes what a dead process left in `journal`; does nothing if there is no such file.
///
/// # Errors
/// `Busy` if a living process holds the journal, `Undo` for what cannot be undone (it stays in the journal).
pub async fn recover(journal: &Path) -> Result<Recovery, HostError> {
    recover_with(journal, HostOptions::default()).await
}

/// As [`recover`], with options.
///
/// # Errors
/// As [`recover`].
pub async fn recover_with(journal: &Path, options: HostOptions) -> Result<Recovery, HostError> {
    if journal.exists() {
        let mut changes = HostChanges::open_with(journal, options).await?;
        changes.undo_but_kill_switch().await?;
        Ok(changes.recovered())
    } else {
        Ok(Recovery::default())
    }
}

/// As [`recover`], and opens the kill switch, too.
///
/// # Errors
/// As [`recover`].
pub async fn release(journal: &Path) -> Result<Recovery, HostError> {
    if !journal.exists() {
        return Ok(Recovery::default());
    }
    let mut changes = HostChanges::load(journal, HostOptions::default())?;
    let undone = changes.journal.live().len();
    changes.undo().await?;
    Ok(Recovery { undone })
}

/// As [`recover`], but leaves alone what was made in another network namespace: for journals of others, of whom nothing
/// else is known. A namespace can share its file system with this one.
///
/// # Errors
/// As [`recover`].
pub async fn recover_same_namespace(journal: &Path) -> Result<Recovery, HostError> {
    if !journal.exists() || Journal::open(journal, &Guard::default(), WithoutDisk::Refuse)?.other_namespace().is_some()
    {
        return Ok(Recovery::default());
    }
    recover(journal).await
}

/// The changes this process made to its host. They hold until they are undone, as long as somebody calls
/// [`Self::hold`] when [`Self::changed`] says so.
///
/// They belong to the network namespace of the thread that opens this. Dropping it undoes nothing: what was not undone
/// stays in the journal, for the next `open` or `recover`.
#[derive(Debug)]
pub struct HostChanges {
    pub(crate) journal: Journal,
    pub(crate) netlink: Netlink,
    pub(crate) options: HostOptions,
    recovery: Recovery,
    /// Sysctls that had the wanted value from the beginning, by key.
    pub(crate) found_right: BTreeMap<String, String>,
    pub(crate) loose_reverse_paths: bool,
    /// What the kill switch lets through, if this process has closed it.
    pub(crate) kill_switch: Option<ClosedKillSwitch>,
    /// The tables for answers beside the tunnel, once they are loaded.
    pub(crate) answers: Option<LoadedAnswers>,
    pub(crate) history: History,
    pub(crate) watch: HostWatch,
    /// The gateway's firewall, once it is loaded.
    pub(crate) table: Option<Table>,
    /// What clients may reach, once it is loaded.
    pub(crate) policy_table: Option<Arc<PolicyTable>>,
    /// Whether the gateway's link is down because the firewall does not hold.
    pub(crate) tunnel_closed: bool,
    /// Whether the host has to forward IPv4.
    pub(crate) forwards_ipv4: bool,
    /// The switches of forwarding that this process may have switched on.
    pub(crate) switches: Vec<SwitchWatch>,
    pub(crate) foreign_chains: ForeignChains,
    pub(crate) tracking: Tracking,
    resolver: ResolverGuard,
    reach: Reach,
}

impl HostChanges {
    /// Opens the journal, undoing first what a dead process left in it, but for a kill switch that it closed.
    ///
    /// # Errors
    /// `Busy` if another living process holds the journal, `OtherNamespace` if what it tells of is not to be undone
    /// here, `Undo` for what cannot be undone. It all stays in the journal.
    pub async fn open(journal: &Path) -> Result<Self, HostError> {
        Self::open_with(journal, HostOptions::default()).await
    }

    /// As [`Self::open`], with options.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(journal: &Path, options: HostOptions) -> Result<Self, HostError> {
        let mut changes = Self::load(journal, options)?;
        let left = changes.journal.live().len();
        changes.undo_what_can_be().await?;
        changes.recovery.undone = left - changes.journal.live().len();
        Ok(changes)
    }

    fn load(journal: &Path, options: HostOptions) -> Result<Self, HostError> {
        let netlink = Netlink::open()?;
        let mut journal = Journal::open(journal, &options.guard, options.without_disk)?;
        bounds::check(&journal, &options)?;
        if let Some(namespace) = journal.other_namespace() {
            match namespace::way_into(namespace) {
                Some(enter) => return Err(HostError::OtherNamespace { journal: journal.path().to_owned(), enter }),
                None => journal.forget_namespace()?,
            }
        }
        // Whose the host's own file is has to be found out; another one is the caller's, who names it.
        let reach = match options.resolv_conf == Path::new(RESOLV_CONF) {
            true => Reach::of(&options.resolv_conf),
            false => Reach::Path,
        };
        Ok(Self {
            journal,
            netlink,
            options,
            recovery: Recovery::default(),
            found_right: BTreeMap::new(),
            loose_reverse_paths: false,
            kill_switch: None,
            answers: None,
            history: History::default(),
            watch: HostWatch::open(),
            table: None,
            policy_table: None,
            tunnel_closed: false,
            forwards_ipv4: false,
            switches: Vec::new(),
            foreign_chains: ForeignChains::default(),
            tracking: Tracking::default(),
            resolver: ResolverGuard::default(),
            reach,
        })
    }

    /// What `open` undid.
    #[must_use]
    pub fn recovered(&self) -> Recovery {
        self.recovery
    }

    /// The journal's path.
    #[must_use]
    pub fn journal(&self) -> &Path {
        self.journal.path()
    }

    /// The netlink socket the changes are made through, for reading.
    #[must_use]
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Sets a sysctl below `net.`, such as `net.ipv4.ip_forward`; does nothing if it has the value. Where a part of the
    /// key has a dot of its own, the parts are separated by slashes: `net/ipv4/conf/eth0.5/rp_filter`.
    ///
    /// It goes back to its earlier value if it still has ours by then.
    ///
    /// # Errors
    /// The kernel's refusal.
    #[expect(clippy::unused_async, reason = "awaited like its siblings, whether or not the kernel answers at once")]
    pub async fn set_sysctl(&mut self, key: &str, value: &str) -> Result<(), HostError> {
        let previous = sysctl::read(key)?;
        if previous == value {
            self.found_right.insert(key.to_owned(), previous);
            return Ok(());
        }
        self.found_right.remove(key);
        let id =
            self.journal.record(Change::Sysctl { key: key.into(), previous, set: value.into(), side_effect: false })?;
        let done = sysctl::write(key, value);
        self.settle_if_failed(id, done)
    }

    /// Adds an address to a link. The kernel adds a route to its prefix, unless the prefix is the address alone.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal.
    pub async fn add_address(&mut self, link: &str, address: IpNet) -> Result<(), HostError> {
        let change = Change::Address { link: self.recorded_link(link).await?, address };
        if self.is_recorded(&change) {
            return Ok(());
        }
        let id = self.journal.record(change)?;
        let done = self.netlink.add_address(link, address).await;
        self.settle_if_failed(id, done)
    }

    /// Removes an address that this process added; does nothing if it did not.
    ///
    /// # Errors
    /// `Undo` with the kernel's refusal.
    pub async fn remove_address(&mut self, link: &str, address: IpNet) -> Result<(), HostError> {
        self.undo_where(|change| {
            matches!(change, Change::Address { link: of, address: recorded } if of.name == link && *recorded == address)
        })
        .await
    }

    /// The addresses of `link` that this process added.
    pub fn addresses(&self, link: &str) -> Vec<IpNet> {
        let address = |change: &Change| {
            let Change::Address { link: of, address } = change else { return None };
            (of.name == link).then_some(*address)
        };
        self.journal.live().iter().filter_map(|entry| address(&entry.change)).collect()
    }

    /// Changes a link's settings.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal.
    pub async fn set_link(&mut self, link: &str, settings: LinkSettings) -> Result<(), HostError> {
        let now = self.netlink.link_settings(link).await?;
        let previous = LinkSettings {
            mtu: settings.mtu.and(now.mtu),
            up: settings.up.and(now.up),
            gso_max_segs: settings.gso_max_segs.and(now.gso_max_segs),
        };
        let link = self.recorded_link(link).await?;
        if previous == settings && guard::wanted_settings(self.journal.live(), &link).covers(&settings) {
            return Ok(());
        }
        let id = self.journal.record(Change::Link { link: link.clone(), previous, set: settings })?;
        let done = self.netlink.set_recorded_link(&link, settings).await;
        self.settle_if_failed(id, done)
    }

    /// Adds a route; does nothing if this process has added it before.
    ///
    /// # Errors
    /// `NoSuchLink`, or the kernel's refusal (`AlreadyExists` for a route that is not ours).
    pub async fn add_route(&mut self, route: &Route) -> Result<(), HostError> {
        self.add_routes(std::slice::from_ref(route)).await
    }

    /// Adds routes, in their order, leaving out those that this process has added before.
    ///
    /// # Errors
    /// As [`Self::add_route`], for the first that is refused; those before it stay.
    pub async fn add_routes(&mut self, routes: &[Route]) -> Result<(), HostError> {
        let known: HashSet<Route> = self.routes().into_iter().collect();
        let new: Vec<&Route> = routes.iter().filter(|route| !known.contains(&without_host_bits(route))).collect();
        let mut changes = Vec::new();
        for route in &new {
            let link = match &route.target {
                RouteTarget::Link(name) => Some(self.recorded_link(name).await?),
                RouteTarget::Unreachable => None,
            };
            changes.push(Change::Route { route: without_host_bits(route), link });
        }
        let ids = self.journal.record_all(changes)?;
        for (place, route) in new.into_iter().enumerate() {
            if let Err(error) = self.netlink.add_route(route).await {
                // Neither this one nor those after it were made.
                self.journal.settle_all(ids.get(place..).unwrap_or_default())?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes a route that this process added; does nothing if it did not.
    ///
    /// # Errors
    /// `Undo` with the kernel's refusal.
    pub async fn remove_route(&mut self, route: &Route) -> Result<(), HostError> {
        let route = without_host_bits(route);
        self.remove_routes(|recorded| *recorded == route).await
    }

    /// Removes those routes that this process added and that are picked.
    ///
    /// # Errors
    /// `Undo` with the kernel's refusals.
    pub async fn remove_routes(&mut self, pick: impl Fn(&Route) -> bool) -> Result<(), HostError> {
        self.undo_where(|change| matches!(change, Change::Route { route, .. } if pick(route))).await
    }

    /// The routes that this process added.
    pub fn routes(&self) -> Vec<Route> {
        let route = |change: &Change| if let Change::Route { route, .. } = change { Some(route.clone()) } else { None };
        self.journal.live().iter().filter_map(|entry| route(&entry.change)).collect()
    }

    /// Adds a policy rule; does nothing if this process has added it before.
    ///
    /// # Errors
    /// The kernel's refusal (`AlreadyExists` for a rule that is not ours).
    pub async fn add_rule(&mut self, rule: &Rule) -> Result<(), HostError> {
        let change = Change::Rule(*rule);
        if self.is_recorded(&change) {
            return Ok(());
        }
        let id = self.journal.record(change)?;
        let done = self.netlink.add_rule(rule).await;
        self.settle_if_failed(id, done)
    }

    /// Removes a policy rule that this process added; does nothing if it did not.
    ///
    /// # Errors
    /// `Undo` with the kernel's refusal.
    pub async fn remove_rule(&mut self, rule: &Rule) -> Result<(), HostError> {
        self.undo_where(|change| *change == Change::Rule(*rule)).await
    }

    /// The policy rules that this process added.
    pub fn rules(&self) -> Vec<Rule> {
        let rule = |change: &Change| if let Change::Rule(rule) = change { Some(*rule) } else { None };
        self.journal.live().iter().filter_map(|entry| rule(&entry.change)).collect()
    }

    /// Undoes all changes, newest first. Those that cannot be undone stay in the journal; without any, it is removed
    /// when this is dropped.
    ///
    /// # Errors
    /// `Undo` with one failure per change that is left.
    pub async fn undo(&mut self) -> Result<(), HostError> {
        self.kill_switch = None;
        self.stop_guarding();
        self.undo_where(|_| true).await
    }

    fn stop_guarding(&mut self) {
        self.answers = None;
        self.found_right.clear();
        self.loose_reverse_paths = false;
        self.forwards_ipv4 = false;
        self.resolver = ResolverGuard::default();
    }

    /// As [`Self::undo`], but leaves the kill switch closed if it is.
    ///
    /// # Errors
    /// As [`Self::undo`].
    pub async fn undo_but_kill_switch(&mut self) -> Result<(), HostError> {
        self.stop_guarding();
        self.undo_where(|change| !is_kill_switch(change)).await
    }

    /// As [`Self::undo_but_kill_switch`], but a resolver's file that cannot be written stays in the journal, too, and
    /// keeps nobody from connecting.
    async fn undo_what_can_be(&mut self) -> Result<(), HostError> {
        match self.undo_but_kill_switch().await {
            Err(HostError::Undo { failures })
                if failures.iter().all(|failure| matches!(failure, HostError::ResolverFile { .. })) =>
            {
                for failure in failures {
                    tracing::warn!(why = with_causes(&failure), "the resolver of a crashed client stays behind");
                }
                Ok(())
            }
            other => other,
        }
    }

    async fn recorded_link(&self, name: &str) -> Result<RecordedLink, HostError> {
        Ok(RecordedLink { name: name.to_owned(), index: self.netlink.link_index(name).await? })
    }

    pub(crate) fn is_recorded(&self, change: &Change) -> bool {
        self.journal.live().iter().any(|entry| entry.change == *change)
    }

    /// A change that failed was not made: there is nothing to undo.
    pub(crate) fn settle_if_failed(&mut self, id: u64, done: Result<(), HostError>) -> Result<(), HostError> {
        if done.is_err() {
            self.journal.settle(id)?;
        }
        done
    }
}

fn is_kill_switch(change: &Change) -> bool {
    matches!(change, Change::KillSwitch(_))
}

fn without_host_bits(route: &Route) -> Route {
    Route { prefix: route.prefix.trunc(), ..route.clone() }
}

#[cfg(test)]
mod tests;

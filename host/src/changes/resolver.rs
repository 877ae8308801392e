//! The host's resolver: what the tunnel wants of it, and how it gets there.
//!
//! Three parts hold together. Systemd-resolved, where it runs, gets the tunnel's servers for the tunnel's link. In a
//! full tunnel it loses those of other links, which it would ask through these links whatever the routes say. And the
//! resolver's file is written where it does not lead to systemd-resolved. Each part can be looked at and mended at any
//! time, as other programs come, go, and change what they think is theirs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use adit_program::causes::with_causes;
use adit_program::task::{self, Task};
use adit_proto::dns::DnsSettings;

use super::HostChanges;
use crate::dns::{self, LinkServers, Reach, Resolved, SavedFile, Standing};
use crate::error::HostError;
use crate::guard::Signal;
use crate::journal::{Change, RecordedLink};

/// What the host's resolver is to be while a tunnel is up.
#[derive(Debug, Default)]
pub(crate) struct ResolverGuard {
    wanted: Option<Wanted>,
    watches: Vec<Task>,
}

#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    link: RecordedLink,
    settings: DnsSettings,
}

/// A part of the host's resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResolverPart {
    /// The settings of the tunnel's link in systemd-resolved.
    Link,
    /// The servers of other links in systemd-resolved.
    OtherLinks,
    /// The resolver's file.
    File,
}

/// What a look at a part found.
#[derive(Debug)]
pub(crate) enum PartFound {
    /// It is as it should be.
    Right,
    /// It is ours, but not the newest.
    Outdated,
    /// Somebody changed it: what happened to it.
    Wrong(&'static str),
    /// It is not ours to change: why.
    Lost(String),
    /// The host does not say.
    Unknown(HostError),
}

impl ResolverPart {
    /// In the order in which they are set.
    pub(crate) const ALL: [Self; 3] = [Self::Link, Self::OtherLinks, Self::File];

    /// As reports call it.
    pub(crate) fn guard(self) -> &'static str {
        match self {
            Self::Link => "resolver of the tunnel",
            Self::OtherLinks => "resolvers of other links",
            Self::File => "resolver file",
        }
    }
}

impl HostChanges {
    /// Points the host's resolver at the tunnel's servers; called again, it replaces the earlier settings.
    ///
    /// Uses systemd-resolved if it runs, and the resolver's file where that does not lead to systemd-resolved. Settings
    /// without servers are those of [`Self::clear_dns`]. What systemd-resolved or the file system refuses is tried
    /// again, and reported, by [`Self::hold`]: a tunnel without names is better than none.
    ///
    /// # Errors
    /// `NoSuchLink`, or what the journal refuses; the resolver is then as before the first call.
    pub async fn set_dns(&mut self, link: &str, settings: &DnsSettings) -> Result<(), HostError> {
        if settings.servers.is_empty() {
            return self.clear_dns().await;
        }
        let link = self.recorded_link(link).await?;
        self.resolver.wanted = Some(Wanted { link, settings: settings.clone() });
        if self.resolver.watches.is_empty() {
            self.resolver.watches = self.watch_resolver();
        }
        let done = self.set_resolver().await;
        if done.is_err() {
            self.clear_dns().await?;
        }
        done
    }

    /// Takes back what [`Self::set_dns`] did, if anything.
    ///
    /// # Errors
    /// A refusal of systemd-resolved or of the file system.
    pub async fn clear_dns(&mut self) -> Result<(), HostError> {
        self.resolver = ResolverGuard::default();
        self.undo_where(|change| {
            matches!(change, Change::ResolverFile(_) | Change::ResolverLink(_) | Change::ResolverServers { .. })
        })
        .await
    }

    /// What is wanted of the resolver now.
    pub(crate) fn wanted_resolver(&self) -> Option<Wanted> {
        self.resolver.wanted.clone()
    }

    /// Looks at a part.
    pub(crate) async fn look_at_resolver(
        &self,
        part: ResolverPart,
        wanted: &Wanted,
        resolved: Option<&Resolved>,
    ) -> PartFound {
        let found = match (part, resolved) {
            (ResolverPart::Link, Some(resolved)) => self.look_at_link(wanted, resolved).await,
            (ResolverPart::OtherLinks, Some(resolved)) => self.look_at_other_links(wanted, resolved).await,
            (ResolverPart::Link | ResolverPart::OtherLinks, None) => Ok(PartFound::Right),
            (ResolverPart::File, resolved) => self.look_at_file(wanted, resolved.is_some()),
        };
        found.unwrap_or_else(PartFound::Unknown)
    }

    /// Makes a part as it should be.
    pub(crate) async fn mend_resolver(
        &mut self,
        part: ResolverPart,
        wanted: &Wanted,
        resolved: Option<&Resolved>,
    ) -> Result<(), HostError> {
        match (part, resolved) {
            (ResolverPart::Link, Some(resolved)) => {
                self.record_once(Change::ResolverLink(wanted.link.clone()))?;
                resolved.set(wanted.link.index, &wanted.settings).await
            }
            (ResolverPart::OtherLinks, Some(resolved)) => self.take_other_links(wanted, resolved).await,
            (ResolverPart::Link | ResolverPart::OtherLinks, None) => Ok(()),
            (ResolverPart::File, resolved) => self.mend_file(wanted, resolved.is_some()).await,
        }
    }

    /// Sets all parts for the first time, or anew.
    async fn set_resolver(&mut self) -> Result<(), HostError> {
        let Some(wanted) = self.wanted_resolver() else { return Ok(()) };
        let resolved = Resolved::find(&self.options.bus).await;
        for part in ResolverPart::ALL {
            let done = match self.look_at_resolver(part, &wanted, resolved.as_ref()).await {
                PartFound::Right => continue,
                PartFound::Outdated | PartFound::Wrong(_) => self.mend_resolver(part, &wanted, resolved.as_ref()).await,
                PartFound::Unknown(error) => Err(error),
                PartFound::Lost(why) => {
                    self.history.lost(part.guard(), &why, Instant::now());
                    continue;
                }
            };
            match done {
                Err(error @ (HostError::ResolverFile { .. } | HostError::Bus { .. })) => {
                    self.history.lost(part.guard(), &with_causes(&error), Instant::now());
                }
                done => done?,
            }
        }
        Ok(())
    }

    fn watch_resolver(&self) -> Vec<Task> {
        let signal: Signal = self.watch.signal();
        let bus = task::spawn(dns::follow_resolved(self.options.bus.clone(), signal.clone()));
        match self.reach {
            Reach::Foreign(_) => vec![bus],
            Reach::Path | Reach::Target(_) => {
                vec![bus, task::spawn(dns::follow_file(self.options.resolv_conf.clone(), signal))]
            }
        }
    }

    async fn look_at_link(&self, wanted: &Wanted, resolved: &Resolved) -> Result<PartFound, HostError> {
        Ok(match resolved.has(wanted.link.index, &wanted.settings).await? {
            true => PartFound::Right,
            false => PartFound::Wrong("was changed in systemd-resolved"),
        })
    }

    async fn look_at_other_links(&self, wanted: &Wanted, resolved: &Resolved) -> Result<PartFound, HostError> {
        Ok(if wanted.settings.exclusive && !self.other_links(wanted, resolved).await?.is_empty() {
            PartFound::Wrong("were set")
        } else if !wanted.settings.exclusive && self.journal.live().iter().any(|entry| is_of_other_link(&entry.change))
        {
            PartFound::Outdated
        } else {
            PartFound::Right
        })
    }

    /// The links that have servers beside the tunnel's. Those of other tunnels were set up by this host's owner, and
    /// lead to no local network.
    async fn other_links(
        &self,
        wanted: &Wanted,
        resolved: &Resolved,
    ) -> Result<Vec<(RecordedLink, LinkServers)>, HostError> {
        let mut others = Vec::new();
        for servers in resolved.servers().await? {
            let index = servers.index;
            if index != wanted.link.index
                && let Some((name, false)) = self.netlink.name_and_whether_tunnel(index).await?
            {
                others.push((RecordedLink { name, index }, servers));
            }
        }
        Ok(others)
    }

    async fn take_other_links(&mut self, wanted: &Wanted, resolved: &Resolved) -> Result<(), HostError> {
        if !wanted.settings.exclusive {
            return self.undo_where(is_of_other_link).await;
        }
        for (link, was) in self.other_links(wanted, resolved).await? {
            // What came in between is what the link gets back.
            let older =
                self.entries(|change| matches!(change, Change::ResolverServers { link: of, .. } if *of == link));
            self.journal.record(Change::ResolverServers { link: link.clone(), was })?;
            self.journal.settle_all(&older)?;
            resolved.take_servers(link.index).await?;
        }
        Ok(())
    }

    fn look_at_file(&self, wanted: &Wanted, has_resolved: bool) -> Result<PartFound, HostError> {
        let path = &self.options.resolv_conf;
        if has_resolved && dns::is_behind(path) {
            return Ok(PartFound::Right);
        }
        if let Reach::Foreign(namespace) = &self.reach {
            return Ok(PartFound::Lost(foreign(path, namespace.as_deref())));
        }
        let Some(saved) = self.saved_file() else {
            return Ok(PartFound::Wrong("was changed"));
        };
        // Systemd-resolved is back, and the file leads to it by itself.
        if has_resolved && saved.leads_to_resolved() {
            return Ok(PartFound::Outdated);
        }
        Ok(match saved.standing(&wanted.settings)? {
            Standing::Right => PartFound::Right,
            Standing::Outdated => PartFound::Outdated,
            Standing::Gone => PartFound::Wrong("was taken away"),
            Standing::Foreign => PartFound::Wrong("was rewritten"),
            Standing::OtherClients => {
                PartFound::Lost(format!("{} is another Adit client's now: it came later", path.display()))
            }
        })
    }

    async fn mend_file(&mut self, wanted: &Wanted, has_resolved: bool) -> Result<(), HostError> {
        match self.saved_file() {
            Some(saved) if has_resolved && saved.leads_to_resolved() => {
                self.undo_where(|change| matches!(change, Change::ResolverFile(_))).await
            }
            Some(saved) if saved.standing(&wanted.settings)? != Standing::Foreign => saved.replace(&wanted.settings),
            Some(_) | None => self.take_file(wanted),
        }
    }

    /// Writes the file, and remembers what stands there now as what comes back.
    fn take_file(&mut self, wanted: &Wanted) -> Result<(), HostError> {
        let (mut places, mut done) = (self.places().into_iter().peekable(), Ok(()));
        while let Some(place) = places.next() {
            let saved = SavedFile::read(&place)?;
            let older = self.entries(|change| matches!(change, Change::ResolverFile(older) if older.is_at(&place)));
            let id = self.journal.record(Change::ResolverFile(saved.clone()))?;
            self.journal.settle_all(&older)?;
            done = saved.replace(&wanted.settings);
            if done.is_ok() {
                break;
            }
            // The last one stays in the journal, where the next try finds it: it may come soon, and often.
            if places.peek().is_some() {
                self.journal.settle(id)?;
            }
        }
        done
    }

    /// Where the file can be written: at its path, or, in a directory that is read-only, where the link there leads.
    fn places(&self) -> Vec<PathBuf> {
        let path = &self.options.resolv_conf;
        match &self.reach {
            Reach::Path => {
                let target = path.canonicalize().ok().filter(|target| target != path && path.is_symlink());
                [Some(path.clone()), target].into_iter().flatten().collect()
            }
            Reach::Target(target) => vec![target.clone()],
            Reach::Foreign(_) => Vec::new(),
        }
    }

    /// What the file was that we replaced.
    fn saved_file(&self) -> Option<SavedFile> {
        let places = self.places();
        self.journal.live().iter().rev().find_map(|entry| {
            let Change::ResolverFile(saved) = &entry.change else { return None };
            places.iter().any(|place| saved.is_at(place)).then(|| saved.clone())
        })
    }

    fn record_once(&mut self, change: Change) -> Result<(), HostError> {
        if !self.is_recorded(&change) {
            self.journal.record(change)?;
        }
        Ok(())
    }

    fn entries(&self, pick: impl Fn(&Change) -> bool) -> Vec<u64> {
        self.journal.live().iter().filter(|entry| pick(&entry.change)).map(|entry| entry.id).collect()
    }
}

fn is_of_other_link(change: &Change) -> bool {
    matches!(change, Change::ResolverServers { .. })
}

/// Why a file of the host stays as it is, and how a namespace gets its own.
fn foreign(path: &Path, namespace: Option<&str>) -> String {
    let path = path.display();
    let cure = match namespace {
        Some(name) => format!("`mkdir -p /etc/netns/{name} && cp {path} /etc/netns/{name}/` gives this one its own"),
        None => format!("give this one its own by a mount over {path}"),
    };
    format!(
        "{path} belongs to another network namespace, which shares its files with this one, and stays as it is; {cure}, \
         then connect again"
    )
}

#[cfg(test)]
mod tests;

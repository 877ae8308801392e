//! The undo journal: what has to be undone, written and flushed to disk before it is done.
//!
//! A file of JSON lines that grows until all of it is settled; then it is emptied, and removed when its holder leaves.
//! Where changes come and go without end, it is written anew with what is not settled. The holder keeps it locked, so a
//! second process can tell a living holder from a dead one. The lines are flushed with blocking calls, since a change
//! must not begin before its line is on disk; changes that are made together are flushed together.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use adit_program::durable_file::flush_directory;
use adit_program::guarded_file::{Access, Guard, GuardError, Readers};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::answers::AnswerRules;
use crate::dns::{LinkServers, SavedFile};
use crate::error::HostError;
use crate::firewall::TableRecord;
use crate::namespace;
use crate::netlink::{LinkSettings, Route, Rule};

/// The identity of this boot: network state does not outlive it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Lines of a journal that is never written anew: some 100 KiB, which is read in no time.
const FEW_LINES: usize = 1024;
/// How many times as many lines as there are unsettled changes a longer journal may have.
const SLACK: usize = 4;

/// One change to the host, with what is needed to undo it. `Firewall` is the table `inet adit` of earlier versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Change {
    Sysctl {
        key: String,
        previous: String,
        set: String,
        /// Whether the kernel sets it along with something else: then it is only undone, and nothing keeps it.
        #[serde(default)]
        side_effect: bool,
    },
    Address {
        link: RecordedLink,
        address: IpNet,
    },
    Link {
        link: RecordedLink,
        previous: LinkSettings,
        #[serde(default)]
        set: LinkSettings,
    },
    Route {
        route: Route,
        link: Option<RecordedLink>,
    },
    Rule(Rule),
    Answers(AnswerRules),
    Firewall,
    GatewayTable(TableRecord),
    PolicyTable(TableRecord),
    /// The kill switch of a profile, by the profile's name.
    KillSwitch(String),
    ResolverFile(SavedFile),
    ResolverLink(RecordedLink),
    /// The name servers of a link that is not ours.
    ResolverServers {
        link: RecordedLink,
        was: LinkServers,
    },
}

/// A link as it was when a change to it began: another link may bear its name later, but not its index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct RecordedLink {
    pub(super) name: String,
    pub(super) index: u32,
}

impl Change {
    /// The link that the change is about; it takes the change along when it is deleted.
    pub(super) fn link(&self) -> Option<&RecordedLink> {
        match self {
            Self::Address { link, .. }
            | Self::Link { link, .. }
            | Self::ResolverLink(link)
            | Self::ResolverServers { link, .. } => Some(link),
            Self::Route { link, .. } => link.as_ref(),
            Self::Sysctl { .. }
            | Self::Rule(_)
            | Self::Answers(_)
            | Self::Firewall
            | Self::GatewayTable(_)
            | Self::PolicyTable(_)
            | Self::KillSwitch(_)
            | Self::ResolverFile(_) => None,
        }
    }

    /// Whether the change is still there after the host has started anew.
    fn outlives_boot(&self) -> bool {
        match self {
            Self::ResolverFile(_) => true,
            Self::Sysctl { .. }
            | Self::Address { .. }
            | Self::Link { .. }
            | Self::Route { .. }
            | Self::Rule(_)
            | Self::Answers(_)
            | Self::Firewall
            | Self::GatewayTable(_)
            | Self::PolicyTable(_)
            | Self::KillSwitch(_)
            | Self::ResolverLink(_)
            | Self::ResolverServers { .. } => false,
        }
    }
}

/// A change that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) change: Change,
}

impl Entry {
    fn line(&self) -> Line {
        Line::Change { id: self.id, change: self.change.clone() }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The boot the changes that follow were made in.
    Boot(String),
    /// The network namespace the changes that follow were made in.
    Namespace(u64),
    Change {
        id: u64,
        change: Change,
    },
    /// The change is undone, or was never made.
    Settled(u64),
}

/// What to do about a change that cannot be written down, since the disk is full or read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutDisk {
    /// It is not made.
    Refuse,
    /// It is made, and undone by this process; a crash leaves it. For changes that end with the host's boot anyway.
    Continue,
}

/// An open journal, locked for this process.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Flock<File>,
    boot: String,
    namespace: u64,
    recorded_namespace: Option<u64>,
    live: Vec<Entry>,
    next_id: u64,
    /// Lines in the file.
    lines: usize,
    without_disk: WithoutDisk,
    /// Whether it was said that changes are not written down.
    warned: bool,
    /// How often the disk was waited for.
    #[cfg(test)]
    pub(super) flushes: usize,
}

impl Journal {
    /// Opens a journal and reads what is not settled in it; creates the file (mode 0600), and its directory (0700), if
    /// missing.
    ///
    /// Another user that `guard` trusts may own it, too. Then it must not tell to write files: we may have privileges
    /// over files that its owner has not.
    pub(super) fn open(path: &Path, guard: &Guard, without_disk: WithoutDisk) -> Result<Self, HostError> {
        let doing = |source| HostError::system(format!("open the journal {}", path.display()), source);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(doing)?;
        }
        let (file, warned) = match lock(path, guard) {
            Err(HostError::Unguarded(error))
                if error.source.as_ref().is_some_and(|cause| continues(without_disk, cause)) =>
            {
                warn_of_crash(path);
                (in_memory().map_err(doing)?, true)
            }
            locked => (locked?, false),
        };
        let boot = fs::read_to_string(BOOT_ID).map_err(doing)?.trim().to_owned();
        let namespace = fs::metadata(namespace::OWN).map_err(doing)?.ino();
        let mut journal = Self {
            path: path.to_owned(),
            file,
            boot,
            namespace,
            recorded_namespace: None,
            live: Vec::new(),
            next_id: 0,
            lines: 0,
            without_disk,
            warned,
            #[cfg(test)]
            flushes: 0,
        };
        journal.load()?;
        journal.check_reach()?;
        Ok(journal)
    }

    /// The network namespace, if it is not this thread's, that changes which are not settled were made in, in this
    /// boot.
    pub(super) fn other_namespace(&self) -> Option<u64> {
        self.recorded_namespace.filter(|recorded| !self.live.is_empty() && *recorded != self.namespace)
    }

    /// Strikes out what went with a network namespace that is gone. What is left, this thread's namespace shares.
    pub(super) fn forget_namespace(&mut self) -> Result<(), HostError> {
        let gone = self.live.iter().filter(|entry| !entry.change.outlives_boot()).map(|entry| entry.id);
        self.settle_all(&gone.collect::<Vec<_>>())?;
        if !self.live.is_empty() {
            self.append(&[Line::Namespace(self.namespace)])?;
        }
        self.recorded_namespace = Some(self.namespace);
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The changes that are not settled, oldest first.
    pub(super) fn live(&self) -> &[Entry] {
        &self.live
    }

    /// Writes a change to disk; it may begin when this returns.
    pub(super) fn record(&mut self, change: Change) -> Result<u64, HostError> {
        let id = self.next_id;
        self.record_all(vec![change])?;
        Ok(id)
    }

    /// Writes changes to disk, all at once; they may begin when this returns. Returns their ids, in their order.
    pub(super) fn record_all(&mut self, changes: Vec<Change>) -> Result<Vec<u64>, HostError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let is_new = self.length()? == 0;
        let ids = (self.next_id..).take(changes.len());
        let entries: Vec<Entry> = ids.zip(changes).map(|(id, change)| Entry { id, change }).collect();
        let mut lines = if is_new { self.heading() } else { Vec::new() };
        lines.extend(entries.iter().map(Entry::line));
        self.append(&lines)?;
        if is_new {
            self.flush_directory()?;
        }
        self.next_id = self.next_id.saturating_add(u64::try_from(entries.len()).expect("a length fits 64 bits"));
        let ids = entries.iter().map(|entry| entry.id).collect();
        self.live.extend(entries);
        Ok(ids)
    }

    /// Strikes out a change that is undone, or that was never made.
    pub(super) fn settle(&mut self, id: u64) -> Result<(), HostError> {
        self.settle_all(&[id])
    }

    /// As [`Self::settle`], for several at once.
    pub(super) fn settle_all(&mut self, ids: &[u64]) -> Result<(), HostError> {
        if ids.is_empty() {
            return Ok(());
        }
        let settled: HashSet<u64> = ids.iter().copied().collect();
        self.live.retain(|entry| !settled.contains(&entry.id));
        if self.live.is_empty() {
            self.lines = 0;
            return self.file.set_len(0).and_then(|()| self.flush()).map_err(|source| self.failed(source));
        }
        self.append(&ids.iter().map(|id| Line::Settled(*id)).collect::<Vec<_>>())?;
        if self.lines > FEW_LINES.max(self.live.len().saturating_mul(SLACK))
            && let Err(error) = self.write_anew()
        {
            // It stays longer than it need be.
            tracing::debug!(%error, "the journal was not written anew");
        }
        Ok(())
    }

    /// Puts a journal with only the unsettled changes in the place of this one. A crash leaves the one or the other.
    fn write_anew(&mut self) -> io::Result<()> {
        let path = self.path.with_added_extension("new");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new().append(true).read(true).create_new(true).mode(0o600).open(&path)?;
        // Locked before it has the journal's name, so that nobody takes it for one that is left.
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        let owner = self.file.metadata()?;
        fchown(&*file, Some(owner.uid()), Some(owner.gid()))?;
        let mut lines = self.heading();
        lines.extend(self.live.iter().map(Entry::line));
        file.write_all(&encode(&lines)?)?;
        file.sync_all()?;
        fs::rename(&path, &self.path)?;
        self.file = file;
        self.lines = lines.len();
        flush_directory(&self.path)
    }

    /// What the changes that follow were made in.
    fn heading(&self) -> Vec<Line> {
        vec![Line::Boot(self.boot.clone()), Line::Namespace(self.namespace)]
    }

    fn check_reach(&self) -> Result<(), HostError> {
        let owner = self.file.metadata().map_err(|source| self.failed(source))?.uid();
        let writes_files = self.live.iter().any(|entry| matches!(entry.change, Change::ResolverFile(_)));
        if writes_files && !Guard::default().trusts(owner) {
            return Err(GuardError {
                path: self.path.clone(),
                reason: format!("belongs to user {owner}, and tells to write a file"),
                next: format!("undo as that user, or look what is in it and run `chown 0 {}`", self.path.display()),
                source: None,
            }
            .into());
        }
        Ok(())
    }

    fn load(&mut self) -> Result<(), HostError> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).map_err(|source| self.failed(source))?;
        // A line cut short was being written when its process died, so its change never began.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            bytes.truncate(whole);
            let whole = u64::try_from(whole).expect("a file is shorter than 2^64 bytes");
            self.file.set_len(whole).map_err(|source| self.failed(source))?;
        }
        let mut same_boot = true;
        for (place, line) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            self.lines = place + 1;
            match serde_json::from_slice(line) {
                Ok(Line::Boot(boot)) => {
                    same_boot = boot == self.boot;
                    self.recorded_namespace = None;
                }
                Ok(Line::Namespace(namespace)) => self.recorded_namespace = same_boot.then_some(namespace),
                Ok(Line::Change { id, change }) => {
                    self.next_id = self.next_id.max(id.saturating_add(1));
                    if same_boot || change.outlives_boot() {
                        self.live.push(Entry { id, change });
                    }
                }
                Ok(Line::Settled(id)) => self.live.retain(|entry| entry.id != id),
                Err(_) => return Err(HostError::Journal { journal: self.path.clone(), line: place + 1 }),
            }
        }
        if self.live.is_empty() {
            self.lines = 0;
            self.file.set_len(0).map_err(|source| self.failed(source))
        } else if same_boot {
            Ok(())
        } else {
            self.append(&self.heading())
        }
    }

    fn append(&mut self, lines: &[Line]) -> Result<(), HostError> {
        let bytes = encode(lines).map_err(|source| self.failed(source))?;
        let before = self.length()?;
        let written = self.file.write_all(&bytes).and_then(|()| self.flush());
        written.or_else(|source| {
            // A full disk may have taken half of it; what follows must not be glued to that.
            if let Err(error) = self.file.set_len(before) {
                tracing::warn!(%error, "the journal may end with half a line");
            }
            if !continues(self.without_disk, &source) {
                return Err(self.failed(source));
            }
            if !self.warned {
                self.warned = true;
                warn_of_crash(&self.path);
            }
            Ok(())
        })?;
        self.lines = self.lines.saturating_add(lines.len());
        Ok(())
    }

    fn length(&self) -> Result<u64, HostError> {
        Ok(self.file.metadata().map_err(|source| self.failed(source))?.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        #[cfg(test)]
        {
            self.flushes += 1;
        }
        self.file.sync_data()
    }

    fn flush_directory(&self) -> Result<(), HostError> {
        flush_directory(&self.path).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> HostError {
        HostError::system(format!("write the journal {}", self.path.display()), source)
    }
}

impl Drop for Journal {
    /// Removes a journal with nothing left to undo, while it is still locked.
    fn drop(&mut self) {
        if matches!(self.length(), Ok(0))
            && let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "an empty journal stays behind");
        }
    }
}

fn encode(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Whether a change is made in spite of this error in writing it down.
fn continues(without_disk: WithoutDisk, error: &io::Error) -> bool {
    let lasting = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::ReadOnlyFilesystem];
    without_disk == WithoutDisk::Continue && lasting.contains(&error.kind())
}

fn warn_of_crash(journal: &Path) {
    tracing::warn!(
        journal = %journal.display(),
        "the disk is full or read-only: after a crash, what was changed on this host stays until it starts anew"
    );
}

/// A journal that ends with the process.
fn in_memory() -> io::Result<Flock<File>> {
    let file = File::from(memfd_create("adit-journal", MFdFlags::MFD_CLOEXEC)?);
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Opens and locks the file at `path`; another holder may remove it in between, and then a new one is made.
fn lock(path: &Path, guard: &Guard) -> Result<Flock<File>, HostError> {
    let doing = |source| HostError::system(format!("open the journal {}", path.display()), source);
    loop {
        let file = guard.open(path, Access::AppendOrCreate, Readers::Everybody)?;
        let locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((_, Errno::EWOULDBLOCK)) => return Err(HostError::Busy { journal: path.to_owned() }),
            Err((_, errno)) => return Err(doing(errno.into())),
        };
        let held = locked.metadata().map_err(doing)?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => return Ok(locked),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(doing(error)),
        }
    }
}

#[cfg(test)]
mod tests;

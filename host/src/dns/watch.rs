//! Says that something changed about the host's resolver.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::future::pending;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{StreamExt, stream};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, as_variant};

use super::SystemBus;
use super::resolved::{MANAGER, OBJECT, PROPERTIES, SERVICE, connect, is_running};
use crate::guard::Signal;

/// How often resolved is asked for what it sends no signal of.
const LOOK: Duration = Duration::from_secs(1);
/// Pause before something that cannot be watched is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Room for events that wait. An event takes 16 bytes and a name of 256 at most (inotify(7)).
const EVENTS: usize = 4096;
/// Signals that may wait; one alone leads to a look at everything.
const SIGNALS: usize = 16;

/// Raises the signal when the file at a path, or one that a link there leads to, is written, replaced or removed.
pub(crate) async fn follow_file(path: PathBuf, signal: Signal) {
    loop {
        if let Err(error) = follow_until_failure(&path, &signal).await {
            tracing::debug!(%error, path = %path.display(), "the resolver's file cannot be watched");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_until_failure(path: &Path, signal: &Signal) -> io::Result<()> {
    let mut watch = FileWatch::begin(path)?;
    loop {
        watch.changed().await?;
        // The path may lead to another file now. What happens from here on is heard.
        watch = FileWatch::begin(path)?;
        signal.raise();
    }
}

/// Raises the signal when resolved comes, goes, or gets other settings, of ours or of another link.
pub(crate) async fn follow_resolved(bus: SystemBus, signal: Signal) {
    if bus == SystemBus::Absent {
        return pending().await;
    }
    loop {
        if let Some(connection) = connect(&bus).await
            && let Err(error) = follow_bus(&connection, &signal).await
        {
            tracing::debug!(%error, "systemd-resolved cannot be watched");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Returns when the connection ends.
async fn follow_bus(connection: &Connection, signal: &Signal) -> zbus::Result<()> {
    let signals = || MatchRule::builder().msg_type(Type::Signal);
    let comes_or_goes = signals().sender("org.freedesktop.DBus").member("NameOwnerChanged").add_arg(SERVICE).build()?;
    let changes = signals().path(OBJECT).interface(PROPERTIES).member("PropertiesChanged").build()?;
    let waiting = SIGNALS.try_into().ok();
    let mut signals = stream::select(
        MessageStream::for_match_rule(comes_or_goes, connection, waiting).await?,
        MessageStream::for_match_rule(changes, connection, waiting).await?,
    );
    // Domains change without a signal.
    let mut domains = None;
    loop {
        tokio::select! {
            message = signals.next() => match message {
                Some(message) => drop(message?),
                None => return Ok(()),
            },
            () = tokio::time::sleep(LOOK) => {
                let now = read_domains(connection).await?;
                if domains == now {
                    continue;
                }
                domains = now;
            }
        }
        signal.raise();
    }
}

/// The domains of all links; `None` while resolved does not run.
async fn read_domains(connection: &Connection) -> zbus::Result<Option<Vec<(i32, String, bool)>>> {
    if is_running(connection).await != Some(true) {
        return Ok(None);
    }
    let question = (MANAGER, "Domains");
    let answer = connection.call_method(Some(SERVICE), OBJECT, Some(PROPERTIES), "Get", &question).await?;
    let body = answer.body();
    let domains: as_variant::Deserialize<'_, Vec<(i32, String, bool)>> = body.deserialize()?;
    Ok(Some(domains.0))
}

/// A look at a file, the links that lead to it, and the directories they are in.
struct FileWatch {
    inotify: Receiver,
    /// The file itself: one that is mounted is not in the directory that is watched.
    file: Option<i32>,
    names: HashSet<OsString>,
}

impl FileWatch {
    fn begin(path: &Path) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let within = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM;
        let written = WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let mut names = HashSet::new();
        for step in steps(path) {
            let directory = step.parent().unwrap_or_else(|| Path::new("/"));
            // A link may lead nowhere.
            if inotify::add_watch(&inotify, directory, within | written).is_ok() {
                names.extend(step.file_name().map(OsStr::to_owned));
            }
        }
        let file = inotify::add_watch(&inotify, path, written | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF).ok();
        if names.is_empty() && file.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { inotify: Receiver::from_owned_fd_unchecked(inotify)?, file, names })
    }

    async fn changed(&self) -> io::Result<()> {
        let mut room = [0; EVENTS];
        loop {
            self.inotify.readable().await?;
            match self.inotify.try_read(&mut room) {
                Ok(length) if self.concern_file(&room[..length]) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether one of some events is of the file, or of a link that leads to it.
    fn concern_file(&self, mut events: &[u8]) -> bool {
        // struct inotify_event: watch, mask, cookie, length of the name, name with zero bytes behind it.
        while let Some(([w0, w1, w2, w3, .., l0, l1, l2, l3], rest)) = events.split_first_chunk::<16>() {
            let length = usize::try_from(u32::from_ne_bytes([*l0, *l1, *l2, *l3])).unwrap_or(usize::MAX);
            let Some((name, rest)) = rest.split_at_checked(length) else { return true };
            let name = OsStr::from_bytes(name.split(|byte| *byte == 0).next().unwrap_or_default());
            if self.file == Some(i32::from_ne_bytes([*w0, *w1, *w2, *w3])) || self.names.contains(name) {
                return true;
            }
            events = rest;
        }
        false
    }
}

/// The path, and where the links at it lead, one after the other.
fn steps(path: &Path) -> Vec<PathBuf> {
    let next = |path: &PathBuf| Some(path.parent()?.join(fs::read_link(path).ok()?));
    std::iter::successors(Some(path.to_owned()), next).take(8).collect()
}

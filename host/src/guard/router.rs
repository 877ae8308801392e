//! Hosts that become routers while their gateway runs.
//!
//! A gateway that switched forwarding on lets nothing pass between other links. Whoever makes the host a router later
//! writes 1 to a switch that is 1 already, which changes nothing and which the kernel tells nobody of. But whoever
//! wrote and closes the file is heard by inotify(7). Opening it to write it anew is heard like a write itself, when the
//! old value still stands there, so that only closing is listened to.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;
use tokio::time::sleep;

use super::Signal;
use crate::changes::HostChanges;
use crate::changes::forwarding::{directory, switch};
use crate::journal::Change;
use crate::netlink::Family;
use crate::sysctl;

/// Room for events that wait; those of a file without a name take 16 bytes.
const EVENTS: usize = 4096;
/// Tries to hear the writer whose value is there already, and the pause between two: a tenth of a second in all.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// Hears who writes to a family's switch.
#[derive(Debug)]
pub(crate) struct SwitchWatch {
    family: Family,
    inotify: OwnedFd,
}

impl SwitchWatch {
    /// Hears writes from now on.
    fn begin(family: Family) -> io::Result<Self> {
        Ok(Self { family, inotify: listen(family)? })
    }

    fn is_off(&self) -> bool {
        sysctl::read(switch(self.family)).is_ok_and(|value| value == "0")
    }

    /// Whether somebody wrote since this was last asked.
    fn was_written(&self) -> bool {
        let mut room = [0; EVENTS];
        let mut written = false;
        while rustix::io::read(&self.inotify, &mut room).is_ok_and(|length| length > 0) {
            written = true;
        }
        written
    }
}

fn listen(family: Family) -> io::Result<OwnedFd> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let file = Path::new("/proc/sys").join(switch(family));
    inotify::add_watch(&inotify, file, WatchFlags::CLOSE_WRITE)?;
    Ok(inotify)
}

/// Raises the signal when somebody writes to the switch.
async fn follow(family: Family, signal: Signal) {
    let heard = async {
        let events = Receiver::from_owned_fd_unchecked(listen(family)?)?;
        let mut room = [0; EVENTS];
        loop {
            events.readable().await?;
            match events.try_read(&mut room) {
                Ok(_) => signal.raise(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    let failed: io::Result<()> = heard.await;
    tracing::debug!(?failed, "who switches forwarding on is heard late from now on");
}

impl HostChanges {
    /// Listens to who writes to the switch of a family that this process switched on.
    pub(crate) fn watch_switch(&mut self, family: Family) {
        if self.switches.iter().any(|watch| watch.family == family) {
            return;
        }
        match SwitchWatch::begin(family) {
            Ok(watch) => {
                self.switches.push(watch);
                self.watch.add(follow(family, self.watch.signal()));
            }
            Err(error) => tracing::debug!(%error, ?family, "nobody is heard who switches forwarding on"),
        }
    }

    /// Leaves forwarding to the host where somebody else has switched it on by now, also for the time after this
    /// process.
    pub(super) async fn leave_forwarding_to_routers(&mut self) {
        let mut routers = Vec::new();
        for watch in &self.switches {
            let mut is_written = watch.was_written();
            if !watch.is_off() {
                routers.extend(is_written.then_some(watch.family));
                continue;
            }
            // Whoever switched it off must not be heard only after a guard has switched it on again.
            for _ in 0..TRIES {
                if is_written {
                    break;
                }
                sleep(BETWEEN_TRIES).await;
                is_written = watch.was_written();
            }
        }
        for family in routers {
            if self.has_switched_forwarding_on(family) {
                tracing::info!(?family, "forwarding was switched on by somebody else, too: this host is a router now");
                self.forget_forwarding(family);
            }
        }
    }

    /// Forgets what this process itself wrote in this round.
    pub(super) fn forget_own_writes(&self) {
        for watch in &self.switches {
            watch.was_written();
        }
    }

    /// Leaves what was changed along with forwarding as it is.
    fn forget_forwarding(&mut self, family: Family) {
        let is_part = |key: &str| {
            key == switch(family)
                || key.starts_with(directory(family))
                    && ["/forwarding", "/accept_redirects", "/accept_ra"].iter().any(|name| key.ends_with(name))
        };
        let parts = self.journal.live().iter().filter_map(|entry| {
            let Change::Sysctl { key, .. } = &entry.change else { return None };
            is_part(key).then_some((entry.id, key.clone()))
        });
        let (ids, keys): (Vec<u64>, Vec<String>) = parts.unzip();
        if let Err(error) = self.journal.settle_all(&ids) {
            tracing::warn!(%error, "forwarding will be switched off at the end, although somebody else wants it");
            return;
        }
        // A gateway still needs what it needed.
        for key in keys {
            if key == switch(family) {
                self.found_right.insert(key, "1".to_owned());
            } else if key.ends_with("/accept_ra")
                && let Ok(value) = sysctl::read(&key)
            {
                self.found_right.insert(key, value);
            }
        }
    }
}

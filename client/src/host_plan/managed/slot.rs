//! Slots: the numbers that keep several running clients apart (TUN name, routing table, rule priority).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use adit_net::tun::Tun;
use adit_program::exit::{Exit, Failure};
use adit_program::file_lock::FileLock;
use adit_program::guarded_file::GuardError;
use adit_program::rights::Capability;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use crate::profile::guard_failure;

/// Routing table of the first client.
pub const FIRST_TABLE: u32 = 44_311;
/// Number of clients that can run in one network namespace.
const SLOTS: u32 = 64;
/// Priority of the first split tunnel's rules. They stand before those of a full tunnel, which would leave them
/// nothing.
const SPLIT_PRIORITY: u32 = 5200;
/// Priority of the first full tunnel's rules; `main` is at 32766.
const FULL_PRIORITY: u32 = 5300;
/// Longest name of a link (IFNAMSIZ less the terminating zero).
const LONGEST_LINK_NAME: usize = 15;

/// One client's number in this network namespace, held by a lock for as long as the value lives.
#[derive(Debug)]
pub struct Slot {
    number: u32,
    _lock: FileLock,
}

impl Slot {
    #[cfg(test)]
    pub(super) fn for_test(run: &Path) -> Self {
        Self { number: 0, _lock: lock_number(run, 0).unwrap().unwrap() }
    }

    /// Routing table of this client.
    pub fn table(&self) -> u32 {
        FIRST_TABLE + self.number
    }

    /// Priority of this client's rules.
    pub fn priority(&self, full_tunnel: bool) -> u32 {
        self.number + if full_tunnel { FULL_PRIORITY } else { SPLIT_PRIORITY }
    }
}

/// Opens a TUN device and the slot that goes with it: `name`, or the first free of `adit0`, `adit1`, ….
///
/// Lock files are made in `run`; for `offload` see [`Tun::create`]. Must be called inside a tokio runtime.
///
/// # Errors
/// A [`Failure`] that tells a missing `/dev/net/tun` from a missing capability and from a name in use.
pub fn open_tun(run: &Path, name: Option<&str>, offload: bool) -> Result<(Tun, Slot), Failure> {
    if let Some(name) = name {
        check_name(name)?;
    }
    for number in 0..SLOTS {
        let Some(lock) = lock_number(run, number).map_err(guard_failure)? else { continue };
        let wanted = name.map_or_else(|| format!("adit{number}"), str::to_owned);
        if if_nametoindex(wanted.as_str()).is_ok() {
            match name {
                Some(name) => return Err(taken(name)),
                None => continue,
            }
        }
        match Tun::create(&wanted, 1, offload) {
            Ok(tun) => return Ok((tun, Slot { number, _lock: lock })),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && name.is_none() => {}
            Err(error) => return Err(tun_failure(&wanted, &error)),
        }
    }
    Err(Failure::new(
        Exit::Other,
        "tun device",
        "all 64 names and tables are in use",
        "end a client with `adit-client down`",
    ))
}

/// Takes the lock called `purpose` for this network namespace; `None` if somebody else holds it.
pub(super) fn lock(run: &Path, purpose: &str) -> Result<Option<FileLock>, GuardError> {
    // Network namespaces can share a file system, so its inode tells one from another.
    let namespace = Path::new("/proc/thread-self/ns/net");
    let namespace = fs::metadata(namespace).map_err(|error| GuardError::system(namespace, error))?.ino();
    FileLock::try_acquire(&run.join(format!("{purpose}-{namespace}.lock")))
}

fn lock_number(run: &Path, number: u32) -> Result<Option<FileLock>, GuardError> {
    lock(run, &format!("slot-{number}"))
}

fn check_name(name: &str) -> Result<(), Failure> {
    let fits = !name.is_empty() && name.len() <= LONGEST_LINK_NAME && name != "." && name != "..";
    if fits && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return Ok(());
    }
    let next = "use at most 15 letters, digits, `.`, `_` and `-`";
    Err(Failure::new(Exit::Usage, format!("--tun {name}"), "it is not a device name", next))
}

fn taken(name: &str) -> Failure {
    let next = "choose another name, or leave `--tun` out";
    Failure::new(Exit::Usage, format!("--tun {name}"), "a network device of this name is there already", next)
}

fn tun_failure(name: &str, error: &io::Error) -> Failure {
    let what = format!("tun device {name}");
    let kind = error.kind();
    let raw = error.raw_os_error();
    let no_driver = raw == Some(Errno::ENODEV as i32) || raw == Some(Errno::ENXIO as i32);
    if kind == io::ErrorKind::NotFound || no_driver {
        let next = "load the kernel module with `modprobe tun`; in a container, pass `--device /dev/net/tun`";
        Failure::new(Exit::Permission, what, "there is no /dev/net/tun, or no driver behind it", next)
    } else if kind == io::ErrorKind::PermissionDenied {
        let next = Capability::NetAdmin.next_step();
        Failure::new(Exit::Permission, what, "CAP_NET_ADMIN or access to /dev/net/tun is missing", next)
    } else if kind == io::ErrorKind::ResourceBusy {
        taken(name)
    } else {
        Failure::new(Exit::Other, what, error.to_string(), "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_differ_in_table_and_priority_and_split_comes_before_full() {
        let run = tempfile::tempdir().unwrap();
        let slot = |number| Slot { number, _lock: lock_number(run.path(), number).unwrap().unwrap() };
        let (first, last) = (slot(0), slot(SLOTS - 1));
        assert_eq!((first.table(), last.table()), (44311, 44374));
        assert!(last.priority(false) < first.priority(true) && last.priority(true) < 32766);
    }

    #[test]
    fn device_names_are_checked() {
        assert!(check_name("adit0").is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "sixteen-letters-"] {
            assert_eq!(check_name(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn missing_device_and_missing_capability_have_different_next_steps() {
        let missing = tun_failure("adit0", &io::ErrorKind::NotFound.into());
        let denied = tun_failure("adit0", &io::ErrorKind::PermissionDenied.into());
        assert_eq!((missing.exit, denied.exit), (Exit::Permission, Exit::Permission));
        assert!(missing.next.contains("modprobe") && denied.next.contains("CAP_NET_ADMIN"));
    }
}

//! Servers of other makers that tests start for themselves.

use std::env;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// A loopback address that no other test uses at the same time, so that servers can have ports of their own.
pub(crate) fn own_address() -> IpAddr {
    static NUMBER: AtomicU8 = AtomicU8::new(2);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed).max(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, number, high, low.clamp(1, 254)).into()
}

/// Where a program lies; also in the directories that only root's path has.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.map(|place| place.join(program)).find(|file| file.is_file())
}

/// A server; dropping it ends it.
pub(crate) struct ServerProcess(Child);

impl ServerProcess {
    /// Starts a program in the foreground.
    ///
    /// # Panics
    /// It cannot be started.
    pub(crate) fn start<A: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("{}: {error}", program.display())))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

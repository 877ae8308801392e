//! The browser of whoever sits at this host.

use std::env;
use std::process::{Command, Stdio};

/// Opens a link in the browser that a desktop prefers.
const OPENER: &str = "xdg-open";

/// Whether a browser can be shown: there is a desktop, it is this user's, and something opens links in it.
pub(super) fn is_there() -> bool {
    let has_desktop = ["WAYLAND_DISPLAY", "DISPLAY"].iter().any(|name| env::var_os(name).is_some());
    // Root has no desktop of its own, and must not start programs of somebody else's.
    has_desktop && !nix::unistd::geteuid().is_root() && opener().is_some()
}

/// Opens a link. Nothing is heard of a browser that fails: the link is on the screen as well.
pub(super) fn open(link: &str) {
    let Some(program) = opener() else { return };
    let started =
        Command::new(program).arg(link).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if let Err(error) = started {
        tracing::debug!(%error, "no browser was opened");
    }
}

fn opener() -> Option<std::path::PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(OPENER)).find(|program| program.is_file())
}

//! The host's resolver: systemd-resolved over D-Bus if it runs, else `resolv.conf`.

mod file;
mod reach;
mod resolved;
mod watch;

pub(super) use file::{SavedFile, Standing};
pub(super) use reach::Reach;
pub(super) use resolved::{LinkServers, Resolved, connect, is_behind};
pub(super) use watch::{follow_file, follow_resolved};

/// The bus on which systemd-resolved is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SystemBus {
    /// The system bus of this host.
    #[default]
    System,
    /// A bus at a D-Bus address, such as `unix:path=/tmp/bus`.
    Address(String),
    /// None: always use the resolver's file.
    Absent,
}

//! Why the host could not be configured or mended.

use std::net::IpAddr;
use std::path::Path;

use adit_host::HostError;
use adit_program::causes::with_causes;
use adit_program::exit::{Exit, Failure};
use adit_program::guarded_file::GuardError;
use adit_program::rights::Capability;

use crate::host_plan::{HostFault, HostPlanError};
use crate::state::Obstacle;

/// Why the host could not be configured.
#[derive(Debug, thiserror::Error)]
pub enum HostSetupError {
    /// The gateway's settings make no sense.
    #[error(transparent)]
    Plan(#[from] HostPlanError),
    /// The host refused a change.
    #[error(transparent)]
    Change(#[from] HostError),
    /// The gateway assigned an address that this host has elsewhere.
    #[error("the gateway gave this device {address}, which {link} of this host has already")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The link that has it.
        link: String,
    },
    /// Answers of the gateway would be dropped.
    #[error("reverse paths are checked strictly on this host, so that it would drop the gateway's answers")]
    StrictReversePath(#[source] HostError),
    /// Another client holds the default routes.
    #[error("another client on this host has a full tunnel")]
    SecondFullTunnel,
    /// A lock file could not be used.
    #[error("lock the default routes")]
    Lock(#[source] GuardError),
}

impl HostSetupError {
    /// The error and its causes in one line.
    fn describe(&self) -> String {
        match self {
            Self::Change(error) => describe(error),
            Self::Plan(_)
            | Self::AddressTaken { .. }
            | Self::StrictReversePath(_)
            | Self::SecondFullTunnel
            | Self::Lock(_) => with_causes(self),
        }
    }

    /// Whether a permission or capability is missing.
    fn is_permission_denied(&self) -> bool {
        match self {
            Self::Change(error) | Self::StrictReversePath(error) => error.is_permission_denied(),
            Self::Lock(error) => error.is_permission_denied(),
            Self::Plan(_) | Self::AddressTaken { .. } | Self::SecondFullTunnel => false,
        }
    }

    /// What kind of obstacle to a session it is.
    fn obstacle(&self) -> Obstacle {
        match self {
            Self::Change(HostError::NoSuchLink { .. }) => Obstacle::DeviceGone,
            Self::Change(_) | Self::StrictReversePath(_) | Self::Lock(_) if self.is_permission_denied() => {
                Obstacle::Permission
            }
            Self::Change(_)
            | Self::Lock(_)
            | Self::Plan(_)
            | Self::AddressTaken { .. }
            | Self::StrictReversePath(_)
            | Self::SecondFullTunnel => Obstacle::Local,
        }
    }

    /// The failure a client ends with.
    fn failure(&self) -> Failure {
        let reason = self.describe();
        match self {
            Self::SecondFullTunnel => {
                let next = "end the other with `adit-client down NAME`; `adit-client list` shows which runs";
                Failure::new(Exit::Other, "full tunnel", reason, next)
            }
            Self::Plan(_) => {
                let next = "ask the gateway's administrator to look at the pools, routes and DNS it gives";
                Failure::new(Exit::Other, "network settings", reason, next)
            }
            Self::AddressTaken { .. } => {
                let next = "take that address off the link, or ask the gateway's administrator for another one";
                Failure::new(Exit::Other, "network settings", reason, next)
            }
            Self::Change(_) | Self::StrictReversePath(_) | Self::Lock(_) if self.is_permission_denied() => {
                Failure::new(Exit::Permission, "host set-up", reason, Capability::NetAdmin.next_step())
            }
            Self::StrictReversePath(_) => {
                let next = "set net.ipv4.conf.all.rp_filter to 2; for a container, \
                    `--sysctl net.ipv4.conf.all.rp_filter=2`";
                Failure::new(Exit::Other, "host set-up", reason, next)
            }
            Self::Lock(GuardError { path, reason, next, source: None }) => {
                Failure::new(Exit::Usage, path.display().to_string(), reason, next)
            }
            Self::Change(_) | Self::Lock(_) => {
                let next = "mend that, then connect again; `RUST_LOG=debug` shows each step";
                Failure::new(Exit::Other, "host set-up", reason, next)
            }
        }
    }
}

impl From<HostSetupError> for HostFault {
    fn from(error: HostSetupError) -> Self {
        Self { obstacle: error.obstacle(), failure: error.failure() }
    }
}

/// A [`Failure`] for a journal that could not be opened or undone.
pub fn journal_failure(journal: &Path, error: &HostError) -> Failure {
    let what = format!("journal {}", journal.display());
    let reason = describe(error);
    if error.is_permission_denied() {
        return Failure::new(Exit::Permission, what, reason, Capability::NetAdmin.next_step());
    }
    let (exit, next) = match error {
        HostError::Unguarded(error) => {
            return Failure::new(Exit::Usage, error.path.display().to_string(), &error.reason, &error.next);
        }
        HostError::Busy { .. } => {
            return Failure::new(Exit::Usage, what, "a client is running with this profile", "see `adit-client list`");
        }
        HostError::OtherNamespace { enter, .. } => {
            (Exit::Other, format!("undo them there: `{enter} adit-client cleanup`"))
        }
        HostError::Journal { .. } => (
            Exit::Other,
            "run `cleanup` of the version that wrote it; or remove the file and restart this host, \
             which undoes all but changes to /etc/resolv.conf"
                .to_owned(),
        ),
        HostError::Undo { .. } => (
            Exit::Other,
            "mend that, then run `adit-client cleanup`; a restart of this host undoes all but changes to \
             /etc/resolv.conf"
                .to_owned(),
        ),
        HostError::NoSuchLink { .. }
        | HostError::ForeignTable { .. }
        | HostError::System { .. }
        | HostError::ResolverFile { .. }
        | HostError::Bus { .. } => (Exit::Other, "mend that, then run `adit-client cleanup`".to_owned()),
    };
    Failure::new(exit, what, reason, next)
}

/// An error in one line, with each of several failures.
fn describe(error: &HostError) -> String {
    let HostError::Undo { failures } = error else { return with_causes(error) };
    let each: Vec<String> = failures.iter().map(describe).collect();
    format!("{error}: {}", each.join("; "))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn system(kind: io::ErrorKind) -> HostError {
        HostError::System { doing: "remove route 10.0.0.0/8 from table 44311".into(), source: kind.into() }
    }

    #[test]
    fn fault_says_how_a_session_goes_on_and_with_which_exit_code_it_ends() {
        let gone = HostSetupError::Change(HostError::NoSuchLink { name: "adit0".into() });
        let denied = HostSetupError::Change(system(io::ErrorKind::PermissionDenied));
        let locked_out =
            HostSetupError::Lock(GuardError::system(Path::new("lock"), io::ErrorKind::PermissionDenied.into()));
        for (error, obstacle, exit) in [
            (gone, Obstacle::DeviceGone, Exit::Other),
            (denied, Obstacle::Permission, Exit::Permission),
            (locked_out, Obstacle::Permission, Exit::Permission),
            (HostSetupError::SecondFullTunnel, Obstacle::Local, Exit::Other),
        ] {
            let fault = HostFault::from(error);
            assert_eq!((fault.obstacle, fault.failure.exit), (obstacle, exit), "{fault}");
        }
    }

    #[test]
    fn failed_undo_names_each_change() {
        let failures = vec![system(io::ErrorKind::NotFound), system(io::ErrorKind::TimedOut)];
        let failure = journal_failure(Path::new("j"), &HostError::Undo { failures });
        assert!(failure.reason.contains("entity not found; remove route") && failure.reason.contains("timed out"));
        assert!(failure.next.contains("cleanup"), "{failure}");
    }

    #[test]
    fn unreadable_journal_has_another_next_step_than_what_has_just_failed() {
        let failure = journal_failure(Path::new("j"), &HostError::Journal { journal: "j".into(), line: 3 });
        assert!(failure.reason.contains("line 3") && failure.next.contains("remove the file"), "{failure}");
    }
}

//! Undoes what crashed clients left on this host.

use std::path::Path;
use std::time::{Duration, Instant};

use adit_host::{HostChanges, HostError};
use adit_program::causes::with_causes;
use adit_program::exit::Failure;

use crate::cli::lock::ClientLock;
use crate::host_plan::managed::journal_failure;
use crate::profile::{Directories, ProfileName};

/// How long another client may look into our journal, when both start.
const PASSING_VISIT: Duration = Duration::from_secs(3);
/// How often a journal is tried that another client looks into.
const VISIT_POLL: Duration = Duration::from_millis(20);

/// Undoes what other clients, dead by now, left in this network namespace: their routes and rules would catch ours.
///
/// What cannot be undone is no reason not to start.
pub(super) async fn recover_others(directories: &Directories, own: &ProfileName) {
    let names = directories.journals().unwrap_or_else(|error| {
        tracing::warn!(%error, "journals of other clients cannot be listed");
        Vec::new()
    });
    for name in names.iter().filter(|name| *name != own && !ClientLock::is_held(directories, name)) {
        match adit_host::recover_same_namespace(&directories.journal(name)).await {
            Ok(recovery) => report(recovery.undone),
            // It has just started.
            Err(HostError::Busy { .. }) => {}
            Err(error) => {
                tracing::warn!("what another client left on this host cannot be undone; see `adit-client cleanup`");
                tracing::debug!(error = with_causes(&error), profile = %name, "journal not recovered");
            }
        }
    }
}

/// Opens the journal of a client that holds its lock, undoing what an earlier run left in it.
pub(super) async fn open_journal(journal: &Path) -> Result<HostChanges, Failure> {
    let deadline = Instant::now() + PASSING_VISIT;
    loop {
        match HostChanges::open(journal).await {
            Ok(changes) => {
                report(changes.recovered().undone);
                return Ok(changes);
            }
            Err(HostError::Busy { .. }) if Instant::now() < deadline => tokio::time::sleep(VISIT_POLL).await,
            Err(error) => return Err(journal_failure(journal, &error)),
        }
    }
}

fn report(undone: usize) {
    if undone > 0 {
        tracing::warn!(changes = undone, "undid what a crashed client left on this host");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use adit_host::{Netlink, Route, RouteTarget};

    use super::*;
    use adit_testing::namespace::in_namespace_async;

    fn unreachable(prefix: &str) -> Route {
        Route { table: 44311, prefix: prefix.parse().unwrap(), target: RouteTarget::Unreachable, metric: Some(200) }
    }

    async fn crashed_client(journal: &Path, prefix: &str) {
        let mut changes = HostChanges::open(journal).await.unwrap();
        changes.add_route(&unreachable(prefix)).await.unwrap();
    }

    async fn two_journals() {
        let directory = tempfile::tempdir().unwrap();
        let directories = Directories::below(directory.path());
        directories.create_for_running().unwrap();
        let names = ["own", "crashed", "running", "unreadable"].map(|name| name.parse::<ProfileName>().unwrap());
        let [own, crashed, running, unreadable] = &names;
        crashed_client(&directories.journal(own), "10.1.0.0/16").await;
        crashed_client(&directories.journal(crashed), "10.2.0.0/16").await;
        let _lock = ClientLock::acquire(&directories, running).unwrap();
        crashed_client(&directories.journal(running), "10.3.0.0/16").await;
        fs::write(directories.journal(unreadable), "nonsense\n").unwrap();

        recover_others(&directories, own).await;
        let netlink = Netlink::open().unwrap();
        let left = [unreachable("10.1.0.0/16"), unreachable("10.3.0.0/16")];
        assert_eq!(netlink.routes(44311).await.unwrap(), left);
        assert!(!directories.journal(crashed).exists());
        drop(open_journal(&directories.journal(own)).await.unwrap());
        assert_eq!(netlink.routes(44311).await.unwrap(), left[1..]);
    }

    #[test]
    fn leftovers_of_every_dead_client_are_undone_before_a_start() {
        in_namespace_async(two_journals);
    }
}

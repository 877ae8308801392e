//! Undoes what a gateway that crashed left on its host.
//!
//! It needs the journal and nothing else: the configuration may be broken by then, and the gateway will not start
//! before the host is as it was.

use std::path::Path;

use adit_host::{HostError, HostOptions};
use adit_program::causes::with_causes;
use adit_program::exit::{Exit, Failure};

use crate::config::guard;

/// Undoes the changes in a journal and returns how many there were; none when there is no such file.
///
/// # Errors
/// A gateway is running, or the host refused.
pub async fn clean_up(journal: &Path) -> Result<usize, Failure> {
    let recovery = adit_host::recover_with(journal, host_options()).await;
    recovery.map(|recovery| recovery.undone).map_err(|error| host_failure("clean up", &error))
}

/// The gateway's journal may belong to the user the service runs as, also when root undoes it.
pub(crate) fn host_options() -> HostOptions {
    HostOptions { guard: guard(), ..HostOptions::default() }
}

/// Puts a refusal of the host into words.
pub(crate) fn host_failure(doing: &str, error: &HostError) -> Failure {
    if let HostError::Unguarded(error) = error
        && error.source.is_none()
    {
        return Failure::new(Exit::Usage, error.path.display().to_string(), &error.reason, &error.next);
    }
    let (exit, next) = if error.is_permission_denied() {
        (Exit::Permission, "run as root, or grant CAP_NET_ADMIN")
    } else if matches!(error, HostError::Busy { .. }) {
        (Exit::Other, "stop the gateway that is running")
    } else {
        (Exit::Other, "mend that, then try again; `adit-server cleanup` undoes what is left")
    };
    Failure::new(exit, doing, with_causes(error), next)
}

//! Undoes what a gateway that crashed left on its host.
//!
//! It needs the journal and nothing else: the configuration may be broken by then, and the gateway will not start
//! before the host is as it was.

use std::path::Path;

use adit_host::{HostError, HostOptions};
use adit_program::causes::with_causes;
use adit_program::exit::{Exit, Failure};
use adit_program::rights::Capability;

use crate::config::guard;

/// What to do where the kernel has no nftables, or not all of it.
const LOAD_MODULES: &str = "load its modules on the host, also for a container: `modprobe -a nf_tables nft_ct nft_masq \
                            nft_limit nft_connlimit nft_fib_inet nft_reject_inet`, or use a kernel with nftables";

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
    if let HostError::ForeignTable { table, reason } = error {
        let next = format!(
            "give this gateway another `tun.name`; or, if nothing needs that table, run `nft delete table inet {table}`"
        );
        return Failure::new(Exit::Other, format!("nftables table inet {table}"), reason, next);
    }
    let (exit, next) = if error.is_permission_denied() {
        (Exit::Permission, Capability::NetAdmin.next_step())
    } else if matches!(error, HostError::Busy { .. }) {
        (Exit::Other, "stop the gateway that is running".to_owned())
    } else if error.is_missing_firewall() {
        (Exit::Unsupported, LOAD_MODULES.to_owned())
    } else {
        (Exit::Other, "mend that, then try again; `adit-server cleanup` undoes what is left".to_owned())
    };
    Failure::new(exit, doing, with_causes(error), next)
}

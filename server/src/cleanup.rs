//! Undoes what a gateway that crashed left on its host.
//!
//! It needs the journal and nothing else: the configuration may be broken by then, and the gateway will not start
//! before the host is as it was.

use std::path::Path;

use adit_host::{HostError, HostOptions, WithoutDisk};
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

/// The gateway's journal may belong to the user the service runs as, and never names the resolver.
pub(crate) fn host_options() -> HostOptions {
    HostOptions { guard: guard(), resolver: false, without_disk: WithoutDisk::Continue, ..HostOptions::default() }
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
    } else if let HostError::OtherNamespace { enter, .. } = error {
        (Exit::Other, format!("undo them there: `{enter} adit-server cleanup`"))
    } else if error.is_missing_firewall() {
        (Exit::Unsupported, LOAD_MODULES.to_owned())
    } else {
        (Exit::Other, "mend that, then try again; `adit-server cleanup` undoes what is left".to_owned())
    };
    Failure::new(exit, doing, with_causes(error), next)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn refused(doing: &str, code: i32) -> Failure {
        let error = HostError::System { doing: doing.to_owned(), source: io::Error::from_raw_os_error(code) };
        host_failure("set up adit0", &error)
    }

    #[test]
    fn kernel_without_nftables_is_told_with_the_modules_to_load() {
        const NO_SUCH_FILE: i32 = 2;
        const NOT_SUPPORTED: i32 = 95;
        for code in [NO_SUCH_FILE, NOT_SUPPORTED] {
            let failure = refused("load the nftables table inet adit: append rule 9 to chain forward", code);
            assert_eq!(failure.exit, Exit::Unsupported);
            assert!(failure.next.contains("modprobe"), "{failure}");
        }
        let other = refused("set link adit0 up", NO_SUCH_FILE);
        assert!(other.exit == Exit::Other && !other.next.contains("modprobe"), "{other}");
    }

    #[test]
    fn table_of_somebody_else_is_named_with_both_ways_out() {
        let error = HostError::ForeignTable { table: "adit".into(), reason: "belongs to process 7".into() };
        let failure = host_failure("set up adit0", &error);
        assert_eq!(
            (failure.what.as_str(), failure.reason.as_str()),
            ("nftables table inet adit", "belongs to process 7")
        );
        assert!(failure.next.contains("tun.name") && failure.next.contains("nft delete table inet adit"), "{failure}");
    }
}

//! Kernel settings that a tunnel needs, on hosts where they may be out of reach (a read-only `/proc/sys`, as in
//! containers).

use std::fs;
use std::path::Path;

use adit_host::HostError;
use adit_program::causes::with_causes;
use ipnet::IpNet;

use super::{HostSetupError, ManagedHost};
use crate::protocols::NetworkSettings;

impl ManagedHost {
    /// The settings without what this host's device cannot have: IPv6 addresses where IPv6 is off on new links and
    /// stays so. What is claimed of IPv6 leads nowhere then.
    pub(super) async fn within_reach(&mut self, settings: &NetworkSettings) -> NetworkSettings {
        let mut settings = settings.clone();
        self.without_ipv6 = None;
        if settings.addresses.iter().any(|address| matches!(address, IpNet::V6(_)))
            && let Err(error) = self.allow_ipv6().await
        {
            let device = &self.link;
            let reason = with_causes(&error);
            self.without_ipv6 = Some(format!(
                "the tunnel carries IPv4 only, and IPv6 is blocked where it would go through it: IPv6 is off on {device} \
                 and cannot be switched on: {reason}"
            ));
            settings.addresses.retain(|address| matches!(address, IpNet::V4(_)));
        }
        settings
    }

    /// Switches IPv6 on for the tunnel's device where new links are without, and keeps it on.
    async fn allow_ipv6(&mut self) -> Result<(), HostError> {
        // With slashes, since a device's name may have dots.
        let disabled = format!("net/ipv6/conf/{}/disable_ipv6", self.link);
        if read(&disabled).is_some() { self.changes.set_sysctl(&disabled, "0").await } else { Ok(()) }
    }

    /// A strict reverse-path check looks routes up without our mark, finds the tunnel, and drops the gateway's answers.
    pub(super) async fn loosen_reverse_path(&mut self) -> Result<(), HostSetupError> {
        self.changes.loosen_reverse_paths().await.map_err(HostSetupError::StrictReversePath)
    }
}

/// Reads a setting, whose parts are separated by slashes.
pub(super) fn read(key: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(key)).ok().map(|value| value.trim().to_owned())
}

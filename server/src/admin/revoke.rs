//! The verb that shuts out for good, and what is to be said of it until it is written.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Admin, AdminRefusal, store_refusal};
use crate::accounts::Revoked;
use crate::accounts::sqlite::Written;
use crate::core::sessions::Ending;

/// How long a revocation that holds already may wait to be written, before its answer says that it is not.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// Asks to shut out a device or a user.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// A user's name or a device's id.
    pub name: String,
}

/// What was shut out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RevokeAnswer {
    /// The devices that may not connect any longer.
    pub devices: Vec<String>,
    /// Unused invites withdrawn.
    pub invites: u32,
    /// Sessions that were ended.
    pub sessions: usize,
    /// Why it is not on disk yet, though it holds; absent once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritten: Option<String>,
}

impl Admin {
    /// Revokes in the accounts first: a session that ends cannot come back. A running gateway does so in memory, then
    /// ends the sessions, and waits for the disk last and not for long.
    pub(super) fn revoke(&self, request: &RevokeRequest, now: SystemTime) -> Result<RevokeAnswer, AdminRefusal> {
        let Some(live) = &self.live else {
            let Revoked { devices, invites } = self.store.revoke(&request.name, now).map_err(store_refusal)?;
            return Ok(RevokeAnswer { devices, invites, sessions: 0, unwritten: None });
        };
        let Revoked { devices, invites } = self.store.shut_out(&request.name, now).map_err(store_refusal)?;
        let sessions = devices.iter().map(|device| live.close_device(device, Ending::Revoked)).sum();
        tracing::info!(devices = devices.len(), sessions, "revoked");
        let unwritten = match self.store.wait_for_revocations(DISK_PATIENCE) {
            Written::All => None,
            Written::NotYet { reason } => Some(reason),
        };
        Ok(RevokeAnswer { devices, invites, sessions, unwritten })
    }

    /// What administrators should know of a gateway that runs.
    pub(super) fn warnings(&self) -> Vec<String> {
        match self.store.revocations() {
            Written::All => Vec::new(),
            Written::NotYet { reason } => vec![format!(
                "revocations hold, but are not written yet and would be lost in a restart: {reason}; \
                 mend the disk of the state directory"
            )],
        }
    }
}

//! What the gateway's clients may reach.

use std::sync::Arc;
use std::time::Instant;

use crate::changes::HostChanges;
use crate::journal::Change;

impl HostChanges {
    /// Puts the table back, with its members, if it is not as it was left; says whether it holds. Without a table there
    /// is nothing to hold.
    pub(super) fn policy_holds(&mut self, now: Instant) -> bool {
        let loaded = self.journal.live().iter().any(|entry| matches!(entry.change, Change::PolicyTable(_)));
        let Some(table) = self.policy_table.as_ref().filter(|_| loaded).map(Arc::clone) else { return true };
        let guard = format!("policy table {}", table.name());
        self.history.hold(&guard, table.fault(), now, || table.put_back())
    }
}

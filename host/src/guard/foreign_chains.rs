//! Other firewalls that drop what clients send or get.

use std::time::Instant;

use super::Found;
use crate::changes::HostChanges;

impl HostChanges {
    /// Names the chains; changing them is not ours.
    pub(super) fn look_at_foreign_chains(&mut self, now: Instant) {
        let Some(table) = self.table.as_ref().filter(|_| self.has_table()) else { return };
        match self.foreign_chains.refusing(table.rules()) {
            Ok(chains) => {
                for chain in chains {
                    let what = "drops forwarded packets, those of clients too: allow the TUN device in it";
                    self.history.lost(&format!("forwarding past chain {chain}"), what, now);
                }
            }
            Err(error) => {
                self.history.must_mend("forwarding past other firewalls", Found::unknown(&error), now);
            }
        }
    }
}

//! The tables that let what is opened from elsewhere be answered there.

use std::time::Instant;

use super::Found;
use crate::answers;
use crate::changes::HostChanges;
use crate::journal::Change;

impl HostChanges {
    pub(super) fn hold_answers(&mut self, now: Instant) {
        let recorded = |change: &Change| if let Change::Answers(rules) = change { Some(rules.clone()) } else { None };
        let Some(rules) = self.journal.live().iter().find_map(|entry| recorded(&entry.change)) else { return };
        let guard = "firewall table adit_answers";
        let found = match answers::stands(&rules) {
            Ok(true) => Found::Right,
            Ok(false) => Found::Wrong("was removed or changed".to_owned()),
            Err(error) => Found::unknown(&error),
        };
        if self.history.must_mend(guard, found, now) {
            let done = answers::load(&rules);
            self.history.mended(guard, done, now);
        }
    }
}

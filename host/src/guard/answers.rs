//! The tables that let what is opened from elsewhere be answered there.

use std::time::Instant;

use adit_program::causes::with_causes;

use super::Found;
use crate::changes::HostChanges;

/// What their guard is called.
const GUARD: &str = "firewall table adit_answers";

impl HostChanges {
    pub(super) fn hold_answers(&mut self, now: Instant) {
        let Some(answers) = &mut self.answers else { return };
        let found = match answers.are_intact() {
            Ok(true) => Found::Right,
            Ok(false) => Found::Wrong("was removed or changed".to_owned()),
            Err(error) => Found::unknown(&error),
        };
        if self.history.must_mend(GUARD, found, now) {
            let done = answers.put_back();
            self.history.mended(GUARD, done, now);
        } else if answers.are_outdated()
            && let Err(error) = answers.put_back()
        {
            tracing::warn!(error = with_causes(&error), "the rules for answers cannot be replaced");
        }
    }
}

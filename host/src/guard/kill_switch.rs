//! The kill switch's table.

use std::time::Instant;

use super::Found;
use crate::changes::HostChanges;

/// What its guard is called.
const GUARD: &str = "kill switch";

impl HostChanges {
    pub(super) fn hold_kill_switch(&mut self, now: Instant) {
        let Some(switch) = &mut self.kill_switch else { return };
        let found = match switch.is_intact() {
            Ok(true) => Found::Right,
            Ok(false) => Found::Wrong("its firewall table was changed or removed".to_owned()),
            Err(error) => Found::unknown(&error),
        };
        if self.history.must_mend(GUARD, found, now) {
            let done = switch.put_back();
            self.history.mended(GUARD, done, now);
        }
    }
}

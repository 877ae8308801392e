//! Kernel settings below `/proc/sys/net`.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use super::Found;
use crate::changes::HostChanges;
use crate::error::HostError;
use crate::journal::Change;
use crate::sysctl;

/// A setting that must hold.
struct Wanted {
    value: String,
    /// Its entry in the journal, and the value that would be restored; `None` if it has been right so far.
    recorded: Option<(u64, String)>,
}

impl HostChanges {
    pub(super) fn hold_sysctls(&mut self, now: Instant) {
        for (key, wanted) in self.wanted_sysctls() {
            let guard = format!("sysctl {key}");
            let (found, foreign) = match sysctl::read(&key) {
                Ok(value) if value == wanted.value => (Found::Right, None),
                Ok(value) => (Found::Wrong(format!("was set to {value:.16}")), Some(value)),
                // It went with its link, which has a guard of its own.
                Err(HostError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => (Found::unknown(&error), None),
            };
            if self.history.must_mend(&guard, found, now)
                && let Some(foreign) = foreign
            {
                let done = self.put_back_sysctl(&key, wanted, foreign);
                self.history.mended(&guard, done, now);
            }
        }
    }

    /// The other program wants `foreign`, so that is what the end of this process restores.
    fn put_back_sysctl(&mut self, key: &str, wanted: Wanted, foreign: String) -> Result<(), HostError> {
        let restores = wanted.recorded.as_ref().map(|(_, previous)| previous);
        if restores != Some(&foreign) {
            let (key, set) = (key.to_owned(), wanted.value.clone());
            self.journal.record(Change::Sysctl { key, previous: foreign, set, side_effect: false })?;
            if let Some((id, _)) = wanted.recorded {
                self.journal.settle(id)?;
            }
        }
        sysctl::write(key, &wanted.value)
    }

    fn wanted_sysctls(&self) -> BTreeMap<String, Wanted> {
        let right = self.found_right.iter().map(|(key, value)| {
            let wanted = Wanted { value: value.clone(), recorded: None };
            (key.clone(), wanted)
        });
        let recorded = self.journal.live().iter().filter_map(|entry| {
            let Change::Sysctl { key, previous, set, side_effect: false } = &entry.change else { return None };
            let wanted = Wanted { value: set.clone(), recorded: Some((entry.id, previous.clone())) };
            Some((key.clone(), wanted))
        });
        right.chain(recorded).collect()
    }
}

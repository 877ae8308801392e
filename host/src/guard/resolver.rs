//! The resolver.

use std::time::{Duration, Instant};

use adit_program::causes::with_causes;
use tokio::time::timeout;

use super::Found;
use crate::changes::{HostChanges, PartFound, ResolverPart, Wanted};
use crate::dns::Resolved;

/// How long one look may take. A systemd-resolved that hangs must not keep other guards waiting, nor `down`.
const LOOK: Duration = Duration::from_secs(1);

impl HostChanges {
    pub(super) async fn hold_resolver(&mut self, now: Instant) {
        if let Some(wanted) = self.wanted_resolver()
            && timeout(LOOK, self.hold_parts(&wanted, now)).await.is_err()
        {
            self.history.lost(ResolverPart::Link.guard(), "systemd-resolved does not answer", now);
        }
    }

    async fn hold_parts(&mut self, wanted: &Wanted, now: Instant) {
        let resolved = Resolved::find(&self.options.bus).await;
        for part in ResolverPart::ALL {
            let guard = part.guard();
            let found = self.look_at_resolver(part, wanted, resolved.as_ref()).await;
            // Nobody is to blame for what is ours, only not the newest, nor for what could not be set up to now.
            let quietly = matches!(found, PartFound::Outdated) || self.history.is_failing(guard);
            let is_due = match found {
                PartFound::Right => self.history.must_mend(guard, Found::Right, now),
                PartFound::Outdated => true,
                PartFound::Wrong(what) => self.history.must_mend(guard, Found::Wrong(what.to_owned()), now),
                PartFound::Unknown(error) => self.history.must_mend(guard, Found::unknown(&error), now),
                PartFound::Lost(why) => {
                    self.history.lost(guard, &why, now);
                    false
                }
            };
            if is_due {
                match self.mend_resolver(part, wanted, resolved.as_ref()).await {
                    Ok(()) if quietly => drop(self.history.must_mend(guard, Found::Right, now)),
                    Ok(()) => self.history.mended(guard, Ok(()), now),
                    Err(error) => self.history.lost(guard, &with_causes(&error), now),
                }
            }
        }
    }
}

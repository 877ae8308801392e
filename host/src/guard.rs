//! Guards: what this process set on its host, and has not undone, is looked at again and put back where another
//! program took it away.
//!
//! [`HostChanges::changed`] says when to look. [`HostChanges::hold`] then looks at all that must hold, which is what
//! the journal lists: what the kernel has is listed and compared with what was set. There is one file for each kind of
//! setting; a further kind is a further file, and a line in `hold`.
//!
//! A guard whose setting is taken away again and again goes on putting it back, with growing pauses, and says that it
//! is fought over.

mod address;
mod answers;
mod firewall;
mod firewall_rules;
mod foreign_chains;
mod forwarding;
mod history;
mod kill_switch;
mod link;
mod policy_table;
mod prefix_route;
mod resolver;
mod reverse_path;
mod route;
mod router;
mod rule;
mod sysctl;
mod watch;

use std::time::{Duration, Instant};

pub use history::{GuardReport, GuardState};

pub(crate) use history::{Found, History};
pub(crate) use link::wanted_settings;
pub(crate) use router::SwitchWatch;
pub(crate) use watch::{HostWatch, Signal};

use history::LONGEST_PAUSE;
use watch::BETWEEN_LOOKS;

use crate::changes::{HostChanges, ResolverPart};

/// How often everything is looked at without any event: not every setting has one.
const POLL: Duration = Duration::from_secs(5);
/// The same while something does not hold.
const RESTLESS_POLL: Duration = Duration::from_millis(500);
/// Longest time for which a setting that an event tells of is away, whatever another program does.
const LONGEST_ABSENCE: Duration = Duration::from_secs(2);
// After an event, the look that mends comes once the pause between two looks is over. A setting that is fought over is
// mended by the first look after its own pause, and such looks come without any event.
const _: () = assert!(
    BETWEEN_LOOKS.as_millis() < LONGEST_ABSENCE.as_millis()
        && LONGEST_PAUSE.as_millis() + RESTLESS_POLL.as_millis() < LONGEST_ABSENCE.as_millis()
);

/// Whether the host is as it was set, as far as the last look told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    /// The resolver; also if none was set.
    pub resolver: bool,
    /// Everything else.
    pub others: bool,
}

impl HostChanges {
    /// Whether what was set is in force.
    pub fn in_force(&self) -> InForce {
        let of_resolver = |guard: &str| ResolverPart::ALL.iter().any(|part| part.guard() == guard);
        let fails = |resolver| self.history.failing().any(|guard| of_resolver(guard) == resolver);
        InForce { resolver: !fails(true), others: !fails(false) }
    }

    /// Waits until something changed on the host, or nobody has looked for a while. After an event it returns at once,
    /// but a storm of them makes it return four times a second at most. Cancel-safe.
    pub async fn changed(&mut self) {
        let poll = if self.history.is_restless() { RESTLESS_POLL } else { POLL };
        self.watch.changed(poll).await;
    }

    /// Looks at everything that this process set, puts back what is not as it was set, and reports each guard that had
    /// to do so in the last ten minutes or cannot: none means that all holds, as far as it is known.
    ///
    /// Call it whenever [`Self::changed`] returns, and never beside another change.
    pub async fn hold(&mut self) -> Vec<GuardReport> {
        let now = Instant::now();
        self.history.begin();
        // What keeps a client's host closed, and the gateway's firewall, before all: while that does not hold, the
        // gateway's link is down.
        self.hold_kill_switch(now);
        self.hold_firewall(now).await;
        // Then links: what leads through them needs them up. Then sysctls, one of which forbids addresses.
        let gone = self.hold_links(now).await;
        self.leave_forwarding_to_routers().await;
        self.hold_sysctls(now);
        self.forget_own_writes();
        self.follow_host();
        self.hold_addresses(&gone, now).await;
        self.hold_prefix_routes(&gone, now).await;
        self.hold_routes(&gone, now).await;
        self.hold_rules(now).await;
        self.hold_reverse_paths(now).await;
        self.hold_forwarding(now).await;
        self.look_at_foreign_chains(now);
        self.hold_answers(now);
        self.hold_resolver(now).await;
        self.history.reports(now)
    }
}

#[cfg(test)]
mod tests;

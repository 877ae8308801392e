//! Sessions whose time is over: idle for too long, or outside their hours. One look a second at all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::MissedTickBehavior;

use super::local::LocalCore;
use super::sessions::{Ending, Session};

/// How often is looked.
const PERIOD: Duration = Duration::from_secs(1);

/// How long a session has carried no packet, as far as it was looked at.
pub(super) struct Activity(Mutex<Seen>);

struct Seen {
    packets: u64,
    since: Instant,
}

impl Activity {
    /// Nothing was carried yet, `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Seen { packets: 0, since: now }))
    }

    /// For how long the number of packets has been the same.
    fn idle(&self, packets: u64, now: Instant) -> Duration {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.packets != packets {
            *seen = Seen { packets, since: now };
        }
        now.saturating_duration_since(seen.since)
    }
}

/// Ends sessions whose time is over, for as long as the gateway runs.
pub async fn look_after(core: Arc<LocalCore>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        core.end_overdue(Instant::now(), SystemTime::now());
    }
}

impl LocalCore {
    /// Ends every session whose time is over.
    pub fn end_overdue(&self, now: Instant, clock: SystemTime) {
        for session in self.sessions().all() {
            if let Some(ending) = overdue(&session, now, clock) {
                tracing::info!(session = session.id, reason = ending.reason(), "session is over");
                self.end(&session, ending);
            }
        }
    }
}

fn overdue(session: &Session, now: Instant, clock: SystemTime) -> Option<Ending> {
    let terms = session.grant().terms;
    if let Some(most) = terms.limits.idle_timeout {
        let (received, sent) = session.carriers.counters().packets();
        if session.activity.idle(received.wrapping_add(sent), now) >= most {
            return Some(Ending::Idle);
        }
    }
    let hours = terms.limits.hours.as_ref();
    hours.filter(|hours| !hours.contain(clock)).map(|_closed| Ending::OutsideHours)
}

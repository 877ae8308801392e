//! Sessions whose time is over: idle for too long, outside their hours, or of a device whose certificate has expired.
//! One look a second at all of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use adit_program::causes::with_causes;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

use super::local::LocalCore;
use super::sessions::{Ending, Session};
use crate::accounts::sqlite::{Clock, HostClock};

/// How often is looked.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a session goes on whose certificate is over as far as is known, but the accounts cannot tell.
const GRACE: Duration = Duration::from_secs(60);

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
        let clock = SystemTime::now();
        core.end_overdue(Instant::now(), clock);
        let expired = core.with_expired_certificates(clock);
        if !expired.is_empty() {
            let core = Arc::clone(&core);
            // A panic there was told already.
            spawn_blocking(move || core.end_expired(&expired, HostClock)).await.ok();
        }
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

    /// The sessions of devices whose certificates are over, as far as the sessions know.
    pub fn with_expired_certificates(&self, clock: SystemTime) -> Vec<Arc<Session>> {
        self.sessions().all().into_iter().filter(|session| session.seems_expired(clock)).collect()
    }

    /// Ends those of these sessions whose devices have not renewed their certificates meanwhile. Blocks while the
    /// accounts are asked; where they cannot tell, a session goes on for another minute.
    pub fn end_expired(&self, expired: &[Arc<Session>], clock: impl Clock) {
        for session in expired {
            let end = self.certificates_end(&session.device);
            // Not before: the clock may have been set.
            let now = clock.read();
            match end {
                Ok(end) => session.set_certificates_end(end),
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(session = session.id, error, "it cannot be told whether a certificate was renewed");
                    session.set_certificates_end(Some(now + GRACE));
                }
            }
            if session.seems_expired(now) {
                let reason = Ending::CertificateOver.reason();
                tracing::info!(session = session.id, reason, "session is over");
                self.end(session, Ending::CertificateOver);
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

//! Sessions: one authenticated client device, what it was granted, and how its packets travel.

mod denials;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use adit_net::carrier::{Carried, Carrier, Carriers};
use adit_proto::address_pool::Lease;
use adit_proto::policy::SourcePolicy;
use tokio::sync::watch;

use super::grant::{Grant, SessionLimits, Terms};
use super::meter::Meter;
use super::overdue::Activity;
use super::policy::SessionPolicy;
use crate::accounts::Device;

pub use denials::Denials;
pub use table::{Displaced, SessionTable, UserFull};

/// Longest time between two looks whether a login is over.
const LOGIN_LOOK: Duration = Duration::from_secs(10);

fn unix_now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// What can be closed, and tells the client why.
pub trait Closing: Send + Sync {
    /// Closes it.
    fn close(&self, ending: Ending);
}

/// What a session was opened on. It carries the session's packets when no faster carrier does, and is the session's
/// life: when it ends, the session does.
pub trait Connection: Carrier + Closing {
    /// The client's outer address.
    fn remote(&self) -> SocketAddr;
}

/// Why the gateway ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The device connected again.
    Replaced,
    /// The device may not connect any longer.
    Revoked,
    /// The user may not connect until further notice.
    Disabled,
    /// The user opened another session, and had as many as may be.
    Crowded,
    /// It carried nothing for too long.
    Idle,
    /// The hours in which it may be open are over.
    OutsideHours,
    /// The login of the user is over.
    LoginOver,
    /// The gateway stops.
    Shutdown,
}

impl Ending {
    /// The reason in words, for the client.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Replaced => "the same device connected again",
            Self::Revoked => "this device was revoked",
            Self::Disabled => "this user is disabled",
            Self::Crowded => "the user connected with another device, and has as many sessions as may be",
            Self::Idle => "nothing was sent for too long",
            Self::OutsideHours => "the hours in which this user may connect are over",
            Self::LoginOver => "the login of this device's user is over",
            Self::Shutdown => "the gateway is shutting down",
        }
    }
}

/// One live session.
pub struct Session {
    /// Number, unique in this run of the gateway.
    pub id: u64,
    /// The device behind it.
    pub device: Device,
    /// Its inner addresses.
    pub lease: Lease,
    /// Which sources its packets may have.
    pub source: SourcePolicy,
    /// Where its packets may go.
    pub policy: SessionPolicy,
    /// What it may move; `None` where its terms set no bounds when it was opened.
    pub meter: Option<Box<Meter>>,
    /// What it was opened on.
    pub connection: Arc<dyn Connection>,
    /// How its packets travel, and its traffic.
    pub carriers: Carriers,
    /// When it began.
    pub since: Instant,
    /// How long it has carried nothing.
    pub(super) activity: Activity,
    /// Which of its packets were refused, by kind.
    pub denials: Denials,
    grant: watch::Sender<Grant>,
    /// When the login ends that it goes on, in seconds of Unix time; `None` if it goes on none.
    login_ends_at: watch::Sender<Option<u64>>,
    /// Why the gateway ends it; empty while it lives, and when the client ends it.
    ending: OnceLock<Ending>,
}

impl Session {
    /// Makes a session that begins `now`.
    pub fn new(id: u64, device: Device, grant: Grant, connection: Arc<dyn Connection>, now: Instant) -> Arc<Self> {
        let lease = grant.lease;
        Arc::new(Self {
            id,
            device,
            lease,
            source: SourcePolicy::from(lease),
            policy: SessionPolicy::new(Arc::clone(&grant.terms.policy)),
            meter: meter(&grant.terms.limits, now),
            carriers: Carriers::new(Arc::<dyn Connection>::clone(&connection)),
            connection,
            since: now,
            denials: Denials::default(),
            activity: Activity::new(now),
            grant: watch::Sender::new(grant),
            login_ends_at: watch::Sender::new(None),
            ending: OnceLock::new(),
        })
    }

    /// What its client was granted.
    pub fn grant(&self) -> Grant {
        self.grant.borrow().clone()
    }

    /// Tells what its client is granted from now on.
    pub(super) fn grants(&self) -> watch::Receiver<Grant> {
        self.grant.subscribe()
    }

    /// Goes on, on other terms: the policy holds for the next packet, and the client hears of the rest.
    pub(super) fn change_terms(&self, terms: Arc<Terms>) {
        // Under the lock of the grant, so that of two orders at once one is the newest for both.
        self.grant.send_modify(|grant| {
            self.policy.replace(Arc::clone(&terms.policy));
            if let Some(meter) = &self.meter {
                meter.set_rates(terms.limits.rate_up, terms.limits.rate_down);
            }
            grant.terms = terms;
        });
    }

    /// It goes on a login that ends then, in seconds of Unix time, or on none.
    pub(in crate::core) fn set_login_end(&self, ends_at: Option<u64>) {
        self.login_ends_at.send_replace(ends_at);
    }

    /// Whether it goes on a login of its user.
    pub fn goes_on_login(&self) -> bool {
        self.login_ends_at.borrow().is_some()
    }

    /// The user has logged in again: a session that goes on a login goes on that one.
    pub(super) fn renew_login(&self, ends_at: u64) {
        self.login_ends_at.send_if_modified(|end| {
            let is_new = end.is_some_and(|end| end != ends_at);
            if is_new {
                *end = Some(ends_at);
            }
            is_new
        });
    }

    /// Waits until the login is over that it goes on, by this host's clock as it is then. Cancel-safe.
    pub async fn login_over(&self) {
        let mut ends_at = self.login_ends_at.subscribe();
        loop {
            let end = *ends_at.borrow_and_update();
            let left = async {
                match end.map(|end| Duration::from_secs(end).saturating_sub(unix_now())) {
                    // The clock may be set meanwhile.
                    Some(left) => tokio::time::sleep(left.min(LOGIN_LOOK)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = ends_at.changed() => continue,
                () = left => {}
            }
            if end.is_some_and(|end| unix_now() >= Duration::from_secs(end)) {
                return;
            }
        }
    }

    /// Why the gateway ends it, if it does.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.get().copied()
    }

    /// Ends its connection and tells the client why; at once nothing passes by any other carrier.
    pub fn close(&self, ending: Ending) {
        self.stop(ending);
        self.connection.close(ending);
    }

    /// Nothing passes by a carrier beside the connection any more, for this reason unless there was one before.
    pub(super) fn stop(&self, ending: Ending) {
        let _ended_before = self.ending.set(ending);
        self.carriers.close();
    }

    /// Its inner addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.lease.v4.map(IpAddr::V4).into_iter().chain(self.lease.v6.map(IpAddr::V6))
    }
}

/// Made only where something is bounded, so that packets of all other sessions pay nothing.
fn meter(limits: &SessionLimits, now: Instant) -> Option<Box<Meter>> {
    let SessionLimits { rate_up, rate_down, quota, .. } = *limits;
    let is_bounded = rate_up.is_some() || rate_down.is_some() || quota.is_some();
    is_bounded.then(|| Box::new(Meter::new(rate_up, rate_down, now)))
}

impl Carried for Session {
    fn carriers(&self) -> &Carriers {
        &self.carriers
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::session;
    use super::*;

    async fn is_over(session: &Session) -> bool {
        tokio::time::timeout(Duration::from_secs(3600), session.login_over()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn session_is_over_when_its_login_is_and_a_new_login_keeps_it() {
        let now = || unix_now().as_secs();
        let session = session(1, "dev-a", 2);
        assert!(!is_over(&session).await, "it goes on none");
        session.renew_login(now());
        assert!(!is_over(&session).await, "nor does it by a login");
        session.set_login_end(Some(now() + 7200));
        assert!(!is_over(&session).await);
        session.set_login_end(Some(now()));
        assert!(is_over(&session).await);
        session.renew_login(now() + 7200);
        assert!(!is_over(&session).await);
    }
}

//! Sessions: one authenticated client device, what it was granted, and how its packets travel.

mod denials;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use adit_net::carrier::{Carried, Carrier, Carriers};
use adit_proto::address_pool::Lease;
use adit_proto::login::token::Clocks;
use adit_proto::policy::SourcePolicy;
use tokio::sync::watch;

use super::grant::{Grant, SessionLimits, Terms};
use super::login::logins::unix_seconds;
use super::login::{LastingLogin, clocks};
use super::meter::Meter;
use super::overdue::Activity;
use super::policy::SessionPolicy;
use crate::accounts::Device;

pub use denials::Denials;
pub use table::{Displaced, SessionTable, UserFull};

/// Longest time between two looks whether a login is over.
const LOGIN_LOOK: Duration = Duration::from_secs(10);

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
    /// What there is to tell of it.
    fn about(&self) -> About<'_>;
    /// Another connection of the same device carries its session from now on. What is under way here is still sent, and
    /// taken, for a moment, where that can be; then it closes.
    fn retire(&self, ending: Ending) {
        self.close(ending);
    }
    /// The group that the user has chosen for this session, where there is a choice. It proves nothing.
    fn group(&self) -> Option<&str> {
        None
    }
}

/// What administrators are told of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About<'a> {
    /// What serves it, such as `connect-ip`.
    pub front_end: &'static str,
    /// The cipher suite of its TLS, where its carrier is nothing but that.
    pub cipher: Option<&'a str>,
    /// The client's name and version, as it says itself, made fit to be shown.
    pub client: Option<&'a str>,
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
    /// The certificate of the device is over.
    CertificateOver,
    /// The gateway stops.
    Shutdown,
    /// The gateway stops, and is back after so many seconds.
    Restart(u16),
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
            Self::CertificateOver => "this device's certificate has expired",
            Self::Shutdown => "the gateway is shutting down",
            Self::Restart(_) => "the gateway restarts",
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
    /// The login that it goes on; `None` if it goes on none.
    login: watch::Sender<Option<LastingLogin>>,
    /// When its device's certificates are over, as far as is known, in seconds of Unix time; the largest number without
    /// any.
    certificates_end: AtomicU64,
    /// Why the gateway ends it; empty while it lives, and when the client ends it.
    ending: OnceLock<Ending>,
    /// The session of the same device that has taken over its addresses, and the one whose it has taken over.
    successor: OnceLock<Arc<Session>>,
    predecessor: OnceLock<Weak<Session>>,
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
            login: watch::Sender::new(None),
            certificates_end: AtomicU64::new(u64::MAX),
            ending: OnceLock::new(),
            successor: OnceLock::new(),
            predecessor: OnceLock::new(),
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

    /// It goes on this login, or on none.
    pub(crate) fn set_login(&self, login: Option<LastingLogin>) {
        self.login.send_replace(login);
    }

    /// The login of its user that it goes on, if it goes on one.
    pub(super) fn login(&self) -> Option<LastingLogin> {
        *self.login.borrow()
    }

    /// Its device's certificates are over then, as far as is known; `None` without any.
    pub(super) fn set_certificates_end(&self, end: Option<SystemTime>) {
        self.certificates_end.store(end.map_or(u64::MAX, unix_seconds), Ordering::Relaxed);
    }

    /// Whether its device's certificates are over, as far as is known.
    pub(super) fn seems_expired(&self, clock: SystemTime) -> bool {
        unix_seconds(clock) >= self.certificates_end.load(Ordering::Relaxed)
    }

    /// The user has logged in again: a session that goes on a login goes on that one.
    pub(super) fn renew_login(&self, renewed: LastingLogin) {
        self.login.send_if_modified(|login| {
            let is_new = login.is_some_and(|login| login != renewed);
            if is_new {
                *login = Some(renewed);
            }
            is_new
        });
    }

    /// Waits until the login is over that it goes on, by this host's clocks as they are then. Cancel-safe.
    pub async fn login_over(&self) {
        self.login_over_by(clocks::now).await;
    }

    async fn login_over_by(&self, clocks: impl Fn() -> Clocks) {
        let mut logins = self.login.subscribe();
        loop {
            let login = *logins.borrow_and_update();
            let left = login.map(|login| login.end.left(&clocks()));
            let look = async {
                match left {
                    Some(Duration::ZERO) => {}
                    // The clock may be set meanwhile.
                    Some(left) => tokio::time::sleep(left.min(LOGIN_LOOK)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = logins.changed() => {}
                () = look => {
                    if left == Some(Duration::ZERO) {
                        return;
                    }
                }
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

    /// Another session of the same device has its addresses from now on. What is under way on this one's connection is
    /// of that one, which alone says whether it may pass.
    pub(super) fn hand_over_to(self: &Arc<Self>, successor: &Arc<Self>) {
        // Of the connections that a device has left, only the last one may take a moment.
        if let Some(before) = self.predecessor.get().and_then(Weak::upgrade) {
            before.connection.close(Ending::Replaced);
        }
        let _only_once = successor.predecessor.set(Arc::downgrade(self));
        let _only_once = self.successor.set(Arc::clone(successor));
    }

    /// The session that has taken over its addresses.
    pub(super) fn successor(&self) -> Option<&Self> {
        self.successor.get().map(|session| &**session)
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
    use std::cell::Cell;

    use adit_proto::login::token::{Boot, LoginEnd};

    use super::super::tests::session;
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    /// A host of virtual time whose clock is set.
    struct World {
        began: tokio::time::Instant,
        ahead: Cell<u64>,
        boot: Boot,
    }

    impl World {
        fn new() -> Self {
            Self { began: tokio::time::Instant::now(), ahead: Cell::new(100 * DAY), boot: Boot::of([1; 16]) }
        }

        fn clocks(&self) -> Clocks {
            let since_boot = 5000 + self.began.elapsed().as_secs();
            Clocks { unix: self.ahead.get() + since_boot, since_boot, boot: self.boot }
        }

        /// A login that lasts so long from now on.
        fn lasting(&self, seconds: u64) -> LastingLogin {
            let end = LoginEnd { since_boot: self.clocks().since_boot + seconds, unix: None };
            LastingLogin { id: [1; 16], end, generation: 0 }
        }

        /// Whether a session's login is over within an hour.
        async fn is_over(&self, session: &Session) -> bool {
            let over = session.login_over_by(|| self.clocks());
            tokio::time::timeout(Duration::from_secs(3600), over).await.is_ok()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn session_is_over_when_its_login_is_and_a_new_login_keeps_it() {
        let (world, session) = (World::new(), session(1, "dev-a", 2));
        assert!(!world.is_over(&session).await, "it goes on none");
        session.renew_login(world.lasting(0));
        assert!(!world.is_over(&session).await, "nor does it by a login");
        session.set_login(Some(world.lasting(5400)));
        assert!(!world.is_over(&session).await, "not before its end");
        assert!(world.is_over(&session).await);
        session.renew_login(world.lasting(7200));
        assert!(!world.is_over(&session).await);
    }

    #[tokio::test(start_paused = true)]
    async fn clock_that_is_set_ends_no_session_and_keeps_none() {
        let (world, session) = (World::new(), session(1, "dev-a", 2));
        for ahead in [110 * DAY, 90 * DAY] {
            session.set_login(Some(world.lasting(5400)));
            world.ahead.set(ahead);
            assert!(!world.is_over(&session).await, "{ahead}");
            assert!(world.is_over(&session).await, "{ahead}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn session_of_a_login_before_the_boot_is_over_by_the_clock_or_by_what_it_had_left() {
        let (world, session) = (World::new(), session(1, "dev-a", 2));
        world.ahead.set(0);
        // The host began without a battery for its clock, a hundred days ago.
        let login = world.lasting(5400);
        let login = LastingLogin { end: LoginEnd { unix: Some(100 * DAY), ..login.end }, ..login };
        session.set_login(Some(login));
        assert!(!world.is_over(&session).await);
        world.ahead.set(100 * DAY);
        assert!(world.is_over(&session).await, "the clock is right");
        world.ahead.set(0);
        assert!(world.is_over(&session).await, "it is not, but the time is over");
    }
}

//! The core of a gateway that is one process.

mod by_login;
mod opening;
mod terms;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime};

use adit_proto::address_pool::AddressPool;
use arc_swap::ArcSwapOption;
use jiff::civil::Date;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::callers::{Caller, Callers};
use super::enforcement::Enforcement;
use super::leases::{Flows, Leases};
use super::login::logins::{self, LoginStep, LoginWish, Logins};
use super::login::{Credential, Identity, LastingLogin, LoginError, clocks, lasting};
use super::observer::{Nobody, SessionObserver};
use super::personal::TermsInForce;
use super::quota::Quotas;
use super::sessions::{Connection, Ending, Session, SessionTable};
use super::totals::{EndedSessions, Totals};
use super::{Core, OpenError, OpenSession, Order, Reply};
use crate::accounts::{Accounts, AuthError, Device, StoreFault};

/// Logins that may wait for a disk at a time. Each keeps a thread; those that read alone must find one meanwhile.
const WRITERS: usize = 64;

/// Opens and ends sessions.
pub struct LocalCore {
    accounts: Arc<dyn Accounts>,
    leases: Arc<Leases>,
    writers: Semaphore,
    /// On which sessions begin.
    terms: TermsInForce,
    /// Has the kernel hold sessions to the policy's rules.
    enforcement: Enforcement,
    sessions: Arc<SessionTable>,
    callers: Arc<Callers>,
    totals: Totals,
    observer: Arc<dyn SessionObserver>,
    /// Where users log in; empty if they cannot.
    logins: ArcSwapOption<Logins>,
    /// What users read who begin a login.
    banner: ArcSwapOption<String>,
    quotas: Quotas,
    /// Read by whoever opens a session; written by whoever replaces the terms of all, so that none comes amid that.
    opening: RwLock<()>,
    /// Held by whoever finds out which terms a session goes on and gives them to it: the last one to look is the last
    /// one to give.
    renewing: Mutex<()>,
    last_session: AtomicU64,
}

impl LocalCore {
    /// Makes a core without sessions. Each begins on the `terms` of its user, with addresses of `pool`, of which
    /// `flows` are those that the host tracks; `limit` is the most at a time.
    pub fn new(
        accounts: Arc<dyn Accounts>,
        flows: Arc<dyn Flows>,
        pool: AddressPool,
        terms: impl Into<TermsInForce>,
        limit: usize,
        sessions: Arc<SessionTable>,
    ) -> Self {
        Self {
            leases: Arc::new(Leases::new(Arc::clone(&accounts), flows, pool, limit)),
            writers: Semaphore::new(WRITERS),
            accounts,
            terms: terms.into(),
            enforcement: Enforcement::default(),
            sessions,
            callers: Arc::default(),
            totals: Totals::default(),
            observer: Arc::new(Nobody),
            logins: ArcSwapOption::empty(),
            banner: ArcSwapOption::empty(),
            quotas: Quotas::default(),
            opening: RwLock::default(),
            renewing: Mutex::default(),
            last_session: AtomicU64::new(0),
        }
    }

    /// Tells somebody of its sessions.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn SessionObserver>) -> Self {
        Self { observer, ..self }
    }

    /// Lets users log in.
    #[must_use]
    pub fn with_logins(self, logins: Arc<Logins>) -> Self {
        Self { logins: ArcSwapOption::new(Some(logins)), ..self }
    }

    /// Has each session held to the rules of its user.
    #[must_use]
    pub fn enforcing(self, enforcement: Enforcement) -> Self {
        Self { enforcement, ..self }
    }

    /// The live sessions.
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// From now on at most so many sessions live at a time, and the address of a device that left is kept from others
    /// for so long; sessions that live go on.
    pub fn set_limits(&self, sessions: usize, cooldown: Duration) {
        self.leases.set_limit(sessions);
        self.leases.set_cooldown(cooldown);
    }

    /// Counts what users have moved of their quotas; for once a second. `today` is the date here.
    pub fn count_quotas(&self, today: Date) {
        self.quotas.count(&self.sessions.all(), today);
    }

    /// What the sessions that have ended add up to.
    pub fn ended_sessions(&self) -> EndedSessions {
        self.totals.so_far()
    }

    /// Shuts a device out for this reason: ends its session and closes all its connections. False if it had no session.
    pub fn shut_out(&self, device: &str, why: Ending) -> bool {
        let had_session = self.order(device, Order::End(why));
        self.callers.close(device, why);
        had_session
    }

    /// Gives an order to whoever serves the session of a device; `false` if it has none.
    pub fn order(&self, device: &str, order: Order) -> bool {
        let Some(session) = self.sessions.of_device(device) else {
            return false;
        };
        match order {
            Order::End(ending) => {
                self.end(&session, ending);
            }
            Order::Terms(terms) => self.change_terms(&session, terms),
        }
        true
    }

    /// Ends a session. Nothing of it can be found any more when the client hears of it; the front-end's task notices
    /// the closed connection.
    pub(super) fn end(&self, session: &Session, ending: Ending) {
        session.stop(ending);
        self.close(session);
        session.connection.close(ending);
    }

    /// Tells all clients that their sessions end.
    pub fn close_all(&self, ending: Ending) {
        for session in self.sessions.all() {
            session.close(ending);
        }
    }

    /// Settles what a session leaves behind; for whoever took it out of the table, and so once.
    fn settle(&self, session: &Session) {
        self.enforcement.dismiss(session.lease);
        self.leases.release(&session.device.id, Instant::now());
        self.quotas.close(session);
        let traffic = session.carriers.counters().traffic();
        let (reason, rx_bytes) = (session.ending().map_or("the client has left", Ending::reason), traffic.rx_bytes);
        tracing::info!(session = session.id, reason, rx_bytes, tx_bytes = traffic.tx_bytes, "session ended");
        self.totals.add(session.ending(), &traffic);
        self.observer.closed(session, &traffic);
    }

    /// Checks a credential and enters the connection it came on under its device.
    fn log_in(&self, credential: &Credential, caller: &Caller) -> Result<Identity, LoginError> {
        let identity = self.check(credential)?;
        let device = &identity.device.id;
        // A revocation between check and entry did not find the connection.
        if caller.enter(&self.callers, device) && self.is_shut_out(device).map_err(AuthError::Store)? {
            return Err(AuthError::Revoked.into());
        }
        Ok(identity)
    }

    /// When the certificates of a device are over.
    pub(super) fn certificates_end(&self, device: &Device) -> Result<Option<SystemTime>, StoreFault> {
        self.accounts.certificates_end(&device.id)
    }

    fn is_shut_out(&self, device: &str) -> Result<bool, StoreFault> {
        Ok(!self.accounts.may_connect(device)?)
    }

    fn check(&self, credential: &Credential) -> Result<Identity, LoginError> {
        let device = match credential {
            Credential::Certificate { device, serial } => {
                self.accounts.authenticate_certificate(device, serial, SystemTime::now())
            }
            Credential::Token(token) => self.accounts.authenticate_token(token),
            Credential::Login { token, name } => {
                let logins = self.logins.load();
                let tokens = logins.as_ref().map(|logins| logins.tokens());
                let is_live = |device: &str| self.sessions.of_device(device).is_some();
                return lasting::device_of(&*self.accounts, tokens, (token.as_str(), name.as_str()), &is_live);
            }
        }?;
        Ok(Identity { device, login: None })
    }
}

impl Core for LocalCore {
    fn authenticate(
        self: Arc<Self>,
        credential: Credential,
        caller: Arc<Caller>,
    ) -> Reply<Result<Identity, LoginError>> {
        Box::pin(async move {
            let checked = spawn_blocking(move || self.log_in(&credential, &caller)).await;
            checked.unwrap_or(Err(LoginError::Internal))
        })
    }

    fn login(self: Arc<Self>, wish: LoginWish) -> Reply<LoginStep> {
        Box::pin(async move {
            let Some(logins) = self.logins() else { return logins::NOBODY };
            let (device, begins) = (wish.origin.device.clone(), wish.handle.is_none());
            let mut step = logins.advance(wish).await;
            if begins {
                self.show_banner(&mut step);
            }
            if let LoginStep::Done { user, token, .. } = &step {
                let session = device.and_then(|device| self.sessions.of_device(&device));
                if let (Some(session), Some(token)) = (session, logins.tokens().unseal(token)) {
                    session.renew_login(LastingLogin::of(&token, &clocks::now(), token.lifetime()));
                }
                // The source may have said other groups than before.
                let (core, user) = (Arc::clone(&self), user.clone());
                spawn_blocking(move || core.renew_terms_of(&user)).await.ok();
            }
            step
        })
    }

    fn check_login(self: Arc<Self>, identity: Identity, token: Option<String>) -> Reply<Result<Identity, LoginError>> {
        Box::pin(async move {
            let checking = move || {
                let logins = self.logins();
                let tokens = logins.as_ref().map(|logins| logins.tokens());
                lasting::check(&*self.accounts, tokens, identity, token.as_deref())
            };
            spawn_blocking(checking).await.unwrap_or(Err(LoginError::Internal))
        })
    }

    fn offered_groups(&self) -> Vec<String> {
        self.terms.load().offered()
    }

    fn banner(&self) -> Option<Arc<String>> {
        self.banner.load_full()
    }

    fn may_choose(self: Arc<Self>, user: String, group: String) -> Reply<bool> {
        Box::pin(async move {
            let looked = spawn_blocking(move || self.is_choice_of(&user, &group)).await;
            looked.is_ok_and(|looked| {
                looked.unwrap_or_else(|error| {
                    tracing::error!(%error, "nobody can choose a group: the store failed");
                    false
                })
            })
        })
    }

    fn log_out(self: Arc<Self>, token: Zeroizing<String>) -> Reply<()> {
        Box::pin(async move {
            // Strangers, who have no token of this gateway, must not hold up those that wait for a disk.
            let Some(token) = self.logins().and_then(|logins| logins.tokens().unseal(&token)) else { return };
            let _turn = self.writers.acquire().await.expect("it is never closed");
            let core = Arc::clone(&self);
            spawn_blocking(move || core.end_login(&token.login)).await.ok();
        })
    }

    fn enrolled(&self, device: &str, caller: &Caller) {
        caller.enter(&self.callers, device);
    }

    fn open(
        self: Arc<Self>,
        identity: Identity,
        connection: Arc<dyn Connection>,
    ) -> Reply<Result<OpenSession, OpenError>> {
        Box::pin(self.open_off_runtime(identity, connection))
    }

    fn close(&self, session: &Session) {
        session.carriers.close();
        if self.sessions.remove(session) {
            self.settle(session);
        }
    }
}

#[cfg(test)]
mod tests;

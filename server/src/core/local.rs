//! The core of a gateway that is one process.

mod by_login;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use adit_host::HostError;
use adit_net::carrier::counters::Traffic;
use adit_program::causes::with_causes;
use adit_proto::address_pool::{AddressPool, Lease};
use adit_proto::login::token::LoginEnd;
use adit_proto::policy::Subject;
use jiff::civil::Date;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::callers::{Caller, Callers};
use super::enforcement::{Admitted, Enforcement};
use super::grant::{Grant, Terms};
use super::leases::{Claim, Flows, Leases};
use super::login::logins::{self, LoginStep, LoginWish, Logins};
use super::login::{Credential, Identity, LoginError, clocks, lasting};
use super::observer::{Nobody, SessionObserver};
use super::personal::{PersonalTerms, TermsInForce};
use super::quota::Quotas;
use super::sessions::{Connection, Ending, Session, SessionTable, UserFull};
use super::totals::{EndedSessions, Totals};
use super::{Core, OpenError, OpenSession, Order, Reply};
use crate::accounts::{Accounts, AuthError, Device, StoreFault};
use crate::config::SourceName;
use crate::trail::TRAIL;

/// Logins that may wait for a disk at a time. Each keeps a thread; those that read alone must find one meanwhile.
const WRITERS: usize = 64;

/// The source of users whom no other vouches for.
const LOCAL: &str = SourceName::Local.word();

/// Opens and ends sessions.
pub struct LocalCore {
    accounts: Arc<dyn Accounts>,
    leases: Arc<Leases>,
    writers: Semaphore,
    /// On which sessions begin.
    terms: TermsInForce,
    /// Has the kernel hold sessions to the policy's rules; `None` without a policy.
    enforcement: Option<Enforcement>,
    sessions: Arc<SessionTable>,
    callers: Arc<Callers>,
    totals: Totals,
    observer: Arc<dyn SessionObserver>,
    logins: Option<Arc<Logins>>,
    quotas: Quotas,
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
            enforcement: None,
            sessions,
            callers: Arc::default(),
            totals: Totals::default(),
            observer: Arc::new(Nobody),
            logins: None,
            quotas: Quotas::default(),
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
        Self { logins: Some(logins), ..self }
    }

    /// Has each session held to the rules of its user.
    #[must_use]
    pub fn enforcing(self, enforcement: Option<Enforcement>) -> Self {
        Self { enforcement, ..self }
    }

    /// The live sessions.
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    /// The terms on which sessions begin now.
    pub fn personal_terms(&self) -> Arc<PersonalTerms> {
        self.terms.load()
    }

    /// From now on sessions begin, and those that live go on, on these terms; the kernel holds all of them to the new
    /// rules at once. Blocks until it does.
    ///
    /// # Errors
    /// The kernel's refusal; then everything is as before.
    pub fn replace_terms(&self, terms: PersonalTerms) -> Result<(), HostError> {
        if let Some(enforcement) = &self.enforcement {
            let mut rules = HashMap::new();
            for session in self.sessions.all() {
                // Whose groups cannot be read is held to the former rules, and told of below.
                let terms = self.terms_among(&terms, &session.device).ok();
                let of_session = terms.and_then(|terms| terms.rules.clone());
                rules.extend(
                    of_session
                        .iter()
                        .flat_map(|of_session| session.addresses().map(|address| (address, Arc::clone(of_session)))),
                );
            }
            enforcement.replace(&rules)?;
        }
        self.terms.replace(terms);
        // Also those that were opened meanwhile.
        self.renew_where(|_| true);
        Ok(())
    }

    /// From now on at most so many sessions live at a time; those that do go on.
    pub fn set_limit(&self, limit: usize) {
        self.leases.set_limit(limit);
    }

    /// From now on the sessions of a user go on in the groups that the accounts know now.
    pub fn renew_terms_of(&self, user: &str) {
        self.renew_where(|session| session.device.user == user);
    }

    fn renew_where(&self, wanted: impl Fn(&Session) -> bool) {
        for session in self.sessions.all().iter().filter(|session| wanted(session)) {
            if let Err(error) = self.renew_terms(session) {
                let error = with_causes(&error);
                tracing::warn!(session = session.id, error, "a session goes on, on its former terms");
            }
        }
    }

    /// Gives a session the terms that its user has now, if these are others.
    fn renew_terms(&self, session: &Session) -> Result<(), StoreFault> {
        let terms = self.terms_of(&session.device)?;
        if !Arc::ptr_eq(&terms, &session.grant().terms) {
            self.change_terms(session, terms);
        }
        Ok(())
    }

    fn change_terms(&self, session: &Session, terms: Arc<Terms>) {
        if let (Some(enforcement), Some(rules)) = (&self.enforcement, &terms.rules) {
            enforcement.reclass(session.lease, rules);
        }
        session.change_terms(terms);
    }

    /// Has the kernel hold the addresses of a session on its way to the rules of its terms.
    fn admit(&self, addresses: Lease, terms: &Terms) -> Result<Option<Admitted<'_>>, OpenError> {
        let (Some(enforcement), Some(rules)) = (&self.enforcement, &terms.rules) else { return Ok(None) };
        let admitted = enforcement.admit(addresses, rules).map_err(OpenError::NotEnforced).inspect_err(|error| {
            let error = with_causes(error);
            tracing::error!(error, "a session is not opened, since its policy cannot be enforced");
        })?;
        Ok(Some(admitted))
    }

    /// The terms of a device's user.
    fn terms_of(&self, device: &Device) -> Result<Arc<Terms>, StoreFault> {
        self.terms_among(&self.terms.load(), device)
    }

    /// The terms of a device's user among some. The accounts are asked only where groups matter.
    fn terms_among(&self, terms: &PersonalTerms, device: &Device) -> Result<Arc<Terms>, StoreFault> {
        let person = if terms.policy().is_some() { self.accounts.person(&device.user)? } else { None };
        let unknown = Subject { user: &device.user, source: LOCAL, source_groups: &[] };
        Ok(terms.of(&person.as_ref().map_or(unknown, Subject::from)))
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

    /// Leases addresses to a device and opens its session; blocks for transactions of the accounts.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_session(&self, device: Device, connection: Arc<dyn Connection>) -> Result<Arc<Session>, OpenError> {
        let claim = self.claim(&device.id)?;
        claim.make_durable()?;
        let identity = Identity { device, login_end: None };
        self.replace_session(identity, claim, connection).map(|(session, _)| session)
    }

    /// Takes the addresses of a device for one more session, once nothing is left of their former holder.
    fn claim(&self, device: &str) -> Result<Claim, OpenError> {
        let claim = self.leases.claim(device, Instant::now())?;
        claim.end_old_flows().inspect_err(|error| {
            let error = with_causes(error);
            tracing::warn!(error, "an address is not given out: connections of its former holder may go on");
        })?;
        Ok(claim)
    }

    /// Opens the session of a device that has addresses, durably: nobody hears of a session before. Says also whether
    /// the device had one. A return before `keep` gives the addresses back.
    fn replace_session(
        &self,
        identity: Identity,
        claim: Claim,
        connection: Arc<dyn Connection>,
    ) -> Result<(Arc<Session>, bool), OpenError> {
        let now = Instant::now();
        let Identity { device, login_end } = identity;
        let id = self.last_session.fetch_add(1, Ordering::Relaxed) + 1;
        let grant = Grant { lease: claim.lease(), terms: self.terms_of(&device)? };
        let admitted = self.admit(grant.lease, &grant.terms)?;
        let session = Session::new(id, device, grant, connection, now);
        session.set_login_end(login_end);
        session.set_certificates_end(self.certificates_end(&session.device)?);
        if session.grant().terms.limits.hours.as_ref().is_some_and(|hours| !hours.contain(SystemTime::now())) {
            return Err(OpenError::OutsideHours);
        }
        self.observer.opened(&session);
        let displaced = self.sessions.insert(Arc::clone(&session)).map_err(|UserFull| {
            self.observer.closed(&session, &Traffic::default());
            OpenError::UserFull
        })?;
        claim.keep();
        if let Some(admitted) = admitted {
            admitted.keep();
        }
        let unowned = Unowned { core: self, session: &session };
        let replaces = displaced.replaced.is_some();
        let replaced = displaced.replaced.into_iter().map(|old| (old, Ending::Replaced));
        for (old, ending) in replaced.chain(displaced.crowded.into_iter().map(|old| (old, Ending::Crowded))) {
            old.stop(ending);
            self.settle(&old);
            old.connection.close(ending);
        }
        self.confirm(&session)?;
        // They may have been replaced before the session could be found.
        self.renew_terms(&session)?;
        unowned.hand_over();
        tracing::info!(session = id, carrier = session.carriers.name(), "session opened");
        let (user, device, remote) = (&session.device.user, &session.device.id, session.connection.remote());
        tracing::debug!(target: TRAIL, session = id, user, device, %remote, "session of");
        Ok((session, replaces))
    }

    /// Looks at the accounts once more now that the session can be found: a revocation since the login saw no session
    /// to end.
    fn confirm(&self, session: &Session) -> Result<(), OpenError> {
        if self.is_shut_out(&session.device.id)? {
            session.stop(Ending::Revoked);
            return Err(OpenError::Revoked);
        }
        Ok(())
    }

    /// When the certificates of a device are over.
    pub(super) fn certificates_end(&self, device: &Device) -> Result<Option<SystemTime>, StoreFault> {
        self.accounts.certificates_end(&device.id)
    }

    fn is_shut_out(&self, device: &str) -> Result<bool, StoreFault> {
        Ok(!self.accounts.may_connect(device)?)
    }

    /// Settles what a session leaves behind; for whoever took it out of the table, and so once.
    fn settle(&self, session: &Session) {
        if let Some(enforcement) = &self.enforcement {
            enforcement.dismiss(session.lease);
        }
        self.leases.release(&session.device.id, Instant::now());
        self.quotas.close(session);
        let traffic = session.carriers.counters().traffic();
        let (reason, rx_bytes) = (session.ending().map_or("the client has left", Ending::reason), traffic.rx_bytes);
        tracing::info!(session = session.id, reason, rx_bytes, tx_bytes = traffic.tx_bytes, "session ended");
        self.totals.add(session.ending(), &traffic);
        self.observer.closed(session, &traffic);
    }

    /// Checks a credential and enters the connection it came on under its device.
    fn log_in(&self, credential: &Credential, caller: &Caller) -> Result<Identity, AuthError> {
        let identity = self.check(credential)?;
        let device = &identity.device.id;
        // A revocation between check and entry did not find the connection.
        if caller.enter(&self.callers, device) && self.is_shut_out(device).map_err(AuthError::Store)? {
            return Err(AuthError::Revoked);
        }
        Ok(identity)
    }

    fn check(&self, credential: &Credential) -> Result<Identity, AuthError> {
        let device = match credential {
            Credential::Certificate { device, serial } => {
                self.accounts.authenticate_certificate(device, serial, SystemTime::now())
            }
            Credential::Token(token) => self.accounts.authenticate_token(token),
        }?;
        Ok(Identity { device, login_end: None })
    }
}

/// Does work that may block where it keeps no thread of the runtime waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    spawn_blocking(work).await.unwrap_or(Err(OpenError::Full))
}

/// A session that can be found but that nobody serves yet. Whatever goes wrong until it is handed over, a panic
/// included, closes it: its addresses and its place would be lost otherwise.
struct Unowned<'a> {
    core: &'a LocalCore,
    session: &'a Session,
}

impl Unowned<'_> {
    fn hand_over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unowned<'_> {
    fn drop(&mut self) {
        self.core.close(self.session);
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
            Ok(checked.map_err(|_panicked| LoginError::Internal)??)
        })
    }

    fn login(self: Arc<Self>, wish: LoginWish) -> Reply<LoginStep> {
        Box::pin(async move {
            let Some(logins) = &self.logins else { return logins::NOBODY };
            let device = wish.origin.device.clone();
            let step = logins.advance(wish).await;
            if let LoginStep::Done { user, ends_at, .. } = &step {
                let session = device.and_then(|device| self.sessions.of_device(&device));
                if let Some(session) = session {
                    session.renew_login(LoginEnd::of_this_boot(*ends_at, &clocks::now()));
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
                let tokens = self.logins.as_ref().map(|logins| logins.tokens());
                lasting::check(&*self.accounts, tokens, identity, token.as_deref())
            };
            spawn_blocking(checking).await.unwrap_or(Err(LoginError::Internal))
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
        Box::pin(async move {
            let (core, of) = (Arc::clone(&self), identity.device.id.clone());
            let claim = blocking(move || {
                let claim = core.claim(&of)?;
                Ok((claim.is_durable()?, claim))
            });
            let (durable, mut claim) = claim.await?;
            if !durable {
                let _turn = self.writers.acquire().await.expect("it is never closed");
                claim = blocking(move || claim.make_durable().map(|()| claim).map_err(OpenError::from)).await?;
            }
            // Made where the session is: should nobody wait for the answer any more, it is closed with it.
            blocking(move || {
                let (session, replaces) = self.replace_session(identity, claim, connection)?;
                Ok(OpenSession::new(self, session, replaces))
            })
            .await
        })
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

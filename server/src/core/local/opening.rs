//! Opening a session: addresses first, then the kernel's rules for them, then its place in the table. Whatever goes
//! wrong on the way gives all of it back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use adit_net::carrier::counters::Traffic;
use adit_program::causes::with_causes;
use adit_proto::address_pool::Lease;

use super::LocalCore;
use crate::accounts::Device;
use crate::core::enforcement::Admitted;
use crate::core::grant::{Grant, Terms};
use crate::core::leases::Claim;
use crate::core::login::{Identity, LastingLogin, lasting};
use crate::core::sessions::{Connection, Ending, Session, UserFull};
use crate::core::{Core as _, OpenError, OpenSession};
use crate::off_runtime::off_runtime_or;
use crate::trail::TRAIL;

impl LocalCore {
    /// As [`Core::open`](crate::core::Core::open), which must not block.
    pub(super) async fn open_off_runtime(
        self: Arc<Self>,
        identity: Identity,
        connection: Arc<dyn Connection>,
    ) -> Result<OpenSession, OpenError> {
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
    }

    /// Leases addresses to a device and opens its session; blocks for transactions of the accounts.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_session(&self, device: Device, connection: Arc<dyn Connection>) -> Result<Arc<Session>, OpenError> {
        let claim = self.claim(&device.id)?;
        claim.make_durable()?;
        let identity = Identity { device, login: None };
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
        let Identity { device, login } = identity;
        let _opening = self.opening.read().unwrap_or_else(PoisonError::into_inner);
        let id = self.last_session.fetch_add(1, Ordering::Relaxed) + 1;
        let group = connection.group();
        if let Some(group) = group
            && !self.is_choice_of(&device.user, group)?
        {
            return Err(OpenError::NotInGroup);
        }
        let grant = Grant { lease: claim.lease(), terms: self.terms_of(&device, group)? };
        let admitted = self.admit(grant.lease, &grant.terms)?;
        let session = Session::new(id, device, grant, connection, now);
        session.set_login(login);
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
        admitted.keep();
        let unowned = Unowned { core: self, session: &session };
        let replaces = displaced.replaced.is_some();
        if let Some(old) = displaced.replaced {
            self.give_way(&old, &session);
        }
        for old in displaced.crowded {
            old.stop(Ending::Crowded);
            self.settle(&old);
            old.connection.close(Ending::Crowded);
        }
        self.confirm(&session, login)?;
        // The user may be in other groups since.
        self.renew_terms(&session)?;
        unowned.hand_over();
        tracing::info!(session = id, carrier = session.carriers.name(), "session opened");
        let (user, device, remote) = (&session.device.user, &session.device.id, session.connection.remote());
        tracing::debug!(target: TRAIL, session = id, user, device, %remote, "session of");
        Ok((session, replaces))
    }

    /// Ends a session in whose place another one of the same device is. If that has the same addresses, the client has
    /// only changed its connection, and loses nothing that is under way.
    fn give_way(&self, old: &Arc<Session>, new: &Arc<Session>) {
        let goes_on = old.lease == new.lease;
        if goes_on {
            old.hand_over_to(new);
        }
        old.stop(Ending::Replaced);
        self.settle(old);
        match goes_on {
            true => old.connection.retire(Ending::Replaced),
            false => old.connection.close(Ending::Replaced),
        }
    }

    /// Looks at the accounts once more now that the session can be found: whoever shut the device out since it was let
    /// in, or made the login void that it came with, saw no session to end.
    fn confirm(&self, session: &Session, login: Option<LastingLogin>) -> Result<(), OpenError> {
        if self.is_shut_out(&session.device.id)? {
            session.stop(Ending::Revoked);
            return Err(OpenError::Revoked);
        }
        if let Some(login) = login
            && !lasting::is_of_now(&*self.accounts, &session.device.user, &login)?
        {
            session.stop(Ending::LoginOver);
            return Err(OpenError::LoginOver);
        }
        Ok(())
    }

    /// Has the kernel hold the addresses of a session on its way to the rules of its terms.
    fn admit(&self, addresses: Lease, terms: &Terms) -> Result<Admitted<'_>, OpenError> {
        let admitted = self.enforcement.admit(addresses, terms.rules.as_ref());
        admitted.map_err(OpenError::NotEnforced).inspect_err(|error| {
            let error = with_causes(error);
            tracing::error!(error, "a session is not opened, since its policy cannot be enforced");
        })
    }
}

/// Does work that may block where it keeps no thread of the runtime waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    off_runtime_or(|_panicked| Err(OpenError::Full), work).await
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

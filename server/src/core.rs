//! The core: sessions, who may have one and on what terms, and where packets go. Front-ends know it; it knows no
//! front-end.
//!
//! Three things stand apart, so that several gateways can one day share the first:
//!
//! - what is true for all: the [accounts](crate::accounts), and in [`leases`] which device holds which addresses;
//! - what one process moves: its [table of sessions](sessions::SessionTable) and its [`router`];
//! - what administrators see of it: [`admin::live`](crate::admin), which is not here.
//!
//! [`Core`] is all that a front-end asks: who somebody is, and a session for whom it knows. [`local::LocalCore`]
//! answers in this process.

pub(crate) mod admission;
pub mod callers;
pub mod enforcement;
pub mod grant;
pub mod leases;
pub mod local;
pub mod login;
pub mod meter;
pub mod observer;
pub mod overdue;
pub mod personal;
pub mod policy;
pub mod quota;
pub mod router;
pub mod sessions;
pub mod totals;

use std::pin::Pin;
use std::sync::Arc;

use adit_host::HostError;
use adit_proto::address_pool::PoolError;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::accounts::StoreFault;
use callers::Caller;
use grant::Grant;
use login::lasting::VOID;
use login::logins::{LoginStep, LoginWish};
use login::{Credential, Identity, LoginError};
use sessions::{Connection, Ending, Session};

/// An answer of the core, which may have to wait for the accounts.
pub type Reply<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a front-end asks of the core. Its orders go the other way: to end by [`sessions::Closing::close`], which acts
/// at once, and to change what a client was granted by [`Orders`].
pub trait Core: Send + Sync {
    /// Decides whose a credential is that came on a connection. From now on the connection is one of that device, and
    /// closed when the device is revoked.
    fn authenticate(
        self: Arc<Self>,
        credential: Credential,
        caller: Arc<Caller>,
    ) -> Reply<Result<Identity, LoginError>>;

    /// Takes the login of a user one step further. When a device's user has logged in, the session of that device goes
    /// on for as long as the new login lasts.
    fn login(self: Arc<Self>, wish: LoginWish) -> Reply<LoginStep>;

    /// The names of the groups that users may choose from when they log in, in the order of the policy.
    fn offered_groups(&self) -> Vec<String>;

    /// What users read who begin a login, if there is anything.
    fn banner(&self) -> Option<Arc<String>>;

    /// Whether a user may choose a group; `false` also where the accounts cannot tell.
    fn may_choose(self: Arc<Self>, user: String, group: String) -> Reply<bool>;

    /// Looks whether the user of a device that wants a session has a login that lasts, as `token` says, where the
    /// device needs one.
    fn check_login(self: Arc<Self>, identity: Identity, token: Option<String>) -> Reply<Result<Identity, LoginError>>;

    /// Makes a session token worthless that was given to a client without a certificate of its own: its user has logged
    /// out.
    fn log_out(self: Arc<Self>, token: Zeroizing<String>) -> Reply<()>;

    /// Says that a device has just enrolled on a connection, which is one of that device from now on.
    fn enrolled(&self, device: &str, caller: &Caller);

    /// Opens the session of somebody who has logged in; one that the device already has is replaced. The lease is
    /// durable when this answers.
    fn open(
        self: Arc<Self>,
        identity: Identity,
        connection: Arc<dyn Connection>,
    ) -> Reply<Result<OpenSession, OpenError>>;

    /// Ends a session: nothing passes from now on, its traffic joins the totals, and its addresses rest before another
    /// device gets them. Never waits for the accounts.
    fn close(&self, session: &Session);
}

/// A session that a front-end serves; dropping this closes it.
pub struct OpenSession {
    core: Arc<dyn Core>,
    /// The session.
    pub session: Arc<Session>,
    /// New grants for it.
    pub orders: Orders,
    /// Whether it replaced a session of the same device.
    pub replaces: bool,
}

/// Changes of what a client was granted. The newest counts; one that another has overtaken is never seen.
pub struct Orders(watch::Receiver<Grant>);

/// What the core tells whoever serves a session.
#[derive(Debug, Clone)]
pub enum Order {
    /// The session has to end.
    End(Ending),
    /// It goes on, on these terms, for as long as it lives: the device's next session begins on those of the gateway.
    /// Its addresses stay, and so does its largest packet.
    Terms(Arc<grant::Terms>),
}

/// What users hear who choose a group that is not theirs to choose.
pub(crate) const NOT_IN_GROUP: &str = "this user may not choose this group";

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `limits.sessions` sessions are live.
    #[error("the gateway has no room for another session")]
    Full,
    /// The user has as many sessions as may be.
    #[error("the user has as many sessions as may be")]
    UserFull,
    /// It is not one of the hours in which the user's sessions may be open.
    #[error("the user may not connect at this hour")]
    OutsideHours,
    /// The user has chosen a group that is not offered, or is none of the user's.
    #[error("the user may not choose this group")]
    NotInGroup,
    /// The device was revoked while it logged in.
    #[error("this device was revoked")]
    Revoked,
    /// The login of the device's user was made void while the device connected.
    #[error("the login of the device's user was ended")]
    LoginOver,
    /// No address is free.
    #[error("no address is free")]
    NoAddress(#[from] PoolError),
    /// Connections of the address's former holder could not be ended.
    #[error("the address is not free of its former holder's connections")]
    OldFlows(#[from] HostError),
    /// The kernel does not hold the addresses to the rules of the policy.
    #[error("the policy is not enforced")]
    NotEnforced(#[source] HostError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreFault),
}

impl OpenError {
    /// The reason in words, for the client.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Full => "the gateway has no room for another session",
            Self::UserFull => "this user has as many sessions as may be",
            Self::OutsideHours => "this user may not connect at this hour",
            Self::NotInGroup => NOT_IN_GROUP,
            Self::LoginOver => VOID,
            Self::Revoked => "this device was revoked",
            Self::NoAddress(_) => "the gateway has no free address",
            Self::OldFlows(_) => "the gateway's address is not free yet",
            Self::NotEnforced(_) => "the gateway cannot enforce its policy now",
            Self::Store(_) => "the gateway's store failed",
        }
    }
}

impl OpenSession {
    fn new(core: Arc<dyn Core>, session: Arc<Session>, replaces: bool) -> Self {
        let orders = Orders(session.grants());
        Self { core, session, orders, replaces }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.core.close(&self.session);
    }
}

impl Orders {
    /// Waits for a new grant. Cancel-safe.
    pub async fn next(&mut self) -> Grant {
        match self.0.changed().await {
            Ok(()) => self.0.borrow_and_update().clone(),
            // The session is gone, and whoever serves it hears that from its connection.
            Err(_gone) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

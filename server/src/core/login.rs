//! Logging in: a credential becomes an identity, or is refused.

pub mod chain;
pub(crate) mod clocks;
pub(crate) mod lasting;
pub mod logins;
mod places;
pub mod sealed;
mod step;
mod turns;

use std::time::Duration;

use adit_proto::login::token::{Clocks, LoginEnd, LoginId, SessionToken};
use zeroize::Zeroizing;

use crate::accounts::{AuthError, Device, StoreFault};
use crate::off_runtime::off_runtime_or;

/// What somebody proves who they are with. A secret may be in it, so it has no `Debug`.
pub enum Credential {
    /// A device certificate of this gateway's authority, whose signature TLS has checked; its dates are for the
    /// accounts.
    Certificate {
        /// The device it names.
        device: String,
        /// Its serial number in lower-case hexadecimal.
        serial: String,
    },
    /// A bearer token.
    Token(String),
    /// The session token of a client without a certificate of its own. Its login gets a device at its first session,
    /// and has the same one ever after.
    Login {
        /// The token.
        token: Zeroizing<String>,
        /// What the client calls its host.
        name: String,
    },
}

/// Who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The device, which names its user.
    pub device: Device,
    /// The login of the user; `None` for a device that needs none.
    pub login: Option<LastingLogin>,
}

/// A login that a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastingLogin {
    /// Which one.
    pub id: LoginId,
    /// When it ends.
    pub end: LoginEnd,
    /// Of which generation of the user's logins it is: it is void once the user has another.
    pub generation: u64,
}

impl LastingLogin {
    /// That of a session token, of which `left` is left by what the accounts know.
    pub(crate) fn of(token: &SessionToken, clocks: &Clocks, left: Duration) -> Self {
        Self { id: token.login, end: token.end(clocks, left), generation: token.generation }
    }
}

/// Why nobody has logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The credential is not good.
    #[error(transparent)]
    Refused(#[from] AuthError),
    /// The device needs a login of its user, and came with none that lasts; for this reason.
    #[error("{0}")]
    Needed(&'static str),
    /// The check itself broke; our fault.
    #[error("the check failed inside the gateway")]
    Internal,
}

/// Does work with the store, which blocks.
async fn in_store<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreFault> + Send + 'static,
) -> Result<T, StoreFault> {
    off_runtime_or(|panicked| Err(StoreFault::new(panicked)), work).await
}

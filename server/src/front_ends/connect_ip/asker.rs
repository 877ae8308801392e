//! Who asks for something on a connection, and whether it may have it.

use std::sync::Arc;

use super::FrontEnd;
use super::answer::HttpRefusal;
use crate::accounts::{AuthError, TOO_MANY_DEVICES};
use crate::core::callers::Caller;
use crate::core::login::{Identity, LoginError};
use crate::front_ends::peer::Peer;

const INTERNAL: HttpRefusal = HttpRefusal { status: 500, reason: "internal error" };

/// Who asks.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) front_end: Arc<FrontEnd>,
    pub(super) peer: Arc<Peer>,
    pub(super) caller: Arc<Caller>,
}

/// Why somebody gets no tunnel.
pub(super) enum Denial {
    Refused(HttpRefusal),
    /// The device's user has to log in first, for this reason.
    LoginNeeded(&'static str),
}

impl Asker {
    /// Decides who the device is: its certificate, if it showed one, else its bearer token.
    pub(super) async fn authenticate(&self, authorization: Option<&str>) -> Result<Identity, HttpRefusal> {
        let Some(credential) = self.peer.credential(authorization.and_then(bearer_token)) else {
            return Err(self.refusal(&AuthError::Unknown));
        };
        let caller = Arc::clone(&self.caller);
        match Arc::clone(&self.front_end.core).authenticate(credential, caller).await {
            Ok(identity) => Ok(identity),
            Err(LoginError::Refused(error)) => Err(self.refusal(&error)),
            Err(LoginError::Needed(reason)) => Err(HttpRefusal { status: 401, reason }),
            Err(LoginError::Internal) => Err(INTERNAL),
        }
    }

    /// Decides whether the device's user has a login that lasts, where it needs one.
    pub(super) async fn check_login(&self, identity: Identity, token: Option<String>) -> Result<Identity, Denial> {
        match Arc::clone(&self.front_end.core).check_login(identity, token).await {
            Ok(identity) => Ok(identity),
            Err(LoginError::Needed(reason)) => Err(Denial::LoginNeeded(reason)),
            Err(LoginError::Refused(error)) => Err(Denial::Refused(self.refusal(&error))),
            Err(LoginError::Internal) => Err(Denial::Refused(INTERNAL)),
        }
    }

    fn refusal(&self, error: &AuthError) -> HttpRefusal {
        let (status, reason) = match error {
            AuthError::Unknown if matches!(*self.peer, Peer::Anonymous) => {
                (401, "a device certificate or token is needed")
            }
            AuthError::Unknown => (403, "this device is not known here"),
            AuthError::Revoked => (403, "this device was revoked"),
            AuthError::Disabled => (403, "this user is disabled; ask the administrator"),
            AuthError::TooManyDevices(_) => (409, TOO_MANY_DEVICES),
            AuthError::Expired => {
                tracing::info!(
                    "a device was refused since its certificate is over by this host's clock; if the clock was wrong when it \
                     was issued, and the host has started since, the device needs a new invite"
                );
                (403, "this device's certificate has expired")
            }
            AuthError::Store(error) => {
                tracing::error!(%error, "a device could not be checked");
                (503, "the gateway's store failed")
            }
        };
        HttpRefusal { status, reason }
    }
}

/// The token of an `authorization: Bearer …` field (RFC 6750 section 2.1).
fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_scheme_is_case_insensitive_and_others_are_ignored() {
        assert_eq!(bearer_token("Bearer abc"), Some("abc"));
        assert_eq!(bearer_token("bearer  abc "), Some("abc"));
        assert_eq!(bearer_token("Basic abc"), None);
        assert_eq!(bearer_token("Bearer"), None);
    }
}

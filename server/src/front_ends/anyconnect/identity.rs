//! Who a client is: by its device's certificate, by the cookie of a login, or by both.

use std::sync::Arc;

use adit_proto::anyconnect::tunnel::TunnelRequest;
use zeroize::Zeroizing;

use super::FrontEnd;
use super::tunnel::{Refused, log_in, not_now};
use crate::accounts::{AuthError, TOO_MANY_DEVICES};
use crate::core::callers;
use crate::core::login::{Credential, Identity, LoginError};
use crate::core::sessions::{Closing, Ending};
use crate::front_ends::peer::Peer;
use crate::listener::Caller;

/// What a device is called whose client does not say what its host is called.
const NAMELESS: &str = "anyconnect";

/// The device whose certificate a client shows.
pub(super) struct Holder {
    /// Its id.
    pub(super) device: String,
    /// Its user.
    pub(super) user: String,
    /// Whether its user has to log in besides.
    pub(super) needs_login: bool,
}

/// A connection on which somebody logs in. It lives for seconds, so nobody closes it.
struct Visit;

impl Closing for Visit {
    fn close(&self, _ending: Ending) {}
}

impl FrontEnd {
    /// The device whose certificate a client shows that logs in; `None` if it shows none.
    pub(super) async fn device_of(&self, caller: &Caller) -> Result<Option<Holder>, Refused> {
        let peer = Peer::who_shows(caller.certificate.as_ref());
        if matches!(peer, Peer::Anonymous) {
            return Ok(None);
        }
        let visit = Arc::new(callers::Caller::new(Arc::new(Visit)));
        let identity = self.authenticate(peer.credential(None).ok_or_else(nameless)?, &visit).await?;
        caller.know();
        let (device, user) = (identity.device.id.clone(), identity.device.user.clone());
        match Arc::clone(&self.core).check_login(identity, None).await {
            Ok(_identity) => Ok(Some(Holder { device, user, needs_login: false })),
            Err(LoginError::Needed(_)) => Ok(Some(Holder { device, user, needs_login: true })),
            Err(error) => Err(refused(error)),
        }
    }

    /// Who wants a tunnel: the device of a certificate, with a login of its user where it needs one, or else that of a
    /// login.
    pub(super) async fn identify(
        &self,
        request: &TunnelRequest,
        shown: &Caller,
        caller: &Arc<callers::Caller>,
    ) -> Result<Identity, Refused> {
        let peer = Peer::who_shows(shown.certificate.as_ref());
        if matches!(peer, Peer::Anonymous) {
            let token = request.token.clone().ok_or_else(|| log_in("a login is needed"))?;
            let name = request.host_name.as_deref().unwrap_or(NAMELESS).to_owned();
            return self.authenticate(Credential::Login { token, name }, caller).await;
        }
        let identity = self.authenticate(peer.credential(None).ok_or_else(nameless)?, caller).await?;
        let token = request.token.as_ref().map(|token: &Zeroizing<String>| token.to_string());
        Arc::clone(&self.core).check_login(identity, token).await.map_err(refused)
    }

    async fn authenticate(&self, credential: Credential, caller: &Arc<callers::Caller>) -> Result<Identity, Refused> {
        Arc::clone(&self.core).authenticate(credential, Arc::clone(caller)).await.map_err(refused)
    }
}

fn nameless() -> Refused {
    log_in("this certificate names no device")
}

fn refused(error: LoginError) -> Refused {
    match error {
        LoginError::Needed(reason) => log_in(reason),
        LoginError::Refused(AuthError::Store(error)) => {
            tracing::error!(%error, "a client could not be checked");
            not_now("the gateway's store failed")
        }
        LoginError::Refused(AuthError::Revoked) => log_in("this device was revoked"),
        // Another login would not help.
        LoginError::Refused(AuthError::TooManyDevices(_)) => not_now(TOO_MANY_DEVICES),
        LoginError::Refused(AuthError::Disabled) => log_in("this user is disabled; ask the administrator"),
        LoginError::Refused(AuthError::Unknown) => log_in("this device is not known here"),
        LoginError::Refused(AuthError::Expired) => log_in("this device's certificate has expired"),
        LoginError::Internal => not_now("internal error"),
    }
}

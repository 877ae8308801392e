//! What clients keep of a login, sealed: handles between its steps, and the token that it ends in.

use adit_proto::login::token::{Sealing, SessionToken, TokenError};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::identity::{Sealer, ServiceKey};
use crate::sources::Origin;

/// Handles of logins. One that began with a device's certificate goes on with it alone.
pub(super) struct Handles(Sealer);

/// Session tokens.
pub struct Tokens(Sealer);

impl Handles {
    pub(super) fn new(key: &ServiceKey) -> Self {
        Self(key.sealer("login handles"))
    }

    pub(super) fn seal(&self, flow: &[u8], origin: &Origin) -> Option<String> {
        Some(BASE64URL_NOPAD.encode(&self.0.seal(flow, about(origin)).ok()?))
    }

    pub(super) fn open(&self, handle: &str, origin: &Origin) -> Option<Zeroizing<Vec<u8>>> {
        self.0.open(&BASE64URL_NOPAD.decode(handle.as_bytes()).ok()?, about(origin))
    }
}

/// No device has the empty id.
fn about(origin: &Origin) -> &[u8] {
    origin.device.as_deref().unwrap_or_default().as_bytes()
}

impl Tokens {
    pub(super) fn new(key: &ServiceKey) -> Self {
        Self(key.sealer("session tokens"))
    }

    /// The token as clients get it; `None` when there is no randomness.
    pub fn seal(&self, token: &SessionToken) -> Option<String> {
        token.seal(self).map(|sealed| BASE64URL_NOPAD.encode(&sealed))
    }

    /// Opens the token that a device came with, or the ticket of a client that has no device yet; `now` is Unix time in
    /// seconds. Whether the user still may, and is of the same generation, is for the accounts.
    ///
    /// # Errors
    /// It is foreign, another device's, or over.
    pub fn open(&self, text: &str, device: Option<&str>, now: u64) -> Result<SessionToken, TokenError> {
        let sealed = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_malformed| TokenError::Foreign)?;
        SessionToken::open(&sealed, device, now, self)
    }
}

impl Sealing for Tokens {
    fn seal(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.0.seal(text, b"").ok()
    }

    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.0.open(sealed, b"")
    }
}

//! What clients keep of a login, sealed: handles between its steps, and the token that it ends in.

use std::sync::Arc;

use adit_proto::login::token::{Clocks, Sealing, SessionToken, TokenError};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::chain::Chain;
use super::clocks;
use crate::identity::{Sealer, ServiceKey};
use crate::sources::Origin;

/// Handles of logins. One that began with a device's certificate goes on with it alone, and one that began over some
/// sources goes on over those alone: what it holds of one of them is for no other. None goes on after a restart of the
/// host, since the times in it count from the boot.
pub(super) struct Handles {
    sealer: Arc<Sealer>,
    /// The sources in their order.
    sources: String,
}

/// Session tokens.
pub struct Tokens(Sealer);

impl Handles {
    pub(super) fn new(key: &ServiceKey, chain: &Chain) -> Self {
        Self { sealer: Arc::new(key.sealer("login handles")), sources: chain.names() }
    }

    /// Those of logins over other sources.
    pub(super) fn over(&self, chain: &Chain) -> Self {
        Self { sealer: Arc::clone(&self.sealer), sources: chain.names() }
    }

    pub(super) fn seal(&self, flow: &[u8], origin: &Origin) -> Option<String> {
        Some(BASE64URL_NOPAD.encode(&self.sealer.seal(flow, &self.about(origin)?).ok()?))
    }

    pub(super) fn open(&self, handle: &str, origin: &Origin) -> Option<Zeroizing<Vec<u8>>> {
        self.sealer.open(&BASE64URL_NOPAD.decode(handle.as_bytes()).ok()?, &self.about(origin)?)
    }

    /// No device has the empty id, and no source a name with a space. `None` where this boot is not told from others.
    fn about(&self, origin: &Origin) -> Option<Vec<u8>> {
        let device = origin.device.as_deref().unwrap_or_default();
        let boot = clocks::now().boot.number()?;
        Some([boot.as_slice(), self.sources.as_bytes(), b" ", device.as_bytes()].concat())
    }
}

impl Tokens {
    /// Those of the gateway with this key.
    #[must_use]
    pub fn new(key: &ServiceKey) -> Self {
        Self(key.sealer("session tokens"))
    }

    /// The token as clients get it; `None` when there is no randomness.
    pub fn seal(&self, token: &SessionToken) -> Option<String> {
        token.seal(self).map(|sealed| BASE64URL_NOPAD.encode(&sealed))
    }

    /// Opens the token that a device came with, or the ticket of a client that has no device yet. Whether the user
    /// still may, and is of the same generation, is for the accounts.
    ///
    /// # Errors
    /// It is foreign, another device's, or over.
    pub fn open(&self, text: &str, device: Option<&str>, clocks: &Clocks) -> Result<SessionToken, TokenError> {
        let sealed = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_malformed| TokenError::Foreign)?;
        SessionToken::open(&sealed, device, clocks, self)
    }

    /// What is in a token, whoever it is of and though it may be over; see [`SessionToken::unseal`].
    pub fn unseal(&self, text: &str) -> Option<SessionToken> {
        SessionToken::unseal(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?, self)
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

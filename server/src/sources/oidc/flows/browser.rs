//! What the browser of a login does: it opens the link, and comes back from the provider.

use openidconnect::{CsrfToken, Nonce, PkceCodeVerifier};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::{Flows, Stage};
use crate::sources::WayToClient;

/// What a login by redirect is bound to. Secrets, so it has no `Debug`.
pub(crate) struct Browser {
    /// The name of the link.
    pub(crate) link: String,
    /// What the browser must bring back as a cookie, so that nobody can have somebody else's browser finish a login.
    pub(crate) cookie: String,
    /// The code that client and page both show.
    pub(crate) user_code: String,
    pub(crate) state: CsrfToken,
    pub(crate) nonce: Nonce,
    pub(crate) verifier: PkceCodeVerifier,
    /// Where the provider is asked to begin.
    pub(crate) authorization: String,
    /// Where the browser goes on at the end, if it does.
    pub(crate) to_client: Option<WayToClient>,
}

/// What a page of the link shows.
pub(crate) struct Page {
    pub(crate) cookie: String,
    pub(crate) user_code: String,
    pub(crate) authorization: String,
}

/// A browser that came back.
pub(crate) struct Returned {
    pub(crate) ticket: String,
    pub(crate) nonce: Nonce,
    pub(crate) verifier: PkceCodeVerifier,
    /// Where it goes on to its client, if it does.
    pub(crate) location: Option<String>,
}

/// Why a browser that came back is not the one that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// No login waits for this state: none ever did, it is over, or the browser was here before.
    UnknownState,
    /// Another browser opened the link.
    OtherBrowser,
}

impl Flows {
    /// The page behind a link.
    pub(crate) fn page(&self, link: &str, now: Instant) -> Option<Page> {
        let browser = self.waiting(now).map(|(_, browser)| browser).find(|browser| browser.link == link)?;
        Some(Page {
            cookie: browser.cookie.clone(),
            user_code: browser.user_code.clone(),
            authorization: browser.authorization.clone(),
        })
    }

    /// The link of the login that has this state, which names the cookie.
    pub(crate) fn link(&self, state: &str, now: Instant) -> Option<&str> {
        let mut waiting = self.waiting(now);
        waiting.find(|(_, browser)| browser.state.secret() == state).map(|(_, browser)| browser.link.as_str())
    }

    fn waiting(&self, now: Instant) -> impl Iterator<Item = (&String, &Browser)> {
        self.flows.iter().filter(move |(_, flow)| now < flow.until).filter_map(|(ticket, flow)| match &flow.stage {
            Stage::Browser(browser) => Some((ticket, browser)),
            Stage::Checking | Stage::Device(_) | Stage::Over(_) => None,
        })
    }

    /// A browser came back with this state and, perhaps, a cookie. Each login takes that once.
    pub(crate) fn returned(&mut self, state: &str, cookie: Option<&str>, now: Instant) -> Result<Returned, NotSent> {
        let mut waiting = self.waiting(now);
        let (ticket, browser) =
            waiting.find(|(_, browser)| browser.state.secret() == state).ok_or(NotSent::UnknownState)?;
        let is_same = cookie.is_some_and(|cookie| bool::from(cookie.as_bytes().ct_eq(browser.cookie.as_bytes())));
        if !is_same {
            return Err(NotSent::OtherBrowser);
        }
        let ticket = ticket.clone();
        drop(waiting);
        let flow = self.flows.get_mut(&ticket).ok_or(NotSent::UnknownState)?;
        match std::mem::replace(&mut flow.stage, Stage::Checking) {
            Stage::Browser(Browser { nonce, verifier, to_client, .. }) => {
                Ok(Returned { ticket, nonce, verifier, location: to_client.map(|way| way.location) })
            }
            Stage::Checking | Stage::Device(_) | Stage::Over(_) => Err(NotSent::UnknownState),
        }
    }
}

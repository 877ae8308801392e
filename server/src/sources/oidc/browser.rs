//! Logins by redirect: the browser is sent to the provider, and comes back to the gateway with a code (OpenID Connect
//! Core, section 3.1, with PKCE and RFC 9207).

use adit_program::foreign_text::printable;
use adit_program::random::{NoRandomness, random};
use adit_proto::login::{Cause, Person, Verdict};
use openidconnect::url::form_urlencoded;
use openidconnect::{CsrfToken, Nonce, PkceCodeChallenge};
use tokio::time::Instant;

use crate::config::OidcConfig;

use super::flows::{Browser, Flows, LIFETIME, NotSent, Returned};
use super::pages::{self, Page};
use super::provider::{Fault, Published};
use super::token::Tokens;
use super::{Origin, Registered, StartedLink, Unavailable, WayToClient, unguessable, verdict_of};

/// Where browsers begin.
const START: &str = "/login/start";
/// Where they come back to.
const CALLBACK: &str = "/login/callback";
/// Where they end that went on to a client from here.
const END: &str = "/login/end";
/// Letters of a code that people compare: no vowels, so that no words come about, and none that look alike.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Under which URLs browsers reach the gateway.
pub(super) struct WayBack {
    start: String,
    callback: String,
    end: String,
}

/// What a browser asks for.
pub struct Visit<'a> {
    /// The path of the URL.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: &'a str,
    /// The `Cookie` header.
    pub cookies: &'a str,
}

/// What the provider had the browser bring back.
struct Answer {
    code: Option<String>,
    error: Option<String>,
    issuer: Option<String>,
}

impl WayBack {
    pub(super) fn new(settings: &OidcConfig, public: &str) -> Self {
        let (host, port) =
            settings.redirect_host.as_ref().map_or((public, 443), |named| (named.host.as_str(), named.port));
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let origin = if port == 443 { format!("https://{host}") } else { format!("https://{host}:{port}") };
        let [start, callback, end] = [START, CALLBACK, END].map(|path| format!("{origin}{path}"));
        Self { start, callback, end }
    }
}

impl Registered {
    pub(super) fn begin_redirect(
        &self,
        way_back: &WayBack,
        published: &Published,
        to_client: Option<WayToClient>,
        origin: &Origin,
    ) -> Result<StartedLink, Unavailable> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (ticket, link, user_code) = (unguessable()?, unguessable()?, user_code()?);
        let (state, nonce) = (CsrfToken::new(unguessable()?), Nonce::new(unguessable()?));
        let mut authorization = published.authorization.clone();
        authorization
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", self.provider.registration.client.as_str())
            .append_pair("redirect_uri", &way_back.callback)
            .append_pair("scope", &self.settings.scopes.join(" "))
            .append_pair("state", state.secret())
            .append_pair("nonce", nonce.secret())
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(&self.settings.parameters);
        let started = StartedLink {
            url: format!("{}?{link}", way_back.start),
            user_code: Some(user_code.clone()),
            lifetime: LIFETIME,
            interval: Flows::INTERVAL,
            state: ticket.clone().into_bytes(),
            returns: to_client.is_some(),
        };
        let (cookie, authorization) = (unguessable()?, authorization.into());
        let browser = Browser { link, cookie, user_code, state, nonce, verifier, authorization, to_client };
        self.flows().begin_browser(ticket, browser, origin, Instant::now());
        Ok(started)
    }

    /// Answers a browser.
    pub(super) async fn visit(&self, visit: Visit<'_>) -> Page {
        match visit.path {
            START => self.start(visit.query),
            CALLBACK => self.callback(&visit).await,
            END => pages::end(),
            pages::STYLE_PATH => pages::style(),
            _ => pages::not_found(),
        }
    }

    fn start(&self, link: &str) -> Page {
        let Some(page) = self.flows().page(link, Instant::now()) else { return pages::link_is_over() };
        let cookie = format!("{}={}", cookie_name(link), page.cookie);
        pages::begin(&page.user_code, &page.authorization, &cookie)
    }

    async fn callback(&self, visit: &Visit<'_>) -> Page {
        let brought = |name: &str| once(visit.query, name);
        let returned = {
            let mut flows = self.flows();
            let now = Instant::now();
            let state = brought("state").unwrap_or_default();
            let cookie = flows.link(&state, now).and_then(|link| cookie(visit.cookies, &cookie_name(link)));
            flows.returned(&state, cookie, now)
        };
        let returned = match returned {
            Ok(returned) => returned,
            Err(NotSent::UnknownState) => return pages::link_is_over(),
            Err(NotSent::OtherBrowser) => return pages::other_browser(),
        };
        let mut settling = Settling { oidc: self, ticket: returned.ticket.clone(), verdict: None };
        let answer = Answer { code: brought("code"), error: error_of(visit.query), issuer: brought("iss") };
        let location = returned.location.clone();
        let verdict = verdict_of(self.exchange(returned, answer).await);
        let page = match location {
            Some(location) if matches!(verdict, Verdict::Accepted(_)) => pages::on_to(self.to_client(&location)),
            Some(_) | None => pages::outcome(&verdict),
        };
        settling.verdict = Some(verdict);
        page
    }

    /// Where a browser goes on to its client, and from there to the last page.
    fn to_client(&self, location: &str) -> String {
        let end = self.way_back.as_ref().map_or("", |way_back| &way_back.end);
        let end: String = form_urlencoded::byte_serialize(end.as_bytes()).collect();
        format!("{location}?return={end}")
    }

    async fn exchange(&self, returned: Returned, answer: Answer) -> Result<Person, Fault> {
        let published = self.provider.published().await?;
        let issuer = self.provider.registration.issuer.as_str();
        if answer.issuer.as_deref().map_or(published.names_issuer, |named| named != issuer) {
            return Err(Fault::Unbelieved("another provider than the one asked sent the browser back".to_owned()));
        }
        if let Some(text) = answer.error {
            return Err(Fault::Denied { code: String::new(), text });
        }
        let code = answer.code.ok_or_else(|| Fault::Unbelieved("the browser brought no code".to_owned()))?;
        let callback = self.way_back.as_ref().map_or("", |way_back| &way_back.callback);
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", callback),
            ("code_verifier", returned.verifier.secret()),
        ];
        let tokens: Tokens = self.provider.post(&published, &published.token, &form).await?;
        self.person(&published, tokens, Some(&returned.nonce)).await
    }
}

/// Tells the client what its login brought, also when the browser left before that was known.
struct Settling<'a> {
    oidc: &'a Registered,
    ticket: String,
    verdict: Option<Verdict>,
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        let left = || Verdict::Refused(Cause::NotPermitted("the browser left before it was answered".to_owned()));
        self.oidc.flows().settle(&self.ticket, self.verdict.take().unwrap_or_else(left));
    }
}

fn user_code() -> Result<String, NoRandomness> {
    let letters = random::<8>()?.map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    let (left, right) = letters.split_at(4);
    Ok(format!("{}-{}", left.iter().collect::<String>(), right.iter().collect::<String>()))
}

/// One for each link, so that two logins at once in one browser do not disturb each other. The prefix makes browsers
/// refuse it from other hosts and without TLS.
fn cookie_name(link: &str) -> String {
    format!("__Host-adit-{}", link.get(..12).unwrap_or_default())
}

fn cookie<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// A parameter that is there exactly once.
fn once(query: &str, name: &str) -> Option<String> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    let value = values.next().map(|(_, value)| value.into_owned());
    value.filter(|_| values.next().is_none())
}

/// Why the provider sent the browser back without a code (RFC 6749 section 4.1.2.1).
fn error_of(query: &str) -> Option<String> {
    let error = once(query, "error")?;
    let description = once(query, "error_description").map(|text| format!(" ({text})")).unwrap_or_default();
    Some(printable(&format!("{error}{description}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_that_comes_twice_counts_as_none() {
        assert_eq!(once("a=1&b=x%20y", "b").as_deref(), Some("x y"));
        assert_eq!(once("b=1&b=2", "b"), None);
        assert_eq!(once("", "b"), None);
    }

    #[test]
    fn cookie_is_found_among_others_by_its_whole_name() {
        let header = "other=1; __Host-adit-abc=x=y; __Host-adit-abcd=z";
        assert_eq!(cookie(header, "__Host-adit-abc"), Some("x=y"));
        assert_eq!(cookie(header, "__Host-adit-ab"), None);
        assert_eq!(cookie("", "__Host-adit-abc"), None);
    }

    #[test]
    fn user_code_is_eight_letters_that_nobody_confuses() {
        let code = user_code().unwrap();
        let (left, right) = code.split_once('-').unwrap();
        assert_eq!((left.len(), right.len()), (4, 4));
        assert!(code.bytes().all(|byte| byte == b'-' || LETTERS.contains(&byte)), "{code}");
    }
}

//! Logins at an OpenID Connect provider, in a browser: by redirect, with a way back to the gateway, or by a code that
//! the user types at the provider (RFC 8628).
//!
//! Somebody is who the provider's issuer and subject say, for ever. Name and groups come from claims; the name is taken
//! at the first login alone.

mod browser;
mod claims;
mod device;
mod flows;
mod kept;
mod pages;
mod pause;
mod provider;
mod recheck;
mod stored;
mod token;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_program::configuration::Problem;
use adit_program::random::{NoRandomness, random};
use adit_proto::login::{Cause, Method, Person, Verdict};
use arc_swap::ArcSwap;
use data_encoding::BASE64URL_NOPAD;
use openidconnect::{ClientId, IssuerUrl, Nonce};
use zeroize::Zeroizing;

use super::status::ServerStatus;
use super::{
    Answering, LinkAnswer, LinkSource, LinkWish, Origin, Recheck, Source, StartedLink, Unavailable, WayToClient,
};
use crate::accounts::OidcSubject;
use crate::config::{Config, OidcConfig, SecretPlace};
use crate::trust;
use crate::web_client::WebClient;

use browser::WayBack;
use claims::Claims;
use flows::{Flows, Progress};
use kept::Kept;
use provider::{Fault, Provider, Published, Registration, check_url};
use recheck::Turns;
use token::Tokens;

pub use browser::Visit;
pub use kept::RefreshTokens;
pub use pages::{PAGES, Page};
pub use stored::StoredTokens;

/// The source's word.
const NAME: &str = "oidc";
/// How long the provider may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The provider as a source of users, as the gateway is registered with it by now.
pub struct Oidc(ArcSwap<Registered>);

/// The provider, with the settings of one time. What the gateway keeps of its users stays the same from one to the
/// next.
pub struct Registered {
    settings: OidcConfig,
    provider: Provider,
    /// Where browsers come back to, if they can.
    way_back: Option<WayBack>,
    flows: Arc<Mutex<Flows>>,
    kept: Arc<Kept>,
    turns: Arc<Turns>,
}

impl Oidc {
    /// Reads the files that the settings name. The provider is not asked before somebody logs in. `public` is the host
    /// that browsers find the gateway under unless the settings name another.
    ///
    /// # Errors
    /// A key that is missing, or a file that is.
    pub fn new(settings: OidcConfig, public: &str, tokens: Arc<dyn RefreshTokens>) -> Result<Self, Problem> {
        let (flows, kept, turns) = (Arc::default(), Arc::new(Kept::new(tokens)), Arc::default());
        Ok(Self(ArcSwap::from_pointee(Registered::new(settings, public, flows, kept, turns)?)))
    }

    /// Reads the files anew that the settings name, for [`Self::follow`]. Logins in a browser that have begun go on if
    /// the settings are the same.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn prepare(&self, settings: OidcConfig, public: &str) -> Result<Registered, Problem> {
        let now = self.0.load();
        let flows = if now.settings == settings { Arc::clone(&now.flows) } else { Arc::default() };
        Registered::new(settings, public, flows, Arc::clone(&now.kept), Arc::clone(&now.turns))
    }

    /// From now on goes by other settings.
    pub fn follow(&self, registered: Registered) {
        self.0.store(Arc::new(registered));
    }

    /// Does what has to be done beside logins, for ever.
    pub async fn look_after(&self) {
        let kept = Arc::clone(&self.0.load().kept);
        kept.write_all().await;
    }

    /// Answers a browser.
    pub async fn visit(&self, visit: Visit<'_>) -> Page {
        self.0.load_full().visit(visit).await
    }
}

impl Registered {
    fn new(
        settings: OidcConfig,
        public: &str,
        flows: Arc<Mutex<Flows>>,
        kept: Arc<Kept>,
        turns: Arc<Turns>,
    ) -> Result<Self, Problem> {
        let provider = Self::provider(&settings)?;
        let way_back = (!settings.listen.is_empty()).then(|| WayBack::new(&settings, public));
        Ok(Self { settings, provider, way_back, flows, kept, turns })
    }

    fn provider(settings: &OidcConfig) -> Result<Provider, Problem> {
        let missing = |key: &str, next: &str| Problem::new(key, "is not set, and login.sources names oidc", next);
        let issuer = settings.issuer.clone();
        let issuer = issuer.ok_or_else(|| missing("oidc.issuer", "name the provider's issuer"))?;
        let issuer = check_url(&issuer)
            .and_then(|_url| IssuerUrl::new(issuer).map_err(|error| error.to_string()))
            .map_err(|error| Problem::new("oidc.issuer", error, "write the provider's issuer"))?;
        let client = settings.client_id.clone();
        let client = client.ok_or_else(|| missing("oidc.client_id", "register the gateway with the provider"))?;
        let secret = settings.client_secret.as_ref().map(read_client_secret).transpose()?;
        let http = WebClient::new(trust::tls("oidc.authority", settings.authority.as_deref())?, PATIENCE);
        let registration = Registration { issuer, client: ClientId::new(client), secret };
        Ok(Provider::new(registration, http))
    }

    /// Whom tokens speak of: the person with name and groups. A refresh token is kept.
    async fn person(&self, published: &Arc<Published>, tokens: Tokens, nonce: Option<&Nonce>) -> Result<Person, Fault> {
        let id_token = tokens.id_token.as_deref().ok_or_else(|| {
            Fault::Unbelieved("the provider gave no ID token; is `openid` in oidc.scopes?".to_owned())
        })?;
        let claims = self.provider.believe(published, id_token, nonce).await?;
        let claims = self.completed(published, claims, &tokens.access_token).await?;
        let person = Person {
            source: NAME.to_owned(),
            subject: self.subject(&claims)?,
            name: self.name_of(&claims)?,
            groups: self.groups(&claims)?.unwrap_or_default(),
            methods: vec![Method::Browser],
            session_lifetime: None,
            generation: None,
        };
        match tokens.refresh_token {
            Some(token) => self.kept.keep(&person.subject, token).await,
            None => tracing::warn!(
                "the OpenID Connect provider gives no refresh token, so it cannot be asked again whether its users still \
                 may; see oidc.scopes and oidc.parameters"
            ),
        }
        Ok(person)
    }

    /// Asks for what an ID token lacks.
    async fn completed(&self, published: &Published, claims: Claims, access_token: &str) -> Result<Claims, Fault> {
        let lacks_name = claims.text(&self.settings.name_claim).is_none();
        if !lacks_name && self.groups(&claims)?.is_some() {
            return Ok(claims);
        }
        let subject = claims.text("sub").unwrap_or_default();
        let further = self.provider.userinfo(published, access_token, subject).await?;
        Ok(claims.or(further))
    }

    /// Issuer and subject in one: another provider's user of the same number is somebody else.
    fn subject(&self, claims: &Claims) -> Result<String, Fault> {
        let subject = claims.text("sub").ok_or_else(|| Fault::Unbelieved("the ID token has no subject".to_owned()))?;
        let issuer = self.provider.registration.issuer.as_str();
        Ok(OidcSubject { issuer, subject }.to_string())
    }

    fn name_of(&self, claims: &Claims) -> Result<String, Fault> {
        let claim = &self.settings.name_claim;
        if claim == "email" && !claims.is_true("email_verified") {
            let reason = "the provider has not verified the e-mail address, which anybody could have written";
            return Err(Fault::Unbelieved(reason.to_owned()));
        }
        claims.text(claim).map(ToOwned::to_owned).ok_or_else(|| {
            Fault::Unbelieved(format!(
                "the provider sends no claim {claim:?}, which is to be the user's name; name another in \
                 oidc.name_claim, or ask for it by oidc.scopes"
            ))
        })
    }

    fn groups(&self, claims: &Claims) -> Result<Option<Vec<String>>, Fault> {
        claims.groups(&self.settings.groups_claim).map_err(Fault::Unbelieved)
    }

    async fn begin(&self, wish: LinkWish, origin: &Origin) -> Result<StartedLink, Unavailable> {
        let published = self.provider.published().await?;
        let is_redirect = matches!(wish, LinkWish::Redirect);
        // A client that there is no way to gets what those get that want none.
        let way = match wish {
            LinkWish::ToClient(client) if self.way_back.is_some() => client.way(),
            LinkWish::ToClient(_) | LinkWish::Redirect | LinkWish::DeviceCode => None,
        };
        // Either kind of link does in any browser, so one stands in for the other.
        match (way, &self.way_back, &published.device) {
            (Some(way), Some(way_back), _) => self.begin_redirect(way_back, &published, Some(way), origin),
            (None, Some(way_back), None) => self.begin_redirect(way_back, &published, None, origin),
            (None, Some(way_back), Some(_)) if is_redirect => self.begin_redirect(way_back, &published, None, origin),
            (_, _, Some(endpoint)) => self.begin_device(&published, endpoint, origin).await,
            (_, None, None) => Err(unavailable(format!(
                "{} gives out no device codes, so browsers need a way back: set oidc.listen",
                self.provider.registration.issuer.as_str()
            ))),
        }
    }

    async fn poll(&self, ticket: &str, proof: Option<&str>) -> LinkAnswer {
        let progress = self.flows().poll(ticket, proof, tokio::time::Instant::now());
        match progress {
            Progress::Pending(interval) => LinkAnswer::Pending { interval },
            Progress::AskProvider(code) => self.poll_device(ticket, &code).await,
            Progress::Over(verdict) => LinkAnswer::Settled(verdict),
            Progress::Gone => not_permitted("the link was not used in time"),
            Progress::Unproven => not_permitted("the client brought the proof of another login"),
        }
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_permitted(reason: &str) -> LinkAnswer {
    LinkAnswer::Settled(Verdict::Refused(Cause::NotPermitted(reason.to_owned())))
}

/// The gateway's secret at the provider.
fn read_client_secret(place: &SecretPlace) -> Result<Zeroizing<String>, Problem> {
    let problem = |reason: String, next: String| Problem::new("oidc.client_secret_file", reason, next);
    let bytes = place.read().map_err(|error| problem(format!("{place}: {}", error.reason), error.next))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        problem(format!("{place} holds no text"), "write the secret that the provider shows for this client".to_owned())
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// What is missing or wrong in the settings; the provider is not asked.
pub(super) fn problem(config: &Config) -> Option<Problem> {
    Registered::provider(&config.oidc).err()
}

/// Asks the provider for what it publishes, without a user.
///
/// # Errors
/// What is missing or wrong in the settings.
pub(super) async fn status(config: &Config) -> Result<Vec<ServerStatus>, Problem> {
    let provider = Registered::provider(&config.oidc)?;
    let answer = provider.published().await.map(drop).map_err(|fault| fault.to_string());
    Ok(vec![ServerStatus::new(provider.registration.issuer.as_str(), answer)])
}

/// A name that nobody can guess, for tickets, links and cookies.
fn unguessable() -> Result<String, NoRandomness> {
    Ok(BASE64URL_NOPAD.encode(&random::<32>()?))
}

fn unavailable(reason: impl std::fmt::Display) -> Unavailable {
    Unavailable(format!("{NAME}: {reason}"))
}

impl From<NoRandomness> for Unavailable {
    fn from(error: NoRandomness) -> Self {
        unavailable(error)
    }
}

impl From<Fault> for Unavailable {
    fn from(fault: Fault) -> Self {
        unavailable(fault)
    }
}

/// What a login brought, in the words of the gateway.
fn verdict_of(outcome: Result<Person, Fault>) -> Verdict {
    match outcome {
        Ok(person) => Verdict::Accepted(person),
        Err(Fault::Away(reason)) => Verdict::Unavailable(format!("{NAME}: {reason}")),
        Err(fault @ (Fault::Denied { .. } | Fault::Unbelieved(_))) => {
            Verdict::Refused(Cause::NotPermitted(fault.to_string()))
        }
    }
}

impl Source for Oidc {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Passwords are for the provider's own pages.
    fn check<'a>(&'a self, _name: &'a str, _password: &'a Zeroizing<String>, _origin: &'a Origin) -> Answering<'a> {
        Box::pin(async { Verdict::Unknown })
    }

    fn answer<'a>(&'a self, _state: &'a [u8], _answer: &'a Zeroizing<String>, _origin: &'a Origin) -> Answering<'a> {
        Box::pin(async { Verdict::Unknown })
    }

    fn recheck<'a>(&'a self, person: &'a Person) -> Pin<Box<dyn Future<Output = Recheck> + Send + 'a>> {
        Box::pin(async move { self.0.load_full().ask_again(person).await })
    }

    fn links(&self) -> Option<&dyn LinkSource> {
        Some(self)
    }
}

impl LinkSource for Oidc {
    fn begin<'a>(
        &'a self,
        wish: LinkWish,
        origin: &'a Origin,
    ) -> Pin<Box<dyn Future<Output = Result<StartedLink, Unavailable>> + Send + 'a>> {
        Box::pin(async move { self.0.load_full().begin(wish, origin).await })
    }

    fn poll<'a>(
        &'a self,
        state: &'a [u8],
        proof: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = LinkAnswer> + Send + 'a>> {
        Box::pin(async move { self.0.load_full().poll(&String::from_utf8_lossy(state), proof).await })
    }
}

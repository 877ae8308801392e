//! The identity provider: where it is asked what, by which keys its tokens are known, and its answers.
//!
//! Nothing is asked before the first login, so a gateway starts while the provider is away, also where the way to it
//! leads through the gateway itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_program::foreign_text::printable;
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
    CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode,
    CoreResponseType, CoreSubjectIdentifierType,
};
use openidconnect::url::Url;
use openidconnect::{AdditionalProviderMetadata, ClientId, IssuerUrl, Nonce, ProviderMetadata};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::claims::{Claims, Expected, Unbelieved, believe};
use super::pause::Pause;
use crate::web_client::{self, WebClient};

/// Where a provider publishes what it is (OpenID Connect Discovery, section 4).
const CONFIGURATION: &str = ".well-known/openid-configuration";
/// How long what the provider publishes is taken as it was; keys it withdrew are good for no longer.
const FRESH: Duration = Duration::from_secs(3600);
/// Least time between two looks for newer keys, as anybody can send a token that names an unknown one.
const KEYS_INTERVAL: Duration = Duration::from_secs(60);

/// Why the provider gave no answer that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It cannot be asked now, or not by us; who and why.
    #[error("{0}")]
    Away(String),
    /// It refused by an error code of RFC 6749 section 5.2 or RFC 8628 section 3.5.
    #[error("the provider refuses: {text}")]
    Denied {
        /// The code.
        code: String,
        /// Code and description, fit to be shown.
        text: String,
    },
    /// What it said is not to be believed, or not enough; why.
    #[error("{0}")]
    Unbelieved(String),
}

/// A URL of a provider that may be asked.
pub(super) fn check_url(text: &str) -> Result<Url, String> {
    web_client::check(text)?;
    Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}"))
}

/// The gateway as the provider knows it.
pub(super) struct Registration {
    pub(super) issuer: IssuerUrl,
    pub(super) client: ClientId,
    /// Without one, the gateway is a public client.
    pub(super) secret: Option<Zeroizing<String>>,
}

/// The provider.
pub(super) struct Provider {
    pub(super) registration: Registration,
    pub(super) http: WebClient,
    found: Mutex<Found>,
}

/// What was found out so far.
#[derive(Default)]
struct Found {
    published: Option<(Instant, Arc<Published>)>,
    keys_asked: Option<Instant>,
    pause: Pause,
}

/// What the provider publishes about itself.
pub(super) struct Published {
    pub(super) authorization: Url,
    pub(super) token: String,
    userinfo: Option<String>,
    /// Where device codes are given out, if they are.
    pub(super) device: Option<String>,
    /// Whether each answer in a browser names its issuer (RFC 9207).
    pub(super) names_issuer: bool,
    /// Whether the client's secret goes into the body of requests, not into their head.
    pub(super) secret_in_body: bool,
    jwks: openidconnect::JsonWebKeySetUrl,
    keys: CoreJsonWebKeySet,
}

/// What the library has no name for (RFC 8628 section 4, RFC 9207 section 3).
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Further {
    device_authorization_endpoint: Option<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Further {}

type Metadata = ProviderMetadata<
    Further,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

impl Provider {
    pub(super) fn new(registration: Registration, http: WebClient) -> Self {
        Self { registration, http, found: Mutex::default() }
    }

    /// What the provider publishes, asked for when it is needed and not known, and not again at once where it failed.
    pub(super) async fn published(&self) -> Result<Arc<Published>, Fault> {
        let mut found = self.found.lock().await;
        let now = Instant::now();
        if let Some((since, published)) = &found.published
            && now.duration_since(*since) < FRESH
        {
            return Ok(Arc::clone(published));
        }
        if let Some(reason) = found.pause.reason(now) {
            return Err(Fault::Away(reason.to_owned()));
        }
        match self.discover().await {
            Ok(published) => {
                let published = Arc::new(published);
                (found.published, found.pause) = (Some((now, Arc::clone(&published))), Pause::default());
                Ok(published)
            }
            Err(reason) => {
                found.pause.failed(reason.clone(), Instant::now());
                Err(Fault::Away(reason))
            }
        }
    }

    async fn discover(&self) -> Result<Published, String> {
        let issuer = &self.registration.issuer;
        let place = issuer.join(CONFIGURATION).map_err(|error| format!("{}: {error}", issuer.as_str()))?;
        let metadata: Metadata = self.get(place.as_str()).await?;
        if metadata.issuer() != issuer {
            let named = printable(metadata.issuer().as_str());
            return Err(format!("{place} is the configuration of {named}; write oidc.issuer exactly so"));
        }
        let keys: CoreJsonWebKeySet = self.get(metadata.jwks_uri().as_str()).await?;
        let further = metadata.additional_metadata().clone();
        let endpoint = |what: &str, url: Option<&str>| {
            let url = url.ok_or_else(|| format!("{} publishes no {what}", self.registration.issuer.as_str()))?;
            check_url(url).map_err(|error| format!("the {what} of {}: {error}", self.registration.issuer.as_str()))
        };
        let authorization = endpoint("authorization_endpoint", Some(metadata.authorization_endpoint().as_str()))?;
        let token = endpoint("token_endpoint", metadata.token_endpoint().map(|url| url.as_str()))?;
        let methods = metadata.token_endpoint_auth_methods_supported();
        let takes = |method| methods.is_some_and(|methods| methods.contains(&method));
        Ok(Published {
            authorization,
            token: token.into(),
            userinfo: metadata.userinfo_endpoint().map(|url| url.to_string()),
            device: further.device_authorization_endpoint,
            names_issuer: further.authorization_response_iss_parameter_supported,
            // Without a list it is the head (OpenID Connect Discovery, section 3).
            secret_in_body: takes(CoreClientAuthMethod::ClientSecretPost)
                && !takes(CoreClientAuthMethod::ClientSecretBasic),
            jwks: metadata.jwks_uri().clone(),
            keys,
        })
    }

    /// Asks for a JSON document.
    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let request = openidconnect::http::Request::get(url).header("accept", "application/json").body(Vec::new());
        let request = request.map_err(|error| format!("{url}: {error}"))?;
        let answer = self.http.send(request).await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("{url} answers with status {}", answer.status().as_u16()));
        }
        serde_json::from_slice(answer.body()).map_err(|error| printable(&format!("{url} is not understood: {error}")))
    }

    /// The claims of an ID token. Where it names an unknown key, newer keys are looked for.
    pub(super) async fn believe(
        &self,
        published: &Arc<Published>,
        token: &str,
        nonce: Option<&Nonce>,
    ) -> Result<Claims, Fault> {
        let expected = Expected {
            issuer: &self.registration.issuer,
            client: &self.registration.client,
            nonce,
            now: SystemTime::now(),
        };
        let mut believed = believe(token, &published.keys, &expected);
        if believed == Err(Unbelieved::UnknownKey)
            && let Some(newer) = self.newer(published).await?
        {
            believed = believe(token, &newer.keys, &expected);
        }
        believed.map_err(|error| Fault::Unbelieved(error.to_string()))
    }

    /// What the provider publishes now, if keys were looked for since, or may be again.
    async fn newer(&self, known: &Arc<Published>) -> Result<Option<Arc<Published>>, Fault> {
        let mut found = self.found.lock().await;
        if let Some((_, published)) = &found.published
            && !Arc::ptr_eq(published, known)
        {
            return Ok(Some(Arc::clone(published)));
        }
        let now = Instant::now();
        if found.keys_asked.is_some_and(|asked| now.duration_since(asked) < KEYS_INTERVAL) {
            return Ok(None);
        }
        found.keys_asked = Some(now);
        let keys: CoreJsonWebKeySet = self.get(known.jwks.as_str()).await.map_err(Fault::Away)?;
        let published = Arc::new(known.with_keys(keys));
        let since = found.published.as_ref().map_or(now, |(since, _)| *since);
        found.published = Some((since, Arc::clone(&published)));
        Ok(Some(published))
    }

    /// What the userinfo endpoint says about somebody; nothing where there is none.
    pub(super) async fn userinfo(
        &self,
        published: &Published,
        access_token: &str,
        subject: &str,
    ) -> Result<Claims, Fault> {
        let Some(url) = &published.userinfo else { return Ok(Claims::default()) };
        let request = openidconnect::http::Request::get(url)
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {access_token}"))
            .body(Vec::new())
            .map_err(|error| Fault::Away(format!("userinfo: {error}")))?;
        let answer = self.http.send(request).await.map_err(|error| Fault::Away(error.to_string()))?;
        if !answer.status().is_success() {
            return Err(Fault::Away(format!("the userinfo of {url} answers {}", answer.status())));
        }
        Claims::of_userinfo(answer.body(), subject).map_err(|error| Fault::Unbelieved(error.to_string()))
    }
}

impl Published {
    fn with_keys(&self, keys: CoreJsonWebKeySet) -> Self {
        Self {
            authorization: self.authorization.clone(),
            token: self.token.clone(),
            userinfo: self.userinfo.clone(),
            device: self.device.clone(),
            jwks: self.jwks.clone(),
            keys,
            ..*self
        }
    }
}

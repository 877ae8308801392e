//! What a provider says about somebody, and whether it may be believed (OpenID Connect Core, section 3.1.3.7).

use std::time::{Duration, SystemTime};

use adit_program::causes::with_causes;
use adit_program::foreign_text::printable;
use openidconnect::core::{
    CoreGenderClaim, CoreJsonWebKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm,
};
use openidconnect::{
    AdditionalClaims, ClaimsVerificationError, ClientId, IdToken, IdTokenVerifier, IssuerUrl, Nonce, NonceVerifier,
    SignatureVerificationError, SubjectIdentifier, UserInfoClaims,
};
use serde_json::{Map, Value};

/// How far the provider's clock and ours may be apart.
const LEEWAY: Duration = Duration::from_secs(60);
/// The signatures that are taken: none that the client secret could make, and none with SHA-1.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 4] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EdDsa,
];
/// Most groups of one person: what fits into a token is far below it.
const MOST_GROUPS: usize = 10_000;
/// Where a provider says that it left a claim out as too large (OpenID Connect Core, section 5.6.2).
const LEFT_OUT: &str = "_claim_names";

/// What a token must say to be ours.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a IssuerUrl,
    pub(super) client: &'a ClientId,
    /// The nonce that the login began with; none for a device code, which has none.
    pub(super) nonce: Option<&'a Nonce>,
    pub(super) now: SystemTime,
}

/// Why a token is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Unbelieved {
    /// None of the keys at hand is the one it names; newer ones may be.
    #[error("the ID token is signed with a key that the provider does not publish")]
    UnknownKey,
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

/// Claims that were believed: all of them, the standard ones too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claims(Map<String, Value>);

/// Every claim that the library has no name for.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Further {
    #[serde(flatten)]
    all: Map<String, Value>,
}

impl AdditionalClaims for Further {}

type Token = IdToken<Further, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

/// Checks an ID token, and gives what it claims.
pub(super) fn believe(token: &str, keys: &CoreJsonWebKeySet, expected: &Expected<'_>) -> Result<Claims, Unbelieved> {
    let token: Token = token.parse().map_err(|error| Unbelieved::Other(format!("the ID token is none: {error}")))?;
    let now = expected.now;
    let verifier: IdTokenVerifier<'_, CoreJsonWebKey> =
        IdTokenVerifier::new_public_client(expected.client.clone(), expected.issuer.clone(), keys.clone())
            .set_allowed_algs(ALGORITHMS)
            // Whether it is meant for us among several says `azp`, below.
            .set_other_audience_verifier_fn(|_| true)
            .set_time_fn(move || (now - LEEWAY).into())
            .set_issue_time_verifier_fn(move |issued| {
                let is_past = SystemTime::from(issued) <= now + LEEWAY;
                if is_past { Ok(()) } else { Err("issued in the future".to_owned()) }
            });
    let nonce = |given: Option<&Nonce>| expected.nonce.map_or(Ok(()), |nonce| nonce.verify(given));
    let claims = token.claims(&verifier, nonce).map_err(|error| unbelieved(&error))?;
    let meant_for = claims.authorized_party();
    if meant_for.map_or_else(|| claims.audiences().len() > 1, |client| client != expected.client) {
        return Err(Unbelieved::Other("the ID token was made for another client (azp)".to_owned()));
    }
    let claims = Claims::of(claims)?;
    if let Some(from) = claims.0.get("nbf").and_then(Value::as_f64)
        && now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64() + LEEWAY.as_secs_f64() < from
    {
        return Err(Unbelieved::Other("the ID token is not valid yet (nbf)".to_owned()));
    }
    Ok(claims)
}

fn unbelieved(error: &ClaimsVerificationError) -> Unbelieved {
    if *error == ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey) {
        return Unbelieved::UnknownKey;
    }
    Unbelieved::Other(printable(&format!("the ID token: {}", with_causes(error))))
}

impl Claims {
    fn of(claims: &impl serde::Serialize) -> Result<Self, Unbelieved> {
        match serde_json::to_value(claims) {
            Ok(Value::Object(claims)) => Ok(Self(claims)),
            Ok(_) | Err(_) => Err(Unbelieved::Other("the claims are no JSON object".to_owned())),
        }
    }

    /// What a userinfo endpoint answered, which must be about the same person.
    pub(super) fn of_userinfo(body: &[u8], subject: &str) -> Result<Self, Unbelieved> {
        let subject = SubjectIdentifier::new(subject.to_owned());
        let claims: UserInfoClaims<Further, CoreGenderClaim> =
            UserInfoClaims::from_json::<std::io::Error>(body, Some(&subject))
                .map_err(|error| Unbelieved::Other(printable(&format!("the userinfo: {}", with_causes(&error)))))?;
        Self::of(&claims)
    }

    /// These claims, and those of `further` that these lack.
    pub(super) fn or(mut self, further: Self) -> Self {
        for (name, value) in further.0 {
            self.0.entry(name).or_insert(value);
        }
        self
    }

    /// The claim of this name; where there is none, each dot leads one object deeper.
    fn at(&self, name: &str) -> Option<&Value> {
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        self.0.get(name).or_else(|| {
            let parts = rest.split('.').filter(|part| !part.is_empty());
            parts.fold(self.0.get(first).filter(|_| !rest.is_empty()), |value, part| value?.get(part))
        })
    }

    /// A claim that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.at(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// Whether a claim is true.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.at(name) == Some(&Value::Bool(true))
    }

    /// The groups in a claim: a list of texts, or one text. None if there is no such claim.
    ///
    /// # Errors
    /// The provider left the groups out because they are too many, or they are nothing that is a list of names.
    pub(super) fn groups(&self, name: &str) -> Result<Option<Vec<String>>, String> {
        if self.0.get(LEFT_OUT).is_some_and(|left_out| left_out.get(name).is_some()) {
            return Err(format!(
                "the provider left out the claim {name:?}, as the user is in too many groups; let it send app roles, or \
                 only the groups that are assigned to this application"
            ));
        }
        let Some(value) = self.at(name) else { return Ok(None) };
        let listed = match value {
            Value::String(one) => Some(vec![one.clone()]),
            Value::Array(list) => list.iter().map(|one| one.as_str().map(ToOwned::to_owned)).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        };
        match listed {
            Some(groups) if groups.len() <= MOST_GROUPS => Ok(Some(groups)),
            Some(groups) => Err(format!("the claim {name:?} has {} groups, more than {MOST_GROUPS}", groups.len())),
            None => Err(format!("the claim {name:?} is not a list of names; name another in oidc.groups_claim")),
        }
    }
}

#[cfg(test)]
mod tests;

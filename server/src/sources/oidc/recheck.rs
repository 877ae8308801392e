//! Asking the provider again whether somebody who logged in before still may.

use std::hash::{BuildHasher, RandomState};

use adit_proto::login::{Cause, Person};
use tokio::sync::{Mutex, MutexGuard};

use super::claims::Claims;
use super::provider::Fault;
use super::token::Tokens;
use super::{Recheck, Registered};
use crate::accounts::OidcSubject;

/// How many people are asked about at once, at most.
const LANES: usize = 64;

/// The error of a grant that is void (RFC 6749 section 5.2).
const VOID: &str = "invalid_grant";

/// Whose turn it is: two sessions of one person do not use one refresh token at once, which providers take for theft.
pub(super) struct Turns {
    hash: RandomState,
    lanes: [Mutex<()>; LANES],
}

impl Default for Turns {
    fn default() -> Self {
        Self { hash: RandomState::new(), lanes: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Turns {
    async fn of(&self, subject: &str) -> MutexGuard<'_, ()> {
        let lane = usize::try_from(self.hash.hash_one(subject) % LANES as u64).unwrap_or_default();
        self.lanes[lane].lock().await
    }
}

impl Registered {
    /// Only the provider's word that the grant is void ends a session. One that is away, or that says something else,
    /// does not.
    pub(super) async fn ask_again(&self, person: &Person) -> Recheck {
        let _turn = self.turns.of(&person.subject).await;
        if self.own_subject(person).is_none() {
            let reason = "the user is one of a provider that the gateway does not ask any longer";
            return Recheck::Ended(Cause::NotPermitted(reason.to_owned()));
        }
        let token = match self.kept.take_to_ask(&person.subject).await {
            Ok(Some(token)) => token,
            Ok(None) => return Recheck::Unknown("oidc: there is no refresh token of this user".to_owned()),
            Err(error) => return Recheck::Unknown(format!("oidc: the refresh token cannot be read: {error}")),
        };
        match self.refresh(person, &token).await {
            Ok(groups) => Recheck::Allowed(groups),
            Err(Fault::Denied { code, .. }) if code == VOID => Recheck::Ended(Cause::Disabled),
            Err(fault) => Recheck::Unknown(format!("oidc: {fault}")),
        }
    }

    async fn refresh(&self, person: &Person, token: &str) -> Result<Vec<String>, Fault> {
        let published = self.provider.published().await?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let tokens: Tokens = self.provider.post(&published, &published.token, &form).await?;
        if let Some(next) = tokens.refresh_token {
            // The old one may be void already.
            self.kept.replace(&person.subject, next).await;
        }
        let claims = match &tokens.id_token {
            Some(id_token) => {
                let claims = self.provider.believe(&published, id_token, None).await?;
                if self.subject(&claims)? != person.subject {
                    let text = "the refresh token is somebody else's".to_owned();
                    return Err(Fault::Denied { code: VOID.to_owned(), text });
                }
                self.completed(&published, claims, &tokens.access_token).await?
            }
            None => {
                let subject = self.own_subject(person).unwrap_or_default();
                self.provider.userinfo(&published, &tokens.access_token, subject).await?
            }
        };
        // A provider that says nothing at all about somebody has not taken them out of their groups.
        let silent = claims == Claims::default();
        let groups = self.groups(&claims)?;
        Ok(groups.unwrap_or_else(|| if silent { person.groups.clone() } else { Vec::new() }))
    }

    /// The subject of a person of this provider.
    fn own_subject<'a>(&self, person: &'a Person) -> Option<&'a str> {
        let of = OidcSubject::parse(&person.subject)?;
        (of.issuer == self.provider.registration.issuer.as_str()).then_some(of.subject)
    }
}

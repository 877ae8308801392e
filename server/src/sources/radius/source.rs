//! The source itself: from a login to requests, and from replies to verdicts.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_program::foreign_text::printable_bytes;
use adit_proto::login::{Cause, Kind, Method, Person, Question, Verdict};
use adit_proto::radius::Code;
use adit_proto::radius::attribute::{
    CALLING_STATION_ID, MAX_VALUE, NAS_PORT_TYPE, PROMPT, REPLY_MESSAGE, SESSION_TIMEOUT, STATE, USER_NAME, VIRTUAL,
};
use adit_proto::radius::reply::{MessageAuthenticator, Reply};
use adit_proto::radius::request::{DoesNotFit, Draft, MAX_PASSWORD};
use zeroize::Zeroizing;

use super::challenge::{Challenge, MOST_ROUNDS};
use super::client::{Client, Unanswered};
use super::groups;
use super::settings::{GroupAttribute, RadiusSettings};
use crate::accounts::UserName;
use crate::config::Problem;
use crate::sources::status::ServerStatus;
use crate::sources::{Answering, Origin, Recheck, Source};

/// Its word in the configuration, in policies and in the store.
const NAME: &str = "radius";

/// What a user is asked where the server has no words for it.
const PLAIN_QUESTION: &str = "Answer";

/// Shortest secret, in bytes (RFC 2865 section 3).
const SHORTEST_SECRET: usize = 16;

/// RADIUS servers as a source of users.
pub struct Radius {
    client: Arc<Client>,
    groups: GroupAttribute,
}

impl Radius {
    /// Reads the secret; asks no server yet.
    ///
    /// # Errors
    /// What is missing or wrong in the settings.
    pub fn new(settings: &RadiusSettings) -> Result<Self, Problem> {
        if settings.servers.is_empty() {
            let next = "name the RADIUS servers, or take radius out of login.sources";
            return Err(Problem::new("radius.servers", "no server is named", next));
        }
        let secret = shared_secret(settings)?;
        let rule = if settings.require_message_authenticator {
            MessageAuthenticator::Required
        } else {
            tracing::warn!(
                "radius.require_message_authenticator is off: whoever is between gateway and server can let himself in"
            );
            MessageAuthenticator::Optional
        };
        let (servers, identifier) = (settings.servers.clone(), settings.nas_identifier.clone());
        let client = Arc::new(Client::new(servers, secret, identifier, rule, settings.timeout));
        Ok(Self { client, groups: settings.groups })
    }

    /// Asks each server whether it is there, without a login: what is wrong with it, in words, if something is.
    pub async fn status(&self) -> Vec<ServerStatus> {
        let mut found = Vec::new();
        for &server in self.client.servers() {
            let answer = self.client.probe(server).await.map_err(|unanswered| unanswered.to_string());
            found.push(ServerStatus::new(server, answer));
        }
        found
    }

    async fn log_in(&self, name: &str, password: &Zeroizing<String>, origin: &Origin) -> Verdict {
        if name.is_empty() || name.len() > MAX_VALUE || name.chars().any(char::is_control) {
            return Verdict::Unknown;
        }
        if !(1..=MAX_PASSWORD).contains(&password.len()) {
            return Verdict::Refused(Cause::WrongPassword);
        }
        let asked = self.client.ask(|draft| self.write(draft, name, password, None, origin)).await;
        match asked {
            Ok((server, reply)) => self.verdict(&reply, server, name, 0),
            Err(why) => unanswered(&why),
        }
    }

    async fn continue_with(&self, state: &[u8], answer: &Zeroizing<String>, origin: &Origin) -> Verdict {
        let known = |challenge: &Challenge| self.client.servers().contains(&challenge.server);
        let Some(challenge) = Challenge::decode(state).filter(known) else {
            return Verdict::Unavailable("radius: the server that asked a question is configured no longer".to_owned());
        };
        if !(1..=MAX_PASSWORD).contains(&answer.len()) {
            return Verdict::Refused(Cause::WrongCode);
        }
        let Challenge { server, name, round, .. } = &challenge;
        let state = challenge.state();
        let asked =
            self.client.ask_only(*server, |draft| self.write(draft, name, answer, state.as_deref(), origin)).await;
        match asked {
            Ok(reply) => self.verdict(&reply, *server, name, *round),
            Err(why) => unanswered(&why),
        }
    }

    fn write(
        &self,
        draft: Draft,
        name: &str,
        password: &Zeroizing<String>,
        state: Option<&[u8]>,
        origin: &Origin,
    ) -> Result<Draft, DoesNotFit> {
        let draft = draft
            .text(USER_NAME, name)?
            .password(password.as_bytes(), self.client.secret())?
            .number(NAS_PORT_TYPE, VIRTUAL)?
            .text(CALLING_STATION_ID, &origin.address.to_string())?;
        match state {
            Some(state) => draft.bytes(STATE, state),
            None => Ok(draft),
        }
    }

    /// What a reply means after so many questions.
    fn verdict(&self, reply: &Reply, server: SocketAddr, name: &str, rounds: u8) -> Verdict {
        match reply.code {
            Code::AccessAccept => self.accept(reply, name, rounds),
            Code::AccessChallenge if rounds >= MOST_ROUNDS => {
                Verdict::Refused(Cause::NotPermitted(format!("the RADIUS server asked {MOST_ROUNDS} questions")))
            }
            Code::AccessChallenge => {
                let state = reply.values(STATE).next();
                let challenge = Challenge::new(server, name, state, rounds.saturating_add(1));
                Verdict::Ask { question: question(reply), state: challenge.encode() }
            }
            // A refusal says nothing else that counts: attributes are taken from an acceptance alone.
            Code::AccessReject
            | Code::AccessRequest
            | Code::AccountingRequest
            | Code::AccountingResponse
            | Code::StatusServer => {
                tracing::debug!(%server, text = message(reply), "RADIUS server refuses");
                Verdict::Refused(if rounds == 0 { Cause::WrongPassword } else { Cause::WrongCode })
            }
        }
    }

    /// The server may call a user by another name than was typed; that one counts.
    fn accept(&self, reply: &Reply, typed: &str, rounds: u8) -> Verdict {
        let told = reply.values(USER_NAME).next().map(String::from_utf8_lossy);
        let name = match UserName::parse(told.as_deref().unwrap_or(typed)) {
            Ok(name) => name.to_string(),
            Err(error) => return Verdict::Refused(Cause::NotPermitted(error.to_string())),
        };
        let mut methods = vec![Method::Password];
        methods.extend((rounds > 0).then_some(Method::Code));
        let seconds = reply.number(SESSION_TIMEOUT).filter(|seconds| *seconds > 0);
        Verdict::Accepted(Person {
            source: NAME.to_owned(),
            subject: name.clone(),
            name,
            groups: groups::of(reply, self.groups),
            methods,
            session_lifetime: seconds.map(|seconds| Duration::from_secs(seconds.into())),
            generation: None,
        })
    }
}

impl Source for Radius {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check<'a>(&'a self, name: &'a str, password: &'a Zeroizing<String>, origin: &'a Origin) -> Answering<'a> {
        Box::pin(self.log_in(name, password, origin))
    }

    fn answer<'a>(&'a self, state: &'a [u8], answer: &'a Zeroizing<String>, origin: &'a Origin) -> Answering<'a> {
        Box::pin(self.continue_with(state, answer, origin))
    }

    fn recheck<'a>(&'a self, _person: &'a Person) -> Pin<Box<dyn Future<Output = Recheck> + Send + 'a>> {
        let reason = "RADIUS servers tell nothing of a user without the password";
        Box::pin(std::future::ready(Recheck::Unknown(reason.to_owned())))
    }
}

/// The secret that the gateway shares with its servers.
///
/// # Errors
/// It is not set, cannot be read, or can be guessed.
pub(super) fn shared_secret(settings: &RadiusSettings) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let problem = |reason: &str, next: &str| Problem::new("radius.secret_file", reason, next);
    let Some(place) = &settings.secret else {
        return Err(problem("is not set", "write the secret shared with the servers into a file, and name it"));
    };
    let secret = place.read().map_err(|error| problem(&error.to_string(), &error.next))?;
    if secret.len() < SHORTEST_SECRET {
        let reason = format!("{place} holds {} characters, which can be guessed", secret.len());
        return Err(problem(&reason, "agree with the servers on 16 random characters or more"));
    }
    Ok(secret)
}

fn unanswered(why: &Unanswered) -> Verdict {
    match why {
        Unanswered::Busy => Verdict::Busy(why.to_string()),
        Unanswered::DoesNotFit | Unanswered::System(_) | Unanswered::Silent(_) => Verdict::Unavailable(why.to_string()),
    }
}

fn message(reply: &Reply) -> String {
    printable_bytes(&reply.values(REPLY_MESSAGE).collect::<Vec<_>>().concat())
}

fn question(reply: &Reply) -> Question {
    let text = Some(message(reply)).filter(|text| !text.is_empty());
    let text = text.unwrap_or_else(|| PLAIN_QUESTION.to_owned());
    // An answer is hidden unless the server says that it may be seen (RFC 2869 section 5.10).
    Question { text, kind: Kind::Code, echo: reply.number(PROMPT) == Some(1) }
}

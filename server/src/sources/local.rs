//! The gateway's own users: passwords, codes of an app, recovery codes.
//!
//! A wrong password, an unknown user and a disabled one cost one hash each, so nobody can tell them apart by the time
//! that the answer takes.

pub mod hashers;
pub mod passwords;
pub mod recovery;
pub mod totp;

mod asked;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use adit_proto::login::limits::known_network;
use adit_proto::login::{Cause, Kind, Method, Person, Question, Verdict};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::{Answering, Origin, Recheck, Source};
use crate::accounts::sqlite::{HostClock, Store};
use crate::accounts::{Accounts as _, LinkError, LocalUser, StoreFault, UserName};
use crate::config::SecondFactor;
use crate::identity::{Sealer, ServiceKey};
use asked::{Asked, Asking};
use hashers::{Busy, HashCounts, Hashers, Turn};
use passwords::{Cost, Match, Password, PasswordError, compare};
use totp::Secret;

/// The word for this source.
pub const NAME: &str = "local";

/// For what the service key seals the secrets of apps; each is sealed with the name of its user.
pub const FACTORS: &str = "second factors";

/// The source of the gateway's own users.
pub struct Local {
    store: Arc<Store>,
    hashers: Hashers,
    cost: Cost,
    factors: Sealer,
    asking: Asking,
    /// When a user is asked for a second factor.
    second_factor: Box<dyn Fn(&str) -> SecondFactor + Send + Sync>,
}

/// Why nobody can be checked now.
#[derive(Debug, thiserror::Error)]
enum NotNow {
    /// Something failed.
    #[error("the gateway's own users: {0}")]
    Away(String),
    /// Too many are being checked.
    #[error("the gateway's own users: {0}")]
    Busy(#[from] Busy),
}

impl From<NotNow> for Verdict {
    fn from(why: NotNow) -> Self {
        match why {
            NotNow::Away(_) => Self::Unavailable(why.to_string()),
            NotNow::Busy(_) => Self::Busy(why.to_string()),
        }
    }
}

impl Local {
    /// The users in `store`, whose second factors are sealed under `key` and asked for as `second_factor` says.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new(store: Arc<Store>, key: &ServiceKey, second_factor: SecondFactor) -> io::Result<Self> {
        let (factors, asking) = (key.sealer(FACTORS), Asking::new(key));
        let second_factor = Box::new(move |_: &str| second_factor);
        Ok(Self { store, hashers: Hashers::start()?, cost: Cost::USUAL, factors, asking, second_factor })
    }

    /// Asks for second factors as `when` says of each user.
    #[must_use]
    pub fn asking_each(self, when: impl Fn(&str) -> SecondFactor + Send + Sync + 'static) -> Self {
        Self { second_factor: Box::new(when), ..self }
    }

    async fn check_password(&self, name: &str, password: &str, origin: &Origin) -> Result<Verdict, NotNow> {
        let user = UserName::parse(name).ok();
        let known = match &user {
            Some(user) => self.known(user.as_str()).await?,
            None => None,
        };
        let kept = known.as_ref().and_then(|known| known.password.clone());
        let turn = self.turn(user.as_ref(), origin).await?;
        let matched = self.compare(turn, password, kept.clone()).await?;
        let (Some(user), Some(known)) = (user, known) else { return Ok(Verdict::Unknown) };
        let user = user.as_str();
        if matched == Match::Wrong {
            return self.check_link(user, password, known).await;
        }
        if known.is_disabled {
            return Ok(Verdict::Refused(Cause::Disabled));
        }
        if let (Match::RightButOld, Some(old)) = (matched, kept) {
            self.rehash(user, password, old).await?;
        }
        self.ask_for_code(user, &known, origin).await
    }

    /// Whether somebody logs in from where that user did before, or with a device of theirs.
    async fn turn(&self, user: Option<&UserName>, origin: &Origin) -> Result<Turn, NotNow> {
        let Some(user) = user.map(|user| user.as_str().to_owned()) else { return Ok(Turn::Stranger) };
        if self.has_device(&user, origin).await? {
            return Ok(Turn::Known);
        }
        let network = known_network(origin.address).to_string();
        let known = self.in_store(move |store| store.knows_network(&user, &network, SystemTime::now())).await?;
        Ok(if known { Turn::Known } else { Turn::Stranger })
    }

    /// Compares what was typed with what is kept, at the same cost whatever that is.
    async fn compare(&self, turn: Turn, typed: &str, kept: Option<String>) -> Result<Match, NotNow> {
        let cost = self.cost;
        let (password, kept) = match Password::typed(typed) {
            Ok(password) => (password, kept),
            // Nobody has such a password; what is compared instead is none either.
            Err(PasswordError::TooLong | PasswordError::Nul | PasswordError::TooShort | PasswordError::Common) => {
                (Password::none(), None)
            }
        };
        let compared = self.hashers.run(turn, move |memory| compare(&password, kept.as_deref(), cost, memory)).await;
        Ok(compared?)
    }

    /// Keeps the same password at the present cost of a hash.
    async fn rehash(&self, user: &str, typed: &str, old: String) -> Result<(), NotNow> {
        let (Ok(password), user) = (Password::typed(typed), user.to_owned()) else { return Ok(()) };
        let new = self.hash(password).await?;
        self.in_store(move |store| store.rehash(&user, &old, &new)).await
    }

    /// Hashes a password of somebody who has proved who they are.
    async fn hash(&self, password: Password) -> Result<String, NotNow> {
        let cost = self.cost;
        let hashed = self.hashers.run(Turn::Known, move |memory| passwords::hash(&password, cost, memory)).await;
        hashed?.map_err(|error| away(&error))
    }

    /// What was typed is not the password; perhaps it is a one-time code to set one.
    async fn check_link(&self, user: &str, typed: &str, known: LocalUser) -> Result<Verdict, NotNow> {
        let no = if known.password.is_some() { Verdict::Refused(Cause::WrongPassword) } else { Verdict::Unknown };
        let Some(hash) = recovery::hash_of(typed) else { return Ok(no) };
        let of = user.to_owned();
        match self.in_store(move |store| link(store.check_password_link(&of, &hash, SystemTime::now()))).await? {
            Ok(()) if known.is_disabled => Ok(Verdict::Refused(Cause::Disabled)),
            Ok(()) => {
                let text = "Choose a password";
                self.ask(Asked::new_password(user, known.generation, hash), Kind::NewPassword, text.to_owned())
            }
            Err(LinkRefused::Unknown) => Ok(no),
            Err(refused) => Ok(Verdict::Refused(refused.cause())),
        }
    }

    /// Asks for the second factor where there is one and it is wanted.
    async fn ask_for_code(&self, user: &str, known: &LocalUser, origin: &Origin) -> Result<Verdict, NotNow> {
        let mut methods = vec![Method::Password];
        let is_asked = known.totp.is_some()
            && match (self.second_factor)(user) {
                SecondFactor::Never => false,
                SecondFactor::Always => true,
                SecondFactor::Device => {
                    let has_device = self.has_device(user, origin).await?;
                    methods.extend(has_device.then_some(Method::Certificate));
                    !has_device
                }
            };
        if !is_asked {
            return self.accept(user, known.generation, methods).await;
        }
        let text = match known.recovery_codes {
            0 => "Code that your app shows".to_owned(),
            1 => "Code that your app shows, or your last recovery code".to_owned(),
            left => format!("Code that your app shows, or one of your {left} recovery codes"),
        };
        self.ask(Asked::code(user, known.generation), Kind::Code, text)
    }

    /// Whether they come with a certificate of a device of their own.
    async fn has_device(&self, user: &str, origin: &Origin) -> Result<bool, NotNow> {
        let (Some(device), user) = (origin.device.clone(), user.to_owned()) else { return Ok(false) };
        self.in_store(move |store| {
            let own = store.device(&device)?.is_some_and(|device| device.user == user);
            Ok::<_, StoreFault>(own && store.may_connect(&device)?)
        })
        .await
    }

    fn ask(&self, asked: Asked, kind: Kind, text: String) -> Result<Verdict, NotNow> {
        let echo = kind == Kind::Code;
        let state = self.asking.seal(&asked).map_err(|error| away(&error))?;
        Ok(Verdict::Ask { question: Question { text, kind, echo }, state })
    }

    async fn check_answer(&self, state: &[u8], answer: &str, origin: &Origin) -> Result<Verdict, NotNow> {
        let Some(asked) = self.asking.open(state) else { return Ok(Verdict::Refused(Cause::WrongCode)) };
        let known = self.known(&asked.user).await?.filter(|known| known.generation == asked.generation);
        let Some(known) = known else {
            let reason = "password or factor was changed since the login began";
            return Ok(Verdict::Refused(Cause::NotPermitted(reason.to_owned())));
        };
        if known.is_disabled {
            return Ok(Verdict::Refused(Cause::Disabled));
        }
        match asked.link {
            Some(hash) => self.set_password(asked, hash, answer, origin).await,
            None => self.check_code(&asked.user, known, answer).await,
        }
    }

    async fn check_code(&self, user: &str, known: LocalUser, typed: &str) -> Result<Verdict, NotNow> {
        let code: String = typed.chars().filter(|character| !character.is_whitespace()).take(64).collect();
        if code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.check_totp(user, known, code).await;
        }
        let Some(hash) = recovery::hash_of(&code) else { return Ok(Verdict::Refused(Cause::WrongCode)) };
        let of = user.to_owned();
        if !self.in_store(move |store| store.use_recovery_code(&of, &hash, SystemTime::now())).await? {
            return Ok(Verdict::Refused(Cause::WrongCode));
        }
        tracing::info!(left = known.recovery_codes.saturating_sub(1), "a user logged in by a recovery code");
        self.accept(user, known.generation, vec![Method::Password, Method::RecoveryCode]).await
    }

    async fn check_totp(&self, user: &str, known: LocalUser, code: String) -> Result<Verdict, NotNow> {
        let Some(sealed) = known.totp else { return Ok(Verdict::Refused(Cause::WrongCode)) };
        let Some(secret) = self.factors.open(&sealed, user.as_bytes()) else {
            let reason = "the second factor of a user cannot be read with this service.key; \
                          `adit-server user totp NAME` sets up a new one";
            return Err(away(&reason));
        };
        let Some(step) = Secret::from_bytes(secret).step_of(&code, SystemTime::now()) else {
            return Ok(Verdict::Refused(Cause::WrongCode));
        };
        let of = user.to_owned();
        if !self.in_store(move |store| store.use_code(&of, &sealed, step, HostClock)).await? {
            return Ok(Verdict::Refused(Cause::ReusedCode));
        }
        self.accept(user, known.generation, vec![Method::Password, Method::Code]).await
    }

    /// Sets the password that somebody chose who came with a one-time code; then they go on as with that password.
    async fn set_password(
        &self,
        asked: Asked,
        hash: [u8; 32],
        chosen: &str,
        origin: &Origin,
    ) -> Result<Verdict, NotNow> {
        let password = match Password::choose(chosen, &asked.user) {
            Ok(password) => password,
            Err(error) => return self.ask(asked, Kind::NewPassword, format!("Choose another: {error}")),
        };
        let new = self.hash(password).await?;
        let user = asked.user;
        let of = user.clone();
        let used = move |store: &Store| link(store.use_password_link(&of, &hash, &new, HostClock));
        if let Err(refused) = self.in_store(used).await? {
            return Ok(Verdict::Refused(refused.cause()));
        }
        match self.known(&user).await? {
            Some(known) => self.ask_for_code(&user, &known, origin).await,
            None => Ok(Verdict::Refused(Cause::Disabled)),
        }
    }

    /// Lets in who proved the credentials of this generation. Whoever records it looks once more.
    async fn accept(&self, user: &str, generation: u64, methods: Vec<Method>) -> Result<Verdict, NotNow> {
        let of = user.to_owned();
        let known = self.in_store(move |store| store.person(&of)).await?;
        let Some(known) = known.filter(|known| !known.is_disabled && known.source == NAME) else {
            return Ok(Verdict::Refused(Cause::Disabled));
        };
        Ok(Verdict::Accepted(Person {
            source: NAME.to_owned(),
            subject: known.user.clone(),
            name: known.user,
            groups: known.groups,
            methods,
            session_lifetime: None,
            generation: Some(generation),
        }))
    }

    async fn known(&self, user: &str) -> Result<Option<LocalUser>, NotNow> {
        let user = user.to_owned();
        self.in_store(move |store| store.local_user(&user)).await
    }

    /// Does something with the store, where it keeps no thread of the runtime waiting.
    async fn in_store<T: Send + 'static, E: std::error::Error + Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, E> + Send + 'static,
    ) -> Result<T, NotNow> {
        let store = Arc::clone(&self.store);
        let done = spawn_blocking(move || work(&store)).await;
        done.map_err(|error| away(&error))?.map_err(|error| away(&error))
    }
}

impl Source for Local {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hash_counts(&self) -> Option<HashCounts> {
        Some(self.hashers.counts())
    }

    fn check<'a>(&'a self, name: &'a str, password: &'a Zeroizing<String>, origin: &'a Origin) -> Answering<'a> {
        Box::pin(async move { self.check_password(name, password, origin).await.unwrap_or_else(Verdict::from) })
    }

    fn answer<'a>(&'a self, state: &'a [u8], answer: &'a Zeroizing<String>, origin: &'a Origin) -> Answering<'a> {
        Box::pin(async move { self.check_answer(state, answer, origin).await.unwrap_or_else(Verdict::from) })
    }

    fn recheck<'a>(&'a self, person: &'a Person) -> Pin<Box<dyn Future<Output = Recheck> + Send + 'a>> {
        Box::pin(async move {
            let user = person.subject.clone();
            match self.in_store(move |store| store.person(&user)).await {
                Ok(Some(known)) if known.source == NAME && !known.is_disabled => Recheck::Allowed(known.groups),
                Ok(_) => Recheck::Ended(Cause::Disabled),
                Err(why) => Recheck::Unknown(why.to_string()),
            }
        })
    }
}

/// Why a one-time code is refused; a failing store is no refusal.
enum LinkRefused {
    Unknown,
    Used,
    Expired,
}

impl LinkRefused {
    fn cause(&self) -> Cause {
        match self {
            Self::Unknown => Cause::WrongPassword,
            Self::Used => Cause::NotPermitted("the one-time code was used before".to_owned()),
            Self::Expired => {
                Cause::NotPermitted("the one-time code is over; `adit-server user reset` gives another".into())
            }
        }
    }
}

fn link(outcome: Result<(), LinkError>) -> Result<Result<(), LinkRefused>, StoreFault> {
    match outcome {
        Ok(()) => Ok(Ok(())),
        Err(LinkError::Unknown) => Ok(Err(LinkRefused::Unknown)),
        Err(LinkError::Used) => Ok(Err(LinkRefused::Used)),
        Err(LinkError::Expired) => Ok(Err(LinkRefused::Expired)),
        Err(LinkError::Store(fault)) => Err(fault),
    }
}

fn away(reason: &impl std::fmt::Display) -> NotNow {
    NotNow::Away(reason.to_string())
}

#[cfg(test)]
mod tests;

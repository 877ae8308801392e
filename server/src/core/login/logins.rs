//! Leads logins through the sources: limits first, then the sources in their order, and at the end a session token.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use adit_program::foreign_text::printable;
use adit_program::random::random;
use adit_proto::login::flow::{Command, Failure, LoginFlow, Refusal, Step};
use adit_proto::login::limits::{Admission, Attempt, Ban, LoginLimits, Outcome, Secret, Ticket, known_network};
use adit_proto::login::token::SessionToken;
use adit_proto::login::{Cause, Person, Verdict};
use ipnet::IpNet;

use super::chain::{Answer, Chain};
use super::clocks;
use super::in_store;
use super::places::{Places, Standing};
use super::sealed::{Handles, Tokens};
use super::step::{BROKEN, BUSY, EXPIRED, NOT_ACCEPTED, OTHERS_DEVICE, SOURCE_AWAY, UNSURE, escaped, wait};
use super::turns::Turns;
use crate::accounts::sqlite::{HostClock, Store};
use crate::accounts::{Accounts as _, BegunLogin, KnownPerson, PersonError, StoreFault};
use crate::identity::ServiceKey;
use crate::sources::{Origin, Source};
use crate::trail::TRAIL;

pub(in crate::core) use super::step::NOBODY;
pub use super::step::{LoginStep, LoginWish};

/// Failures are told at whole multiples of this time, so that strangers do not learn from it what was looked at.
const FAILURE_PACE: Duration = Duration::from_secs(1);
/// How long a place is known from which somebody has logged in.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// All logins of a gateway.
pub struct Logins {
    chain: Chain,
    store: Arc<Store>,
    places: Arc<Places>,
    limits: Arc<Mutex<LoginLimits>>,
    turns: Arc<Turns>,
    handles: Handles,
    tokens: Arc<Tokens>,
    /// How long a login of somebody lasts at most.
    lifetime: Arc<dyn Fn(&KnownPerson) -> Duration + Send + Sync>,
}

/// What one request of a login has found out and taken.
#[derive(Default)]
struct Inquiry {
    ticket: Option<Ticket>,
    standing: Standing,
}

impl Logins {
    /// Logins over these sources, first asked first. What is given to clients is sealed under `key`; `secret` is random
    /// and hides what the limits remember; a login lasts `session_lifetime` at most.
    pub fn new(
        sources: Vec<Arc<dyn Source>>,
        store: Arc<Store>,
        key: &ServiceKey,
        secret: [u8; 32],
        session_lifetime: Duration,
    ) -> Self {
        let chain = Chain::new(sources);
        Self {
            handles: Handles::new(key, &chain),
            chain,
            places: Arc::new(Places::new(Arc::clone(&store))),
            store,
            limits: Arc::new(Mutex::new(LoginLimits::new(secret))),
            turns: Arc::default(),
            tokens: Arc::new(Tokens::new(key)),
            lifetime: Arc::new(move |_| session_lifetime),
        }
    }

    /// The same logins over other sources: limits, tokens and lifetimes stay. Logins that wait for their users go on
    /// where the sources have the same names in the same order, and else have to begin anew.
    #[must_use]
    pub fn over(&self, sources: Vec<Arc<dyn Source>>) -> Self {
        let chain = Chain::new(sources);
        Self {
            handles: self.handles.over(&chain),
            chain,
            store: Arc::clone(&self.store),
            places: Arc::clone(&self.places),
            limits: Arc::clone(&self.limits),
            turns: Arc::clone(&self.turns),
            tokens: Arc::clone(&self.tokens),
            lifetime: Arc::clone(&self.lifetime),
        }
    }

    /// Lets a login of somebody last as long as `lifetime` says of them, at most.
    #[must_use]
    pub fn lasting_each(self, lifetime: impl Fn(&KnownPerson) -> Duration + Send + Sync + 'static) -> Self {
        Self { lifetime: Arc::new(lifetime), ..self }
    }

    /// What opens the tokens that this gives.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The sources.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The networks from which no stranger may try to log in now.
    pub fn bans(&self) -> Vec<Ban> {
        self.limits().bans(Instant::now())
    }

    /// Forgets the failures from a network; false if there were none.
    pub fn unban(&self, network: IpNet) -> bool {
        self.limits().unban(network)
    }

    /// Forgets the failures of a user, by whichever of the names that are known to lead to this user; false if there
    /// were none.
    pub fn unlock(&self, name: &str) -> bool {
        let names = self.places.names_beside(name);
        let mut limits = self.limits();
        names.iter().filter(|name| limits.unlock(name)).count() > 0
    }

    /// How many logins found no room at each source; sources that had room for all are left out.
    pub fn turned_away(&self) -> BTreeMap<String, u64> {
        self.chain.turned_away()
    }

    /// Takes a login one step further. A refusal takes its time.
    pub async fn advance(&self, wish: LoginWish) -> LoginStep {
        let begun = tokio::time::Instant::now();
        let step = self.step(wish).await;
        if matches!(step, LoginStep::Refused { .. }) {
            let paces = begun.elapsed().as_nanos() / FAILURE_PACE.as_nanos() + 1;
            let paces = u32::try_from(paces).unwrap_or(u32::MAX);
            tokio::time::sleep_until(begun + FAILURE_PACE.saturating_mul(paces)).await;
        }
        step
    }

    async fn step(&self, wish: LoginWish) -> LoginStep {
        let LoginWish { handle, answers, link, origin } = wish;
        let Some(mut flow) = self.flow(handle.as_deref(), &origin) else { return EXPIRED };
        let mut inquiry = Inquiry::default();
        let mut turn = None;
        flow.handle_answers(answers, since_boot());
        // Each command is one source asked, and after the last of the chain there is a step.
        while let Some(command) = flow.poll_command() {
            if inquiry.ticket.is_none()
                && let Some(refused) = self.admit(&flow, &command, &origin, &mut inquiry).await
            {
                return refused;
            }
            if turn.is_none() && matches!(command, Command::Check { .. } | Command::Answer { .. }) {
                turn = self.turns.take(&inquiry.standing).await;
                if turn.is_none() {
                    flow.handle_busy("as many of this account as may be are being checked".to_owned(), since_boot());
                    continue;
                }
            }
            let answer = self.chain.ask(&command, &origin, &link, inquiry.standing.known.is_some()).await;
            self.hand_over(answer, &mut flow, &command, &inquiry.standing).await;
        }
        drop(turn);
        let Some(step) = flow.poll_step() else { return BROKEN };
        let (step, outcome) = self.finish(&flow, step, &origin, &inquiry.standing).await;
        self.settle(inquiry, outcome);
        step
    }

    /// Gives the flow what a source said.
    async fn hand_over(&self, answer: Answer, flow: &mut LoginFlow, command: &Command, standing: &Standing) {
        let is_away = matches!(answer, Answer::Verdict(Verdict::Unavailable(_)));
        let is_own = is_away && self.is_own(command, standing).await;
        match answer {
            Answer::Verdict(Verdict::Unavailable(reason)) if is_own => {
                flow.handle_own_source_away(reason, since_boot())
            }
            Answer::Verdict(verdict) => flow.handle_verdict(verdict, since_boot()),
            Answer::Started(started) => flow.handle_started(started, since_boot()),
            Answer::Pending(interval) => flow.handle_pending(interval, since_boot()),
            Answer::Busy(reason) => flow.handle_busy(reason, since_boot()),
        }
    }

    /// The flow of a handle, or a new one.
    fn flow(&self, handle: Option<&str>, origin: &Origin) -> Option<LoginFlow> {
        let (ways, away) = (self.chain.ways(), self.chain.away());
        let Some(handle) = handle else { return Some(LoginFlow::new(ways, away, since_boot())) };
        LoginFlow::decode(&self.handles.open(handle, origin)?, ways, away)
    }

    /// Whether a name and password went to the source that the user is known to belong to. Where the store cannot tell,
    /// another source may be asked.
    async fn is_own(&self, command: &Command, standing: &Standing) -> bool {
        let Command::Check { source, .. } = command else { return false };
        let (store, account, asked) = (Arc::clone(&self.store), standing.account.clone(), self.chain.name_of(*source));
        let known = in_store(move || store.person(&account)).await;
        known.is_ok_and(|known| known.is_some_and(|known| Some(known.source.as_str()) == asked))
    }

    /// Asks the limits about a command; the step that refuses it, if they do.
    async fn admit(
        &self,
        flow: &LoginFlow,
        command: &Command,
        origin: &Origin,
        inquiry: &mut Inquiry,
    ) -> Option<LoginStep> {
        inquiry.standing = match self.places.standing(flow.name(), origin).await {
            Ok(standing) => standing,
            Err(error) => {
                tracing::error!(%error, "nobody can log in: the store failed");
                return Some(BROKEN);
            }
        };
        let secret = match command {
            Command::Check { password, .. } => Secret::Password(password),
            Command::Answer { .. } => Secret::Code,
            Command::BeginLink { .. } => Secret::Link,
            Command::PollLink { .. } => return None,
        };
        let Standing { account, known } = &inquiry.standing;
        let attempt = Attempt { account, address: origin.address, known: known.as_deref(), secret };
        let admission = self.limits().admit(&attempt, Instant::now());
        match admission {
            Admission::Go(ticket) => inquiry.ticket = Some(ticket),
            Admission::FailedBefore => {
                log_failure(flow.name(), origin, "the same password as before");
                let is_away = self.chain.away().is_some();
                let refusal = if is_away { Refusal::SourceAway } else { Refusal::NotAccepted };
                return Some(self.told(refusal, &inquiry.standing));
            }
            Admission::Wait(time) => {
                log_failure(flow.name(), origin, "too many failures");
                return Some(wait("too many failed logins; try again later", time));
            }
        }
        None
    }

    /// The client's step, and what the limits have to know of it.
    async fn finish(&self, flow: &LoginFlow, step: Step, origin: &Origin, standing: &Standing) -> (LoginStep, Outcome) {
        let handle = || flow.encode().and_then(|flow| self.handles.seal(&flow, origin));
        let step = match step {
            Step::Ask(form) => handle().map(|handle| LoginStep::Ask { handle, form: escaped(form) }),
            Step::Open { url, user_code, lifetime, again_in, returns } => {
                let opened = |handle| LoginStep::Open { handle, url, user_code, lifetime, again_in, returns };
                let step = handle().map(opened);
                // Whoever asks for links and goes to none of them must not get one after the other.
                return (step.unwrap_or(BROKEN), Outcome::Failed);
            }
            Step::Wait { again_in } => handle().map(|handle| LoginStep::Wait { handle, again_in }),
            Step::Done(person) => return self.complete(flow.name(), person, origin, standing).await,
            Step::Refused(refusal) => return (self.told(refusal, standing), judge(flow, origin)),
        };
        (step.unwrap_or(BROKEN), Outcome::Open)
    }

    /// What a refusal tells. That a source is away shows only where it is asked, which is about names that those before
    /// it do not know. So where there are several, strangers are told one and the same.
    fn told(&self, refusal: Refusal, standing: &Standing) -> LoginStep {
        let could_tell_names = standing.known.is_none() && self.chain.takes_passwords_at_several();
        match refusal {
            Refusal::NotAccepted | Refusal::SourceAway if could_tell_names => UNSURE,
            Refusal::NotAccepted => NOT_ACCEPTED,
            Refusal::SourceAway => SOURCE_AWAY,
            Refusal::Expired => EXPIRED,
            Refusal::Busy => BUSY,
        }
    }

    /// Makes a user and a token of a person whom a source let in.
    async fn complete(&self, name: &str, person: Person, origin: &Origin, standing: &Standing) -> (LoginStep, Outcome) {
        let (store, from) = (Arc::clone(&self.store), origin.clone());
        let recording = in_store(move || Ok(record(&store, &person, &from).map(|known| (known, person))));
        let (known, person) = match recording.await {
            Ok(Ok(recorded)) => recorded,
            Ok(Err(RecordError::OthersDevice(name))) => {
                log_failure(&name, origin, "the device is another user's");
                return (OTHERS_DEVICE, Outcome::Open);
            }
            Ok(Err(RecordError::Person(PersonError::Store(error)))) | Err(error) => {
                tracing::error!(%error, "somebody who may log in cannot: the store failed");
                return (BROKEN, Outcome::Open);
            }
            Ok(Err(RecordError::Person(error))) => {
                log_not_taken(name, origin, &error);
                return (self.told(Refusal::NotAccepted, standing), Outcome::Failed);
            }
        };
        self.places.note(&known.user, name, origin.address);
        let methods: Vec<&str> = person.methods.iter().map(|method| method.word()).collect();
        let methods = methods.join("+");
        let Some((sealed, ends_at)) = self.begin(&known, person, origin).await else { return (BROKEN, Outcome::Open) };
        let (source, device) = (&known.source, &origin.device);
        tracing::info!(source, methods, "login accepted");
        tracing::debug!(target: TRAIL, user = known.user, source, methods, address = %origin.address, device, "login accepted of");
        (LoginStep::Done { user: known.user, token: sealed, ends_at }, Outcome::LoggedIn)
    }

    /// Begins a login of a user; its token, sealed, and when it ends. `None` where there is no randomness or the store
    /// fails.
    async fn begin(&self, known: &KnownPerson, person: Person, origin: &Origin) -> Option<(String, u64)> {
        let now = clocks::now();
        let most = (self.lifetime)(known);
        let lifetime = person.session_lifetime.map_or(most, |of_source| of_source.min(most));
        let token = SessionToken {
            user: known.user.clone(),
            device: origin.device.clone(),
            login: random().ok()?,
            generation: known.generation,
            methods: person.methods,
            logged_in_at: now.unix,
            ends_at: now.unix.saturating_add(lifetime.as_secs()),
            boot: now.boot,
            since_boot: now.since_boot,
        };
        let (sealed, ends_at, store) = (self.tokens.seal(&token)?, token.ends_at, Arc::clone(&self.store));
        let beginning = in_store(move || {
            let SessionToken { login: id, user, generation, .. } = &token;
            Ok(store.begin_login(&BegunLogin { id, user, generation: *generation, lifetime })?)
        });
        if let Err(error) = beginning.await {
            tracing::error!(%error, "somebody who may log in cannot: the store failed");
            return None;
        }
        Some((sealed, ends_at))
    }

    fn settle(&self, inquiry: Inquiry, outcome: Outcome) {
        if let Some(ticket) = inquiry.ticket {
            self.limits().settle(ticket, outcome, Instant::now());
        }
    }

    fn limits(&self) -> MutexGuard<'_, LoginLimits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum RecordError {
    Person(PersonError),
    /// The device is not that of this user.
    OthersDevice(String),
}

/// Makes the user known to the store, and the network as one that the user logs in from.
fn record(store: &Store, person: &Person, origin: &Origin) -> Result<KnownPerson, RecordError> {
    let failed = |error: StoreFault| RecordError::Person(PersonError::Store(error));
    let known = store.record_person(person, SystemTime::now()).map_err(RecordError::Person)?;
    if let Some(device) = &origin.device {
        let owner = store.device(device).map_err(failed)?.map(|device| device.user);
        if owner.as_ref() != Some(&known.user) {
            return Err(RecordError::OthersDevice(known.user));
        }
    }
    let network = known_network(origin.address).to_string();
    store.remember_network(&known.user, &network, KNOWN_FOR, HostClock).map_err(|error| failed(error.into()))?;
    Ok(known)
}

/// Logs a refusal, and says what the limits have to know of it: a failure counts where a source could judge.
fn judge(flow: &LoginFlow, origin: &Origin) -> Outcome {
    let Some(failure) = flow.failure() else { return Outcome::Open };
    log_failure(flow.name(), origin, &failure.to_string());
    match failure {
        Failure::Refused(Cause::WrongPassword | Cause::WrongCode | Cause::ReusedCode) => Outcome::Wrong,
        Failure::Refused(Cause::Locked | Cause::Disabled | Cause::PasswordExpired | Cause::NotPermitted(_))
        | Failure::UnknownName
        | Failure::Malformed(_) => Outcome::Failed,
        Failure::Away(_)
        | Failure::OwnSourceAway(_)
        | Failure::Busy(_)
        | Failure::TooMuchState
        | Failure::TooManyRounds
        | Failure::Expired => Outcome::Open,
    }
}

fn log_failure(name: &str, origin: &Origin, cause: &str) {
    let cause = printable(cause);
    tracing::info!(cause, "login refused");
    let (name, device) = (printable(name), &origin.device);
    tracing::debug!(target: TRAIL, name, address = %origin.address, device, cause, "login refused of");
}

/// Logs that the accounts do not take somebody whom a source accepted. What an administrator can do about it names
/// people, and so is for the trail.
fn log_not_taken(name: &str, origin: &Origin, error: &PersonError) {
    tracing::warn!(cause = error.cause(), "a login is refused that a source accepted");
    let (name, device) = (printable(name), &origin.device);
    tracing::debug!(target: TRAIL, name, address = %origin.address, device, cause = %error, "login refused of");
}

/// The time that handles bear: nobody can set it.
fn since_boot() -> Duration {
    Duration::from_secs(clocks::now().since_boot)
}

/// A time as the store keeps it.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;

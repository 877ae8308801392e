//! The conversation that ends in a person or in a refusal: one machine, whatever protocol carries it.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Start
//!     Start --> Start: something is missing
//!     Start --> Busy: name and password, or a link is wanted
//!     Busy --> Busy: the source does not know the name, or is away: the next is asked
//!     Busy --> Asked: the source asks something
//!     Asked --> Busy: the answer
//!     Busy --> Linked: a link has begun, or is not settled yet
//!     Linked --> Busy: the client asks how far it is
//!     Busy --> Over: accepted or refused
//!     Start --> Over: too many rounds, or time is over
//!     Asked --> Over: the same
//!     Linked --> Over: the same
//! ```
//!
//! Inputs are what the client answers ([`LoginFlow::handle_answers`]) and what sources say ([`handle_verdict`] and its
//! like); outputs are [`Command`]s to sources and [`Step`]s to the client. After each input there is one of them, or
//! none if the input came when it was not asked for. While a flow waits for the client it can be made a handle
//! ([`LoginFlow::encode`]), for protocols that keep no state.
//!
//! Strangers learn nothing from a refusal: a wrong name, a wrong password, an unknown, locked or disabled user end in
//! the same step. The [`Failure`] is for the log.
//!
//! [`handle_verdict`]: LoginFlow::handle_verdict

mod form;
mod handle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use zeroize::Zeroizing;

use super::{Cause, Kind, MAX_STATE, Person, Question, StartedLink, Verdict};

pub use form::{Asked, Form, PROOF};
use form::{BROWSER, METHOD};

/// Most times that a client may answer in one login.
const MAX_ROUNDS: u8 = 16;
/// How long a login may take (RADIUS challenges with a call to a telephone need a minute).
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a login in a browser may take at most, from when its link was given.
const LINK_PATIENCE: Duration = Duration::from_secs(600);
/// Shortest time between two looks at a login in a browser.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait until a source is asked again that had no room.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// Longest name, in bytes.
const MAX_NAME: usize = 256;
/// Longest password or other answer, in bytes.
const MAX_ANSWER: usize = 1024;

/// How the users of a source log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// With a name and password.
    Password,
    /// In a browser.
    Browser,
}

/// Answers by the names of their fields.
pub type Answers = BTreeMap<String, Zeroizing<String>>;

/// What a source is to do. Its answer is the flow's next input. A password is in it, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// Check a name and password; [`LoginFlow::handle_verdict`].
    Check {
        /// The source's place in the chain.
        source: usize,
        /// The name as it was typed.
        name: String,
        /// The password, never empty.
        password: Zeroizing<String>,
    },
    /// Check the answer to a question; [`LoginFlow::handle_verdict`].
    Answer {
        /// The source's place in the chain.
        source: usize,
        /// What the source wanted to have back.
        state: Vec<u8>,
        /// The answer.
        answer: Zeroizing<String>,
    },
    /// Begin a login in a browser; [`LoginFlow::handle_started`].
    BeginLink {
        /// The source's place in the chain.
        source: usize,
    },
    /// Say how far a login in a browser is; [`LoginFlow::handle_pending`] or [`LoginFlow::handle_verdict`].
    PollLink {
        /// The source's place in the chain.
        source: usize,
        /// What the source wanted to have back.
        state: Vec<u8>,
        /// What the browser brought to the client.
        proof: Option<Zeroizing<String>>,
    },
}

/// What the client is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Answer a form.
    Ask(Form),
    /// Open a link, or show it, and then ask how far it is.
    Open {
        /// The link.
        url: String,
        /// The code to type there, if one is wanted.
        user_code: Option<String>,
        /// How long it is good.
        lifetime: Duration,
        /// When to ask.
        again_in: Duration,
        /// Whether the browser brings a proof to the client, which then asks at once, with it.
        returns: bool,
    },
    /// Ask again after this time.
    Wait {
        /// When to ask.
        again_in: Duration,
    },
    /// Nothing more: this is who has logged in.
    Done(Person),
    /// Nothing more: nobody has.
    Refused(Refusal),
}

/// Why nobody has logged in, as far as strangers may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// What was given is not accepted.
    NotAccepted,
    /// It is not accepted, but a source could not be asked, which might accept it.
    SourceAway,
    /// A source was asked about too many others: it has to be tried again.
    Busy,
    /// It took too long.
    Expired,
}

/// Why nobody has logged in, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A source says no.
    #[error("{0}")]
    Refused(Cause),
    /// No source knows the name.
    #[error("no source knows the name")]
    UnknownName,
    /// No source knows the name of those that could be asked.
    #[error("no source knows the name, and not all could be asked: {0}")]
    Away(String),
    /// The source that the user belongs to could not be asked; no other got the password.
    #[error("the source of this user cannot be asked: {0}")]
    OwnSourceAway(String),
    /// A source was asked about too many others.
    #[error("too many log in: {0}")]
    Busy(String),
    /// A name, password or answer is empty, too long or holds control characters.
    #[error("{0} is empty, too long or holds control characters")]
    Malformed(&'static str),
    /// A source wants more back than may be.
    #[error("a source keeps too much")]
    TooMuchState,
    /// It took too many rounds.
    #[error("too many rounds")]
    TooManyRounds,
    /// It took too long.
    #[error("it took too long")]
    Expired,
}

/// One login. Times count from the host's boot: a handle may outlive the process, and the clock may be set meanwhile.
pub struct LoginFlow {
    ways: Vec<Way>,
    state: State,
    deadline: Duration,
    rounds: u8,
    name: String,
    /// What the sources said that could not be asked.
    away: Option<String>,
    command: Option<Command>,
    step: Option<Step>,
    failure: Option<Failure>,
}

enum State {
    /// Waits for a name and password, or for the wish to log in in a browser.
    Start,
    /// Waits for the answer to a question.
    Asked { source: usize, question: Question, state: Vec<u8> },
    /// Waits until the client asks how far a login in a browser is.
    Linked { source: usize, state: Vec<u8>, returns: bool, not_before: Duration },
    /// Waits for a source.
    Busy(Errand),
    /// Nothing more comes.
    Over,
}

/// What a source is doing.
enum Errand {
    Check { source: usize, password: Zeroizing<String> },
    Answer { source: usize },
    Begin { source: usize },
    Poll { source: usize, state: Vec<u8>, returns: bool },
}

impl LoginFlow {
    /// Begins a login over a chain of sources. `away` says which of them is known to be away, if one is: then no
    /// refusal tells whether the others know a name.
    pub fn new(ways: Vec<Way>, away: Option<String>, now: Duration) -> Self {
        let (deadline, name) = (now.saturating_add(PATIENCE), String::new());
        Self { ways, state: State::Start, deadline, rounds: 0, name, away, command: None, step: None, failure: None }
    }

    /// The name that was typed; empty while there is none, and for a login in a browser.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why nobody has logged in, once that is so.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// What a source is to do now.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.command.take()
    }

    /// What the client is to do now.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.step.take()
    }

    /// When [`Self::handle_timeout`] is due, unless the login is over.
    pub fn poll_timeout(&self) -> Option<Duration> {
        (!matches!(self.state, State::Over)).then_some(self.deadline)
    }

    /// Ends the login if its time is over.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now >= self.deadline && !matches!(self.state, State::Over) {
            self.refuse(Failure::Expired);
        }
    }

    /// The client answers, or asks how it goes on.
    pub fn handle_answers(&mut self, mut answers: Answers, now: Duration) {
        if matches!(self.state, State::Busy(_) | State::Over) {
            return;
        }
        self.handle_timeout(now);
        let proof = answers.remove(PROOF).filter(|proof| proof.len() <= MAX_ANSWER);
        match std::mem::replace(&mut self.state, State::Over) {
            // Only a browser that brings a proof says when the login is through; a stranger may bring one at any time.
            State::Linked { source, state, returns, not_before }
                if now < not_before && !(returns && proof.is_some()) =>
            {
                self.state = State::Linked { source, state, returns, not_before };
                self.step = Some(Step::Wait { again_in: not_before.saturating_sub(now) });
            }
            State::Linked { source, state, returns, .. } => {
                let command = Command::PollLink { source, state: state.clone(), proof };
                self.send(command, Errand::Poll { source, state, returns });
            }
            State::Start => {
                if self.count_round() {
                    self.start(answers);
                }
            }
            State::Asked { source, question, state } => {
                if self.count_round() {
                    let answer = answers.remove(form::name_of(&question.kind));
                    self.answer(source, question, state, answer);
                }
            }
            State::Busy(_) | State::Over => {}
        }
    }

    /// The source that was asked about a name and password cannot be asked, and the user is known to be one of its own:
    /// no other source gets the password.
    pub fn handle_own_source_away(&mut self, reason: String, now: Duration) {
        self.handle_timeout(now);
        if matches!(self.state, State::Busy(_)) {
            self.away = Some(reason.clone());
            self.refuse(Failure::OwnSourceAway(reason));
        }
    }

    /// A source answers a check, a question or a login in a browser.
    pub fn handle_verdict(&mut self, verdict: Verdict, now: Duration) {
        let State::Busy(errand) = &self.state else { return };
        let (source, password) = match errand {
            Errand::Check { source, password } => (*source, Some(password.clone())),
            Errand::Answer { source } | Errand::Poll { source, .. } => (*source, None),
            Errand::Begin { .. } => return,
        };
        self.handle_timeout(now);
        if matches!(self.state, State::Over) {
            return;
        }
        match verdict {
            Verdict::Accepted(person) => self.end(Step::Done(person)),
            Verdict::Ask { state, .. } if state.len() > MAX_STATE => self.refuse(Failure::TooMuchState),
            Verdict::Ask { question, state } => self.ask(source, form::bounded(question), state),
            Verdict::Refused(cause) => self.refuse(Failure::Refused(cause)),
            Verdict::Unknown => self.ask_next(source, password),
            Verdict::Unavailable(reason) => {
                self.away = Some(reason);
                self.ask_next(source, password);
            }
            Verdict::Busy(reason) => self.handle_busy(reason, now),
        }
    }

    /// A source has no room for what is asked of it. A login in a browser goes on: its user may be through already.
    pub fn handle_busy(&mut self, reason: String, now: Duration) {
        match &self.state {
            State::Busy(Errand::Poll { .. }) => self.handle_pending(BUSY_PAUSE, now),
            State::Busy(_) => self.refuse(Failure::Busy(reason)),
            State::Start | State::Asked { .. } | State::Linked { .. } | State::Over => {}
        }
    }

    /// A source has begun a login in a browser, or says why it cannot.
    pub fn handle_started(&mut self, started: Result<StartedLink, String>, now: Duration) {
        let State::Busy(Errand::Begin { source }) = self.state else { return };
        self.handle_timeout(now);
        match started {
            _ if matches!(self.state, State::Over) => {}
            Ok(link) if link.state.len() > MAX_STATE => self.refuse(Failure::TooMuchState),
            Ok(StartedLink { url, user_code, lifetime, interval, state, returns }) => {
                let (lifetime, again_in) = (lifetime.min(LINK_PATIENCE), interval.max(SHORTEST_INTERVAL));
                self.deadline = now.saturating_add(lifetime);
                let not_before = now.saturating_add(again_in);
                self.state = State::Linked { source, state, returns, not_before };
                self.step = Some(Step::Open { url, user_code, lifetime, again_in, returns });
            }
            Err(reason) => {
                self.away = Some(reason);
                self.ask_next(source, None);
            }
        }
    }

    /// A login in a browser is not settled yet, and wants to be asked for after `interval`.
    pub fn handle_pending(&mut self, interval: Duration, now: Duration) {
        let State::Busy(Errand::Poll { source, state, returns }) = &mut self.state else { return };
        let (source, state, returns) = (*source, std::mem::take(state), *returns);
        let again_in = interval.max(SHORTEST_INTERVAL);
        self.state = State::Linked { source, state, returns, not_before: now.saturating_add(again_in) };
        self.step = Some(Step::Wait { again_in });
        self.handle_timeout(now);
    }

    /// Goes on with what the client has given so far, or asks for the rest.
    fn start(&mut self, mut answers: Answers) {
        let passwords = self.ways.contains(&Way::Password);
        let browser = self.ways.iter().position(|way| *way == Way::Browser);
        let wants_browser = answers.get(METHOD).is_some_and(|method| method.as_str() == BROWSER);
        if let Some(source) = browser.filter(|_| wants_browser || !passwords) {
            // Nobody looks at a name that was typed before: whoever logs in there may be somebody else.
            self.name.clear();
            return self.send(Command::BeginLink { source }, Errand::Begin { source });
        }
        if let Some(name) = answers.remove(form::USER) {
            self.name = name.trim().to_owned();
        }
        match answers.remove(form::PASSWORD) {
            Some(password) if !self.name.is_empty() => self.check_first(password),
            Some(_) | None if !self.name.is_empty() => self.wait(Form::password()),
            Some(_) | None if browser.is_some() && !answers.contains_key(METHOD) => self.wait(Form::method()),
            Some(_) | None => self.wait(Form::name_and_password()),
        }
    }

    fn check_first(&mut self, password: Zeroizing<String>) {
        if self.name.len() > MAX_NAME || self.name.chars().any(char::is_control) {
            self.name.clear();
            self.refuse(Failure::Malformed("the name"));
        } else if password.is_empty() || password.len() > MAX_ANSWER || password.contains('\0') {
            self.refuse(Failure::Malformed("the password"));
        } else {
            self.check(0, password);
        }
    }

    /// Asks the first source from `first` on that takes passwords.
    fn check(&mut self, first: usize, password: Zeroizing<String>) {
        let next = (first..self.ways.len()).find(|place| self.ways.get(*place) == Some(&Way::Password));
        let Some(source) = next else {
            let failure = self.away.clone().map_or(Failure::UnknownName, Failure::Away);
            return self.refuse(failure);
        };
        let command = Command::Check { source, name: self.name.clone(), password: password.clone() };
        self.send(command, Errand::Check { source, password });
    }

    /// Goes on where a source did not know, which it may only say to a name and password.
    fn ask_next(&mut self, source: usize, password: Option<Zeroizing<String>>) {
        match (password, self.away.clone()) {
            (Some(password), _) => self.check(source.saturating_add(1), password),
            (None, Some(reason)) => self.refuse(Failure::Away(reason)),
            (None, None) => self.refuse(Failure::UnknownName),
        }
    }

    fn answer(&mut self, source: usize, question: Question, state: Vec<u8>, answer: Option<Zeroizing<String>>) {
        match answer {
            // A question without an answer is asked again; only one in free words may be left empty.
            None => self.ask(source, question, state),
            Some(answer) if answer.is_empty() && question.kind != Kind::Text => self.ask(source, question, state),
            Some(answer) if answer.len() > MAX_ANSWER || answer.contains('\0') => {
                self.refuse(Failure::Malformed("the answer"));
            }
            Some(answer) => self.send(Command::Answer { source, state, answer }, Errand::Answer { source }),
        }
    }

    fn ask(&mut self, source: usize, question: Question, state: Vec<u8>) {
        self.step = Some(Step::Ask(Form::of(&question)));
        self.state = State::Asked { source, question, state };
    }

    fn wait(&mut self, form: Form) {
        self.step = Some(Step::Ask(form));
        self.state = State::Start;
    }

    fn send(&mut self, command: Command, errand: Errand) {
        self.command = Some(command);
        self.state = State::Busy(errand);
    }

    fn count_round(&mut self) -> bool {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds > MAX_ROUNDS {
            self.refuse(Failure::TooManyRounds);
        }
        self.rounds <= MAX_ROUNDS
    }

    fn refuse(&mut self, failure: Failure) {
        let refusal = match (&failure, &self.away) {
            (Failure::Expired, _) => Refusal::Expired,
            (Failure::Busy(_), _) => Refusal::Busy,
            (_, Some(_)) => Refusal::SourceAway,
            (_, None) => Refusal::NotAccepted,
        };
        self.failure = Some(failure);
        self.end(Step::Refused(refusal));
    }

    fn end(&mut self, step: Step) {
        self.command = None;
        self.step = Some(step);
        self.state = State::Over;
    }
}

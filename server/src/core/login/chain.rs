//! The sources that logins ask, one after the other, and which of them are away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adit_program::foreign_text::printable;
use adit_proto::login::flow::{Command, Way};
use adit_proto::login::{Person, StartedLink, Verdict};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::sources::local::hashers::HashCounts;
use crate::sources::{LinkAnswer, LinkWish, MOST_STRANGERS, Origin, Recheck, Source};

/// How long a source may take; each has time-outs of its own, which are shorter.
const PATIENCE: Duration = Duration::from_secs(60);
/// Strangers that the gateway's own source checks at a time. It has room for more, so that users who come from a known
/// place find room whatever strangers do, and wait for no more than so many hashes.
const LOCAL_STRANGERS: usize = 8;
/// Strangers that another source checks at a time: those wait for a network, perhaps for somebody with a telephone.
/// Each source has room for more: see [`Source`].
const OTHER_STRANGERS: usize = MOST_STRANGERS;
/// How long a stranger waits for such a place.
const TURN: Duration = Duration::from_secs(1);
/// How long a source counts as away that could not be asked.
const AWAY: Duration = Duration::from_secs(30);

/// The sources in the order in which they are asked.
pub struct Chain(Vec<Link>);

struct Link {
    source: Arc<dyn Source>,
    strangers: Semaphore,
    away: Mutex<Option<Absence>>,
    /// Logins that found no room.
    turned_away: AtomicU64,
}

/// A source could not be asked.
struct Absence {
    noticed: Instant,
    reason: String,
}

/// What a source answers to a command.
pub(super) enum Answer {
    /// To a check, an answer, or a look at a link that is settled.
    Verdict(Verdict),
    /// To the wish for a link.
    Started(Result<StartedLink, String>),
    /// To a look at a link.
    Pending(Duration),
    /// There was no room, for this reason.
    Busy(String),
}

impl Chain {
    /// A chain of these sources, first asked first.
    pub fn new(sources: Vec<Arc<dyn Source>>) -> Self {
        let link = |source: Arc<dyn Source>| {
            let places = if source.name() == "local" { LOCAL_STRANGERS } else { OTHER_STRANGERS };
            Link { source, strangers: Semaphore::new(places), away: Mutex::default(), turned_away: AtomicU64::new(0) }
        };
        Self(sources.into_iter().map(link).collect())
    }

    /// The names of the sources in their order, apart by commas.
    pub(crate) fn names(&self) -> String {
        self.0.iter().map(|link| link.source.name()).collect::<Vec<_>>().join(",")
    }

    /// How the users of each source log in.
    pub(super) fn ways(&self) -> Vec<Way> {
        let way = |link: &Link| if link.source.links().is_some() { Way::Browser } else { Way::Password };
        self.0.iter().map(way).collect()
    }

    /// Whether more than one source takes names and passwords.
    pub(super) fn takes_passwords_at_several(&self) -> bool {
        self.ways().iter().filter(|way| **way == Way::Password).count() > 1
    }

    /// What is known of the sources that are away; `None` if none is.
    pub fn away(&self) -> Option<String> {
        let reasons: Vec<String> = self.0.iter().filter_map(Link::absence).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// What became of the passwords that the gateway itself hashes; `None` where it knows no users of its own.
    pub fn hash_counts(&self) -> Option<HashCounts> {
        self.0.iter().find_map(|link| link.source.hash_counts())
    }

    /// How many logins found no room at each source; sources that had room for all are left out.
    pub fn turned_away(&self) -> BTreeMap<String, u64> {
        let count = |link: &Link| (link.source.name().to_owned(), link.turned_away.load(Ordering::Relaxed));
        self.0.iter().map(count).filter(|(_, count)| *count > 0).collect()
    }

    /// The word of the source at a place.
    pub(super) fn name_of(&self, place: usize) -> Option<&'static str> {
        self.0.get(place).map(|link| link.source.name())
    }

    /// Has a source do what a flow wants.
    pub(super) async fn ask(&self, command: &Command, origin: &Origin, wish: &LinkWish, is_known: bool) -> Answer {
        let (Command::Check { source, .. }
        | Command::Answer { source, .. }
        | Command::BeginLink { source }
        | Command::PollLink { source, .. }) = command;
        let Some(link) = self.0.get(*source) else { return Answer::Verdict(Verdict::Unknown) };
        let place = if is_known { Some(None) } else { link.place().await.map(Some) };
        let answer = match place {
            Some(_place) => link.ask(command, origin, wish).await,
            None => Answer::Busy(format!("{}: as many strangers as may be are being checked", link.source.name())),
        };
        link.note(&answer);
        answer
    }

    /// Asks the source of somebody who logged in before whether they still may.
    pub async fn recheck(&self, person: &Person) -> Recheck {
        let Some(link) = self.0.iter().find(|link| link.source.name() == person.source) else {
            return Recheck::Unknown(format!("login.sources does not name {}", person.source));
        };
        let late = |_elapsed| Recheck::Unknown(link.late());
        timeout(PATIENCE, link.source.recheck(person)).await.unwrap_or_else(late)
    }
}

impl Link {
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        timeout(TURN, self.strangers.acquire()).await.ok()?.ok()
    }

    async fn ask(&self, command: &Command, origin: &Origin, wish: &LinkWish) -> Answer {
        let asking = async {
            match command {
                Command::Check { name, password, .. } => {
                    Answer::Verdict(self.source.check(name, password, origin).await)
                }
                Command::Answer { state, answer, .. } => {
                    Answer::Verdict(self.source.answer(state, answer, origin).await)
                }
                Command::BeginLink { .. } => Answer::Started(match self.source.links() {
                    Some(links) => links.begin(wish.clone(), origin).await.map_err(|away| away.0),
                    None => Err(format!("{} has no logins in a browser", self.source.name())),
                }),
                Command::PollLink { state, proof, .. } => match self.source.links() {
                    Some(links) => match links.poll(state, proof.as_ref().map(|proof| proof.as_str())).await {
                        LinkAnswer::Pending { interval } => Answer::Pending(interval),
                        LinkAnswer::Settled(verdict) => Answer::Verdict(verdict),
                    },
                    None => Answer::Verdict(Verdict::Unknown),
                },
            }
        };
        match timeout(PATIENCE, asking).await {
            Ok(Answer::Verdict(Verdict::Busy(reason))) => Answer::Busy(reason),
            Ok(answer) => answer,
            Err(_elapsed) if matches!(command, Command::BeginLink { .. }) => Answer::Started(Err(self.late())),
            Err(_elapsed) => Answer::Verdict(Verdict::Unavailable(self.late())),
        }
    }

    fn late(&self) -> String {
        format!("{} does not answer within {} s", self.source.name(), PATIENCE.as_secs())
    }

    /// Notes whether the source could be asked, and logs when that changes. One without room is not away.
    fn note(&self, answer: &Answer) {
        let (source, now) = (self.source.name(), Instant::now());
        let reason = match answer {
            Answer::Busy(_) => {
                self.turned_away.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Answer::Verdict(Verdict::Unavailable(reason)) | Answer::Started(Err(reason)) => Some(printable(reason)),
            Answer::Verdict(_) | Answer::Started(Ok(_)) | Answer::Pending(_) => None,
        };
        let mut away = self.absent();
        match (&reason, away.is_some()) {
            (Some(reason), false) => tracing::warn!(source, reason, "a source of users cannot be asked"),
            (None, true) => tracing::info!(source, "a source of users can be asked again"),
            (Some(_), true) | (None, false) => {}
        }
        *away = reason.map(|reason| Absence { noticed: now, reason });
    }

    /// Why it is away, if that was noticed lately.
    fn absence(&self) -> Option<String> {
        self.absent().as_ref().filter(|absence| absence.noticed.elapsed() < AWAY).map(|absence| absence.reason.clone())
    }

    fn absent(&self) -> MutexGuard<'_, Option<Absence>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

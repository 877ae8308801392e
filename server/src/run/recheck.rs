//! Asks the sources of those who have sessions by a login, from time to time, whether they still may.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_program::foreign_text::printable;
use adit_proto::login::Person;
use arc_swap::ArcSwap;
use tokio::task::{JoinSet, spawn_blocking};

use crate::accounts::sqlite::Store;
use crate::accounts::{Accounts as _, KnownPerson, StoreFault};
use crate::config::Config;
use crate::core::local::LocalCore;
use crate::core::login::logins::unix_seconds;
use crate::sources::{MOST_RECHECKS, Recheck};

/// How often it is looked who is due, at most.
const ROUND: Duration = Duration::from_secs(60);
/// How often a source is asked at most about a user who logs in, or is changed, each time meanwhile.
const MOST_ANSWERS: usize = 3;

/// Asks about each user once in the time that the configuration says by then.
pub(super) async fn look_after(core: Arc<LocalCore>, store: Arc<Store>, config: Arc<ArcSwap<Config>>) {
    // A source that cannot say is asked no more often than one that can.
    let mut asked = HashMap::<String, Instant>::new();
    loop {
        let pause = config.load().login.recheck.min(ROUND);
        tokio::time::sleep(pause).await;
        let interval = config.load().login.recheck;
        asked.retain(|_, at| at.elapsed() < interval);
        let (users, reading) = (core.logged_in(), Arc::clone(&store));
        let due = spawn_blocking(move || due(&reading, &users, interval, SystemTime::now())).await;
        match due {
            Ok(Ok(due)) => {
                let mut asking = JoinSet::new();
                for known in due {
                    if asked.contains_key(&known.user) {
                        continue;
                    }
                    asked.insert(known.user.clone(), Instant::now());
                    if asking.len() >= MOST_RECHECKS {
                        asking.join_next().await;
                    }
                    let (core, store) = (Arc::clone(&core), Arc::clone(&store));
                    asking.spawn(async move { ask_about(&core, &store, known).await });
                }
                asking.join_all().await;
            }
            Ok(Err(error)) => tracing::warn!(%error, "no source is asked whether users still may: the store failed"),
            Err(_panicked) => {}
        }
    }
}

/// The users whose sources were last asked longer ago than `interval`. A clock that was set back makes them due, too.
fn due(
    store: &Store,
    users: &BTreeSet<String>,
    interval: Duration,
    now: SystemTime,
) -> Result<Vec<KnownPerson>, StoreFault> {
    let (now, interval) = (unix_seconds(now), interval.as_secs());
    let known = users.iter().filter_map(|user| store.person(user).transpose()).collect::<Result<Vec<_>, _>>()?;
    let asked_at = |known: &KnownPerson| known.checked_at.and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
    Ok(known.into_iter().filter(|known| now.abs_diff(asked_at(known)) >= interval).collect())
}

/// Asks about a user until the answer is one about the user as known by then.
async fn ask_about(core: &Arc<LocalCore>, store: &Arc<Store>, mut known: KnownPerson) {
    for _ in 0..MOST_ANSWERS {
        let Some(logins) = core.logins() else { return };
        let said = logins.chain().recheck(&person(known.clone())).await;
        let (core, store) = (Arc::clone(core), Arc::clone(store));
        match spawn_blocking(move || take_over(&core, &store, &known, said)).await {
            Ok(Ok(Some(later))) => known = later,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what a source said of a user could not be recorded");
                return;
            }
        }
    }
}

/// Does what a source's answer about a user means. Where the user has logged in or was changed while the source was
/// asked, that does nothing and gives the user as known now. Blocks.
fn take_over(
    core: &LocalCore,
    store: &Store,
    asked: &KnownPerson,
    said: Recheck,
) -> Result<Option<KnownPerson>, StoreFault> {
    let is_taken = match &said {
        Recheck::Allowed(groups) => store.record_check(asked, groups, SystemTime::now())?,
        // First of all, or the sessions could come back.
        Recheck::Ended(_) => store.end_logins_as_asked(asked).unwrap_or_else(|error| {
            tracing::warn!(%error, "a user who may not log in any longer could connect once more: the store failed");
            true
        }),
        Recheck::Unknown(_) => true,
    };
    if !is_taken {
        return store.person(&asked.user);
    }
    match said {
        Recheck::Allowed(_) => core.renew_terms_of(&asked.user),
        Recheck::Ended(cause) => {
            let sessions = core.end_logins(&asked.user);
            tracing::info!(cause = printable(&cause.to_string()), sessions, "a source ends the logins of a user");
        }
        Recheck::Unknown(reason) => {
            let reason = printable(&reason);
            tracing::warn!(reason, "a source cannot say whether a user still may; the sessions go on");
        }
    }
    Ok(None)
}

fn person(known: KnownPerson) -> Person {
    Person {
        source: known.source,
        subject: known.subject.unwrap_or_else(|| known.user.clone()),
        name: known.user,
        groups: known.groups,
        methods: Vec::new(),
        session_lifetime: None,
        generation: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use adit_program::task;
    use adit_proto::login::token::LoginEnd;
    use adit_proto::login::{Cause, Verdict};
    use zeroize::Zeroizing;

    use super::*;
    use crate::accounts::{Accounts, UserName};
    use crate::config::config_for_tests;
    use crate::core::Core as _;
    use crate::core::login::logins::Logins;
    use crate::core::login::{Identity, LastingLogin};
    use crate::core::tests::{FakeFlows, Nowhere, pool, session_on, terms};
    use crate::directories::StateDir;
    use crate::identity::ServiceKey;
    use crate::sources::{Answering, Origin, Source};

    const INTERVAL: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn users_are_due_once_in_an_interval_and_when_the_clock_was_set_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store.db")).unwrap();
        let ldap = Person { subject: "u-1".to_owned(), ..user_of_ldap("alice", &[]) };
        let known = store.record_person(&ldap, at(0)).unwrap();
        let users: BTreeSet<String> = ["alice", "nobody"].map(str::to_owned).into();
        let due = |now| -> Vec<String> {
            let due = due(&store, &users, Duration::from_secs(3600), now).unwrap();
            due.into_iter().map(|known| known.user).collect()
        };
        assert!(due(at(3599)).is_empty());
        assert_eq!(due(at(3600)), ["alice"]);
        assert!(store.record_check(&known, &["staff".to_owned()], at(3600)).unwrap());
        assert!(due(at(3601)).is_empty());
        assert_eq!(due(SystemTime::UNIX_EPOCH), ["alice"]);
        let known = store.person("alice").unwrap().unwrap();
        assert_eq!((person(known.clone()).subject.as_str(), person(known).groups), ("u-1", vec!["staff".to_owned()]));
    }

    /// A source that says what the test wants each time it is asked again, after a while.
    struct Double {
        takes: Duration,
        says: Box<dyn Fn(usize) -> Recheck + Send + Sync>,
        asked: AtomicUsize,
        waiting: AtomicUsize,
        most_waiting: AtomicUsize,
    }

    impl Double {
        fn new(takes: Duration, says: impl Fn(usize) -> Recheck + Send + Sync + 'static) -> Arc<Self> {
            let [asked, waiting, most_waiting] = std::array::from_fn(|_| AtomicUsize::new(0));
            Arc::new(Self { takes, says: Box::new(says), asked, waiting, most_waiting })
        }

        async fn think(&self) -> Recheck {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_waiting.fetch_max(waiting, Ordering::Relaxed);
            tokio::time::sleep(self.takes).await;
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            (self.says)(asked)
        }
    }

    impl Source for Double {
        fn name(&self) -> &'static str {
            "ldap"
        }

        fn check<'a>(&'a self, _name: &'a str, _password: &'a Zeroizing<String>, _origin: &'a Origin) -> Answering<'a> {
            Box::pin(std::future::ready(Verdict::Unknown))
        }

        fn answer<'a>(
            &'a self,
            _state: &'a [u8],
            _answer: &'a Zeroizing<String>,
            _origin: &'a Origin,
        ) -> Answering<'a> {
            Box::pin(std::future::ready(Verdict::Unknown))
        }

        fn recheck<'a>(&'a self, _person: &'a Person) -> Pin<Box<dyn Future<Output = Recheck> + Send + 'a>> {
            Box::pin(self.think())
        }
    }

    /// A user of the directory.
    fn user_of_ldap(name: &str, groups: &[&str]) -> Person {
        Person {
            source: "ldap".to_owned(),
            subject: name.to_owned(),
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            methods: Vec::new(),
            session_lifetime: None,
            generation: None,
        }
    }

    /// A gateway whose users are those of a source.
    fn gateway(directory: &Path, store: &Arc<Store>, source: &Arc<Double>, limit: usize) -> Arc<LocalCore> {
        let key = ServiceKey::load_or_create(&StateDir::new(directory)).unwrap();
        let chain: Vec<Arc<dyn Source>> = vec![Arc::<Double>::clone(source)];
        let logins = Logins::new(chain, Arc::clone(store), &key, [1; 32], INTERVAL);
        let accounts: Arc<dyn Accounts> = Arc::<Store>::clone(store);
        let flows = Arc::<FakeFlows>::default();
        let core = LocalCore::new(accounts, flows, pool(), terms("0.0.0.0/0"), limit, Arc::default());
        Arc::new(core.with_logins(Arc::new(logins)))
    }

    #[tokio::test]
    async fn login_while_its_source_is_asked_outlasts_the_answer() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
        let logging_in = Arc::clone(&store);
        let source = Double::new(Duration::ZERO, move |asked| match asked {
            // This is about somebody who logs in before it is heard.
            0 => {
                logging_in.record_person(&user_of_ldap("alice", &["staff"]), SystemTime::now()).unwrap();
                Recheck::Ended(Cause::Disabled)
            }
            1 => Recheck::Allowed(vec!["admins".to_owned()]),
            _ => Recheck::Ended(Cause::Disabled),
        });
        let core = gateway(directory.path(), &store, &source, 1);
        store.record_person(&user_of_ldap("alice", &[]), SystemTime::now() - 2 * INTERVAL).unwrap();
        let device = store.token(&UserName::parse("alice").unwrap(), SystemTime::now()).unwrap().0;
        let end = LoginEnd { since_boot: u64::MAX, unix: None };
        let login = Some(LastingLogin { id: [1; 16], end, generation: 0 });
        store.begin_logins_of("alice", &[[1; 16]]);
        let connection = Arc::<Nowhere>::default();
        let _session = Arc::clone(&core).open(Identity { device, login }, connection).await.unwrap();
        let known = || store.person("alice").unwrap().unwrap();

        ask_about(&core, &store, known()).await;
        assert_eq!(source.asked.load(Ordering::Relaxed), 2, "what is known of her now is asked about");
        assert_eq!((known().generation, known().groups), (0, vec!["admins".to_owned()]));
        assert_eq!(core.logged_in().len(), 1);

        ask_about(&core, &store, known()).await;
        assert_eq!((known().generation, core.logged_in().len()), (1, 0), "the positive control");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_source_is_asked_about_several_users_at_a_time_and_not_more_often_than_it_may() {
        const USERS: usize = 40;
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
        let source = Double::new(Duration::from_secs(10), |_| Recheck::Unknown("ldap: no answer".to_owned()));
        let core = gateway(directory.path(), &store, &source, USERS);
        for number in 0..USERS {
            let name = format!("user-{number}");
            store.record_person(&user_of_ldap(&name, &[]), SystemTime::now() - 2 * INTERVAL).unwrap();
            let session = session_on(&name, terms("0.0.0.0/0"));
            let end = LoginEnd { since_boot: u64::MAX, unix: None };
            session.set_login(Some(LastingLogin { id: [1; 16], end, generation: 0 }));
            assert!(core.sessions().insert(session).is_ok());
        }
        let mut config = config_for_tests(directory.path());
        config.login.recheck = INTERVAL;
        let _asking = task::spawn(look_after(core, store, Arc::new(ArcSwap::from_pointee(config))));
        let asked = || source.asked.load(Ordering::Relaxed);
        tokio::time::sleep(ROUND + Duration::from_secs(5)).await;
        assert_eq!((asked(), source.most_waiting.load(Ordering::Relaxed)), (MOST_RECHECKS, MOST_RECHECKS));
        // Three times ten seconds, where one after the other would take 400.
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!((asked(), source.most_waiting.load(Ordering::Relaxed)), (USERS, MOST_RECHECKS));
        tokio::time::sleep(10 * ROUND).await;
        assert_eq!(asked(), USERS, "a source that cannot tell is asked no more often than one that can");
    }
}

//! Refresh tokens, by which the provider is asked whether somebody still may.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

/// Most tokens that wait to be written.
const MOST_UNWRITTEN: usize = 10_000;
/// How often it is tried to write them: a token comes in before the store knows its user.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a token waits for its user to be known: longer than a login can take.
const LOGIN: Duration = Duration::from_secs(900);

/// Where refresh tokens outlast a restart. Every method blocks.
pub trait RefreshTokens: Send + Sync {
    /// Keeps the token of somebody, in place of an older one. False where the gateway does not know them yet.
    ///
    /// # Errors
    /// It could not be written; why.
    fn keep(&self, subject: &str, token: &Zeroizing<String>) -> Result<bool, String>;

    /// The token of somebody.
    ///
    /// # Errors
    /// It could not be read; why.
    fn kept(&self, subject: &str) -> Result<Option<Zeroizing<String>>, String>;
}

/// The tokens: in the store, and in memory until they are there.
pub(super) struct Kept {
    store: Arc<dyn RefreshTokens>,
    unwritten: Mutex<HashMap<String, Unwritten>>,
    /// Who is asked about by the token that was kept of them, and has not logged in anew since. It is locked before
    /// those that are not written.
    asked_about: Mutex<HashSet<String>>,
}

#[derive(Clone)]
struct Unwritten {
    token: Zeroizing<String>,
    since: Instant,
}

impl Kept {
    pub(super) fn new(store: Arc<dyn RefreshTokens>) -> Self {
        Self { store, unwritten: Mutex::default(), asked_about: Mutex::default() }
    }

    /// Keeps the token of somebody who has logged in.
    pub(super) async fn keep(&self, subject: &str, token: Zeroizing<String>) {
        self.enter(subject, token, |asked_about| {
            asked_about.remove(subject);
            true
        })
        .await;
    }

    /// Keeps the token that came for the one that [`Self::take_to_ask`] gave. It is worth nothing if somebody has
    /// brought a newer one meanwhile by a login.
    pub(super) async fn replace(&self, subject: &str, token: Zeroizing<String>) {
        self.enter(subject, token, |asked_about| asked_about.remove(subject)).await;
    }

    /// Keeps a token if `may` says so. One that cannot be written now is kept in memory, and tried again.
    async fn enter(&self, subject: &str, token: Zeroizing<String>, may: impl FnOnce(&mut HashSet<String>) -> bool) {
        {
            let mut asked_about = self.asked_about();
            let mut unwritten = self.unwritten();
            if !may(&mut asked_about) {
                return;
            }
            if unwritten.len() >= MOST_UNWRITTEN && !unwritten.contains_key(subject) {
                tracing::warn!("too many refresh tokens wait to be written; one is not kept");
                return;
            }
            unwritten.insert(subject.to_owned(), Unwritten { token, since: Instant::now() });
        }
        self.write(subject).await;
    }

    /// The token of somebody, to ask about them; there may come another in its place.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn take_to_ask(&self, subject: &str) -> Result<Option<Zeroizing<String>>, String> {
        self.asked_about().insert(subject.to_owned());
        self.kept(subject).await
    }

    async fn kept(&self, subject: &str) -> Result<Option<Zeroizing<String>>, String> {
        self.write(subject).await;
        if let Some(unwritten) = self.unwritten().get(subject) {
            return Ok(Some(unwritten.token.clone()));
        }
        let (store, subject) = (Arc::clone(&self.store), subject.to_owned());
        let reading = tokio::task::spawn_blocking(move || store.kept(&subject));
        reading.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Writes tokens as soon as the store takes them, for ever.
    pub(super) async fn write_all(&self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let waiting: Vec<String> = self.unwritten().keys().cloned().collect();
            for subject in waiting {
                self.write(&subject).await;
            }
        }
    }

    /// Writes a token that was not written yet.
    async fn write(&self, subject: &str) {
        let Some(waiting) = self.unwritten().get(subject).cloned() else { return };
        let (store, owner, token) = (Arc::clone(&self.store), subject.to_owned(), waiting.token.clone());
        let writing = tokio::task::spawn_blocking(move || store.keep(&owner, &token));
        let is_done = match writing.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(true) => true,
            // Whoever does not become a user in this time was refused after the provider had let them in.
            Ok(false) => waiting.since.elapsed() >= LOGIN,
            Err(error) => {
                tracing::warn!(error, "a refresh token could not be written; it is kept in memory");
                false
            }
        };
        let mut unwritten = self.unwritten();
        // A newer one may have come in meanwhile.
        if is_done && unwritten.get(subject).is_some_and(|now| now.token == waiting.token) {
            unwritten.remove(subject);
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, HashMap<String, Unwritten>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked_about(&self) -> MutexGuard<'_, HashSet<String>> {
        self.asked_about.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use adit_proto::login::{Method, Person};

    use super::super::{NAME, StoredTokens};
    use super::*;
    use crate::accounts::sqlite::Store;
    use crate::directories::StateDir;
    use crate::identity::ServiceKey;

    const ALICE: &str = "https://provider.test 1001";

    struct World {
        _directory: tempfile::TempDir,
        store: Arc<Store>,
        key: ServiceKey,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
            let key = ServiceKey::load_or_create(&StateDir::new(directory.path())).unwrap();
            Self { _directory: directory, store, key }
        }

        /// As after a restart.
        fn kept(&self) -> Kept {
            Kept::new(Arc::new(StoredTokens::new(Arc::clone(&self.store), &self.key)))
        }

        fn know_alice(&self) {
            let person = Person {
                source: NAME.to_owned(),
                subject: ALICE.to_owned(),
                name: "alice".to_owned(),
                groups: Vec::new(),
                methods: vec![Method::Browser],
                session_lifetime: None,
                generation: None,
            };
            self.store.record_person(&person, SystemTime::now()).unwrap();
        }
    }

    fn token(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn token_that_comes_before_its_user_is_written_once_the_user_is_known() {
        let world = World::new();
        let kept = world.kept();
        kept.keep(ALICE, token("first")).await;
        assert_eq!(kept.kept(ALICE).await, Ok(Some(token("first"))));
        assert_eq!(world.kept().kept(ALICE).await, Ok(None), "a restart would lose it");
        world.know_alice();
        kept.write(ALICE).await;
        assert_eq!(world.kept().kept(ALICE).await, Ok(Some(token("first"))));
        assert!(kept.unwritten().is_empty());
        kept.keep(ALICE, token("second")).await;
        assert_eq!(world.kept().kept(ALICE).await, Ok(Some(token("second"))));
    }

    #[tokio::test]
    async fn token_of_a_login_is_not_replaced_by_what_came_for_the_one_before() {
        let world = World::new();
        world.know_alice();
        let kept = world.kept();
        kept.keep(ALICE, token("first")).await;
        assert_eq!(kept.take_to_ask(ALICE).await, Ok(Some(token("first"))));
        kept.keep(ALICE, token("of a later login")).await;
        kept.replace(ALICE, token("for the first")).await;
        assert_eq!(world.kept().kept(ALICE).await, Ok(Some(token("of a later login"))));
        assert_eq!(kept.take_to_ask(ALICE).await, Ok(Some(token("of a later login"))));
        kept.replace(ALICE, token("for the later")).await;
        assert_eq!(world.kept().kept(ALICE).await, Ok(Some(token("for the later"))), "the positive control");
    }

    #[tokio::test(start_paused = true)]
    async fn token_of_somebody_who_was_refused_is_forgotten() {
        let kept = World::new().kept();
        kept.keep(ALICE, token("first")).await;
        let _running = tokio::time::timeout(LOGIN - INTERVAL, kept.write_all()).await;
        assert!(!kept.unwritten().is_empty());
        let _running = tokio::time::timeout(2 * INTERVAL, kept.write_all()).await;
        assert!(kept.unwritten().is_empty());
    }
}

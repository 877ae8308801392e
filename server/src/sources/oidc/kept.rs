//! Refresh tokens, by which the provider is asked whether somebody still may.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

/// Most tokens that wait to be written.
const MOST_UNWRITTEN: usize = 10_000;

/// Where refresh tokens outlast a restart, sealed. Every method blocks.
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
    unwritten: Arc<Mutex<HashMap<String, Zeroizing<String>>>>,
}

impl Kept {
    pub(super) fn new(store: Arc<dyn RefreshTokens>) -> Self {
        Self { store, unwritten: Arc::default() }
    }

    /// Keeps a token. One that cannot be written now is kept in memory, and written when it is next asked for.
    pub(super) async fn keep(&self, subject: &str, token: Zeroizing<String>) {
        {
            let mut unwritten = self.unwritten();
            if unwritten.len() >= MOST_UNWRITTEN && !unwritten.contains_key(subject) {
                tracing::warn!("too many refresh tokens wait to be written; one is not kept");
                return;
            }
            unwritten.insert(subject.to_owned(), token);
        }
        self.write(subject).await;
    }

    /// The token of somebody.
    ///
    /// # Errors
    /// The store failed.
    pub(super) async fn kept(&self, subject: &str) -> Result<Option<Zeroizing<String>>, String> {
        self.write(subject).await;
        if let Some(token) = self.unwritten().get(subject).cloned() {
            return Ok(Some(token));
        }
        let (store, subject) = (Arc::clone(&self.store), subject.to_owned());
        let reading = tokio::task::spawn_blocking(move || store.kept(&subject));
        reading.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Writes a token that was not written yet.
    pub(super) async fn write(&self, subject: &str) {
        let Some(token) = self.unwritten().get(subject).cloned() else { return };
        let (store, owner, written) = (Arc::clone(&self.store), subject.to_owned(), token.clone());
        let writing = tokio::task::spawn_blocking(move || store.keep(&owner, &written));
        match writing.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(true) => {
                let mut unwritten = self.unwritten();
                // A newer one may have come in meanwhile.
                if unwritten.get(subject) == Some(&token) {
                    unwritten.remove(subject);
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(error, "a refresh token could not be written; it is kept in memory"),
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, HashMap<String, Zeroizing<String>>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Refresh tokens in the gateway's store, sealed.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{NAME, RefreshTokens};
use crate::accounts::sqlite::Store;
use crate::identity::{Sealer, ServiceKey};

/// Keeps refresh tokens with their users; each is sealed with the person it belongs to.
pub struct StoredTokens {
    store: Arc<Store>,
    sealer: Sealer,
}

impl StoredTokens {
    /// The tokens in `store`, sealed under `key`.
    #[must_use]
    pub fn new(store: Arc<Store>, key: &ServiceKey) -> Self {
        Self { store, sealer: key.sealer("refresh tokens") }
    }
}

impl RefreshTokens for StoredTokens {
    fn keep(&self, subject: &str, token: &Zeroizing<String>) -> Result<bool, String> {
        let sealed = self.sealer.seal(token.as_bytes(), subject.as_bytes()).map_err(|error| error.to_string())?;
        self.store.keep_refresh(NAME, subject, &sealed).map_err(|error| error.to_string())
    }

    fn kept(&self, subject: &str) -> Result<Option<Zeroizing<String>>, String> {
        let Some(sealed) = self.store.refresh(NAME, subject).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let opened = self.sealer.open(&sealed, subject.as_bytes());
        let text = opened.as_ref().and_then(|token| std::str::from_utf8(token).ok());
        text.map(|token| Some(Zeroizing::new(token.to_owned()))).ok_or_else(|| {
            "a refresh token cannot be read with this service.key; the user has to log in anew".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use adit_proto::login::Person;

    use super::*;
    use crate::directories::StateDir;

    fn token(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[test]
    fn token_is_kept_sealed_for_its_person_alone() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = StateDir::new(directory.path());
        let store = Arc::new(Store::create(&state_dir.store()).unwrap());
        let tokens = StoredTokens::new(Arc::clone(&store), &ServiceKey::load_or_create(&state_dir).unwrap());
        assert_eq!(tokens.keep("issuer 1", &token("first")), Ok(false), "nobody is known yet");
        let (source, name) = (NAME.to_owned(), "alice".to_owned());
        let methods = Vec::new();
        let alice = Person {
            source,
            subject: "issuer 1".into(),
            name,
            groups: Vec::new(),
            methods,
            session_lifetime: None,
            generation: None,
        };
        store.record_person(&alice, SystemTime::now()).unwrap();
        assert_eq!(tokens.kept("issuer 1"), Ok(None));
        assert_eq!(tokens.keep("issuer 1", &token("first")), Ok(true));
        assert_eq!(tokens.keep("issuer 1", &token("second")), Ok(true));
        assert_eq!(tokens.kept("issuer 1"), Ok(Some(token("second"))));
        assert_eq!(tokens.kept("issuer 2"), Ok(None));
        let sealed = store.refresh(NAME, "issuer 1").unwrap().unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"second"));

        let elsewhere = tempfile::tempdir().unwrap();
        let other_key = ServiceKey::load_or_create(&StateDir::new(elsewhere.path())).unwrap();
        assert!(StoredTokens::new(store, &other_key).kept("issuer 1").unwrap_err().contains("service.key"));
    }
}

//! Answers to authorities that ask whether the gateway has a name, before they certify it (RFC 8737).
//!
//! An authority asks in a hello that nobody else sends, and the certificate that it gets says the rest. There is an
//! answer only about a name for which the gateway has just ordered a certificate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_net::tls::challenged_name;
use rustls::ServerConfig;
use rustls::server::ClientHello;

/// The answers that there are now, by name.
#[derive(Default)]
pub struct Challenges(Mutex<HashMap<String, Arc<ServerConfig>>>);

/// An answer that is given for as long as this is kept.
#[must_use = "the answer is taken back when the value is dropped"]
pub struct Offer {
    challenges: Arc<Challenges>,
    name: String,
}

impl Challenges {
    /// Has who asks about a name, in lower case, get this answer.
    pub fn offer(self: &Arc<Self>, name: &str, answer: Arc<ServerConfig>) -> Offer {
        self.answers().insert(name.to_owned(), answer);
        Offer { challenges: Arc::clone(self), name: name.to_owned() }
    }

    /// The answer to a hello, if it is such a question and there is one.
    pub(super) fn answer_to(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let name = challenged_name(hello)?.to_ascii_lowercase();
        self.answers().get(&name).cloned()
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<String, Arc<ServerConfig>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.challenges.answers().remove(&self.name);
    }
}

//! Who is told of sessions.

use std::sync::Arc;

use adit_net::carrier::counters::Traffic;

use super::sessions::Session;

/// Is told of sessions. Neither call may wait for anything: a session waits for it.
pub trait SessionObserver: Send + Sync {
    /// A session begins. Should it not come into being after all, it is told to end at once.
    fn opened(&self, session: &Arc<Session>);

    /// A session has ended, with this traffic in all.
    fn closed(&self, session: &Session, traffic: &Traffic);

    /// The gateway stops: returns when all that was told is kept. Sessions that have not ended end now.
    fn finish(&self) {}
}

/// Wants to know nothing.
pub struct Nobody;

impl SessionObserver for Nobody {
    fn opened(&self, _session: &Arc<Session>) {}

    fn closed(&self, _session: &Session, _traffic: &Traffic) {}
}

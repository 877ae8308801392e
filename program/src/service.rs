//! What a program tells its service manager, if it was started by one (sd_notify(3)).

use sd_notify::NotifyState;

/// It does what it was started for.
pub fn ready() {
    notify(NotifyState::Ready);
}

/// It reads its configuration again; [`ready`] follows, whatever becomes of that.
pub fn reloading() {
    // The time lets the manager tell this from what came before (sd_notify(3)).
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify_all(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager could not be told"),
    }
}

/// It is about to end.
pub fn stopping() {
    notify(NotifyState::Stopping);
}

/// How it stands, in a few words for people.
pub fn status(words: &str) {
    notify(NotifyState::Status(words));
}

/// A program works as well without a service manager that listens, so a refusal is only logged.
fn notify(state: NotifyState<'_>) {
    notify_all(&[state]);
}

fn notify_all(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

//! The driver's part that looks after the user's login: which token is sent, and who hears in time that it ends.

use std::time::{Duration, SystemTime};

use super::{Driver, Protocol, now};
use crate::profile::KeptLogin;
use crate::run::status::Status;

/// How long before its end a login is warned of.
const WARNINGS: [Duration; 2] = [Duration::from_secs(15 * 60), Duration::from_secs(2 * 60)];
/// Longest time between two looks, so that a clock that was set is noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Shortest time between two looks.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The login that a session goes on, and what was said of it.
#[derive(Default)]
pub(super) struct LoginWatch {
    login: Option<KeptLogin>,
    /// The last warning that was given.
    told: Option<Duration>,
}

impl LoginWatch {
    /// Takes the login that is kept on disk; true if it is another one than before.
    fn take(&mut self, kept: Option<KeptLogin>) -> bool {
        let is_new = self.login != kept;
        if is_new {
            *self = Self { login: kept, told: None };
        }
        is_new
    }

    /// The warning that is due now and was not given yet, and how long to wait for the next look, if any is needed.
    fn look(&mut self, now: SystemTime) -> (Option<Duration>, Option<Duration>) {
        let Some(left) = self.login.as_ref().and_then(|login| login.left(now)) else { return (None, None) };
        let due = WARNINGS.into_iter().filter(|warning| left <= *warning).min();
        // The clock may have been set back: then it is warned again.
        let is_news = due.is_some_and(|due| self.told.is_none_or(|told| due < told));
        self.told = due;
        let next = WARNINGS.into_iter().filter(|warning| *warning < left).max();
        let wait = next.map_or(LONGEST_PAUSE, |next| (left - next).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
        (due.filter(|_| is_news), Some(wait))
    }

    /// What a user should know of it now.
    fn warning(&self, name: &str, now: SystemTime) -> Option<String> {
        let left = self.login.as_ref()?.left(now).filter(|left| *left <= WARNINGS[0])?;
        let when = if left.is_zero() {
            "is over by this host's clock".to_owned()
        } else {
            format!("ends in {}", humantime::format_duration(left))
        };
        Some(format!("the login {when}; renew it, without losing the connection, with `adit-client login {name}`"))
    }
}

impl<P: Protocol> Driver<P> {
    /// Reads the login that is kept beside the profile; true if it is another one than before.
    pub(super) fn refresh_login(&mut self) -> bool {
        let Some(store) = &self.config.store else { return false };
        let is_new = self.login.take(store.login(&self.config.profile.name));
        if is_new {
            self.look_at_login();
        }
        is_new
    }

    /// The session token to send with the next request for a tunnel.
    pub(super) fn login_token(&self) -> Option<zeroize::Zeroizing<String>> {
        self.login.login.as_ref().map(|login| login.token.clone().into())
    }

    /// Somebody says that a user has logged in on this host.
    pub(super) fn handle_login(&mut self) {
        if self.refresh_login() {
            tracing::info!("the login was renewed");
        }
        self.life.handle_login(now());
    }

    /// The gateway says how long the login still lasts that this session goes on: that is kept with it.
    pub(super) fn handle_login_lasts(&mut self, lasts: Duration) {
        let Some(store) = &self.config.store else { return };
        let name = &self.config.profile.name;
        // Another login may have taken its place.
        let kept = store.login(name).filter(|kept| self.login.login.as_ref() == Some(kept));
        let ends_at = SystemTime::now().checked_add(lasts);
        let Some(kept) = kept.zip(ends_at).map(|(kept, ends_at)| kept.ending(ends_at)) else { return };
        if let Err(error) = store.save_login(name, &kept) {
            tracing::debug!(%error, "the end of the login is not kept");
            return;
        }
        self.login.login = Some(kept);
        self.look_at_login();
    }

    /// Warns of the end of the login when it is time.
    pub(super) fn look_at_login(&mut self) {
        let (warning, wait) = self.login.look(SystemTime::now());
        if let Some(warning) = warning {
            let within = humantime::format_duration(warning).to_string();
            tracing::warn!(within, "the login ends soon; renew it with `adit-client login`");
        }
        self.next_login_look = wait.map(|wait| now() + wait);
    }

    /// Adds what is to be known of the login to a status.
    pub(super) fn describe_login(&self, status: &mut Status) {
        let now = SystemTime::now();
        let Some(login) = &self.login.login else { return };
        status.login_seconds = login.left(now).map(|left| left.as_secs());
        status.login_past_half = login.is_past_half(now);
        status.warnings.extend(self.login.warning(self.config.profile.name.as_str(), now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn watch(ends_at: Option<u64>) -> LoginWatch {
        let mut watch = LoginWatch::default();
        assert!(watch.take(Some(KeptLogin::new("t", ends_at, at(0)))));
        watch
    }

    #[test]
    fn end_is_warned_of_once_a_quarter_of_an_hour_and_once_two_minutes_ahead() {
        let mut watch = watch(Some(10_000));
        let (mut clock, mut told) = (0, Vec::new());
        while clock < 10_100 {
            let (warning, wait) = watch.look(at(clock));
            told.extend(warning.map(|_| 10_000_u64.saturating_sub(clock)));
            clock += wait.unwrap().as_secs();
        }
        assert_eq!(told, [900, 120]);
    }

    #[test]
    fn renewed_login_is_warned_of_anew_and_one_without_an_end_never() {
        let mut renewed = watch(Some(1000));
        assert!(renewed.look(at(950)).0.is_some() && renewed.look(at(960)).0.is_none());
        assert!(!renewed.take(renewed.login.clone()), "it is the same");
        assert!(renewed.take(Some(KeptLogin::new("t2", Some(5000), at(960)))));
        assert!(renewed.look(at(960)).0.is_none() && renewed.look(at(4950)).0.is_some());
        assert_eq!(watch(None).look(at(1)), (None, None));
        assert_eq!(LoginWatch::default().look(at(1)), (None, None));
    }

    #[test]
    fn warning_says_how_long_and_what_to_do() {
        let login = watch(Some(10_000));
        assert_eq!(login.warning("home", at(9000)), None);
        let soon = login.warning("home", at(9940)).unwrap();
        assert!(soon.contains("ends in 1m") && soon.contains("adit-client login home"), "{soon}");
        assert!(login.warning("home", at(10_001)).unwrap().contains("is over by this host's clock"));
    }
}

//! Which of several servers is asked: the first that answered last, in the order of the configuration.

use std::time::{Duration, Instant};

use super::patience::later;

/// How long a silent server is left alone before one probe asks whether it is back.
pub const REST: Duration = Duration::from_secs(30);

/// How long a server stays behind the others that answers no probe either: some know no Status-Server. Then it is asked
/// in its place again.
pub const LONGEST_REST: Duration = Duration::from_secs(5 * 60);

/// What is known of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// It answered, or was never asked.
    Good,
    /// It has been silent from `since` on.
    Silent {
        since: Instant,
        /// When it is to be probed; `None` while it is.
        probe: Option<Instant>,
    },
}

impl Health {
    fn has_its_turn(self, now: Instant) -> bool {
        match self {
            Self::Good => true,
            Self::Silent { since, .. } => now >= later(since, LONGEST_REST),
        }
    }
}

/// The servers of one kind, by their places in the configuration.
#[derive(Debug, Clone)]
pub struct Servers(Vec<Health>);

impl Servers {
    /// So many servers, of which nothing is known yet.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(vec![Health::Good; count])
    }

    /// The servers in the order in which they are asked: those that answer, then the silent ones, for a late answer is
    /// better than none.
    #[must_use]
    pub fn order(&self, now: Instant) -> Vec<usize> {
        let with = |turn: bool| {
            let wanted = move |(_, health): &(usize, &Health)| health.has_its_turn(now) == turn;
            self.0.iter().enumerate().filter(wanted).map(|(place, _)| place)
        };
        with(true).chain(with(false)).collect()
    }

    /// A server answered.
    pub fn handle_answer(&mut self, place: usize) {
        self.set(place, Health::Good);
    }

    /// A server was silent when it was asked: it rests.
    pub fn handle_silence(&mut self, place: usize, now: Instant) {
        self.set(place, Health::Silent { since: now, probe: Some(later(now, REST)) });
    }

    /// A server was silent when it was probed: it goes on to rest.
    pub fn handle_silent_probe(&mut self, place: usize, now: Instant) {
        if let Some(Health::Silent { probe, .. }) = self.0.get_mut(place) {
            *probe = Some(later(now, REST));
        }
    }

    /// A server that has rested and should be probed now, if there is one; it is named once.
    pub fn poll_probe(&mut self, now: Instant) -> Option<usize> {
        let due = |health: &Health| matches!(health, Health::Silent { probe: Some(at), .. } if *at <= now);
        let place = self.0.iter().position(due)?;
        if let Some(Health::Silent { probe, .. }) = self.0.get_mut(place) {
            *probe = None;
        }
        Some(place)
    }

    fn set(&mut self, place: usize, health: Health) {
        if let Some(known) = self.0.get_mut(place) {
            *known = health;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a start is needed, and only differences from it matter")]
    pub(in crate::radius) fn some_instant() -> Instant {
        Instant::now()
    }

    #[test]
    fn silent_server_is_asked_last_and_comes_back_when_it_answers() {
        let now = some_instant();
        let mut servers = Servers::new(3);
        assert_eq!(servers.order(now), [0, 1, 2]);
        servers.handle_silence(0, now);
        assert_eq!(servers.order(now), [1, 2, 0]);
        servers.handle_silence(1, now);
        servers.handle_silence(2, now);
        assert_eq!(servers.order(now), [0, 1, 2], "a late answer is better than none");
        servers.handle_answer(2);
        assert_eq!(servers.order(now), [2, 0, 1]);
    }

    #[test]
    fn silent_server_is_probed_once_after_each_rest() {
        let now = some_instant();
        let mut servers = Servers::new(2);
        assert_eq!(servers.poll_probe(now), None);
        servers.handle_silence(0, now);
        assert_eq!(servers.poll_probe(now + REST - Duration::from_millis(1)), None);
        assert_eq!(servers.poll_probe(now + REST), Some(0));
        assert_eq!(servers.poll_probe(now + REST), None, "one probe at a time");
        assert_eq!(servers.order(now + REST), [1, 0], "it is not asked before it has answered the probe");
        servers.handle_silent_probe(0, now + REST);
        assert_eq!(servers.poll_probe(now + REST), None, "a silent probe begins another rest");
        assert_eq!(servers.poll_probe(now + REST * 2), Some(0));
        servers.handle_answer(0);
        assert_eq!(servers.order(now + REST * 2), [0, 1]);
    }

    #[test]
    fn server_that_answers_no_probe_gets_its_turn_again() {
        let now = some_instant();
        let mut servers = Servers::new(2);
        servers.handle_silence(0, now);
        assert_eq!(servers.poll_probe(now + REST), Some(0));
        servers.handle_silent_probe(0, now + REST);
        assert_eq!(servers.order(now + LONGEST_REST - Duration::from_millis(1)), [1, 0]);
        assert_eq!(servers.order(now + LONGEST_REST), [0, 1]);
        servers.handle_silence(0, now + LONGEST_REST);
        assert_eq!(servers.order(now + LONGEST_REST), [1, 0]);
    }

    #[test]
    fn unknown_place_changes_nothing() {
        let mut servers = Servers::new(1);
        servers.handle_silence(7, some_instant());
        assert_eq!(servers.order(some_instant()), [0]);
    }
}

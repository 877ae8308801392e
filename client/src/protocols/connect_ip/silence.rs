//! Notices within a second or two that nothing sent to the gateway is answered, which is long before a gateway counts
//! as gone ([`super::liveness`]). It only says so, as it does of a path that has become too narrow: whoever hears it
//! may prepare for the worse.
//!
//! A connection is looked at only while packets go by it, or an answer is awaited.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::quic::Datagrams;
use tokio::sync::watch;
use tokio::time::sleep_until;

/// When it is looked whether QUIC is answered, and how often once that is doubted.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const CLOSE_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a question may stay unanswered at least, and in round trips: QUIC repeats by then what was lost once.
const SHORTEST: Duration = Duration::from_millis(500);
const ROUND_TRIPS: u32 = 5;

/// Why a session may have to leave QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nothing is answered.
    Silent,
    /// The path takes no datagrams that carry the least packets.
    Narrow,
}

impl Doubt {
    /// What is in the way of UDP, in words.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Silent => "nothing is answered any more",
            Self::Narrow => "the path has become too narrow for a tunnel",
        }
    }
}

/// Watches a connection, and tells whether it is doubted.
pub(super) struct SilenceWatch {
    datagrams: Arc<Datagrams>,
    silence: Silence,
    is_narrow: bool,
    doubts: watch::Sender<Option<Doubt>>,
}

impl SilenceWatch {
    pub(super) fn new(datagrams: Arc<Datagrams>) -> Self {
        Self { datagrams, silence: Silence::default(), is_narrow: false, doubts: watch::Sender::new(None) }
    }

    /// Hears whether the connection is doubted, at each change.
    pub(super) fn doubts(&self) -> watch::Receiver<Option<Doubt>> {
        self.doubts.subscribe()
    }

    /// Waits until packets go by QUIC after it was quiet, or for the next look. True if the gateway is to be asked for
    /// a sign of life; while ESP carries the packets, its own probes find out whether that is needed. Cancel-safe.
    pub(super) async fn look(&mut self, by_esp: bool) -> bool {
        let Some(at) = self.silence.poll_timeout() else {
            self.datagrams.sent().await;
            self.silence.handle_sent(self.datagrams.quic().rtt(), now());
            return false;
        };
        sleep_until(at.into()).await;
        let stats = self.datagrams.quic().stats();
        let course = Course { sent: stats.udp_tx.datagrams, round_trip: stats.path.rtt };
        let asks = self.silence.handle_look(course, now()) && !by_esp;
        if asks {
            self.note_asked();
        }
        self.tell();
        asks
    }

    /// The path is too narrow, or is not any more.
    pub(super) fn note_narrow(&mut self, is_narrow: bool) {
        self.is_narrow = is_narrow;
        self.tell();
    }

    fn tell(&self) {
        let doubt = match self.silence.is_doubtful(now()) {
            true => Some(Doubt::Silent),
            false => self.is_narrow.then_some(Doubt::Narrow),
        };
        self.doubts.send_if_modified(|told| std::mem::replace(told, doubt) != doubt);
    }

    /// The gateway was asked for a sign of life.
    pub(super) fn note_asked(&mut self) {
        self.silence.note_asked(self.datagrams.quic().rtt(), now());
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What QUIC has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Course {
    /// Datagrams sent.
    sent: u64,
    /// The smoothed round-trip time, which each acknowledgement of something new changes. What else comes from the
    /// gateway does not show that it hears us: it repeats old acknowledgements beside its own data.
    round_trip: Duration,
}

/// Watches whether the gateway answers.
#[derive(Debug, Default)]
struct Silence {
    last: Course,
    /// When it is looked next, while there is something to see.
    look_at: Option<Instant>,
    /// When the sign of life is overdue that it was asked for and has not given yet.
    overdue: Option<Instant>,
}

impl Silence {
    /// Packets go by QUIC, whose round-trip time is this before their acknowledgement.
    fn handle_sent(&mut self, round_trip: Duration, now: Instant) {
        if self.look_at.is_none() {
            self.last.round_trip = round_trip;
            self.look_at = Some(now + LOOK_INTERVAL);
        }
    }

    /// Looks. True if something was sent since the last look, nothing was answered, and the gateway was not asked yet.
    fn handle_look(&mut self, course: Course, now: Instant) -> bool {
        let last = std::mem::replace(&mut self.last, course);
        if course.round_trip != last.round_trip {
            (self.overdue, self.look_at) = (None, None);
            return false;
        }
        self.look_at = self.overdue.map(|overdue| match overdue > now {
            true => overdue.min(now + LOOK_INTERVAL),
            false => now + CLOSE_LOOK_INTERVAL,
        });
        self.overdue.is_none() && course.sent != last.sent
    }

    /// The gateway was asked for a sign of life.
    fn note_asked(&mut self, rtt: Duration, now: Instant) {
        self.handle_sent(rtt, now);
        self.overdue.get_or_insert_with(|| now + SHORTEST.max(rtt * ROUND_TRIPS));
    }

    /// When [`Self::handle_look`] is due; never while nothing is sent or awaited.
    fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether a sign of life is overdue.
    fn is_doubtful(&self, now: Instant) -> bool {
        self.overdue.is_some_and(|at| now >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);
    const OTHER_RTT: Duration = Duration::from_millis(41);

    fn course(sent: u64, round_trip: Duration) -> Course {
        Course { sent, round_trip }
    }

    /// Packets go by QUIC, of which so many datagrams were sent, and nothing answers; the time of the look.
    fn asks(silence: &mut Silence, sent: u64, now: Instant) -> Instant {
        silence.handle_sent(RTT, now);
        let at = silence.poll_timeout().unwrap();
        assert_eq!(at, now + LOOK_INTERVAL);
        assert!(silence.handle_look(course(sent, RTT), at), "nothing was answered");
        silence.note_asked(RTT, at);
        at
    }

    #[test]
    fn silence_after_something_was_sent_is_asked_about_and_then_doubted() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        let asked = asks(&mut silence, 9, now);
        let overdue = silence.poll_timeout().unwrap();
        assert!(!silence.is_doubtful(asked) && overdue == asked + SHORTEST);
        assert!(!silence.handle_look(course(12, RTT), overdue), "once is enough");
        assert!(silence.is_doubtful(overdue) && silence.poll_timeout() == Some(overdue + CLOSE_LOOK_INTERVAL));
        assert!(!silence.handle_look(course(13, OTHER_RTT), overdue));
        assert!(!silence.is_doubtful(overdue), "it answers again");
    }

    #[test]
    fn quiet_connection_is_not_looked_at() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        assert_eq!(silence.poll_timeout(), None);
        silence.handle_sent(RTT, now);
        let at = silence.poll_timeout().unwrap();
        assert!(!silence.handle_look(course(5, OTHER_RTT), at), "it was answered");
        assert_eq!(silence.poll_timeout(), None);
        // Of what was answered before the look, it may still be told that it was sent.
        silence.handle_sent(OTHER_RTT, at);
        let at = silence.poll_timeout().unwrap();
        assert!(!silence.handle_look(course(5, OTHER_RTT), at) && silence.poll_timeout().is_none());
    }

    #[test]
    fn answer_from_before_it_was_sent_is_none() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        silence.handle_look(course(5, OTHER_RTT), now);
        // Meanwhile QUIC's own pings have changed the round-trip time.
        asks(&mut silence, 6, now + Duration::from_secs(100));
    }

    #[test]
    fn question_that_others_asked_is_looked_after() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        silence.note_asked(RTT, now);
        let at = silence.poll_timeout().unwrap();
        assert!(!silence.handle_look(course(5, RTT), at), "it was asked");
        assert!(silence.is_doubtful(at));
    }

    #[test]
    fn slow_path_has_more_time() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        silence.note_asked(Duration::from_secs(1), now);
        let [before, after] = [4999, 5000].map(|millis| now + Duration::from_millis(millis));
        assert!(!silence.is_doubtful(before) && silence.is_doubtful(after));
    }
}

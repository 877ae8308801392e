//! Notices within a second or two that nothing sent to the gateway is answered, which is long before a gateway counts
//! as gone ([`super::liveness`]). It only says so: whoever hears it may prepare for the worse.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};

/// How often it is looked whether QUIC is answered, and how often once that is doubted.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const CLOSE_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a question may stay unanswered at least, and in round trips: QUIC repeats by then what was lost once.
const SHORTEST: Duration = Duration::from_millis(500);
const ROUND_TRIPS: u32 = 5;

/// Watches a connection, and tells whether its gateway is doubted.
pub(super) struct SilenceWatch {
    quic: quinn::Connection,
    looks: Interval,
    close_looks: Interval,
    silence: Silence,
    doubts: watch::Sender<bool>,
}

impl SilenceWatch {
    pub(super) fn new(quic: quinn::Connection) -> Self {
        let [looks, close_looks] = [LOOK_INTERVAL, CLOSE_LOOK_INTERVAL].map(|period| {
            let mut looks = interval(period);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            looks
        });
        Self { quic, looks, close_looks, silence: Silence::default(), doubts: watch::Sender::new(false) }
    }

    /// Hears whether the gateway leaves unanswered what it is asked, at each change.
    pub(super) fn doubts(&self) -> watch::Receiver<bool> {
        self.doubts.subscribe()
    }

    /// Waits for the next look. True if the gateway is to be asked for a sign of life; while ESP carries the packets,
    /// its own probes find out whether that is needed. Cancel-safe.
    pub(super) async fn look(&mut self, by_esp: bool) -> bool {
        let (due, is_doubtful) = (self.silence.due(now()), self.silence.is_doubtful(now()));
        tokio::select! {
            _ = self.looks.tick() => {}
            _ = self.close_looks.tick(), if is_doubtful => {}
            () = until(due) => {}
        }
        let stats = self.quic.stats();
        let course = Course { sent: stats.udp_tx.datagrams, round_trip: stats.path.rtt };
        let asks = self.silence.look(course) && !by_esp;
        if asks {
            self.note_asked();
        }
        let is_doubtful = self.silence.is_doubtful(now());
        self.doubts.send_if_modified(|told| std::mem::replace(told, is_doubtful) != is_doubtful);
        asks
    }

    /// The gateway was asked for a sign of life.
    pub(super) fn note_asked(&mut self) {
        self.silence.note_asked(self.quic.rtt(), now());
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
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
    /// When the sign of life is overdue that it was asked for and has not given yet.
    overdue: Option<Instant>,
}

impl Silence {
    /// Looks. True if something was sent since the last look, nothing was answered, and the gateway was not asked yet.
    fn look(&mut self, course: Course) -> bool {
        let last = std::mem::replace(&mut self.last, course);
        if course.round_trip != last.round_trip {
            self.overdue = None;
            return false;
        }
        self.overdue.is_none() && course.sent != last.sent
    }

    /// The gateway was asked for a sign of life.
    fn note_asked(&mut self, rtt: Duration, now: Instant) {
        self.overdue.get_or_insert_with(|| now + SHORTEST.max(rtt * ROUND_TRIPS));
    }

    /// When [`Self::is_doubtful`] may become true without a look.
    fn due(&self, now: Instant) -> Option<Instant> {
        self.overdue.filter(|at| *at > now)
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

    fn course(sent: u64, round_trip: u64) -> Course {
        Course { sent, round_trip: Duration::from_nanos(round_trip) }
    }

    #[test]
    fn silence_after_something_was_sent_is_asked_about_and_then_doubted() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        assert!(!silence.look(course(5, 5)));
        assert!(silence.look(course(9, 5)), "nothing was answered");
        silence.note_asked(RTT, now);
        assert!(!silence.look(course(12, 5)), "once is enough");
        assert_eq!((silence.is_doubtful(now), silence.due(now)), (false, Some(now + SHORTEST)));
        let later = now + SHORTEST;
        assert_eq!((silence.is_doubtful(later), silence.due(later)), (true, None));
        assert!(!silence.look(course(13, 6)));
        assert!(!silence.is_doubtful(later), "it answers again");
    }

    #[test]
    fn idle_connection_is_not_asked() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        silence.look(course(5, 5));
        for second in 0..1000 {
            let now = now + Duration::from_secs(second);
            assert!(!silence.look(course(5, 5)) && !silence.is_doubtful(now));
        }
    }

    #[test]
    fn slow_path_has_more_time() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        silence.look(course(5, 5));
        silence.note_asked(Duration::from_secs(1), now);
        let [before, after] = [4999, 5000].map(|millis| now + Duration::from_millis(millis));
        assert!(!silence.is_doubtful(before) && silence.is_doubtful(after));
    }
}

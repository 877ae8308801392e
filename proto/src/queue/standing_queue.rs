//! Keeps the queue in front of a worker short, after `CoDel` (RFC 8289).
//!
//! A receive buffer that outlasts a pause of the worker holds far more than throughput needs: TCP would fill it, and
//! every packet would wait behind that. So senders hear of a queue that *stands*, one that for an `INTERVAL` was
//! neither empty nor short: single packets are marked, or dropped if their ends do not know ECN. A burst that is worked
//! off passes whole.
//!
//! How long packets wait says nothing of who is to blame: a worker that gets no core is late for few packets as well as
//! for many. So no sender hears anything before much was moved out of such a queue, which only a fast one can fill
//! again.
//!
//! Signs cost little and relieve little: if nobody follows them, what waited longer than `LONGEST` is dropped unread,
//! so that a worker with too much to do spends its time on what it can still deliver.

use std::time::{Duration, Instant};

/// A wait that is no sign of a queue. Twice as much lets a ping beside a TCP stream wait noticeably longer.
const TARGET: Duration = Duration::from_millis(1);
/// How long a queue may last before its senders hear of it, and the first pause between two signs. That is for hosts of
/// one site: one 100 ms away loses some dozen packets of one round trip instead of one, which is still one event for
/// its TCP. Longer, and a ping beside a TCP stream waits longer; shorter, and senders hear of queues that would have
/// gone by themselves.
const INTERVAL: Duration = Duration::from_millis(5);
/// Bytes that were taken from a standing queue for each sign: one packet of some 700, and a millisecond at full speed.
const BYTES_PER_SIGN: usize = 1 << 20;
/// A queue that stands in spite of so many signs has senders that follow none.
const UNHEEDED: u32 = 16;
/// The longest wait in such a queue.
const LONGEST: Duration = Duration::from_millis(20);

/// What is to become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It passes, and one packet of it tells the sender of congestion.
    Mark,
    /// It is dropped.
    Discard,
}

/// The queue of one socket.
#[derive(Debug, Default)]
pub struct StandingQueue(Option<Stretch>);

/// A time during which every message had waited, and the queue was never empty.
#[derive(Debug)]
struct Stretch {
    /// When the last message was taken.
    taken: Instant,
    /// Bytes taken since the last sign.
    bytes: usize,
    signs: u32,
    next_sign: Instant,
}

impl StandingQueue {
    /// Judges the next message, which has so many bytes and waited for so long. The clock is read only if that is too
    /// long.
    pub fn judge(&mut self, bytes: usize, waited: Duration, clock: impl FnOnce() -> Instant) -> Verdict {
        if waited < TARGET {
            self.0 = None;
            return Verdict::Pass;
        }
        let now = clock();
        // A message that came after the one before it was taken found the queue empty: what stood before has gone.
        let came = now.checked_sub(waited);
        let lasts = self.0.take().filter(|stretch| came.is_none_or(|came| came < stretch.taken));
        self.0.insert(lasts.unwrap_or_else(|| Stretch::begin(now))).judge(bytes, waited, now)
    }
}

impl Stretch {
    fn begin(now: Instant) -> Self {
        Self { taken: now, bytes: 0, signs: 0, next_sign: now + INTERVAL }
    }

    fn judge(&mut self, bytes: usize, waited: Duration, now: Instant) -> Verdict {
        self.taken = now;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.signs >= UNHEEDED && waited > LONGEST {
            return Verdict::Discard;
        }
        if now < self.next_sign || self.bytes < BYTES_PER_SIGN {
            return Verdict::Pass;
        }
        self.bytes = 0;
        self.signs = self.signs.saturating_add(1);
        // The control law of RFC 8289 section 5: the rate of one TCP connection falls as the root of its losses grows.
        self.next_sign = now + INTERVAL.div_f64(f64::from(self.signs).sqrt());
        Verdict::Mark
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);
    const MILLISECOND: Duration = Duration::from_millis(1);

    #[expect(clippy::disallowed_methods, reason = "only differences from it matter")]
    fn start() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    /// A message of superpackets.
    const LARGE: usize = 60_000;

    /// A worker and the queue in front of it.
    struct Scene {
        queue: StandingQueue,
        now: Instant,
        /// Bytes of each message.
        len: usize,
        /// When the messages came that wait.
        waiting: VecDeque<Instant>,
        /// Since when messages have waited for too long and the queue was never empty, by what really happened.
        standing: Option<Instant>,
    }

    impl Scene {
        fn new(len: usize) -> Self {
            Self { queue: StandingQueue::default(), now: start(), len, waiting: VecDeque::new(), standing: None }
        }

        /// Messages come at once.
        fn arrive(&mut self, count: usize) {
            self.waiting.extend(std::iter::repeat_n(self.now, count));
        }

        /// The worker takes a message, and tells how long that waited.
        fn take(&mut self) -> Option<(Verdict, Duration)> {
            let waited = self.now - self.waiting.pop_front()?;
            let verdict = self.queue.judge(self.len, waited, || self.now);
            let standing = self.standing.get_or_insert(self.now);
            assert!(verdict == Verdict::Pass || self.now - *standing >= INTERVAL, "{verdict:?} of a queue that is new");
            if waited < TARGET || self.waiting.is_empty() {
                self.standing = None;
            }
            Some((verdict, waited))
        }

        /// Messages come with these pauses and are taken, each of which takes so long, unless it is dropped.
        fn run(&mut self, span: Duration, pause: Duration, work: Duration) -> Vec<(Verdict, Duration)> {
            let (mut next, end) = (self.now, self.now + span);
            let mut taken = Vec::new();
            while self.now < end {
                while next <= self.now {
                    self.waiting.push_back(next);
                    next += pause;
                }
                match self.take() {
                    Some(message) => {
                        self.now += if message.0 == Verdict::Discard { work / 20 } else { work };
                        taken.push(message);
                    }
                    None => self.now = next,
                }
            }
            taken
        }

        /// How many signs are given while messages, one every 0.1 ms, have waited twice as long as they should.
        fn marks(&mut self, span: Duration) -> usize {
            let end = self.now + span;
            let mut marks = 0;
            while self.now < end {
                marks += usize::from(self.queue.judge(self.len, 2 * TARGET, || self.now) == Verdict::Mark);
                self.now += 100 * MICROSECOND;
            }
            marks
        }
    }

    fn count(taken: &[(Verdict, Duration)], verdict: Verdict) -> usize {
        taken.iter().filter(|message| message.0 == verdict).count()
    }

    #[test]
    fn message_without_a_queue_passes_and_begins_anew() {
        let mut scene = Scene::new(LARGE);
        let no_clock = || unreachable!("the clock is not read");
        for _ in 0..10 {
            assert_eq!(scene.marks(INTERVAL), 0);
            assert_eq!(scene.queue.judge(LARGE, TARGET - MICROSECOND, no_clock), Verdict::Pass);
        }
    }

    #[test]
    fn standing_queue_is_told_of_ever_more_often_up_to_once_for_so_many_bytes() {
        let mut scene = Scene::new(LARGE);
        assert_eq!((scene.marks(INTERVAL), scene.marks(INTERVAL)), (0, 1));
        let marks: Vec<_> = (0..3).map(|_| scene.marks(INTERVAL * 2)).collect();
        assert!(marks.is_sorted_by(|earlier, later| earlier < later), "{marks:?}");
        scene.marks(Duration::from_secs(1));
        let (marks, messages) = (scene.marks(Duration::from_secs(1)), 10_000);
        assert!(marks.abs_diff(messages / BYTES_PER_SIGN.div_ceil(LARGE)) <= 1, "{marks}");
    }

    #[test]
    fn late_worker_costs_few_packets_nothing() {
        let mut scene = Scene::new(500);
        // 10,000 packets a second wait 2 ms each, for 0.2 s without an end.
        assert_eq!(scene.marks(Duration::from_millis(200)), 0);
        let marks = scene.marks(Duration::from_secs(100));
        assert!((400..=500).contains(&marks), "{marks} of a million packets");
    }

    #[test]
    fn what_a_pause_left_passes_even_if_there_is_another() {
        let mut scene = Scene::new(LARGE);
        scene.arrive(1000);
        for _ in 0..4 {
            scene.now += 20 * MILLISECOND;
            let verdicts: Vec<_> = (0..250).filter_map(|_| scene.take()).collect();
            assert_eq!(count(&verdicts, Verdict::Discard), 0);
            assert!(count(&verdicts, Verdict::Mark) <= 1);
        }
    }

    #[test]
    fn lone_messages_of_a_busy_host_pass() {
        let mut scene = Scene::new(LARGE);
        for _ in 0..100 {
            scene.arrive(8);
            // The worker has to wait for a core each time, and does not look whether there is a ninth.
            scene.now += 30 * MILLISECOND;
            assert!((0..8).all(|_| scene.take().unwrap().0 == Verdict::Pass));
        }
    }

    #[test]
    fn senders_that_follow_no_sign_lose_the_excess_and_no_more() {
        for (len, work) in [(LARGE, 60), (LARGE, 600), (5_000, 200), (1_400, 20)] {
            let mut scene = Scene::new(len);
            let work = work * MICROSECOND;
            // 110 % of what can be worked off.
            scene.run(Duration::from_secs(5), work.mul_f64(1.0 / 1.1), work);
            let taken = scene.run(Duration::from_secs(5), work.mul_f64(1.0 / 1.1), work);
            let told = BYTES_PER_SIGN.div_ceil(len);
            assert!(count(&taken, Verdict::Mark) <= taken.len() / told + 1);
            let lost = count(&taken, Verdict::Discard) as f64 / taken.len() as f64;
            assert!(lost < 0.1, "{lost} of messages of {len} bytes that take {work:?}");
            let longest = taken.iter().map(|message| message.1).max().unwrap();
            assert!(longest < LONGEST + 2 * MILLISECOND, "{longest:?}");
        }
    }

    proptest! {
        #[test]
        fn only_queues_that_lasted_are_told_of(
            steps in proptest::collection::vec((0_u32..4000, 0_usize..4, 0_usize..4), 1..500),
        ) {
            let mut scene = Scene::new(BYTES_PER_SIGN);
            for (pause, arriving, taken) in steps {
                scene.now += pause * MICROSECOND;
                scene.arrive(arriving);
                // Taking fails if it is not so.
                (0..taken).filter_map(|_| scene.take()).count();
            }
        }
    }
}

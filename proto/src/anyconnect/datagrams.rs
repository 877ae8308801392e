//! Whether a session's packets go in records of DTLS, at the gateway's end.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Absent
//!     Absent --> Waiting: an association is established
//!     Waiting --> Passing: the client says something in a record
//!     Passing --> Waiting: packets come by TLS, or silence
//!     Waiting --> Absent: the association is over
//!     Passing --> Absent: the association is over
//! ```
//!
//! Clients send by one way at a time, so the gateway follows: it sends in records while records come, and by TLS while
//! packets come there. A client that says nothing is asked, and after two intervals its packets go by TLS again; the
//! session goes on in any case.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::{FrameKind, USER_ENDED};
use super::record;
use crate::packet::IPV6_MIN_MTU;

/// Silence, in intervals, after which records do not pass any more.
const INTERVALS: u32 = 2;
/// How long a size counts that the client asks for no more: longer than two of its pauses, so that a question may get
/// lost.
const SIZE_LASTS: Duration = Duration::from_secs(45);
/// Most answers that wait to be sent. A client that asks more often hears less.
const MAX_ANSWERS: usize = 16;

/// Whether packets go in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is no association.
    Absent,
    /// There is one, and packets go by TLS until the client shows that it gets records.
    Waiting,
    /// They do.
    Passing,
}

/// What a client says in a record about its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Its token is to be worth nothing any longer.
    LoggedOut,
    /// It may come back.
    Left,
}

/// The machine of one session.
#[derive(Debug)]
pub struct Datagrams {
    state: State,
    interval: Duration,
    heard: Instant,
    asked: Option<Instant>,
    answers: VecDeque<Vec<u8>>,
    /// Bytes of the largest question that came in a record of this association, and when it came last.
    largest_question: usize,
    largest_came: Instant,
}

impl Datagrams {
    /// Begins without an association. A client that is silent for `interval` is asked.
    pub const fn new(interval: Duration, now: Instant) -> Self {
        let answers = VecDeque::new();
        Self {
            state: State::Absent,
            interval,
            heard: now,
            asked: None,
            answers,
            largest_question: 0,
            largest_came: now,
        }
    }

    /// Whether packets go in records.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The largest packet that passes, in bytes, if the client has looked for it: it asks with questions as large as
    /// that.
    pub fn path_mtu(&self) -> Option<u16> {
        u16::try_from(self.largest_question).ok().filter(|mtu| *mtu >= IPV6_MIN_MTU)
    }

    /// A new association is established.
    pub const fn handle_established(&mut self) {
        (self.state, self.largest_question) = (State::Waiting, 0);
    }

    /// There is no association any more.
    pub fn handle_closed(&mut self) {
        self.state = State::Absent;
        self.answers.clear();
    }

    /// Records were opened.
    pub fn handle_heard(&mut self, now: Instant) {
        if self.state != State::Absent {
            (self.state, self.heard, self.asked) = (State::Passing, now, None);
        }
    }

    /// Takes what a record held that is no packet.
    pub fn handle_record(&mut self, plaintext: &[u8], now: Instant) -> Option<Farewell> {
        self.handle_heard(now);
        match record::split(plaintext)? {
            // The client looks for the largest packet that passes, so all of it goes back.
            (FrameKind::DpdRequest, payload) => {
                self.note_question(payload.len(), now);
                self.say(FrameKind::DpdResponse, payload);
            }
            (FrameKind::Disconnect, [USER_ENDED, ..]) => return Some(Farewell::LoggedOut),
            (FrameKind::Disconnect | FrameKind::Terminate, _) => return Some(Farewell::Left),
            (FrameKind::Data | FrameKind::DpdResponse | FrameKind::Keepalive, _)
            | (FrameKind::Compressed | FrameKind::Unknown(_), _) => {}
        }
        None
    }

    /// Packets came by TLS, or the system says that records cannot be sent.
    pub fn handle_doubt(&mut self) {
        if self.state == State::Passing {
            self.state = State::Waiting;
        }
    }

    /// Keeps the largest size that the client asks for. One that it repeats no more does not pass any more; questions
    /// without a size tell nothing.
    fn note_question(&mut self, len: usize, now: Instant) {
        let is_outdated = now.saturating_duration_since(self.largest_came) > SIZE_LASTS;
        if len >= usize::from(IPV6_MIN_MTU) && (len >= self.largest_question || is_outdated) {
            (self.largest_question, self.largest_came) = (len, now);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.asked.unwrap_or(self.heard).checked_add(self.interval)?;
        (self.state == State::Passing).then_some(next)
    }

    /// Asks a client that is silent, or sends its packets by TLS again.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        let end = self.heard.checked_add(self.interval.saturating_mul(INTERVALS));
        if end.is_none_or(|end| end <= now) {
            self.handle_doubt();
        } else {
            self.asked = Some(now);
            self.say(FrameKind::DpdRequest, &[]);
        }
    }

    fn say(&mut self, kind: FrameKind, payload: &[u8]) {
        if self.answers.len() < MAX_ANSWERS {
            self.answers.push_back(record::encode(kind, payload));
        }
    }

    /// What the next record is to hold, beside those of packets.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.answers.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn passing() -> (Datagrams, Instant) {
        #[expect(clippy::disallowed_methods, reason = "the beginning of virtual time")]
        let now = Instant::now();
        let mut datagrams = Datagrams::new(INTERVAL, now);
        datagrams.handle_established();
        assert_eq!(datagrams.state(), State::Waiting);
        assert_eq!(datagrams.handle_record(b"\x07", now), None);
        assert_eq!(datagrams.state(), State::Passing);
        (datagrams, now)
    }

    #[test]
    fn packets_go_where_those_of_the_client_come_from() {
        let (mut datagrams, now) = passing();
        datagrams.handle_doubt();
        assert_eq!((datagrams.state(), datagrams.poll_timeout()), (State::Waiting, None));
        datagrams.handle_heard(now);
        assert_eq!(datagrams.state(), State::Passing);
        datagrams.handle_closed();
        datagrams.handle_heard(now);
        datagrams.handle_doubt();
        assert_eq!(datagrams.state(), State::Absent, "what is late says nothing");
    }

    #[test]
    fn questions_are_answered_whole_and_not_without_end() {
        let (mut datagrams, now) = passing();
        let question = [&[3][..], &[0x5a; 1400]].concat();
        let answer = [&[4][..], &[0x5a; 1400]].concat();
        for _ in 0..1000 {
            assert_eq!(datagrams.handle_record(&question, now), None);
        }
        let answers: Vec<_> = std::iter::from_fn(|| datagrams.poll_transmit()).collect();
        assert_eq!(answers, vec![answer; MAX_ANSWERS]);
        for quiet in [&b""[..], b"\x04", b"\x07", b"\x08lz4", b"\x4d"] {
            assert_eq!(datagrams.handle_record(quiet, now), None);
        }
        assert_eq!(datagrams.poll_transmit(), None);
    }

    #[test]
    fn largest_question_that_came_tells_what_the_path_takes() {
        let (mut datagrams, now) = passing();
        for (asked, known) in [(0, None), (1279, None), (1354, Some(1354)), (1280, Some(1354)), (1434, Some(1434))] {
            datagrams.handle_record(&record::encode(FrameKind::DpdRequest, &vec![0; asked]), now);
            assert_eq!(datagrams.path_mtu(), known, "{asked}");
        }
        datagrams.handle_established();
        assert_eq!(datagrams.path_mtu(), None, "another association may go another way");
    }

    #[test]
    fn size_that_is_asked_for_no_more_is_left() {
        let (mut datagrams, begin) = passing();
        let mut ask = |after: u64, len: usize| {
            let question = record::encode(FrameKind::DpdRequest, &vec![0; len]);
            datagrams.handle_record(&question, begin + Duration::from_secs(after));
            datagrams.path_mtu()
        };
        assert_eq!([ask(0, 1400), ask(20, 1400)], [Some(1400); 2]);
        // The path takes less from here on.
        assert_eq!([ask(40, 1280), ask(65, 1280)], [Some(1400); 2], "a question may get lost");
        assert_eq!(ask(66, 1), Some(1400), "and some ask for no size");
        assert_eq!([ask(67, 1280), ask(200, 1)], [Some(1280); 2]);
        assert_eq!(ask(201, 1400), Some(1400));
    }

    #[test]
    fn silent_client_is_asked_and_its_packets_go_by_tls_then() {
        let (mut datagrams, begin) = passing();
        assert_eq!(datagrams.poll_timeout(), Some(begin + INTERVAL));
        datagrams.handle_timeout(begin + INTERVAL - Duration::from_millis(1));
        assert_eq!(datagrams.poll_transmit(), None);
        datagrams.handle_timeout(begin + INTERVAL);
        assert_eq!(datagrams.poll_transmit(), Some(vec![3]));
        assert_eq!((datagrams.state(), datagrams.poll_timeout()), (State::Passing, Some(begin + INTERVAL * 2)));
        datagrams.handle_timeout(begin + INTERVAL * 2);
        assert_eq!((datagrams.state(), datagrams.poll_timeout()), (State::Waiting, None));
        datagrams.handle_heard(begin + INTERVAL * 3);
        assert_eq!(datagrams.state(), State::Passing, "and back");
    }

    #[test]
    fn answer_shows_that_records_pass() {
        let (mut datagrams, begin) = passing();
        datagrams.handle_timeout(begin + INTERVAL);
        assert!(datagrams.poll_transmit().is_some());
        let heard = begin + INTERVAL + Duration::from_secs(1);
        datagrams.handle_heard(heard);
        assert_eq!(datagrams.poll_timeout(), Some(heard + INTERVAL));
        datagrams.handle_timeout(begin + INTERVAL * 2);
        assert_eq!((datagrams.state(), datagrams.poll_transmit()), (State::Passing, None));
    }

    #[test]
    fn farewell_in_a_record_counts() {
        let (mut datagrams, now) = passing();
        assert_eq!(datagrams.handle_record(b"\x05\xb0bye", now), Some(Farewell::LoggedOut));
        assert_eq!(datagrams.handle_record(b"\x05", now), Some(Farewell::Left));
        assert_eq!(datagrams.handle_record(b"\x09", now), Some(Farewell::Left));
    }
}

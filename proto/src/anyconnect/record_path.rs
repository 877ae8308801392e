//! Whether a client's packets go in records of DTLS, and when it tries to bring that about.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Absent
//!     Absent --> Unproven: an association is established
//!     Unproven --> Passing: a question as large as a packet is answered
//!     Passing --> Unproven: questions bring no answer
//!     Unproven --> Absent: the association is over
//!     Passing --> Absent: the association is over
//! ```
//!
//! The client decides and the gateway follows it ([`super::datagrams`]). What comes from the gateway does not show that
//! anything reaches it, so only its answers count. The first questions have several sizes at once: the largest one that
//! is answered is how large packets may be. Later ones are as large as packets.
//!
//! Where records do not pass, packets go by TLS, and it is tried again every minute: first with questions in the
//! association that there is, as the gateway may still have it, and then with a new one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::FrameKind;
use super::record;
use crate::packet::IPV6_MIN_MTU;

/// How long the answer to a question is waited for.
const PAUSE: Duration = Duration::from_secs(1);
/// Questions in a row without an answer after which records do not pass.
const QUESTIONS: u8 = 3;
/// How long nothing may come after packets were sent, before the gateway is asked.
const SENT_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is tried to get through.
const NEXT_TRY: Duration = Duration::from_secs(60);
/// Sizes of packets that are asked for beside the largest one: for links with tunnels of their own, and the smallest
/// that a tunnel needs.
const SIZES: [u16; 4] = [1400, 1360, 1320, IPV6_MIN_MTU];
/// Most answers that wait to be sent. A gateway that asks more often hears less.
const MAX_ANSWERS: usize = 16;

/// Whether packets go in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is no association.
    Absent,
    /// There is one, and nothing shows that packets pass in its records.
    Unproven,
    /// They do.
    Passing,
}

/// Questions on their way.
#[derive(Debug, Clone, Copy)]
struct Asking {
    asked: u8,
    /// When the last one counts as unanswered.
    due: Instant,
}

/// The machine of one session.
#[derive(Debug)]
pub struct RecordPath {
    state: State,
    /// How long the gateway may leave out an answer before it is asked for one.
    interval: Duration,
    /// Largest packet that is asked for, in bytes.
    largest: u16,
    /// Largest packet that was answered for, in bytes; none until something shows that packets pass.
    answered: Option<u16>,
    /// When the gateway answered last.
    proven: Instant,
    /// When packets were sent, since something came.
    sent: Option<Instant>,
    asking: Option<Asking>,
    /// When an association was wanted last.
    tried: Option<Instant>,
    /// When it is tried again to get through.
    try_at: Option<Instant>,
    wants_association: bool,
    /// An association is wanted, or in the making.
    is_beginning: bool,
    /// Sizes of questions that are to be sent.
    questions: VecDeque<u16>,
    answers: VecDeque<Vec<u8>>,
}

impl RecordPath {
    /// Begins without an association, and wants one at once. The gateway is asked every `interval` at least.
    pub const fn new(interval: Duration, now: Instant) -> Self {
        Self {
            state: State::Absent,
            interval,
            largest: IPV6_MIN_MTU,
            answered: None,
            proven: now,
            sent: None,
            asking: None,
            tried: None,
            try_at: Some(now),
            wants_association: false,
            is_beginning: false,
            questions: VecDeque::new(),
            answers: VecDeque::new(),
        }
    }

    /// Whether packets go in records.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Largest packet that passes, in bytes; while packets do.
    pub fn mtu(&self) -> Option<u16> {
        self.answered.filter(|_| self.state == State::Passing)
    }

    /// Whether a question waits for its answer.
    pub const fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether an association is to begin now. True once for each.
    pub const fn poll_association(&mut self) -> bool {
        std::mem::replace(&mut self.wants_association, false)
    }

    /// A new association is established, whose records take packets of at most `largest` bytes. Where packets passed in
    /// the one before, they go on in this one.
    pub fn handle_established(&mut self, largest: u16, now: Instant) {
        (self.is_beginning, self.try_at, self.largest) = (false, None, largest);
        self.answered = self.answered.map(|answered| answered.min(largest));
        match self.state {
            State::Passing => self.ask_again(now),
            State::Absent | State::Unproven => self.ask_anew(now),
        }
    }

    /// The association in the making, if there was one, came to nothing.
    pub fn handle_not_established(&mut self, now: Instant) {
        if self.is_beginning {
            self.is_beginning = false;
            self.try_at = Some(self.next_try(now));
        }
    }

    /// There is no association any more.
    pub fn handle_closed(&mut self, now: Instant) {
        (self.state, self.answered, self.asking, self.sent) = (State::Absent, None, None, None);
        self.questions.clear();
        self.answers.clear();
        if !self.is_beginning {
            self.try_at = Some(self.next_try(now));
        }
    }

    /// Packets were sent in records.
    pub fn handle_sent(&mut self, now: Instant) {
        self.sent.get_or_insert(now);
    }

    /// Records came.
    pub const fn handle_heard(&mut self) {
        self.sent = None;
    }

    /// Packets came by TLS, or the system says that records cannot be sent.
    pub fn handle_doubt(&mut self, now: Instant) {
        if self.state == State::Passing && self.asking.is_none() {
            self.ask_again(now);
        }
    }

    /// Larger packets than these do not fit the path, in bytes.
    pub fn handle_narrow(&mut self, largest: u16) {
        self.largest = self.largest.min(largest);
        self.answered = self.answered.map(|answered| answered.min(largest));
    }

    /// Takes what a record held that is no packet.
    pub fn handle_record(&mut self, plaintext: &[u8], now: Instant) {
        self.handle_heard();
        match record::split(plaintext) {
            Some((FrameKind::DpdRequest, payload)) if self.answers.len() < MAX_ANSWERS => {
                self.answers.push_back(record::encode(FrameKind::DpdResponse, payload));
            }
            Some((FrameKind::DpdResponse, payload)) => self.handle_answer(payload.len(), now),
            // What ends a session is said on the channel.
            Some(_) | None => {}
        }
    }

    /// No question was smaller than the smallest packet, so an answer without payload is one to at least that.
    fn handle_answer(&mut self, length: usize, now: Instant) {
        if self.state == State::Absent {
            return;
        }
        let size = u16::try_from(length).unwrap_or(u16::MAX).max(IPV6_MIN_MTU).min(self.largest);
        self.answered = Some(self.answered.map_or(size, |answered| answered.max(size)));
        let is_largest = self.answered == Some(self.largest);
        match self.state {
            // A larger question may still be answered.
            State::Unproven if self.asking.is_some() && !is_largest => {}
            State::Absent | State::Unproven | State::Passing => self.pass(now),
        }
    }

    fn pass(&mut self, now: Instant) {
        self.state = State::Passing;
        (self.asking, self.try_at, self.sent, self.proven) = (None, None, None, now);
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asking = self.asking.map(|asking| asking.due);
        match self.state {
            State::Absent => self.try_at,
            State::Unproven => asking.or(self.try_at),
            State::Passing => asking.or_else(|| self.question_due()),
        }
    }

    fn question_due(&self) -> Option<Instant> {
        let regular = self.proven.checked_add(self.interval)?;
        let sent = self.sent.and_then(|sent| sent.checked_add(SENT_PATIENCE));
        Some(sent.map_or(regular, |sent| sent.min(regular)))
    }

    /// Asks, gives up, or tries anew.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        let is_asking = self.asking.is_some();
        let is_over = self.asking.is_some_and(|asking| asking.asked >= QUESTIONS);
        match self.state {
            State::Absent => self.want_association(now),
            State::Unproven if is_asking && self.answered.is_some() => self.pass(now),
            State::Unproven if is_over => {
                self.asking = None;
                self.want_association(now);
            }
            State::Unproven if is_asking => self.ask_sizes(now),
            State::Unproven => self.ask_anew(now),
            State::Passing if is_over => self.ask_anew(now),
            State::Passing => self.ask_again(now),
        }
    }

    fn want_association(&mut self, now: Instant) {
        self.try_at = None;
        if !self.is_beginning {
            (self.wants_association, self.is_beginning, self.tried) = (true, true, Some(now));
        }
    }

    fn next_try(&self, now: Instant) -> Instant {
        self.tried.and_then(|tried| tried.checked_add(NEXT_TRY)).map_or(now, |at| at.max(now))
    }

    /// Has packets go by TLS until the gateway answers in records.
    fn ask_anew(&mut self, now: Instant) {
        (self.state, self.answered, self.asking, self.try_at) = (State::Unproven, None, None, None);
        self.ask_sizes(now);
    }

    fn ask_sizes(&mut self, now: Instant) {
        let largest = self.largest;
        let sizes = [largest].into_iter().chain(SIZES.into_iter().filter(|size| *size < largest));
        self.questions = sizes.collect();
        self.note_question(now);
    }

    fn ask_again(&mut self, now: Instant) {
        self.questions = self.answered.into_iter().collect();
        self.note_question(now);
    }

    fn note_question(&mut self, now: Instant) {
        let asked = self.asking.map_or(0, |asking| asking.asked).saturating_add(1);
        self.asking = now.checked_add(PAUSE).map(|due| Asking { asked, due });
    }

    /// What the next record is to hold, beside those of packets.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let answer = self.answers.pop_front();
        answer.or_else(|| {
            let size = self.questions.pop_front()?;
            Some(record::encode(FrameKind::DpdRequest, &vec![0; size.into()]))
        })
    }
}

#[cfg(test)]
mod tests;

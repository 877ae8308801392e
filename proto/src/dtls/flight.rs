//! Sending what belongs together until the answer comes (RFC 6347 section 4.2.4).

use std::time::{Duration, Instant};

use super::alert::Refusal;
use super::handshake::Item;
use super::message::{FRAGMENT_HEADER_LEN, Fragment, Message};
use super::record::{ContentType, DTLS_1_0, DTLS_1_2, HEADER_LEN, plain};
use super::sa::{EPOCH, Outbound};
use crate::sealing::aead::Aead;

/// How long the answer to a flight is waited for at first; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long it is waited for at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What is repeated because the peer repeats itself is repeated no sooner.
const RESEND_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that a datagram of a handshake may always have: no path is as narrow.
pub const SMALLEST_DATAGRAM: usize = 128;

/// Bytes of a message that are not worth a record of their own.
const SMALLEST_PART: usize = 16;

/// What was sent last.
pub struct Flight {
    items: Vec<Item>,
    /// When it is sent again; never if nothing is expected for it.
    again_at: Option<Instant>,
    pause: Duration,
    sent_at: Instant,
}

impl Flight {
    /// A flight that an answer is expected for, sent now.
    pub fn new(items: Vec<Item>, now: Instant) -> Self {
        Self { items, again_at: now.checked_add(FIRST_PAUSE), pause: FIRST_PAUSE, sent_at: now }
    }

    /// No answer is expected any more.
    pub const fn expect_nothing(&mut self) {
        self.again_at = None;
    }

    /// When [`Self::handle_timeout`] is due.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.again_at
    }

    /// Whether it is to be sent again since no answer came.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.again_at.is_none_or(|at| at > now) {
            return false;
        }
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        self.again_at = now.checked_add(self.pause);
        self.sent_at = now;
        true
    }

    /// Whether it is to be sent again since the peer repeated what it answers.
    pub fn handle_repeated(&mut self, now: Instant) -> bool {
        let is_due = now.saturating_duration_since(self.sent_at) >= RESEND_PAUSE;
        if is_due {
            self.sent_at = now;
            self.again_at = self.again_at.and_then(|_| now.checked_add(self.pause));
        }
        is_due
    }

    /// The flight in datagrams of at most `largest` bytes. Records of epoch 0 are numbered from `sequence` on.
    ///
    /// # Errors
    /// A message of epoch 1 cannot be sealed.
    pub fn datagrams<A: Aead>(
        &self,
        sequence: &mut u64,
        outbound: Option<&Outbound<A>>,
        largest: usize,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut packing = Packing { sequence, outbound, largest, done: Vec::new(), current: Vec::new() };
        for item in &self.items {
            match item {
                Item::ChangeCipherSpec => packing.put_plain(ContentType::ChangeCipherSpec, DTLS_1_2, &[1]),
                Item::Message(message) => packing.put_message(message)?,
            }
        }
        packing.flush();
        Ok(packing.done)
    }
}

/// Records put into datagrams, as many as one takes.
struct Packing<'a, A> {
    sequence: &'a mut u64,
    outbound: Option<&'a Outbound<A>>,
    largest: usize,
    done: Vec<Vec<u8>>,
    current: Vec<u8>,
}

impl<A: Aead> Packing<'_, A> {
    fn put_message(&mut self, message: &Message) -> Result<(), Refusal> {
        let outbound = (message.epoch == EPOCH).then(|| self.outbound.ok_or(Refusal::NoKeys)).transpose()?;
        let record = outbound.map_or(HEADER_LEN, |outbound| outbound.suite().sealed_len(0));
        let overhead = record.saturating_add(FRAGMENT_HEADER_LEN);
        let whole =
            Fragment { kind: message.kind, length: message.body.len(), number: message.number, offset: 0, part: &[] };
        let (mut offset, mut rest) = (0, &message.body[..]);
        loop {
            let wanted = overhead.saturating_add(rest.len().min(SMALLEST_PART));
            if self.room() < wanted {
                self.flush();
            }
            let (part, after) = rest.split_at(rest.len().min(self.room().saturating_sub(overhead).max(1)));
            let fragment = Fragment { offset, part, ..whole }.encode();
            match outbound {
                // The first hello has to be understood by servers of any version (RFC 6347 section 4.2.1).
                None if self.is_first() => self.put_plain(ContentType::Handshake, DTLS_1_0, &fragment),
                None => self.put_plain(ContentType::Handshake, DTLS_1_2, &fragment),
                Some(outbound) => {
                    let sealed = outbound.record(ContentType::Handshake, &fragment).map_err(|_| Refusal::NoKeys)?;
                    self.put(&sealed);
                }
            }
            (offset, rest) = (offset.saturating_add(part.len()), after);
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn put_plain(&mut self, content: ContentType, version: u16, body: &[u8]) {
        let record = plain(content, version, *self.sequence, body);
        *self.sequence = self.sequence.saturating_add(1);
        self.put(&record);
    }

    fn put(&mut self, record: &[u8]) {
        if self.room() < record.len() {
            self.flush();
        }
        self.current.extend_from_slice(record);
    }

    const fn room(&self) -> usize {
        self.largest.saturating_sub(self.current.len())
    }

    const fn is_first(&self) -> bool {
        *self.sequence == 0
    }

    fn flush(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }
}

//! The transport below TLS: messages come once, in order, however often packets are lost, doubled or overtaken.
//!
//! Each key id has one of its own, and numbers messages anew. A message is sent again until it is acknowledged, with
//! pauses that double; sooner when three later ones are acknowledged. An acknowledgement is repeated in later packets,
//! as openvpn does it, so that one lost packet rarely costs the peer a repetition.
//!
//! | bound | what happens there |
//! | --- | --- |
//! | [`MAX_WAITING`] messages to send | the rest is refused, back-pressure |
//! | [`WINDOW`] messages on the way | the others wait |
//! | [`RECEIVED_WINDOW`] messages ahead of the next in order | dropped without acknowledgement, the peer repeats |
//! | [`MAX_PAYLOAD`] bytes of a message that came | dropped |
//! | [`MAX_OWED`] acknowledgements | the newest is not noted, the peer repeats |
//!
//! That is 77 KiB of what is to be sent in pieces of 1,200 bytes, and 24 KiB of what came, at worst. How long a
//! handshake may take, and with that how often something is repeated, is its owner's to say.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::wire::{Acks, KeyId, Kind, MAX_ACKS, Message, Packet, SessionId};
use crate::drop_reason::DropReason;

/// Most messages that wait to be acknowledged or sent.
pub const MAX_WAITING: usize = 64;

/// Messages that may be on the way: as many as openvpn 2.6 sends, and fewer than any version keeps.
pub const WINDOW: u32 = 6;

/// Messages that are kept until those before them came: as many as openvpn 2.6 keeps.
pub const RECEIVED_WINDOW: u32 = 12;

/// Largest payload of a message that is taken, in bytes. openvpn's own are below 1,250, and by TCP below 1,500.
pub const MAX_PAYLOAD: usize = 2048;

/// Most acknowledgements that wait to be sent.
pub const MAX_OWED: usize = 32;

/// Most acknowledgements in a packet that has a message, too, as openvpn sends it.
const ACKS_WITH_MESSAGE: usize = 4;

/// How long an acknowledgement is waited for at first; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long it is waited for at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// Acknowledgements of later messages after which one is sent again at once.
const OVERTAKEN: u8 = 3;

/// There is no room for what is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much waits to be acknowledged")]
pub struct Full;

/// A message that was not acknowledged yet.
#[derive(Debug)]
struct Waiting {
    message: Message,
    /// When it is sent again; `None` until it was sent.
    again_at: Option<Instant>,
    pause: Duration,
    overtaken: u8,
    is_due: bool,
}

/// What the next packet holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Which messages of the peer came; at most [`MAX_ACKS`].
    pub acks: Vec<u32>,
    /// The message, if it is not a packet of acknowledgements alone.
    pub message: Option<Message>,
}

impl Outgoing {
    /// The packet of it. `peer` is the session id of the other end.
    pub fn packet(self, key: KeyId, session: SessionId, peer: SessionId) -> Packet {
        Packet { key, session, acks: Acks::new(peer, self.acks), message: self.message }
    }
}

/// One end of the transport, for one key id.
#[derive(Debug)]
pub struct Reliability {
    next: u32,
    waiting: VecDeque<Waiting>,
    expected: u32,
    /// What came from `expected` on; the first is always missing.
    received: VecDeque<Option<Message>>,
    in_order: VecDeque<Message>,
    owed: VecDeque<u32>,
    /// What was acknowledged lately, the latest first.
    told: VecDeque<u32>,
}

impl Reliability {
    /// Begins both directions with that number: 0, or 1 where the resets of both ends were exchanged before anything
    /// was kept ([`super::greeting`]).
    pub const fn new(first: u32) -> Self {
        Self {
            next: first,
            waiting: VecDeque::new(),
            expected: first,
            received: VecDeque::new(),
            in_order: VecDeque::new(),
            owed: VecDeque::new(),
            told: VecDeque::new(),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If [`MAX_WAITING`] wait already.
    pub fn handle_send(&mut self, kind: Kind, payload: Vec<u8>) -> Result<(), Full> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(Full);
        }
        let message = Message { kind, number: self.next, payload };
        self.next = self.next.checked_add(1).ok_or(Full)?;
        self.waiting.push_back(Waiting { message, again_at: None, pause: FIRST_PAUSE, overtaken: 0, is_due: true });
        Ok(())
    }

    /// Sends bytes of TLS, in messages of at most `largest` bytes each.
    ///
    /// # Errors
    /// If there is no room for all of them; then nothing is sent.
    pub fn handle_stream(&mut self, bytes: &[u8], largest: usize) -> Result<(), Full> {
        let pieces = bytes.chunks(largest.max(1));
        if self.waiting.len().saturating_add(pieces.len()) > MAX_WAITING {
            return Err(Full);
        }
        pieces.into_iter().try_for_each(|piece| self.handle_send(Kind::Control, piece.to_vec()))
    }

    /// Takes what a packet of this key id says. That it comes from the peer, and is meant for this session, is the
    /// caller's to know.
    ///
    /// # Errors
    /// [`DropReason::Replayed`] if the message came before; it is acknowledged again. [`DropReason::QueueFull`] if it
    /// is too far ahead, and [`DropReason::BadLength`] if it is too large; it is not. Acknowledgements count in any
    /// case.
    pub fn handle_packet(&mut self, packet: Packet) -> Result<(), DropReason> {
        packet.acks.iter().flat_map(Acks::numbers).for_each(|number| self.handle_ack(*number));
        packet.message.map_or(Ok(()), |message| self.handle_message(message))
    }

    fn handle_ack(&mut self, number: u32) {
        let was_sent = |waiting: &Waiting| waiting.message.number == number && waiting.again_at.is_some();
        let Some(index) = self.waiting.iter().position(was_sent) else { return };
        self.waiting.remove(index);
        for earlier in self.waiting.iter_mut().take(index) {
            earlier.overtaken = earlier.overtaken.saturating_add(1);
            if earlier.overtaken >= OVERTAKEN {
                (earlier.overtaken, earlier.is_due) = (0, true);
            }
        }
    }

    fn handle_message(&mut self, message: Message) -> Result<(), DropReason> {
        if message.payload.len() > MAX_PAYLOAD {
            return Err(DropReason::BadLength);
        }
        let Some(ahead) = message.number.checked_sub(self.expected) else {
            self.owe(message.number);
            return Err(DropReason::Replayed);
        };
        if ahead >= RECEIVED_WINDOW {
            return Err(DropReason::QueueFull);
        }
        self.owe(message.number);
        let ahead = usize::try_from(ahead).map_err(|_| DropReason::QueueFull)?;
        if self.received.len() <= ahead {
            self.received.resize(ahead.saturating_add(1), None);
        }
        let place = self.received.get_mut(ahead).ok_or(DropReason::QueueFull)?;
        if place.is_some() {
            return Err(DropReason::Replayed);
        }
        *place = Some(message);
        while let Some(message) = self.received.pop_front_if(|first| first.is_some()).flatten() {
            self.expected = self.expected.saturating_add(1);
            self.in_order.push_back(message);
        }
        Ok(())
    }

    fn owe(&mut self, number: u32) {
        if self.owed.len() < MAX_OWED && !self.owed.contains(&number) {
            self.owed.push_back(number);
        }
    }

    /// The next message in order. Every one has to be fetched before the next packet is handled.
    pub fn poll_message(&mut self) -> Option<Message> {
        self.in_order.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.on_the_way().filter_map(|waiting| waiting.again_at).min()
    }

    /// Lets messages be sent again that nobody acknowledged.
    pub fn handle_timeout(&mut self, now: Instant) {
        let end = self.window_end();
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.message.number < end) {
            if waiting.again_at.is_some_and(|at| at <= now) {
                waiting.pause = waiting.pause.saturating_mul(2).min(LONGEST_PAUSE);
                waiting.again_at = now.checked_add(waiting.pause);
                waiting.is_due = true;
            }
        }
    }

    /// The next packet for the peer.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Outgoing> {
        let end = self.window_end();
        let due = self.waiting.iter_mut().find(|waiting| waiting.is_due && waiting.message.number < end);
        let message = due.map(|waiting| {
            (waiting.is_due, waiting.again_at) = (false, now.checked_add(waiting.pause));
            waiting.message.clone()
        });
        if message.is_none() && self.owed.is_empty() {
            return None;
        }
        let room = if message.is_some() { ACKS_WITH_MESSAGE } else { MAX_ACKS };
        Some(Outgoing { acks: self.acks(room), message })
    }

    /// What is owed, and as much of what was told lately as there is room for.
    fn acks(&mut self, room: usize) -> Vec<u32> {
        for number in self.owed.drain(..self.owed.len().min(room)) {
            self.told.retain(|told| *told != number);
            self.told.push_front(number);
        }
        self.told.truncate(MAX_ACKS);
        self.told.iter().copied().take(room).collect()
    }

    /// Whether everything that was sent is acknowledged.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The first number that has to wait, as the peer has no room for it.
    fn window_end(&self) -> u32 {
        let first = self.waiting.front().map_or(self.next, |waiting| waiting.message.number);
        first.saturating_add(WINDOW)
    }

    fn on_the_way(&self) -> impl Iterator<Item = &Waiting> {
        let end = self.window_end();
        self.waiting.iter().take_while(move |waiting| waiting.message.number < end)
    }
}

#[cfg(test)]
mod tests;

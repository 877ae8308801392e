//! Putting messages together from fragments that come out of order, twice, or overlapping (RFC 6347 section 4.2.3).

use std::collections::VecDeque;

use super::message::{Fragment, Kind, Message};

/// Messages that may be in the making: those of the longest flight, and room for one more. With
/// [`super::message::MAX_MESSAGE`] this bounds the memory to 32 KiB for each handshake.
const AHEAD: usize = 4;

/// What became of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its message is in the making, or complete.
    Kept,
    /// Its message came before, so the peer sends it again.
    Repeated,
    /// It contradicts what came before, or is too far ahead.
    Refused,
}

/// The messages of a peer, in their order.
#[derive(Debug)]
pub struct Reassembly {
    /// The number of the next message, which is the first of `messages`.
    next: u16,
    messages: VecDeque<Option<Partial>>,
}

#[derive(Debug)]
struct Partial {
    epoch: u16,
    kind: Kind,
    body: Vec<u8>,
    /// Which bytes of the body are there.
    present: Vec<bool>,
    missing: usize,
}

impl Reassembly {
    /// Waits for the message with that number.
    pub const fn new(next: u16) -> Self {
        Self { next, messages: VecDeque::new() }
    }

    /// Takes a fragment from a record of that epoch. Where fragments overlap, the bytes that came first stay.
    pub fn handle_fragment(&mut self, epoch: u16, fragment: &Fragment<'_>) -> Fate {
        let Some(ahead) = fragment.number.checked_sub(self.next).map(usize::from) else { return Fate::Repeated };
        if ahead >= AHEAD {
            return Fate::Refused;
        }
        while self.messages.len() <= ahead {
            self.messages.push_back(None);
        }
        let Some(place) = self.messages.get_mut(ahead) else { return Fate::Refused };
        let partial = place.get_or_insert_with(|| Partial {
            epoch,
            kind: fragment.kind,
            body: vec![0; fragment.length],
            present: vec![false; fragment.length],
            missing: fragment.length,
        });
        if (partial.epoch, partial.kind, partial.body.len()) != (epoch, fragment.kind, fragment.length) {
            return Fate::Refused;
        }
        partial.put(fragment);
        Fate::Kept
    }

    /// The next message, once it is complete.
    pub fn poll_message(&mut self) -> Option<Message> {
        let is_complete = self.messages.front()?.as_ref().is_some_and(|partial| partial.missing == 0);
        let number = self.next;
        // After the last number of all nothing more can come.
        self.next = number.checked_add(1).filter(|_| is_complete)?;
        let Partial { epoch, kind, body, .. } = self.messages.pop_front()??;
        Some(Message { epoch, kind, number, body })
    }

    /// Forgets what is in the making.
    pub fn clear(&mut self) {
        self.messages = VecDeque::new();
    }
}

impl Partial {
    fn put(&mut self, fragment: &Fragment<'_>) {
        let places = self.body.iter_mut().zip(&mut self.present).skip(fragment.offset);
        for ((byte, present), value) in places.zip(fragment.part) {
            if !*present {
                (*byte, *present) = (*value, true);
                self.missing = self.missing.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fragment(number: u16, offset: usize, part: &[u8]) -> Fragment<'_> {
        Fragment { kind: Kind::ClientHello, length: 10, number, offset, part }
    }

    #[test]
    fn messages_come_in_order_however_they_arrive() {
        let mut reassembly = Reassembly::new(5);
        for (number, offset) in [(7, 0), (6, 5), (7, 5), (6, 0)] {
            assert_eq!(reassembly.handle_fragment(0, &fragment(number, offset, &[number as u8; 5])), Fate::Kept);
            assert_eq!(reassembly.poll_message(), None);
        }
        reassembly.handle_fragment(0, &fragment(5, 0, &[5; 10]));
        let numbers: Vec<_> = std::iter::from_fn(|| reassembly.poll_message()).map(|message| message.number).collect();
        assert_eq!(numbers, [5, 6, 7]);
        assert_eq!(reassembly.handle_fragment(0, &fragment(6, 0, &[6; 10])), Fate::Repeated);
    }

    #[test]
    fn empty_message_is_complete_at_once() {
        let mut reassembly = Reassembly::new(0);
        let done = Fragment { kind: Kind::ServerHelloDone, length: 0, number: 0, offset: 0, part: &[] };
        assert_eq!(reassembly.handle_fragment(0, &done), Fate::Kept);
        assert!(reassembly.poll_message().unwrap().body.is_empty());
    }

    #[test]
    fn bytes_that_came_first_stay() {
        let mut reassembly = Reassembly::new(0);
        reassembly.handle_fragment(0, &fragment(0, 2, &[1; 4]));
        reassembly.handle_fragment(0, &fragment(0, 0, &[2; 8]));
        reassembly.handle_fragment(0, &fragment(0, 0, &[3; 10]));
        assert_eq!(reassembly.poll_message().unwrap().body, [2, 2, 1, 1, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn contradictions_and_messages_far_ahead_are_refused() {
        let mut reassembly = Reassembly::new(0);
        reassembly.handle_fragment(0, &fragment(0, 0, &[1; 5]));
        let longer = Fragment { length: 11, ..fragment(0, 5, &[2; 5]) };
        let other = Fragment { kind: Kind::Finished, ..fragment(0, 5, &[2; 5]) };
        assert_eq!(reassembly.handle_fragment(0, &longer), Fate::Refused);
        assert_eq!(reassembly.handle_fragment(0, &other), Fate::Refused);
        assert_eq!(reassembly.handle_fragment(1, &fragment(0, 5, &[2; 5])), Fate::Refused, "parts of two epochs");
        for number in [4, 5, u16::MAX] {
            assert_eq!(reassembly.handle_fragment(0, &fragment(number, 0, &[1; 10])), Fate::Refused);
        }
        assert!(reassembly.messages.len() <= AHEAD);
        assert_eq!(reassembly.handle_fragment(0, &fragment(0, 5, &[2; 5])), Fate::Kept);
        assert!(reassembly.poll_message().is_some());
    }

    #[test]
    fn numbers_of_messages_do_not_wrap() {
        let mut reassembly = Reassembly::new(u16::MAX);
        assert_eq!(reassembly.handle_fragment(0, &fragment(u16::MAX, 0, &[1; 10])), Fate::Kept);
        assert_eq!(reassembly.poll_message(), None);
        assert_eq!(reassembly.handle_fragment(0, &fragment(0, 0, &[1; 10])), Fate::Repeated);
    }

    proptest! {
        #[test]
        fn any_cut_in_any_order_gives_the_message(
            body in proptest::collection::vec(any::<u8>(), 1..200),
            parts in proptest::collection::vec((0_usize..200, 0_usize..80), 0..40),
        ) {
            let mut reassembly = Reassembly::new(0);
            let whole = Fragment { kind: Kind::ClientHello, length: body.len(), number: 0, offset: 0, part: &body };
            for (offset, len) in parts {
                let offset = offset.min(body.len());
                let part = &body[offset..body.len().min(offset + len)];
                prop_assert_eq!(reassembly.handle_fragment(0, &Fragment { offset, part, ..whole }), Fate::Kept);
            }
            reassembly.handle_fragment(0, &whole);
            prop_assert_eq!(reassembly.poll_message().map(|message| message.body), Some(body));
        }
    }
}

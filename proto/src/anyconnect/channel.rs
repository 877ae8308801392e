//! One end of the channel that follows a CONNECT, the gateway's or the client's, but for its packets: takes the other
//! frames, answers those that ask whether it is there, and asks a peer that is silent.
//!
//! Input is what was read of them ([`Channel::buffer`], then [`Channel::handle_received`]) and the time. Outputs are
//! events, frames to send, and when to look again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::frame::{self, Frame, FrameKind, NoFrame, USER_ENDED};

/// A peer that was silent for so many times its interval is gone.
const INTERVALS: u32 = 3;
/// Most answers that wait to be sent. A peer that asks more often hears less.
const MAX_ANSWERS: usize = 16;

/// What came over the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEvent {
    /// The peer ends the session for good, and says why: the client's token is to be worth nothing any longer, and the
    /// client does not come back by itself.
    Ended(Bytes),
    /// The peer leaves; the client may come back with its token.
    Left,
    /// The peer has said nothing for too long.
    Silent,
}

/// The channel of one session.
#[derive(Debug)]
pub struct Channel {
    buffer: BytesMut,
    answers: VecDeque<Bytes>,
    /// How long a peer may be silent before it is asked.
    interval: Duration,
    received: Instant,
    /// When it was asked last, since it was heard of.
    asked: Option<Instant>,
    /// How often something is said so that the way stays open, and when next.
    keepalive: Option<(Duration, Instant)>,
    is_silent: bool,
}

impl Channel {
    /// A channel that begins `now`; a peer that is silent for `interval` is asked whether it is there.
    pub fn new(interval: Duration, now: Instant) -> Self {
        let (buffer, answers) = (BytesMut::new(), VecDeque::new());
        Self { buffer, answers, interval, received: now, asked: None, keepalive: None, is_silent: false }
    }

    /// Has something said every so often, as clients do for whatever is on the way.
    pub fn keep_alive(&mut self, every: Duration, now: Instant) {
        self.keepalive = now.checked_add(every).map(|due| (every, due));
    }

    /// Where what is read is to be appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Something was appended to the buffer.
    pub fn handle_received(&mut self, now: Instant) {
        (self.received, self.asked) = (now, None);
    }

    /// When [`Self::handle_timeout`] is due; `None` once the peer counts as silent.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.question_due()?.min(self.end()?);
        let next = self.keepalive.map_or(next, |(_, due)| next.min(due));
        (!self.is_silent).then_some(next)
    }

    /// Asks the peer, or gives it up, and keeps the way open.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((every, due)) = self.keepalive
            && now >= due
        {
            self.answer(FrameKind::Keepalive, Bytes::new());
            self.keep_alive(every, now);
        }
        if self.end().is_some_and(|end| now >= end) {
            self.is_silent = true;
        } else if self.question_due().is_some_and(|due| now >= due) {
            self.asked = Some(now);
            self.answer(FrameKind::DpdRequest, Bytes::new());
        }
    }

    fn question_due(&self) -> Option<Instant> {
        self.asked.unwrap_or(self.received).checked_add(self.interval)
    }

    fn end(&self) -> Option<Instant> {
        self.received.checked_add(self.interval.saturating_mul(INTERVALS))
    }

    /// The next event.
    ///
    /// # Errors
    /// What the peer sends is no frame: the channel is of no use any more.
    pub fn poll_event(&mut self) -> Result<Option<ChannelEvent>, NoFrame> {
        while let Some(Frame { kind, payload }) = frame::take(&mut self.buffer)? {
            match kind {
                FrameKind::DpdRequest => self.answer(FrameKind::DpdResponse, payload),
                FrameKind::Disconnect if payload.first() == Some(&USER_ENDED) => {
                    return Ok(Some(ChannelEvent::Ended(payload.slice(1..))));
                }
                FrameKind::Terminate => return Ok(Some(ChannelEvent::Ended(payload))),
                FrameKind::Disconnect => return Ok(Some(ChannelEvent::Left)),
                FrameKind::Data
                | FrameKind::DpdResponse
                | FrameKind::Keepalive
                | FrameKind::Compressed
                | FrameKind::Unknown(_) => {}
            }
        }
        Ok(self.is_silent.then_some(ChannelEvent::Silent))
    }

    fn answer(&mut self, kind: FrameKind, payload: Bytes) {
        if self.answers.len() < MAX_ANSWERS {
            self.answers.push_back(Frame { kind, payload }.encode());
        }
    }

    /// The next frame to send, beside those of packets.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.answers.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn start() -> (Channel, Instant) {
        #[expect(clippy::disallowed_methods, reason = "the beginning of virtual time")]
        let now = Instant::now();
        (Channel::new(INTERVAL, now), now)
    }

    fn say(channel: &mut Channel, kind: FrameKind, payload: &'static [u8]) {
        channel.buffer().extend_from_slice(&Frame { kind, payload: Bytes::from_static(payload) }.encode());
    }

    #[test]
    fn questions_are_answered_with_their_whole_payload() {
        let (mut channel, _) = start();
        say(&mut channel, FrameKind::DpdRequest, b"1280 bytes, say");
        say(&mut channel, FrameKind::Keepalive, b"");
        say(&mut channel, FrameKind::Unknown(77), b"?");
        say(&mut channel, FrameKind::Compressed, b"lz4");
        say(&mut channel, FrameKind::Data, b"packet");
        assert_eq!(channel.poll_event(), Ok(None));
        let answer = Frame { kind: FrameKind::DpdResponse, payload: Bytes::from_static(b"1280 bytes, say") };
        assert_eq!((channel.poll_transmit(), channel.poll_transmit()), (Some(answer.encode()), None));
    }

    #[test]
    fn peer_that_asks_too_much_hears_less() {
        let (mut channel, _) = start();
        for _ in 0..1000 {
            say(&mut channel, FrameKind::DpdRequest, b"again");
        }
        assert_eq!(channel.poll_event(), Ok(None));
        assert_eq!(std::iter::from_fn(|| channel.poll_transmit()).count(), MAX_ANSWERS);
    }

    #[test]
    fn only_an_end_of_the_session_itself_is_for_good() {
        let (mut channel, _) = start();
        say(&mut channel, FrameKind::Terminate, b"");
        assert_eq!(channel.poll_event(), Ok(Some(ChannelEvent::Ended(Bytes::new()))));
        for (payload, event) in [
            (&b"\xb0bye"[..], ChannelEvent::Ended(Bytes::from_static(b"bye"))),
            (b"\x91", ChannelEvent::Left),
            (b"\xd1paused", ChannelEvent::Left),
            (b"", ChannelEvent::Left),
        ] {
            let (mut channel, _) = start();
            say(&mut channel, FrameKind::Disconnect, payload);
            assert_eq!(channel.poll_event(), Ok(Some(event)));
        }
    }

    #[test]
    fn silent_peer_is_asked_twice_and_then_gone() {
        let (mut channel, begin) = start();
        for round in 1..INTERVALS {
            let due = begin + INTERVAL * round;
            assert_eq!(channel.poll_timeout(), Some(due));
            channel.handle_timeout(due - Duration::from_millis(1));
            assert_eq!(channel.poll_transmit(), None);
            channel.handle_timeout(due);
            assert_eq!(channel.poll_transmit().as_deref(), Some(&b"STF\x01\x00\x00\x03\x00"[..]));
            assert_eq!(channel.poll_event(), Ok(None));
        }
        channel.handle_timeout(begin + INTERVAL * INTERVALS);
        assert_eq!((channel.poll_event(), channel.poll_timeout()), (Ok(Some(ChannelEvent::Silent)), None));
    }

    #[test]
    fn whatever_a_peer_says_shows_that_it_is_there() {
        let (mut channel, begin) = start();
        channel.handle_timeout(begin + INTERVAL);
        assert!(channel.poll_transmit().is_some());
        let heard = begin + INTERVAL * 2;
        say(&mut channel, FrameKind::DpdResponse, b"");
        channel.handle_received(heard);
        assert_eq!(channel.poll_event(), Ok(None));
        assert_eq!(channel.poll_timeout(), Some(heard + INTERVAL));
    }

    #[test]
    fn way_is_kept_open_beside_the_questions() {
        let (mut channel, begin) = start();
        let every = INTERVAL * 2 / 3;
        channel.keep_alive(every, begin);
        assert_eq!(channel.poll_timeout(), Some(begin + every));
        channel.handle_timeout(begin + every);
        assert_eq!(channel.poll_transmit().as_deref(), Some(&b"STF\x01\x00\x00\x07\x00"[..]));
        assert_eq!(channel.poll_timeout(), Some(begin + INTERVAL));
        channel.handle_timeout(begin + INTERVAL);
        assert_eq!(channel.poll_transmit().as_deref(), Some(&b"STF\x01\x00\x00\x03\x00"[..]));
        assert_eq!(channel.poll_timeout(), Some(begin + every * 2));
    }

    #[test]
    fn channel_that_carries_no_frames_is_over() {
        let (mut channel, _) = start();
        channel.buffer().extend_from_slice(b"GET / HTTP/1.1");
        assert_eq!(channel.poll_event(), Err(NoFrame));
    }
}

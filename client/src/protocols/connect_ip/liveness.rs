//! Notices a gateway that has fallen silent or restarted, long before QUIC's idle timeout.
//!
//! Where QUIC carries the packets, a gateway that has acknowledged none of them for a few seconds is asked for a sign
//! of life. ESP has probes of its own, and has the gateway asked when one is not answered. A connection on which
//! nothing is sent stays quiet: QUIC pings when nothing has come for [`KEEP_ALIVE`], which keeps its NAT binding alive,
//! and that is all that an idle client sends by it. QUIC repeats what is unanswered at doubling intervals only, so
//! after an outage that may be many seconds too late; here it is asked every second, and then a new connection is made.
//!
//! It is looked once a second while something comes or goes, and else when the ping should have been answered: an idle
//! client has nothing to wake for.

use std::time::{Duration, Instant};

use adit_net::quic::KEEP_ALIVE;
use adit_proto::esp::path;

/// Silent seconds after which the gateway is asked whether it lives, while it owes QUIC an acknowledgement.
const QUIET: u64 = 3;
/// The same while nothing is sent, or ESP carries it: QUIC's own ping is to come first.
const QUIET_IDLE: u64 = KEEP_ALIVE.as_secs() + 2;
/// Looks that ask, and find nothing, before the gateway counts as gone.
const ASKING_LOOKS: u64 = 5;

/// An idle client sends, by QUIC and ESP together, at most one datagram in this time, and gets as few.
const IDLE_PAUSE: Duration = Duration::from_secs(25);
const _: () = {
    let (quic, esp, pause) = (KEEP_ALIVE.as_secs(), path::KEEP_ALIVE.as_secs(), IDLE_PAUSE.as_secs());
    assert!(pause * (quic + esp) <= quic * esp, "1/quic + 1/esp <= 1/pause");
};

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Something came lately.
    Alive,
    /// Nothing did: the gateway is to be asked for a sign of life.
    Ask,
    /// It was asked often enough.
    Gone,
}

/// What goes by a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sending {
    /// Packets sent by any carrier so far.
    pub(super) packets: u64,
    /// Whether ESP carries them now.
    pub(super) by_esp: bool,
}

/// Watches the number of datagrams received.
#[derive(Debug)]
pub(super) struct Liveness {
    received: u64,
    /// Packets sent up to the last sign of life, and up to the last look.
    answered: u64,
    sent: u64,
    looked: Instant,
    /// Whether something had come or gone when this was last looked at.
    is_busy: bool,
    /// Seconds without a sign of life, as far as they were looked at.
    silent: u64,
    asked: u64,
}

impl Liveness {
    /// Begins with a connection that was made just now.
    pub(super) const fn new(now: Instant) -> Self {
        Self { received: 0, answered: 0, sent: 0, looked: now, is_busy: true, silent: 0, asked: 0 }
    }

    /// When [`Self::handle_look`] is due; what is sent meanwhile may bring it forward.
    pub(super) fn poll_timeout(&self, sending: Sending) -> Instant {
        self.looked + Duration::from_secs(if self.owes_answer(sending) { 1 } else { self.pause() })
    }

    /// Looks at the number of datagrams received by QUIC so far, and at what goes by the connection.
    pub(super) fn handle_look(&mut self, received: u64, sending: Sending, now: Instant) -> Finding {
        // A process that was stopped for longer finds what came meanwhile only after this.
        let passed = now.saturating_duration_since(self.looked).as_secs().clamp(1, self.pause());
        let has_sent = std::mem::replace(&mut self.sent, sending.packets) != sending.packets;
        self.looked = now;
        if received != self.received {
            *self = Self { received, answered: sending.packets, is_busy: true, silent: 0, asked: 0, ..*self };
            return Finding::Alive;
        }
        self.is_busy = has_sent;
        self.silent = self.silent.saturating_add(passed);
        if self.silent < if self.owes_answer(sending) { QUIET } else { QUIET_IDLE } {
            return Finding::Alive;
        }
        if self.asked >= ASKING_LOOKS {
            return Finding::Gone;
        }
        self.asked = self.asked.saturating_add(1);
        Finding::Ask
    }

    /// Whether packets went by QUIC since the last sign of life.
    fn owes_answer(&self, sending: Sending) -> bool {
        sending.packets != self.answered && !sending.by_esp
    }

    /// Seconds from one look to the next while no answer is owed.
    fn pause(&self) -> u64 {
        let is_quiet = !self.is_busy && self.asked == 0;
        if is_quiet { QUIET_IDLE.saturating_sub(self.silent).max(1) } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIC: bool = false;
    const ESP: bool = true;

    /// A gateway from which five datagrams came while seven packets were sent, and the time.
    fn alive() -> (Liveness, Instant) {
        let now = Instant::now();
        let mut liveness = Liveness::new(now);
        assert_eq!(look(&mut liveness, 5, sending(7, QUIC)).0, Finding::Alive);
        (liveness, now)
    }

    fn sending(packets: u64, by_esp: bool) -> Sending {
        Sending { packets, by_esp }
    }

    /// Looks when it is due: what that finds, and when it was.
    fn look(liveness: &mut Liveness, received: u64, sending: Sending) -> (Finding, Instant) {
        let at = liveness.poll_timeout(sending);
        (liveness.handle_look(received, sending, at), at)
    }

    /// Nothing comes any more: after how many seconds the gateway is asked first, and how often before it is gone.
    fn silence(liveness: &mut Liveness, sending: Sending) -> (u64, usize) {
        let (began, mut first, mut asked) = (liveness.looked, None, 0);
        loop {
            match look(liveness, liveness.received, sending) {
                (Finding::Alive, _) => {}
                (Finding::Ask, at) => {
                    first.get_or_insert((at - began).as_secs());
                    asked += 1;
                }
                (Finding::Gone, _) => return (first.unwrap(), asked),
            }
        }
    }

    #[test]
    fn eight_seconds_without_an_acknowledgement_are_the_end() {
        let (mut liveness, _) = alive();
        let began = liveness.looked;
        assert_eq!(silence(&mut liveness, sending(8, QUIC)), (3, 5));
        assert_eq!((liveness.looked - began).as_secs(), 8);
    }

    #[test]
    fn quic_may_be_quiet_for_longer_while_nothing_is_sent_or_esp_carries_it() {
        for sending in [sending(7, QUIC), sending(7, ESP), sending(800, ESP)] {
            let (mut liveness, _) = alive();
            assert_eq!(silence(&mut liveness, sending), (30, 5), "{sending:?}");
        }
    }

    #[test]
    fn hour_without_packets_has_only_the_pings_of_quic_and_few_looks() {
        for by_esp in [QUIC, ESP] {
            let (mut liveness, began) = alive();
            let (mut looks, mut passed) = (0_u64, Duration::ZERO);
            while passed < Duration::from_secs(3600) {
                passed = liveness.poll_timeout(sending(7, by_esp)) - began;
                let received = 5 + passed.as_secs() / KEEP_ALIVE.as_secs();
                assert_eq!(look(&mut liveness, received, sending(7, by_esp)).0, Finding::Alive);
                looks += 1;
            }
            let pings = 3600 / KEEP_ALIVE.as_secs();
            assert!(looks <= 3 * (pings + 1), "{looks} looks for {pings} pings");
        }
    }

    #[test]
    fn idle_client_that_sends_notices_a_silent_gateway_at_once() {
        let (mut liveness, began) = alive();
        look(&mut liveness, 5, sending(7, QUIC));
        assert!(liveness.poll_timeout(sending(7, QUIC)) > began + Duration::from_secs(20));
        let due = liveness.poll_timeout(sending(8, QUIC));
        assert!(due <= liveness.looked + Duration::from_secs(1), "what is sent brings the look forward");
        let sent = began + Duration::from_secs(20);
        assert_eq!(liveness.handle_look(5, sending(8, QUIC), sent), Finding::Ask, "it is asked in the same second");
        assert_eq!(silence(&mut liveness, sending(8, QUIC)), (1, 4));
    }

    #[test]
    fn gateway_is_asked_before_it_counts_as_gone_when_esp_ends() {
        let (mut liveness, _) = alive();
        assert!((8..18).all(|sent| look(&mut liveness, 5, sending(sent, ESP)).0 == Finding::Alive));
        assert_eq!(silence(&mut liveness, sending(18, QUIC)), (1, 5));
    }

    #[test]
    fn process_that_was_stopped_takes_its_time_for_no_silence() {
        let (mut liveness, _) = alive();
        let hour = liveness.looked + Duration::from_secs(3600);
        assert_eq!(liveness.handle_look(5, sending(8, QUIC), hour), Finding::Alive);
        assert_eq!(look(&mut liveness, 6, sending(8, QUIC)).0, Finding::Alive);
    }

    #[test]
    fn any_datagram_counts_as_life() {
        let (mut liveness, _) = alive();
        for second in 0..1000_u64 {
            let (finding, _) = look(&mut liveness, 6 + second / 7, sending(8 + second, QUIC));
            assert_ne!(finding, Finding::Gone, "slowly acknowledged, second {second}");
        }
        assert_eq!(look(&mut liveness, 1000, sending(2000, QUIC)).0, Finding::Alive);
        assert_eq!(silence(&mut liveness, sending(2001, QUIC)).1, 5, "asks are counted anew");
    }
}

//! Notices a gateway that has fallen silent or restarted, long before QUIC's idle timeout.
//!
//! Where QUIC carries the packets, a gateway that has acknowledged none of them for a few seconds is asked for a sign
//! of life. ESP has probes of its own, and has the gateway asked when one is not answered. A connection on which
//! nothing is sent stays quiet: QUIC pings when nothing has come for [`KEEP_ALIVE`], which keeps its NAT binding alive,
//! and that is all that an idle client sends by it. QUIC repeats what is unanswered at doubling intervals only, so
//! after an outage that may be many seconds too late; here it is asked every second, and then a new connection is made.

use std::time::Duration;

use adit_net::quic::KEEP_ALIVE;
use adit_proto::esp::path;

/// Silent looks in a row, one a second, after which the gateway is asked whether it lives, while it owes QUIC an
/// acknowledgement.
const QUIET_LOOKS: u64 = 3;
/// The same while nothing is sent, or ESP carries it: QUIC's own ping is to come first.
const QUIET_LOOKS_IDLE: u64 = KEEP_ALIVE.as_secs() + 2;
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

/// Watches the number of datagrams received. It counts looks instead of reading a clock: a process that was stopped for
/// a while finds what came meanwhile only after its first look.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    received: u64,
    /// Packets sent up to the last sign of life.
    sent: u64,
    silent: u64,
    asked: u64,
}

impl Liveness {
    /// Looks at the numbers of datagrams received by QUIC and of packets sent by any carrier so far, once a second;
    /// `by_esp` says whether ESP carries the packets now.
    pub(super) fn look(&mut self, received: u64, sent: u64, by_esp: bool) -> Finding {
        if received != self.received {
            *self = Self { received, sent, ..Self::default() };
            return Finding::Alive;
        }
        self.silent = self.silent.saturating_add(1);
        let owes_answer = sent != self.sent && !by_esp;
        if self.silent < if owes_answer { QUIET_LOOKS } else { QUIET_LOOKS_IDLE } {
            return Finding::Alive;
        }
        if self.asked >= ASKING_LOOKS {
            return Finding::Gone;
        }
        self.asked = self.asked.saturating_add(1);
        Finding::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many looks in a row that find nothing new find life, and how many ask, before the end.
    fn silence(liveness: &mut Liveness, sent: u64, by_esp: bool) -> (usize, usize) {
        let looks: Vec<_> = (0..100).map(|_| liveness.look(5, sent, by_esp)).collect();
        let count =
            |finding| looks.iter().take_while(|&&look| look != Finding::Gone).filter(|&&look| look == finding).count();
        (count(Finding::Alive), count(Finding::Ask))
    }

    #[test]
    fn eight_seconds_without_an_acknowledgement_are_the_end() {
        let mut liveness = Liveness::default();
        assert_eq!(liveness.look(5, 7, false), Finding::Alive);
        assert_eq!(silence(&mut liveness, 8, false), (2, 5), "the eighth is the end");
    }

    #[test]
    fn quic_may_be_quiet_for_longer_while_nothing_is_sent_or_esp_carries_it() {
        for (sent, by_esp) in [(7, false), (7, true), (800, true)] {
            let mut liveness = Liveness::default();
            assert_eq!(liveness.look(5, 7, by_esp), Finding::Alive);
            assert_eq!(silence(&mut liveness, sent, by_esp), (29, 5), "{sent} by esp: {by_esp}");
        }
    }

    #[test]
    fn hour_without_packets_has_only_the_pings_of_quic() {
        let mut liveness = Liveness::default();
        let received = |second: u64| 5 + second / KEEP_ALIVE.as_secs();
        assert!((0..3600).all(|second| liveness.look(received(second), 7, false) == Finding::Alive));
    }

    #[test]
    fn idle_client_that_sends_notices_a_silent_gateway_at_once() {
        let mut liveness = Liveness::default();
        assert!((0..20).all(|_| liveness.look(5, 7, false) == Finding::Alive));
        assert_eq!(silence(&mut liveness, 8, false), (0, 5), "it is asked in the same second");
    }

    #[test]
    fn gateway_is_asked_before_it_counts_as_gone_when_esp_ends() {
        let mut liveness = Liveness::default();
        assert!((0..10).all(|second| liveness.look(5, second, true) == Finding::Alive));
        assert_eq!(silence(&mut liveness, 10, false), (0, 5));
    }

    #[test]
    fn any_datagram_counts_as_life() {
        let mut liveness = Liveness::default();
        for second in 0..1000_u64 {
            let finding = liveness.look(second / 7, second, false);
            assert_ne!(finding, Finding::Gone, "slowly acknowledged, second {second}");
        }
        assert_eq!(liveness.look(1000, 1000, false), Finding::Alive);
        assert_eq!(silence(&mut Liveness { received: 5, ..liveness }, 1001, false).1, 5, "asks are counted anew");
    }
}

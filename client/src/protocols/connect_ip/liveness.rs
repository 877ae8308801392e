//! Notices a gateway that has fallen silent or restarted, long before QUIC's idle timeout.
//!
//! QUIC pings when nothing has come for [`KEEP_ALIVE`]. Where QUIC carries the packets, the gateway is asked sooner;
//! ESP has probes of its own, and has the gateway asked when one is not answered. QUIC repeats what is unanswered at
//! doubling intervals only, so after an outage that may be many seconds too late; here it is asked every second, and
//! then a new connection is made.

use adit_net::quic::KEEP_ALIVE;

/// Silent looks in a row, one a second, after which the gateway is asked whether it lives, while QUIC carries the
/// packets.
const QUIET_LOOKS: u64 = 3;
/// The same while ESP does: QUIC's own ping is to come first.
const QUIET_LOOKS_BESIDE_ESP: u64 = KEEP_ALIVE.as_secs();
/// Looks that ask, and find nothing, before the gateway counts as gone.
const ASKING_LOOKS: u64 = 5;

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
    silent: u64,
    asked: u64,
}

impl Liveness {
    /// Looks at the number of datagrams received by QUIC so far, once a second; `by_esp` says whether ESP carries the
    /// packets now.
    pub(super) fn look(&mut self, received: u64, by_esp: bool) -> Finding {
        if received != self.received {
            *self = Self { received, ..Self::default() };
            return Finding::Alive;
        }
        self.silent = self.silent.saturating_add(1);
        if self.silent < if by_esp { QUIET_LOOKS_BESIDE_ESP } else { QUIET_LOOKS } {
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
    fn silence(liveness: &mut Liveness, by_esp: bool) -> (usize, usize) {
        let looks: Vec<_> = (0..100).map(|_| liveness.look(5, by_esp)).collect();
        let count =
            |finding| looks.iter().take_while(|&&look| look != Finding::Gone).filter(|&&look| look == finding).count();
        (count(Finding::Alive), count(Finding::Ask))
    }

    #[test]
    fn eight_silent_seconds_are_the_end() {
        let mut liveness = Liveness::default();
        assert_eq!(liveness.look(5, false), Finding::Alive);
        assert_eq!(silence(&mut liveness, false), (2, 5), "the eighth is the end");
    }

    #[test]
    fn quic_may_be_quiet_for_longer_beside_esp() {
        let mut liveness = Liveness::default();
        assert_eq!(liveness.look(5, true), Finding::Alive);
        assert_eq!(silence(&mut liveness, true), (9, 5));
    }

    #[test]
    fn gateway_is_asked_before_it_counts_as_gone_when_esp_ends() {
        let mut liveness = Liveness::default();
        assert!((0..10).all(|_| liveness.look(5, true) == Finding::Alive));
        assert_eq!(silence(&mut liveness, false), (0, 5));
    }

    #[test]
    fn any_datagram_counts_as_life() {
        let mut liveness = Liveness::default();
        for second in 0..1000_u64 {
            assert_ne!(liveness.look(second / 7, false), Finding::Gone, "idle but acknowledging, second {second}");
        }
        assert_eq!(liveness.look(1000, false), Finding::Alive);
        assert_eq!(silence(&mut Liveness { received: 5, ..liveness }, false).1, 5, "asks are counted anew");
    }
}

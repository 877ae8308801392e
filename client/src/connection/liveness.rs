//! Notices a gateway that has fallen silent, long before QUIC's idle timeout.
//!
//! A client pings when nothing has come for [`KEEP_ALIVE`]; a gateway that lives acknowledges that at once. QUIC itself repeats
//! an unanswered ping at doubling intervals, so after an outage the next may come many seconds too late; a new connection is
//! made sooner.

use adit_net::quic::KEEP_ALIVE;

/// Looks in a row, one a second, that find nothing new before the gateway counts as gone: two pings' time.
const SILENT_LOOKS: u64 = 2 * KEEP_ALIVE.as_secs();

/// Watches the number of datagrams received. It counts looks instead of reading a clock: a process that was stopped for a while
/// finds what came meanwhile only after its first look.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    received: u64,
    silent: u64,
}

impl Liveness {
    /// Looks at the number of datagrams received so far, once a second; `false` when the gateway is gone.
    pub(super) fn is_alive(&mut self, received: u64) -> bool {
        self.silent = if received == self.received { self.silent.saturating_add(1) } else { 0 };
        self.received = received;
        self.silent < SILENT_LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_silent_seconds_are_the_end() {
        let mut liveness = Liveness::default();
        assert!(liveness.is_alive(5));
        let looks: Vec<bool> = (0..8).map(|_| liveness.is_alive(5)).collect();
        assert_eq!(looks, [true, true, true, true, true, true, true, false]);
    }

    #[test]
    fn any_datagram_counts_as_life() {
        let mut liveness = Liveness::default();
        for second in 0..1000_u64 {
            assert!(liveness.is_alive(second / 5), "idle but acknowledging pings, second {second}");
        }
    }
}

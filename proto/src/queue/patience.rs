//! How long datagrams wait that a full socket refused.

use std::time::{Duration, Instant};

/// How long a worker holds what a full socket refused, reading nothing more from the TUN device, before it is lost;
/// counted from the first refusal, whichever socket's that was. Some 400 KB leave a card of 1 Gbit/s in that time.
pub const PATIENCE: Duration = Duration::from_millis(3);

/// The patience of one worker: [`PATIENCE`] for all that waits together, and none for a socket that was waited for in
/// vain, until it takes a datagram. So a destination that stands still costs sessions on another socket 3 ms once;
/// those on its own share what room that has. The worker goes on meanwhile with what comes from the peers.
#[derive(Debug, Default)]
pub struct Patience {
    /// One bit for each socket that was waited for in vain.
    in_vain: u32,
    /// Since when something waits, for whichever socket.
    since: Option<Instant>,
}

impl Patience {
    /// A socket is full: says whether its datagrams may wait. The clock is read only if it was not waited for in vain.
    pub fn waits_for(&mut self, socket: usize, clock: impl FnOnce() -> Instant) -> bool {
        if self.in_vain & bit(socket) != 0 {
            return false;
        }
        let now = clock();
        let is_over = now.saturating_duration_since(*self.since.get_or_insert(now)) >= PATIENCE;
        if is_over {
            self.in_vain |= bit(socket);
        }
        !is_over
    }

    /// A socket took datagrams, so it may be waited for again.
    pub const fn took(&mut self, socket: usize) {
        self.in_vain &= !bit(socket);
    }

    /// Says whether something waits.
    pub const fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// Nothing waits any more.
    pub const fn stop_waiting(&mut self) {
        self.since = None;
    }
}

/// The bit of a socket; a worker has fewer than 32.
const fn bit(socket: usize) -> u32 {
    1 << (socket % 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "only differences from it matter")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn socket_that_stays_full_is_waited_for_once_until_it_takes_something() {
        let (mut patience, start) = (Patience::default(), start());
        assert!(patience.waits_for(3, || start) && patience.is_waiting());
        assert!(patience.waits_for(3, || start + PATIENCE - Duration::from_nanos(1)), "all of the patience");
        let end = start + PATIENCE;
        assert!(!patience.waits_for(3, || end));
        patience.stop_waiting();
        let no_clock = || unreachable!("the clock is not read");
        assert!(!patience.waits_for(3, no_clock) && !patience.is_waiting(), "no second time");
        assert!(patience.waits_for(4, || end), "another one is not blamed");
        patience.stop_waiting();
        patience.took(3);
        assert!(patience.waits_for(3, || end));
    }

    #[test]
    fn patience_is_for_all_sockets_together() {
        let (mut patience, start) = (Patience::default(), start());
        assert!(patience.waits_for(0, || start));
        let end = start + PATIENCE;
        assert_eq!([0, 1, 2].map(|socket| patience.waits_for(socket, || end)), [false; 3]);
    }
}

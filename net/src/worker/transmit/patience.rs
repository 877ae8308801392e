//! How long datagrams wait that a full socket refused.

use std::time::{Duration, Instant};

/// How long the worker holds what a full socket refused, reading nothing more from the TUN device, before it is lost;
/// counted from the first refusal, whichever socket's that was. Some 400 KB leave a card of 1 Gbit/s in that time.
pub(in crate::worker) const PATIENCE: Duration = Duration::from_millis(3);

/// The patience of one worker: [`PATIENCE`] for all that waits together, and none for a socket that was waited for in
/// vain, until it takes a datagram. So a destination that stands still costs sessions on another socket 3 ms once;
/// those on its own share what room that has. Nobody sleeps meanwhile: the worker goes on with what comes from the
/// peers.
#[derive(Debug, Default)]
pub(in crate::worker) struct Patience {
    /// One bit for each socket that was waited for in vain.
    in_vain: u32,
    /// Since when something waits, for whichever socket.
    since: Option<Instant>,
}

/// What became of datagrams or of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(in crate::worker) enum Progress {
    /// Nothing of them is left: they were taken, or are lost and counted.
    Done,
    /// A socket is full; the rest is where it was.
    Waits,
}

impl Patience {
    /// A socket is full: whether its datagrams may wait. Only then a clock is read.
    pub(super) fn waits_for(&mut self, socket: usize) -> bool {
        if self.in_vain & bit(socket) != 0 {
            return false;
        }
        let now = Instant::now();
        let is_over = now.duration_since(*self.since.get_or_insert(now)) >= PATIENCE;
        if is_over {
            self.in_vain |= bit(socket);
        }
        !is_over
    }

    /// A socket took datagrams.
    pub(super) const fn took(&mut self, socket: usize) {
        self.in_vain &= !bit(socket);
    }

    /// Whether something waits.
    pub(super) const fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// Nothing waits any more.
    pub(in crate::worker) const fn rest(&mut self) {
        self.since = None;
    }
}

/// The bit of a socket; a worker has fewer than 32.
const fn bit(socket: usize) -> u32 {
    1 << (socket % 32)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn socket_that_stays_full_is_waited_for_once_until_it_takes_something() {
        let mut patience = Patience::default();
        assert!(patience.waits_for(3) && patience.is_waiting());
        thread::sleep(PATIENCE);
        assert!(!patience.waits_for(3));
        patience.rest();
        assert!(!patience.waits_for(3) && !patience.is_waiting(), "no second time");
        assert!(patience.waits_for(4), "another one is not blamed");
        patience.rest();
        patience.took(3);
        assert!(patience.waits_for(3));
    }

    #[test]
    fn patience_is_for_all_sockets_together() {
        let mut patience = Patience::default();
        assert!(patience.waits_for(0));
        thread::sleep(PATIENCE);
        assert_eq!([0, 1, 2].map(|socket| patience.waits_for(socket)), [false; 3]);
    }
}

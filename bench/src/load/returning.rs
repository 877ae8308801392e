//! How clients come back to a gateway that was killed and started again under them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::histogram::{Histogram, Percentiles};

/// The returns of all clients.
#[derive(Debug, Default)]
pub(super) struct Returns {
    expected: AtomicBool,
    ready: Mutex<Option<Instant>>,
    count: AtomicU32,
    moved: AtomicU32,
    times: Histogram,
}

impl Returns {
    /// From now on a client that loses its tunnel comes back, instead of failing.
    pub(super) fn begin(&self) {
        self.expected.store(true, Ordering::Relaxed);
    }

    /// The gateway says that it is ready.
    pub(super) fn note_ready(&self) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// From now on a client that loses its tunnel fails again.
    pub(super) fn end(&self) {
        self.expected.store(false, Ordering::Relaxed);
    }

    /// Whether clients are to come back.
    pub(super) fn are_expected(&self) -> bool {
        self.expected.load(Ordering::Relaxed)
    }

    /// A client got an echo through its new tunnel; `keeps_address` says whether it has the inner address of before.
    pub(super) fn note(&self, keeps_address: bool) {
        let ready = *self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        // A gateway listens a little before it says so.
        self.times.note(ready.map_or(Duration::ZERO, |ready| ready.elapsed()));
        self.moved.fetch_add(u32::from(!keeps_address), Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many are back.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Sums up, for so many clients and an outage of so long.
    pub(super) fn report(&self, clients: u32, down: Duration) -> Restarted {
        Restarted {
            clients,
            down_seconds: down.as_secs_f64(),
            not_back: clients.saturating_sub(self.count()),
            other_address: self.moved.load(Ordering::Relaxed),
            return_ms: self.times.percentiles(),
        }
    }
}

/// A gateway that was killed and started again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Restarted {
    /// How many clients had a session.
    pub(crate) clients: u32,
    /// From the kill to the start.
    pub(crate) down_seconds: f64,
    /// Clients that got no echo through a new tunnel within the time that was waited.
    pub(crate) not_back: u32,
    /// Clients that came back with another inner address.
    pub(crate) other_address: u32,
    /// From the gateway's word that it is ready to the first echo through the new tunnel.
    pub(crate) return_ms: Percentiles,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_back_or_has_another_address_is_counted() {
        let returns = Returns::default();
        assert!(!returns.are_expected());
        returns.begin();
        returns.note(true);
        returns.note_ready();
        returns.note(false);
        let report = returns.report(3, Duration::from_secs(2));
        assert_eq!((report.not_back, report.other_address, report.down_seconds), (1, 1, 2.0));
        assert_eq!(
            (report.return_ms.count, report.return_ms.p50),
            (2, 0.0),
            "before the gateway said that it is ready"
        );
        returns.end();
        assert!(!returns.are_expected());
    }
}

//! What became of clients that moved.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::histogram::{Histogram, Percentiles};

/// What became of the moves of all clients.
#[derive(Debug, Default)]
pub(super) struct Moves {
    departures: AtomicU32,
    returns: AtomicU32,
    sent: AtomicU32,
    answered: AtomicU32,
    gaps: Histogram,
}

impl Moves {
    /// A client has moved.
    pub(super) fn note_departure(&self) {
        self.departures.fetch_add(1, Ordering::Relaxed);
    }

    /// A client was answered so long after it had moved.
    pub(super) fn note_return(&self, after: Duration) {
        self.returns.fetch_add(1, Ordering::Relaxed);
        self.gaps.note(after);
    }

    /// A client looks whether it is back; the number of that request among all.
    pub(super) fn note_sent(&self) -> u32 {
        self.sent.fetch_add(1, Ordering::Relaxed)
    }

    /// Such a request was answered.
    pub(super) fn note_answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Sums up.
    pub(super) fn report(&self, clients: u32, every: Duration) -> Roaming {
        let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        let (moves, returns) = (count(&self.departures), count(&self.returns));
        let (sent, answered) = (count(&self.sent), count(&self.answered));
        Roaming {
            clients,
            every_seconds: every.as_secs_f64(),
            moves,
            not_back: moves.saturating_sub(returns),
            gap_ms: self.gaps.percentiles(),
            echoes_sent: sent,
            echoes_lost: sent.saturating_sub(answered),
        }
    }
}

/// Clients that moved while they sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Roaming {
    /// How many clients moved about.
    pub(super) clients: u32,
    /// How often each was to move.
    pub(super) every_seconds: f64,
    /// How often any moved.
    pub(super) moves: u32,
    /// Moves after which no echo passed, until the client moved again or the run ended.
    pub(super) not_back: u32,
    /// From a move to the first answer to a request that was sent after it; a client sends one every 10 ms then.
    pub(super) gap_ms: Percentiles,
    /// Such requests, which do not count among the echoes.
    pub(super) echoes_sent: u32,
    /// Of these, those without an answer.
    pub(super) echoes_lost: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_come_back_and_what_was_lost_is_counted() {
        let moves = Moves::default();
        moves.note_departure();
        moves.note_departure();
        (0..5).for_each(|number| assert_eq!(moves.note_sent(), number));
        moves.note_answer();
        moves.note_return(Duration::from_millis(30));
        let report = moves.report(2, Duration::from_secs(10));
        assert_eq!((report.moves, report.not_back, report.echoes_sent, report.echoes_lost), (2, 1, 5, 4));
        assert_eq!((report.gap_ms.count, report.gap_ms.max), (1, 30.0));
    }
}

//! Clients that move: from one moment to the next their datagrams come from another address and port, and what is sent to the
//! former ones is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::sleep_until;

use super::histogram::{Histogram, Percentiles};
use super::session::Session;

/// Pause between the requests by which a client looks whether it is back: as fine as gaps are measured.
const SEEK_PAUSE: Duration = Duration::from_millis(10);
/// The same, for a client that was not back after [`SEEK_LONG`]; so that those that are lost do not make the load.
const SEEK_PAUSE_LONG: Duration = Duration::from_millis(250);
const SEEK_LONG: Duration = Duration::from_secs(1);

/// Whether a client is among those that move; they are spread evenly over all.
pub(super) fn is_roamer(number: u32, share: f64) -> bool {
    // A little more than the share, as 0.05 * 20 is just below 1 otherwise.
    let until = |number: u32| (f64::from(number) * share + 1e-9).floor();
    until(number + 1) > until(number)
}

/// When a client that is away for so long looks again, after having looked.
pub(super) fn seek_pause(away: Duration) -> Duration {
    if away < SEEK_LONG { SEEK_PAUSE } else { SEEK_PAUSE_LONG }
}

/// Tells these sessions' clients in turn to move, each once in `every`, for a time; at even distances.
pub(super) async fn roam(sessions: Vec<Arc<Session>>, every: Duration, duration: Duration) {
    let Some(count) = u32::try_from(sessions.len()).ok().filter(|count| *count > 0) else { return };
    let (start, pause) = (Instant::now(), every / count);
    for (number, session) in (0_u32..).zip(sessions.iter().cycle()) {
        // Half a pause later: then the last has as much time as the first.
        let due = pause * number + pause / 2;
        if due >= duration {
            break;
        }
        sleep_until((start + due).into()).await;
        session.order_move();
    }
}

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
    fn roaming_clients_are_as_many_as_wanted_and_spread() {
        let roamers = |clients: u32, share| (0..clients).filter(|number| is_roamer(*number, share)).collect::<Vec<_>>();
        assert_eq!(roamers(100, 0.05), [19, 39, 59, 79, 99]);
        assert_eq!((roamers(50, 0.0).len(), roamers(50, 1.0).len(), roamers(10_000, 0.07).len()), (0, 50, 700));
    }

    #[test]
    fn clients_that_stay_away_look_less_often() {
        assert_eq!(seek_pause(Duration::ZERO), SEEK_PAUSE);
        assert_eq!(seek_pause(SEEK_LONG), SEEK_PAUSE_LONG);
    }

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

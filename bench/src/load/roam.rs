//! Clients that move: from one moment to the next their datagrams come from another address and port, and what is sent
//! to the former ones is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

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
}

//! Gives the memory of a crowd back to the system after it has left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::memory;

use crate::core::sessions::SessionTable;

/// How often the number of sessions is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How many sessions are a crowd: each leaves some 70 KB to the allocator, so fewer are not worth a walk over the heap.
const CROWD: usize = 256;
/// How long a crowd has to be gone: a closed connection takes its memory with it only after three probe timeouts of
/// QUIC (RFC 9000 section 10.2).
const GONE_FOR: Duration = Duration::from_secs(10);
/// The pause between two walks over the heap.
const PAUSE: Duration = Duration::from_secs(60);

/// Looks after the memory of the sessions for as long as the gateway runs.
pub(super) async fn look_after(sessions: Arc<SessionTable>) {
    let mut crowd = Crowd::default();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if crowd.has_left(sessions.len(), Instant::now())
            && let Err(error) = tokio::task::spawn_blocking(memory::give_back).await
        {
            tracing::debug!(%error, "memory not given back");
        }
    }
}

/// When there is memory worth giving back: half of the sessions are gone since there were most.
#[derive(Debug, Default)]
struct Crowd {
    /// The most sessions since memory was last given back.
    most: usize,
    /// Since when half of them are gone.
    gone_since: Option<Instant>,
    given_back: Option<Instant>,
}

impl Crowd {
    /// Looks at the number of sessions; `true` when their memory is to be given back now.
    fn has_left(&mut self, sessions: usize, now: Instant) -> bool {
        self.most = self.most.max(sessions);
        if self.most < CROWD || sessions > self.most / 2 {
            self.gone_since = None;
            return false;
        }
        let since = *self.gone_since.get_or_insert(now);
        let is_over = |from: Instant, pause| now.saturating_duration_since(from) >= pause;
        if !is_over(since, GONE_FOR) || self.given_back.is_some_and(|last| !is_over(last, PAUSE)) {
            return false;
        }
        *self = Self { most: sessions, gone_since: None, given_back: Some(now) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At which seconds memory is given back, of `(second, sessions)`.
    fn given_back(looks: impl IntoIterator<Item = (u64, usize)>) -> Vec<u64> {
        let (start, mut crowd) = (Instant::now(), Crowd::default());
        let left = |(second, sessions)| crowd.has_left(sessions, start + Duration::from_secs(second)).then_some(second);
        looks.into_iter().filter_map(left).collect()
    }

    #[test]
    fn memory_is_given_back_once_after_a_crowd() {
        assert_eq!(given_back([(0, 1000), (10, 0), (20, 0), (30, 0), (100, 0), (1000, 0)]), [20]);
        assert_eq!(given_back([(0, 1000), (10, 500), (20, 500), (100, 500)]), [20]);
    }

    #[test]
    fn few_who_leave_or_a_crowd_that_stays_are_not_worth_it() {
        assert!(given_back([(0, 255), (10, 0), (20, 0), (100, 0)]).is_empty());
        assert!(given_back([(0, 1000), (10, 501), (20, 501), (100, 501)]).is_empty());
    }

    #[test]
    fn crowd_that_comes_back_at_once_keeps_its_memory() {
        assert!(given_back([(0, 1000), (10, 0), (19, 0), (20, 1000), (30, 0), (39, 0)]).is_empty());
    }

    #[test]
    fn memory_is_given_back_once_a_minute_at_most() {
        // A thousand come and go every 20 seconds, and stay away in the end.
        let waves = (0..30).map(|step| (step * 10, if step % 4 < 2 { 1000 } else { 0 }));
        let seconds = given_back(waves.chain([(300, 0), (310, 0), (320, 0), (400, 0)]));
        assert_eq!(seconds.first(), Some(&30));
        assert!(seconds.len() > 2 && seconds.windows(2).all(|pair| pair[1] - pair[0] >= 60), "{seconds:?}");
    }

    #[test]
    fn crowd_that_leaves_slowly_is_followed() {
        let seconds = given_back((0..=200).map(|second| (second, 1000_usize.saturating_sub(second as usize * 10))));
        assert_eq!(seconds, [60, 120]);
    }
}

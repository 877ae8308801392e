//! Notices within seconds that nothing sent to the gateway over TCP is acknowledged, which is long before the system
//! gives the connection up. It only says so: whoever hears it may make another connection beside this one.
//!
//! A connection on which nothing is sent is not looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::stream::Acknowledged;
use adit_net::carrier::tls::CapsuleCarrier;
use tokio::time::sleep_until;

/// How often it is looked while something is unacknowledged.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long something may be unacknowledged at least, and in round trips: TCP has repeated it several times by then.
/// The next connection takes about a second, and three in all are what a session may be silent for.
const SHORTEST: Duration = Duration::from_millis(1500);
const ROUND_TRIPS: u32 = 5;

/// Watches the connection of a carrier.
pub(super) struct AckWatch {
    carrier: Arc<CapsuleCarrier>,
    unacknowledged: Unacknowledged,
}

impl AckWatch {
    pub(super) fn new(carrier: Arc<CapsuleCarrier>) -> Self {
        Self { carrier, unacknowledged: Unacknowledged::default() }
    }

    /// Waits until the gateway is silent, which is true, or no more. Cancel-safe.
    pub(super) async fn changed(&mut self) -> bool {
        loop {
            match self.unacknowledged.poll_timeout() {
                Some(at) => sleep_until(at.into()).await,
                None => {
                    self.carrier.sent().await;
                    self.unacknowledged.handle_sent(now());
                    continue;
                }
            }
            if let Some(is_silent) = self.unacknowledged.handle_look(self.carrier.acknowledged(), now()) {
                return is_silent;
            }
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Since when what was sent is unacknowledged.
#[derive(Debug, Default)]
struct Unacknowledged {
    /// Bytes acknowledged when this was last looked at.
    bytes: u64,
    /// Since when none are that are awaited, and when that is looked at next.
    waiting: Option<(Instant, Instant)>,
    is_silent: bool,
}

impl Unacknowledged {
    /// Something was sent, after nothing was awaited.
    fn handle_sent(&mut self, now: Instant) {
        self.waiting.get_or_insert((now, now + LOOK_EVERY));
    }

    /// Looks at what is acknowledged; `None` of a connection that has ended. Returns whether the gateway is silent, if
    /// that has changed.
    fn handle_look(&mut self, seen: Option<Acknowledged>, now: Instant) -> Option<bool> {
        let awaited = seen.filter(|seen| !seen.is_all);
        self.waiting = awaited.map(|seen| {
            let has_come = std::mem::replace(&mut self.bytes, seen.bytes) != seen.bytes;
            let since = self.waiting.filter(|_| !has_come).map_or(now, |(since, _)| since);
            (since, now + LOOK_EVERY)
        });
        let is_overdue = |(since, _): (Instant, Instant)| {
            let rtt = awaited.map_or(Duration::ZERO, |seen| seen.rtt);
            now.saturating_duration_since(since) >= SHORTEST.max(rtt * ROUND_TRIPS)
        };
        let is_silent = self.waiting.is_some_and(is_overdue);
        (std::mem::replace(&mut self.is_silent, is_silent) != is_silent).then_some(is_silent)
    }

    /// When [`Self::handle_look`] is due; never while nothing is awaited.
    fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.map(|(_, look_at)| look_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);

    fn seen(bytes: u64, is_all: bool) -> Option<Acknowledged> {
        Some(Acknowledged { bytes, is_all, rtt: RTT })
    }

    /// Looks when it is due until something is told, or nothing is awaited; the time that took, and what is told.
    fn told(watch: &mut Unacknowledged, now: Instant, look: Option<Acknowledged>) -> (Duration, Option<bool>) {
        for _ in 0..1000 {
            let Some(at) = watch.poll_timeout() else { return (Duration::ZERO, None) };
            if let Some(is_silent) = watch.handle_look(look, at) {
                return (at - now, Some(is_silent));
            }
        }
        panic!("nothing comes of it");
    }

    #[test]
    fn gateway_that_acknowledges_nothing_is_silent_within_two_seconds_until_it_does() {
        let (mut watch, now) = (Unacknowledged::default(), Instant::now());
        watch.handle_sent(now);
        let (after, is_silent) = told(&mut watch, now, seen(7, false));
        assert!(is_silent == Some(true) && after <= Duration::from_secs(2), "{after:?}");
        let later = watch.poll_timeout().unwrap();
        assert_eq!(watch.handle_look(seen(7, false), later), None, "it is told once");
        assert_eq!(watch.handle_look(seen(8, false), later + LOOK_EVERY), Some(false));
        assert!(watch.poll_timeout().is_some(), "the rest is awaited still");
    }

    #[test]
    fn nothing_is_looked_at_while_nothing_is_awaited() {
        let (mut watch, now) = (Unacknowledged::default(), Instant::now());
        assert_eq!(watch.poll_timeout(), None);
        watch.handle_sent(now);
        assert_eq!(told(&mut watch, now, seen(7, true)), (Duration::ZERO, None));
        watch.handle_sent(now);
        assert_eq!(told(&mut watch, now, None), (Duration::ZERO, None), "the connection has ended");
    }

    #[test]
    fn busy_connection_is_not_silent_while_something_is_acknowledged() {
        let (mut watch, now) = (Unacknowledged::default(), Instant::now());
        watch.handle_sent(now);
        for bytes in 1..1000 {
            let at = watch.poll_timeout().unwrap();
            assert_eq!(watch.handle_look(seen(bytes, false), at), None);
        }
        // The positive control.
        let before = watch.poll_timeout().unwrap();
        assert_eq!(told(&mut watch, before, seen(999, false)).1, Some(true));
    }

    #[test]
    fn slow_path_has_more_time() {
        let (mut watch, now) = (Unacknowledged::default(), Instant::now());
        watch.handle_sent(now);
        let slow = Acknowledged { bytes: 7, is_all: false, rtt: Duration::from_secs(1) };
        let (after, _) = told(&mut watch, now, Some(slow));
        assert!(after >= Duration::from_secs(5), "{after:?}");
    }
}

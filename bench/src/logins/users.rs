//! Users who log in again and again, whatever the gateway is flooded with.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{sleep_until, timeout};

use super::wire::Door;
use crate::load::histogram::{Histogram, Percentiles};

/// How often each logs in.
const PACE: Duration = Duration::from_secs(1);
/// Longest wait for a login.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who logs in once a second.
pub(super) struct Visitor {
    /// How they connect.
    pub(super) door: Door,
    /// Where from.
    pub(super) source: Ipv4Addr,
    /// Their names, one after the other; as often as there is one, or for ever if there is only one.
    pub(super) names: Vec<String>,
    /// The password of all of them.
    pub(super) password: &'static str,
}

/// What became of the logins of one kind of users.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Logins {
    /// How long those took that were let in, from the first datagram to the token.
    pub(super) ms: Percentiles,
    /// Logins that were refused, or found no answer.
    pub(super) failed: u32,
    /// Why the last of them failed.
    pub(super) reason: Option<String>,
}

impl Visitor {
    /// Logs in once a second from `first` on, until `end`.
    pub(super) async fn visit(self, first: Instant, end: Instant) -> Logins {
        let (times, mut logins) = (Histogram::default(), Logins::default());
        for turn in 0_u32.. {
            let due = first + PACE * turn;
            sleep_until(due.into()).await;
            let Some(name) = self.name(turn).filter(|_| Instant::now() < end) else { break };
            match timeout(PATIENCE, self.door.log_in(self.source, name, self.password)).await {
                Ok(Ok(time)) => times.note(time),
                Ok(Err(error)) => logins.fail(format!("{error:#}")),
                Err(_elapsed) => logins.fail(format!("no answer in {PATIENCE:?}")),
            }
        }
        logins.ms = times.percentiles();
        logins
    }

    fn name(&self, turn: u32) -> Option<&str> {
        let place = if self.names.len() == 1 { 0 } else { turn as usize };
        self.names.get(place).map(String::as_str)
    }
}

impl Logins {
    fn fail(&mut self, reason: String) {
        self.failed += 1;
        self.reason = Some(reason);
    }
}

//! What a client does when its host wakes: [`SleepWatch`] notices that it slept, and [`Awakening`] finds out whether
//! the gateway still knows the connection.
//!
//! Timers stand still while a host sleeps, so nothing that waits for one notices how much time has passed. Gateways and
//! NATs go on meanwhile, and most have forgotten a connection after half a minute. Whoever waited for its own timers
//! would find that out many seconds after waking; to ask takes a round trip. A program that somebody stopped for a
//! while is in the same position: it was silent, and whoever waited for it may have given up.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Awake
//!     Awake --> Settling: slept for less than a connection lasts
//!     Awake --> Awake: slept for longer, give up
//!     Settling --> Waiting: 100 ms, ask again
//!     Waiting --> Awake: something came, or give up
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a host that is awake is to be looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A look that comes so much too late was held up by sleep, or the program was stopped. Shorter delays happen to busy
/// hosts, and do a connection no harm.
const NOTICEABLE: Duration = Duration::from_secs(3);

/// How long after waking a second question is asked. What waited in the sockets is read by then: it comes from the time
/// before, and proves nothing.
const SETTLING: Duration = Duration::from_millis(100);

/// How long the answer to the second question may take, in round trips: enough for a lost datagram or a slow peer.
const ROUND_TRIPS: u32 = 4;
/// The same at least, as links that have just come up are slow for a moment.
const LEAST_WAIT: Duration = Duration::from_millis(300);
/// The same at most.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Notices that the host slept, or that the program was stopped.
#[derive(Debug)]
pub struct SleepWatch {
    looked: Duration,
}

impl SleepWatch {
    /// Begins at this time since the boot of the host, by a clock that counts sleep (CLOCK_BOOTTIME of Linux).
    pub const fn new(since_boot: Duration) -> Self {
        Self { looked: since_boot }
    }

    /// Looks at the same clock, [`LOOK_EVERY`] after the last look or earlier. Returns for how long nothing ran, if
    /// that is worth to be noticed.
    pub fn handle_look(&mut self, since_boot: Duration) -> Option<Duration> {
        let passed = since_boot.saturating_sub(self.looked);
        self.looked = since_boot;
        let held_up = passed.saturating_sub(LOOK_EVERY);
        (held_up >= NOTICEABLE).then_some(held_up)
    }
}

/// What the owner of a connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeEvent {
    /// Take what was learnt about the path for outdated, and ask the gateway for a sign of life.
    Probe,
    /// Ask the gateway once more.
    Ask,
    /// Give the connection up, and make another.
    GiveUp,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Awake,
    Settling { until: Instant, wait: Duration },
    Waiting { received: u64, until: Instant },
}

/// Whether the other end of a connection still knows it, after this host slept.
#[derive(Debug)]
pub struct Awakening {
    lasts: Duration,
    phase: Phase,
    events: VecDeque<WakeEvent>,
}

impl Awakening {
    /// For a connection that the other end gives up after `lasts` of silence.
    pub const fn new(lasts: Duration) -> Self {
        Self { lasts, phase: Phase::Awake, events: VecDeque::new() }
    }

    /// The host woke after having `slept`; the connection's round trip took `rtt` before.
    pub fn handle_wake(&mut self, slept: Duration, rtt: Duration, now: Instant) {
        self.events.clear();
        if slept >= self.lasts {
            self.phase = Phase::Awake;
            self.events.push_back(WakeEvent::GiveUp);
            return;
        }
        let wait = rtt.saturating_mul(ROUND_TRIPS).clamp(LEAST_WAIT, LONGEST_WAIT);
        self.phase = Phase::Settling { until: now + SETTLING, wait };
        self.events.push_back(WakeEvent::Probe);
    }

    /// Time has passed. `received` is the number of datagrams that the connection got since it began.
    pub fn handle_timeout(&mut self, received: u64, now: Instant) {
        match self.phase {
            Phase::Settling { until, wait } if now >= until => {
                self.phase = Phase::Waiting { received, until: now + wait };
                self.events.push_back(WakeEvent::Ask);
            }
            Phase::Waiting { received: before, until } if now >= until => {
                self.phase = Phase::Awake;
                if received == before {
                    self.events.push_back(WakeEvent::GiveUp);
                }
            }
            Phase::Awake | Phase::Settling { .. } | Phase::Waiting { .. } => {}
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Awake => None,
            Phase::Settling { until, .. } | Phase::Waiting { until, .. } => Some(until),
        }
    }

    /// The next thing to do.
    pub fn poll_event(&mut self) -> Option<WakeEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests;

//! The client's life cycle: when it connects, waits, gives up or stands blocked. Pure: time and random numbers are arguments.
//!
//! After any `handle_…`, drain [`LifeCycle::poll_event`], then sleep until [`LifeCycle::poll_timeout`] or the next input.
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Disconnected
//!     Disconnected --> Connecting: handle_start
//!     Connecting --> Connected: handle_connected
//!     Connecting --> Connecting: handle_attempt_failed, no answer
//!     Connecting --> Disconnected: refused, wrong identity, no permission, or no answer in time
//!     Connected --> Reconnecting: handle_lost
//!     Reconnecting --> Connected: handle_connected
//!     Reconnecting --> Reconnecting: handle_attempt_failed, no answer
//!     Reconnecting --> Blocked: handle_attempt_failed, refused or wrong identity
//!     Blocked --> Connected: handle_connected
//!     Blocked --> Reconnecting: handle_attempt_failed, no answer
//!     Connecting --> Disconnected: handle_stop
//!     Reconnecting --> Disconnected: handle_stop
//!     Blocked --> Disconnected: handle_stop
//!     Connected --> Disconnecting: handle_stop
//!     Disconnecting --> Disconnected: handle_closed, or 2 s
//! ```
//!
//! Once connected, the host stays configured until `Disconnected`: while `Reconnecting` and `Blocked` nothing that belongs in the
//! tunnel leaves the host another way.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use adit_proto::exit::Exit;

/// How long one attempt to connect may take.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait before the first retry.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest wait between retries while an outage is young.
const QUICK_RETRY: Duration = Duration::from_secs(2);
/// How long an outage is young.
const QUICK_PERIOD: Duration = Duration::from_secs(5 * 60);
/// Longest wait between retries of an old outage.
const SLOW_RETRY: Duration = Duration::from_secs(30);
/// Wait between retries while blocked.
const BLOCKED_RETRY: Duration = Duration::from_secs(30);
/// A connection that lasted less than this does not reset the back-off, so that a gateway that drops us at once is not hammered.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// How long a goodbye to the gateway may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No tunnel and no attempt to make one.
    Disconnected,
    /// Making the first connection; the host is untouched.
    Connecting,
    /// Packets flow.
    Connected,
    /// The connection was lost; a new one is being made.
    Reconnecting,
    /// Saying goodbye.
    Disconnecting,
    /// The gateway answers but refuses this device, or is not the right one; retried slowly.
    Blocked,
}

impl State {
    /// The state's name in status output.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Disconnecting => "disconnecting",
            Self::Blocked => "blocked",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What kind of obstacle ended an attempt or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing answered, or the connection broke off.
    NoAnswer,
    /// The gateway answered nonsense.
    Protocol,
    /// The gateway refused this device.
    Refused,
    /// The gateway is not the one of the profile.
    IdentityMismatch,
    /// A permission or capability is missing on this host.
    Permission,
    /// This host refused for another reason (an unusable key, routes).
    Local,
}

impl Obstacle {
    /// Whether more attempts of the same kind are pointless for a first connection.
    fn is_final(self) -> bool {
        match self {
            Self::Refused | Self::IdentityMismatch | Self::Permission | Self::Local => true,
            Self::NoAnswer | Self::Protocol => false,
        }
    }

    /// Whether the gateway answers but will not have us, so that a running client stands blocked.
    fn blocks(self) -> bool {
        match self {
            Self::Refused | Self::IdentityMismatch => true,
            Self::NoAnswer | Self::Protocol | Self::Permission | Self::Local => false,
        }
    }

    /// The exit code of a program that ends for this reason.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::NoAnswer => Exit::Unreachable,
            Self::Refused => Exit::AuthRefused,
            Self::IdentityMismatch => Exit::IdentityMismatch,
            Self::Permission => Exit::Permission,
            Self::Protocol | Self::Local => Exit::Other,
        }
    }
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Begin an attempt to connect, which may take `timeout`.
    Attempt {
        /// Longest duration of the attempt.
        timeout: Duration,
    },
    /// Drop the attempt in progress.
    Abandon,
    /// Say goodbye to the gateway, then call [`LifeCycle::handle_closed`].
    Close,
    /// Everything is over: `None` after a stop, else the obstacle that made us give up.
    Finished(Option<Obstacle>),
}

/// The life-cycle machine of one client.
#[derive(Debug)]
pub struct LifeCycle {
    state: State,
    since: Instant,
    reason: String,
    last_obstacle: Obstacle,
    patience: Option<Duration>,
    give_up: Option<Instant>,
    waiting: Waiting,
    back_off: BackOff,
    events: VecDeque<Event>,
}

/// What a machine that is neither idle nor connected waits for.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    Nothing,
    Attempt { deadline: Instant },
    Retry { at: Instant },
    Goodbye { deadline: Instant },
}

impl LifeCycle {
    /// A disconnected machine. The first connection must come about within `patience`; `None` tries for ever.
    #[must_use]
    pub fn new(patience: Option<Duration>, now: Instant) -> Self {
        Self {
            state: State::Disconnected,
            since: now,
            reason: String::new(),
            last_obstacle: Obstacle::NoAnswer,
            patience,
            give_up: None,
            waiting: Waiting::Nothing,
            back_off: BackOff::new(now),
            events: VecDeque::new(),
        }
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// When the state was entered.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Why the last attempt or connection ended; empty while connected.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Begins to connect. Ignored unless disconnected.
    pub fn handle_start(&mut self, now: Instant) {
        if self.state == State::Disconnected {
            self.give_up = self.patience.map(|patience| now + patience);
            self.back_off = BackOff::new(now);
            self.enter(State::Connecting, now);
            self.attempt(now);
        }
    }

    /// The attempt in progress succeeded.
    pub fn handle_connected(&mut self, now: Instant) {
        if matches!(self.waiting, Waiting::Attempt { .. }) {
            self.waiting = Waiting::Nothing;
            self.give_up = None;
            self.reason.clear();
            self.enter(State::Connected, now);
        }
    }

    /// The attempt in progress failed. `random` is any number, for the jitter.
    pub fn handle_attempt_failed(&mut self, obstacle: Obstacle, reason: &str, random: u32, now: Instant) {
        if !matches!(self.waiting, Waiting::Attempt { .. }) {
            return;
        }
        self.note(obstacle, reason);
        match self.state {
            State::Connecting if obstacle.is_final() => self.finish(Some(obstacle), now),
            State::Connecting => self.retry(random, now),
            State::Reconnecting | State::Blocked => self.reconsider(obstacle, random, now),
            State::Disconnected | State::Connected | State::Disconnecting => {}
        }
    }

    /// The connection ended without our doing. `random` is any number, for the jitter.
    pub fn handle_lost(&mut self, obstacle: Obstacle, reason: &str, random: u32, now: Instant) {
        match self.state {
            State::Connected => {
                if now.saturating_duration_since(self.since) >= STABLE_AFTER {
                    self.back_off = BackOff::new(now);
                }
                self.note(obstacle, reason);
                self.reconsider(obstacle, random, now);
            }
            State::Disconnecting => self.handle_closed(now),
            State::Disconnected | State::Connecting | State::Reconnecting | State::Blocked => {}
        }
    }

    /// The user wants the tunnel to end.
    pub fn handle_stop(&mut self, now: Instant) {
        match self.state {
            State::Connected => {
                self.waiting = Waiting::Goodbye { deadline: now + CLOSE_TIMEOUT };
                self.enter(State::Disconnecting, now);
                self.events.push_back(Event::Close);
            }
            State::Connecting | State::Reconnecting | State::Blocked => {
                self.abandon();
                self.finish(None, now);
            }
            State::Disconnected | State::Disconnecting => {}
        }
    }

    /// The goodbye is said.
    pub fn handle_closed(&mut self, now: Instant) {
        if self.state == State::Disconnecting {
            self.finish(None, now);
        }
    }

    /// Time passed. `random` is any number, for the jitter.
    pub fn handle_timeout(&mut self, random: u32, now: Instant) {
        if self.give_up.is_some_and(|at| now >= at) {
            self.abandon();
            self.finish(Some(self.last_obstacle), now);
            return;
        }
        match self.waiting {
            Waiting::Attempt { deadline } if now >= deadline => {
                self.events.push_back(Event::Abandon);
                self.handle_attempt_failed(Obstacle::NoAnswer, "no answer in time", random, now);
            }
            Waiting::Retry { at } if now >= at => self.attempt(now),
            Waiting::Goodbye { deadline } if now >= deadline => self.finish(None, now),
            Waiting::Nothing | Waiting::Attempt { .. } | Waiting::Retry { .. } | Waiting::Goodbye { .. } => {}
        }
    }

    /// The next thing the shell must do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = match self.waiting {
            Waiting::Nothing => None,
            Waiting::Attempt { deadline } | Waiting::Goodbye { deadline } => Some(deadline),
            Waiting::Retry { at } => Some(at),
        };
        waiting.into_iter().chain(self.give_up).min()
    }

    fn enter(&mut self, state: State, now: Instant) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
    }

    fn note(&mut self, obstacle: Obstacle, reason: &str) {
        self.last_obstacle = obstacle;
        reason.clone_into(&mut self.reason);
    }

    /// Goes on after a failure of a client that was connected once.
    fn reconsider(&mut self, obstacle: Obstacle, random: u32, now: Instant) {
        if obstacle.blocks() {
            self.enter(State::Blocked, now);
            self.waiting = Waiting::Retry { at: now + jitter(BLOCKED_RETRY, random) };
        } else {
            self.enter(State::Reconnecting, now);
            self.retry(random, now);
        }
    }

    fn attempt(&mut self, now: Instant) {
        self.waiting = Waiting::Attempt { deadline: now + ATTEMPT_TIMEOUT };
        self.events.push_back(Event::Attempt { timeout: ATTEMPT_TIMEOUT });
    }

    fn retry(&mut self, random: u32, now: Instant) {
        self.waiting = Waiting::Retry { at: now + jitter(self.back_off.next(now), random) };
    }

    fn abandon(&mut self) {
        if matches!(self.waiting, Waiting::Attempt { .. }) {
            self.events.push_back(Event::Abandon);
        }
    }

    fn finish(&mut self, obstacle: Option<Obstacle>, now: Instant) {
        self.waiting = Waiting::Nothing;
        self.give_up = None;
        self.enter(State::Disconnected, now);
        self.events.push_back(Event::Finished(obstacle));
    }
}

/// Doubles the wait between retries, more patiently as the outage grows old.
#[derive(Debug)]
struct BackOff {
    next: Duration,
    outage_began: Instant,
}

impl BackOff {
    fn new(now: Instant) -> Self {
        Self { next: FIRST_RETRY, outage_began: now }
    }

    fn next(&mut self, now: Instant) -> Duration {
        let young = now.saturating_duration_since(self.outage_began) < QUICK_PERIOD;
        let cap = if young { QUICK_RETRY } else { SLOW_RETRY };
        let wait = self.next.min(cap);
        self.next = wait.saturating_mul(2).min(cap);
        wait
    }
}

/// Between half of `longest` and all of it, so that many clients of one gateway do not come back in step.
fn jitter(longest: Duration, random: u32) -> Duration {
    let half = longest / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const LONG: u32 = u32::MAX;

    fn drain(life: &mut LifeCycle) -> Vec<Event> {
        std::iter::from_fn(|| life.poll_event()).collect()
    }

    fn attempt() -> Event {
        Event::Attempt { timeout: ATTEMPT_TIMEOUT }
    }

    fn connecting(now: Instant) -> LifeCycle {
        let mut life = LifeCycle::new(Some(PATIENCE), now);
        life.handle_start(now);
        assert_eq!(drain(&mut life), [attempt()]);
        life
    }

    fn connected(now: Instant) -> LifeCycle {
        let mut life = connecting(now);
        life.handle_connected(now);
        life
    }

    fn reconnecting(now: Instant) -> LifeCycle {
        let mut life = connected(now);
        life.handle_lost(Obstacle::NoAnswer, "idle timeout", LONG, now);
        life
    }

    /// Runs the clock to the next timeout and returns it.
    fn wake(life: &mut LifeCycle) -> Instant {
        let at = life.poll_timeout().unwrap();
        life.handle_timeout(LONG, at);
        at
    }

    #[test]
    fn start_begins_an_attempt_at_once() {
        let now = Instant::now();
        let mut life = connecting(now);
        assert_eq!(life.state(), State::Connecting);
        life.handle_start(now);
        assert_eq!(drain(&mut life), [], "a second start does nothing");
    }

    #[test]
    fn connected_clears_reason_and_timers() {
        let now = Instant::now();
        let mut life = connecting(now);
        life.handle_attempt_failed(Obstacle::NoAnswer, "no answer", 0, now);
        assert_eq!(life.reason(), "no answer");
        let at = wake(&mut life);
        life.handle_connected(at);
        assert_eq!((life.state(), life.reason(), life.since()), (State::Connected, "", at));
        assert_eq!(life.poll_timeout(), None);
    }

    #[test]
    fn first_retry_is_within_200_ms_and_waits_double_to_2_s() {
        let now = Instant::now();
        let mut life = LifeCycle::new(None, now);
        life.handle_start(now);
        let mut waits = Vec::new();
        let mut clock = now;
        for _ in 0..7 {
            life.handle_attempt_failed(Obstacle::NoAnswer, "", LONG, clock);
            let at = wake(&mut life);
            waits.push((at - clock).as_millis());
            clock = at;
        }
        assert_eq!(waits, [200, 400, 800, 1600, 2000, 2000, 2000]);
    }

    #[test]
    fn jitter_never_goes_below_half_or_above_the_whole() {
        let whole = Duration::from_secs(2);
        assert_eq!(jitter(whole, 0), whole / 2);
        assert_eq!(jitter(whole, u32::MAX), whole);
        assert!(jitter(whole, u32::MAX / 3) < whole);
    }

    #[test]
    fn old_outage_is_retried_every_30_s_at_most() {
        let now = Instant::now();
        let mut back_off = BackOff::new(now);
        for _ in 0..10 {
            back_off.next(now);
        }
        let late = now + QUICK_PERIOD;
        let waits: Vec<u64> = (0..6).map(|_| back_off.next(late).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn attempt_that_hangs_is_abandoned_after_3_s() {
        let now = Instant::now();
        let mut life = connecting(now);
        let at = wake(&mut life);
        assert_eq!(at - now, ATTEMPT_TIMEOUT);
        assert_eq!(drain(&mut life), [Event::Abandon]);
        assert_eq!(life.state(), State::Connecting);
        wake(&mut life);
        assert_eq!(drain(&mut life), [attempt()]);
    }

    #[test]
    fn first_connection_is_given_up_when_patience_ends() {
        let now = Instant::now();
        let mut life = connecting(now);
        while life.state() == State::Connecting {
            let at = wake(&mut life);
            assert!(at - now <= PATIENCE);
        }
        let events = drain(&mut life);
        assert_eq!(events.last(), Some(&Event::Finished(Some(Obstacle::NoAnswer))));
        assert_eq!(life.state(), State::Disconnected);
        assert_eq!(life.poll_timeout(), None);
    }

    #[test]
    fn refusal_mismatch_and_local_errors_are_final_on_the_first_connection() {
        for obstacle in [Obstacle::Refused, Obstacle::IdentityMismatch, Obstacle::Permission, Obstacle::Local] {
            let now = Instant::now();
            let mut life = connecting(now);
            life.handle_attempt_failed(obstacle, "why", 0, now);
            assert_eq!(drain(&mut life), [Event::Finished(Some(obstacle))]);
            assert_eq!((life.state(), life.reason()), (State::Disconnected, "why"));
        }
    }

    #[test]
    fn loss_leads_to_reconnecting_and_back() {
        let now = Instant::now();
        let mut life = reconnecting(now);
        assert_eq!((life.state(), life.reason()), (State::Reconnecting, "idle timeout"));
        let at = wake(&mut life);
        assert!(at - now <= FIRST_RETRY);
        assert_eq!(drain(&mut life), [attempt()]);
        life.handle_connected(at);
        assert_eq!(life.state(), State::Connected);
    }

    #[test]
    fn reconnecting_never_gives_up() {
        let now = Instant::now();
        let mut life = reconnecting(now);
        for _ in 0..1000 {
            wake(&mut life);
        }
        assert_eq!(life.state(), State::Reconnecting);
        assert!(!drain(&mut life).iter().any(|event| matches!(event, Event::Finished(_))));
    }

    #[test]
    fn refusal_after_a_connection_blocks_and_is_retried_slowly() {
        for obstacle in [Obstacle::Refused, Obstacle::IdentityMismatch] {
            let now = Instant::now();
            let mut life = reconnecting(now);
            let at = wake(&mut life);
            drain(&mut life);
            life.handle_attempt_failed(obstacle, "device revoked", LONG, at);
            assert_eq!((life.state(), life.reason()), (State::Blocked, "device revoked"));
            assert_eq!(wake(&mut life) - at, BLOCKED_RETRY);
            assert_eq!(drain(&mut life), [attempt()]);
        }
    }

    #[test]
    fn refusal_that_ends_a_connection_blocks_at_once() {
        let now = Instant::now();
        let mut life = connected(now);
        life.handle_lost(Obstacle::Refused, "revoked", 0, now);
        assert_eq!(life.state(), State::Blocked);
    }

    #[test]
    fn blocked_leads_to_connected_or_reconnecting() {
        let now = Instant::now();
        let blocked = || {
            let mut life = connected(now);
            life.handle_lost(Obstacle::Refused, "revoked", 0, now);
            let at = wake(&mut life);
            (life, at)
        };
        let (mut life, at) = blocked();
        life.handle_connected(at);
        assert_eq!(life.state(), State::Connected);
        let (mut life, at) = blocked();
        life.handle_attempt_failed(Obstacle::NoAnswer, "no answer", 0, at);
        assert_eq!(life.state(), State::Reconnecting);
    }

    #[test]
    fn flapping_connection_does_not_reset_the_back_off() {
        let now = Instant::now();
        let mut life = connected(now);
        let mut waits = Vec::new();
        let mut clock = now;
        for _ in 0..4 {
            life.handle_lost(Obstacle::NoAnswer, "", LONG, clock);
            let at = wake(&mut life);
            waits.push((at - clock).as_millis());
            life.handle_connected(at);
            clock = at;
        }
        assert_eq!(waits, [200, 400, 800, 1600]);
        let later = clock + STABLE_AFTER;
        life.handle_lost(Obstacle::NoAnswer, "", LONG, later);
        assert_eq!(wake(&mut life) - later, FIRST_RETRY);
    }

    #[test]
    fn stop_while_connected_says_goodbye_first() {
        let now = Instant::now();
        let mut life = connected(now);
        life.handle_stop(now);
        assert_eq!(life.state(), State::Disconnecting);
        assert_eq!(drain(&mut life), [Event::Close]);
        life.handle_closed(now);
        assert_eq!(drain(&mut life), [Event::Finished(None)]);
        assert_eq!(life.state(), State::Disconnected);
    }

    #[test]
    fn goodbye_is_not_waited_for_longer_than_2_s() {
        let now = Instant::now();
        let mut life = connected(now);
        life.handle_stop(now);
        drain(&mut life);
        assert_eq!(wake(&mut life) - now, CLOSE_TIMEOUT);
        assert_eq!(drain(&mut life), [Event::Finished(None)]);
    }

    #[test]
    fn loss_during_goodbye_ends_it() {
        let now = Instant::now();
        let mut life = connected(now);
        life.handle_stop(now);
        drain(&mut life);
        life.handle_lost(Obstacle::NoAnswer, "gone", 0, now);
        assert_eq!(drain(&mut life), [Event::Finished(None)]);
    }

    #[test]
    fn stop_during_an_attempt_abandons_it() {
        let now = Instant::now();
        let mut life = connecting(now);
        life.handle_stop(now);
        assert_eq!(drain(&mut life), [Event::Abandon, Event::Finished(None)]);
        let mut life = reconnecting(now);
        life.handle_stop(now);
        assert_eq!(drain(&mut life), [Event::Finished(None)]);
    }

    #[test]
    fn stale_results_are_ignored() {
        let now = Instant::now();
        let mut life = reconnecting(now);
        life.handle_connected(now);
        assert_eq!(life.state(), State::Reconnecting, "no attempt was in progress");
        life.handle_stop(now);
        drain(&mut life);
        life.handle_attempt_failed(Obstacle::Refused, "", 0, now);
        life.handle_lost(Obstacle::NoAnswer, "", 0, now);
        life.handle_closed(now);
        assert_eq!((life.state(), drain(&mut life)), (State::Disconnected, vec![]));
    }
}

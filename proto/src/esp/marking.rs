//! Whether datagrams with ECN marks pass in one direction of a session: [`Marking`].
//!
//! Some networks drop whatever bears a mark, and a flow that uses ECN would stand still behind them. So datagrams bear
//! the marks of their packets (RFC 6040) only once a marked probe was answered, and no longer when marked probes stay
//! unanswered while the same probe without a mark is answered (in the spirit of RFC 9000 section 13.4.2).
//!
//! ```mermaid
//! stateDiagram-v2
//!     [*] --> Trying: path is up, nothing is marked
//!     Trying --> Passing: answered
//!     Trying --> Dropped: only the probes without a mark are answered
//!     Passing --> Trying: every 2 s in use, marked meanwhile
//!     Dropped --> Trying: every 60 s in use
//! ```

use std::time::{Duration, Instant};

use super::path::{Nonces, SEED_LEN};
use super::probe::{Kind, NONCE_LEN, Probe};

/// How often a marked probe is sent before the unmarked ones decide.
const TRIES: u32 = 3;
/// How long an answer to each may take.
const ANSWER_WITHIN: Duration = Duration::from_millis(600);
/// The pause before marks that pass are tried again: how long marked packets may vanish before it is looked at.
const CHECK_AFTER: Duration = Duration::from_secs(2);
/// The pause before marks that were dropped are tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// A probe to send to the session's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkingTransmit {
    /// What the dummy packet begins with.
    pub probe: Probe,
    /// Whether its datagram is marked as ECN-capable.
    pub marked: bool,
}

/// Whether one direction of a session passes ECN marks.
pub struct Marking {
    nonces: Nonces,
    passes: bool,
    trial: Option<Trial>,
    /// When the next trial begins, if packets are sent.
    next: Option<Instant>,
    /// Whether packets were sent since the last trial began.
    sent: bool,
    transmits: Vec<MarkingTransmit>,
}

/// One probe with a mark and one without, sent a few times.
struct Trial {
    marked: [u8; NONCE_LEN],
    plain: [u8; NONCE_LEN],
    tries: u32,
    plain_answered: bool,
    next: Instant,
}

impl Marking {
    /// Starts without marks. `seed` is secret and random; it may be that of a [`super::path::Path`].
    pub fn new(seed: [u8; SEED_LEN]) -> Self {
        let nonces = Nonces::new(b"marking", seed);
        Self { nonces, passes: false, trial: None, next: None, sent: false, transmits: Vec::new() }
    }

    /// Whether marks are believed to pass.
    pub const fn passes(&self) -> bool {
        self.passes
    }

    /// The path came up or moved: marks have to be proven anew.
    pub fn handle_up(&mut self, now: Instant) {
        self.handle_down();
        self.begin(now);
    }

    /// The path went down: nothing is tried any more.
    pub fn handle_down(&mut self) {
        (self.passes, self.trial, self.next) = (false, None, None);
        self.transmits.clear();
    }

    /// Packets were sent by ESP.
    pub const fn handle_sent(&mut self) {
        self.sent = true;
    }

    /// An authenticated probe came from the session's address.
    pub fn handle_probe(&mut self, probe: &Probe, now: Instant) {
        let Some(trial) = self.trial.as_mut().filter(|_| probe.kind == Kind::Answer) else { return };
        if probe.nonce == trial.marked {
            self.end_trial(true, now);
        } else if probe.nonce == trial.plain {
            trial.plain_answered = true;
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.trial.is_none() && self.sent && self.next.is_some_and(|next| now >= next) {
            self.begin(now);
        }
        let Some(trial) = self.trial.as_mut().filter(|trial| now >= trial.next) else { return };
        if trial.tries >= TRIES && trial.plain_answered {
            self.end_trial(false, now);
            return;
        }
        self.transmits.push(MarkingTransmit { probe: request(trial.marked), marked: true });
        if trial.tries > 0 {
            self.transmits.push(MarkingTransmit { probe: request(trial.plain), marked: false });
        }
        trial.tries = trial.tries.saturating_add(1);
        trial.next = later(now, ANSWER_WITHIN);
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.trial {
            Some(trial) => Some(trial.next),
            None => self.next.filter(|_| self.sent),
        }
    }

    /// The next probe to send.
    pub fn poll_transmit(&mut self) -> Option<MarkingTransmit> {
        self.transmits.pop()
    }

    fn begin(&mut self, now: Instant) {
        let [marked, plain] = [self.nonces.draw(), self.nonces.draw()];
        self.trial = Some(Trial { marked, plain, tries: 0, plain_answered: false, next: now });
        self.sent = false;
        self.handle_timeout(now);
    }

    fn end_trial(&mut self, passes: bool, now: Instant) {
        (self.passes, self.trial) = (passes, None);
        self.next = Some(later(now, if passes { CHECK_AFTER } else { RETRY_AFTER }));
        self.transmits.clear();
    }
}

const fn request(nonce: [u8; NONCE_LEN]) -> Probe {
    Probe { kind: Kind::Request, nonce }
}

fn later(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::test_cipher::start;

    /// A network, and what the far end answers over it.
    struct World {
        marking: Marking,
        now: Instant,
        drops_marks: bool,
        is_broken: bool,
        /// Probes that were sent with a mark.
        marked: usize,
    }

    impl World {
        fn new(drops_marks: bool) -> Self {
            let (marking, now) = (Marking::new([3; SEED_LEN]), start());
            Self { marking, now, drops_marks, is_broken: false, marked: 0 }
        }

        /// Lets time pass for an end that sends packets all the time, or none.
        fn run(&mut self, milliseconds: u64, busy: bool) {
            for _ in 0..milliseconds / 10 {
                if busy {
                    self.marking.handle_sent();
                }
                self.marking.handle_timeout(self.now);
                assert!(
                    self.marking.poll_timeout().is_none_or(|at| at > self.now),
                    "a timeout that was handled is gone"
                );
                while let Some(MarkingTransmit { probe, marked }) = self.marking.poll_transmit() {
                    self.marked += usize::from(marked);
                    if !(self.is_broken || marked && self.drops_marks) {
                        self.marking.handle_probe(&Probe { kind: Kind::Answer, ..probe }, self.now);
                    }
                }
                self.now += Duration::from_millis(10);
            }
        }
    }

    #[test]
    fn nothing_is_marked_before_a_mark_has_passed() {
        let mut world = World::new(false);
        world.run(5_000, true);
        assert!(!world.marking.passes() && world.marked == 0, "the path is not up");
        world.marking.handle_up(world.now);
        assert!(!world.marking.passes());
        world.run(20, true);
        assert!(world.marking.passes());
    }

    #[test]
    fn network_that_drops_marks_gets_none() {
        let mut world = World::new(true);
        world.marking.handle_up(world.now);
        world.run(50_000, true);
        assert!(!world.marking.passes());
        assert_eq!(world.marked, 3, "and is not tried all the time");
        world.drops_marks = false;
        world.run(15_000, true);
        assert!(world.marking.passes(), "tried again after a minute");
    }

    #[test]
    fn marks_that_vanish_in_use_are_noticed_within_four_seconds() {
        let mut world = World::new(false);
        world.marking.handle_up(world.now);
        world.run(10_000, true);
        assert!(world.marking.passes());
        world.drops_marks = true;
        world.run(4_000, true);
        assert!(!world.marking.passes());
    }

    #[test]
    fn broken_path_says_nothing_about_marks() {
        let mut world = World::new(false);
        world.marking.handle_up(world.now);
        world.run(1_000, true);
        world.is_broken = true;
        world.run(20_000, true);
        assert!(world.marking.passes());
        world.is_broken = false;
        world.run(1_000, true);
        assert!(world.marking.passes());
        world.marking.handle_down();
        assert!(!world.marking.passes() && world.marking.poll_timeout().is_none());
    }

    #[test]
    fn idle_session_probes_once() {
        let mut world = World::new(false);
        world.marking.handle_up(world.now);
        world.run(600_000, false);
        assert_eq!(world.marked, 1);
    }

    #[test]
    fn answers_to_other_probes_do_not_count() {
        let mut world = World::new(true);
        world.marking.handle_up(world.now);
        world.marking.handle_probe(&Probe { kind: Kind::Answer, nonce: [0; NONCE_LEN] }, world.now);
        let MarkingTransmit { probe, .. } = world.marking.poll_transmit().unwrap();
        world.marking.handle_probe(&probe, world.now);
        assert!(!world.marking.passes(), "nor does a request");
    }
}

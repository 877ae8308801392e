//! A client that chooses between QUIC and TLS while its network passes one of them, both, or neither.
//!
//! Connections are made of time alone here: what matters is who is dialled, asked and dropped, and when the session is
//! where it can be.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use adit_netem::random::Random;
use adit_proto::carrier_choice::{Change, ChangeEvent, Failure, Race, RaceEvent, Transport};

use crate::moments::Moments;
use crate::promises::{Kept, broken};
use crate::world::start;

/// How long a handshake and a question are waited for, and a connection that brings nothing any more.
const SHAKES_FOR: Duration = Duration::from_secs(3);
const ASKS_FOR: Duration = Duration::from_secs(5);
const STANDS_FOR: Duration = Duration::from_secs(8);
/// After how long QUIC that does not answer is doubted.
const DOUBTS_AFTER: Duration = Duration::from_millis(600);
/// The pause between two attempts.
const AGAIN: Duration = Duration::from_secs(1);
/// How long something has passed when a session is open there, at the latest; and when one has left a dead QUIC for
/// TLS.
const OPEN_WITHIN: Duration = Duration::from_secs(13);
const DOWN_WITHIN: Duration = Duration::from_secs(3);
/// How long both have passed when a session is on QUIC.
const UP_WITHIN: Duration = Duration::from_secs(605);
/// How often a session may go up to QUIC in so much time.
const MOST_UPS: usize = 20;
const UPS_IN: Duration = Duration::from_secs(600);

const BOTH: [Transport; 2] = [Transport::Quic, Transport::Tls];

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    None,
    Shakes { done: Instant, until: Instant },
    Proven,
    Asked { done: Instant, until: Instant },
    InUse,
}

enum Phase {
    Waiting(Instant),
    Racing(Race),
    Open(Change),
}

/// A client and the two ways to its gateway.
struct Chooser {
    now: Instant,
    random: Random,
    round_trip: Duration,
    passes: [bool; 2],
    /// Since when `passes` is as it is.
    steady: Instant,
    phase: Phase,
    /// The owner of an open session makes another connection in its place.
    is_held: bool,
    lines: [Line; 2],
    ups: VecDeque<Instant>,
}

const fn place(transport: Transport) -> usize {
    match transport {
        Transport::Quic => 0,
        Transport::Tls => 1,
    }
}

impl Chooser {
    fn new(random: Random) -> Self {
        let now = start();
        let (phase, ups) = (Phase::Waiting(now), VecDeque::new());
        let round_trip = Duration::from_millis(20);
        let (passes, lines) = ([true; 2], [Line::None; 2]);
        Self { now, random, round_trip, passes, steady: now, phase, is_held: false, lines, ups }
    }

    /// The network passes other transports from now on.
    fn change_network(&mut self, passes: [bool; 2]) {
        if self.passes != passes {
            (self.passes, self.steady) = (passes, self.now);
        }
    }

    /// The owner of an open session makes a connection of its own for so long.
    fn hold(&mut self, time: Duration) -> Kept {
        if let Phase::Open(change) = &mut self.phase {
            change.handle_hold(true, self.now);
            self.is_held = true;
        }
        self.run(time)?;
        if let Phase::Open(change) = &mut self.phase {
            change.handle_hold(false, self.now);
        }
        self.is_held = false;
        self.step()
    }

    fn handle_timeout(&mut self) {
        let now = self.now;
        match &mut self.phase {
            Phase::Waiting(at) if now >= *at => self.phase = Phase::Racing(Race::new(self.random.chance(0.3), now)),
            Phase::Waiting(_) => {}
            Phase::Racing(race) => race.handle_timeout(now),
            Phase::Open(change) => change.handle_timeout(now),
        }
    }

    /// Lets a connection come further, or fail.
    fn follow_line(&mut self, transport: Transport) {
        let (now, passes) = (self.now, self.passes[place(transport)]);
        let stands = self.now - self.steady >= STANDS_FOR && !passes;
        match self.lines[place(transport)] {
            Line::Shakes { done, .. } if passes && now >= done => {
                self.lines[place(transport)] = Line::Proven;
                match &mut self.phase {
                    Phase::Racing(race) => race.handle_proven(transport, now),
                    Phase::Open(change) => change.handle_proven(now),
                    Phase::Waiting(_) => {}
                }
            }
            Line::Asked { done, .. } if passes && now >= done => self.accept(transport),
            Line::Shakes { until, .. } | Line::Asked { until, .. } if now >= until => self.fail(transport),
            Line::Proven if stands => self.fail(transport),
            Line::InUse if stands => {
                (self.lines, self.phase) = ([Line::None; 2], Phase::Waiting(now + AGAIN));
            }
            Line::None | Line::Shakes { .. } | Line::Proven | Line::Asked { .. } | Line::InUse => {}
        }
    }

    fn accept(&mut self, transport: Transport) {
        let (now, random) = (self.now, low_bits(&mut self.random));
        self.lines[place(transport)] = Line::InUse;
        match &mut self.phase {
            Phase::Racing(race) => race.handle_accepted(transport),
            Phase::Open(change) => {
                change.handle_moved(random, now);
                self.lines[place(transport.other())] = Line::None;
                if transport == Transport::Quic {
                    self.ups.push_back(now);
                }
            }
            Phase::Waiting(_) => {}
        }
    }

    fn fail(&mut self, transport: Transport) {
        let (now, random) = (self.now, low_bits(&mut self.random));
        self.lines[place(transport)] = Line::None;
        match &mut self.phase {
            Phase::Racing(race) => race.handle_failed(transport, Failure::NoAnswer, now),
            Phase::Open(change) => change.handle_failed(random, now),
            Phase::Waiting(_) => {}
        }
    }

    fn follow_doubt(&mut self) {
        let is_doubted = !self.passes[0] && self.now >= self.steady + DOUBTS_AFTER;
        let answers = self.passes[0] && self.now >= self.steady + self.round_trip;
        if let Phase::Open(change) = &mut self.phase
            && (is_doubted || answers)
        {
            change.handle_doubt(is_doubted, self.now);
        }
    }

    /// Does what the machines want.
    fn drain(&mut self) -> Kept {
        loop {
            match &mut self.phase {
                Phase::Racing(race) => match race.poll_event() {
                    Some(event) => self.follow_race(event)?,
                    None => return Ok(()),
                },
                Phase::Open(change) => match change.poll_event() {
                    Some(event) => self.follow_change(event)?,
                    None => return Ok(()),
                },
                Phase::Waiting(_) => return Ok(()),
            }
        }
    }

    fn follow_race(&mut self, event: RaceEvent) -> Kept {
        match event {
            RaceEvent::Dial(transport) => self.dial(transport),
            RaceEvent::Ask(transport) => {
                if matches!(self.lines[place(transport.other())], Line::Asked { .. }) {
                    return broken("one connection at a time is asked for the session", &self.lines);
                }
                self.ask(transport)
            }
            RaceEvent::Drop(transport) => self.drop_line(transport),
            RaceEvent::Won(transport) => {
                let other = self.lines[place(transport.other())];
                if self.lines[place(transport)] != Line::InUse || other != Line::None {
                    return broken("who has won is alone", &(transport, self.lines));
                }
                self.phase = Phase::Open(Change::new(transport, self.now));
                self.is_held = false;
                Ok(())
            }
            RaceEvent::Lost if self.lines == [Line::None; 2] => {
                self.phase = Phase::Waiting(self.now + AGAIN);
                Ok(())
            }
            RaceEvent::Lost => broken("a race is lost when nothing is left of it", &self.lines),
        }
    }

    fn follow_change(&mut self, event: ChangeEvent) -> Kept {
        let Phase::Open(change) = &self.phase else { return Ok(()) };
        let beside = change.current().other();
        match event {
            ChangeEvent::Dial(_) | ChangeEvent::Ask | ChangeEvent::Reopen if self.is_held => {
                broken("a gateway is asked on one connection at a time", &event)
            }
            ChangeEvent::Dial(transport) if transport == beside => self.dial(transport),
            ChangeEvent::Dial(transport) => broken("what is dialled is not in use", &transport),
            ChangeEvent::Ask => self.ask(beside),
            ChangeEvent::Drop => self.drop_line(beside),
            ChangeEvent::Reopen => {
                (self.lines, self.phase) = ([Line::None; 2], Phase::Waiting(self.now));
                Ok(())
            }
        }
    }

    fn dial(&mut self, transport: Transport) -> Kept {
        let line = &mut self.lines[place(transport)];
        if *line != Line::None {
            return broken("a connection is dialled once", &(transport, *line));
        }
        let round_trips = if transport == Transport::Quic { 1 } else { 2 };
        *line = Line::Shakes { done: self.now + self.round_trip * round_trips, until: self.now + SHAKES_FOR };
        Ok(())
    }

    fn ask(&mut self, transport: Transport) -> Kept {
        let line = &mut self.lines[place(transport)];
        if *line != Line::Proven {
            return broken("a gateway is asked once it has proven who it is", &(transport, *line));
        }
        *line = Line::Asked { done: self.now + self.round_trip, until: self.now + ASKS_FOR };
        Ok(())
    }

    fn drop_line(&mut self, transport: Transport) -> Kept {
        match std::mem::replace(&mut self.lines[place(transport)], Line::None) {
            Line::None | Line::InUse => broken("what is dropped is there, and not in use", &(transport, self.lines)),
            Line::Shakes { .. } | Line::Proven | Line::Asked { .. } => Ok(()),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Waiting(at) => Some(*at),
            Phase::Racing(race) => race.poll_timeout(),
            Phase::Open(change) => change.poll_timeout(),
        }
    }

    /// What holds after each moment.
    fn check(&mut self) -> Kept {
        if self.poll_timeout().is_some_and(|at| at <= self.now) {
            return broken("a timeout of the choice that was handled is gone", &self.lines);
        }
        let (now, steady) = (self.now, self.now - self.steady);
        self.ups.retain(|up| now - *up < UPS_IN);
        if self.ups.len() > MOST_UPS {
            return broken("a session does not go up and down all the time", &self.ups.len());
        }
        let current = match &self.phase {
            Phase::Open(change) => Some(change.current()),
            Phase::Waiting(_) | Phase::Racing(_) => None,
        };
        match (self.passes, current) {
            ([false, false], _) => Ok(()),
            (_, None) if steady > OPEN_WITHIN => broken("a session is open soon where something passes", &self.lines),
            ([false, true], Some(Transport::Quic)) if steady > DOWN_WITHIN + STANDS_FOR => {
                broken("a session leaves a QUIC that is dead", &self.lines)
            }
            ([true, true], Some(Transport::Tls)) if steady > UP_WITHIN => {
                broken("a session goes back to QUIC where that passes", &(self.lines, steady))
            }
            (_, _) => Ok(()),
        }
    }
}

impl Moments for Chooser {
    fn now(&mut self) -> &mut Instant {
        &mut self.now
    }

    fn step(&mut self) -> Kept {
        for _ in 0..20 {
            let before = self.lines;
            for transport in BOTH {
                self.follow_line(transport);
            }
            self.follow_doubt();
            self.handle_timeout();
            self.drain()?;
            if self.lines == before {
                return self.check();
            }
        }
        broken("a moment of choice ends", &self.lines)
    }

    fn next_event(&self) -> Option<Instant> {
        let lines = self.lines.into_iter().flat_map(|line| match line {
            Line::Shakes { done, until } | Line::Asked { done, until } => [Some(done), Some(until)],
            Line::None | Line::Proven | Line::InUse => [None, None],
        });
        let doubts = [DOUBTS_AFTER, self.round_trip, STANDS_FOR].map(|pause| Some(self.steady + pause));
        let all = lines.chain(doubts).chain([self.poll_timeout()]).flatten();
        all.filter(|at| *at > self.now).min()
    }
}

fn low_bits(random: &mut Random) -> u32 {
    u32::try_from(random.draw() >> 32).expect("32 bits are left")
}

/// Lets a client choose on a network that changes as a seed says.
///
/// # Errors
/// If a promise is not kept.
pub(crate) fn choose(seed: u64) -> Kept {
    let mut random = Random::new(seed, "choice");
    let mut chooser = Chooser::new(Random::new(seed, "chooser"));
    for _ in 0..5 + random.draw() % 20 {
        let pick = |random: &mut Random, from: &[u64]| {
            from[usize::try_from(random.draw() % u64::try_from(from.len()).expect("few")).expect("few")]
        };
        chooser.round_trip = Duration::from_millis(pick(&mut random, &[1, 20, 80, 150]));
        chooser.change_network([random.chance(0.6), random.chance(0.8)]);
        let longest = pick(&mut random, &[300, 2_000, 15_000, 120_000, 900_000]);
        chooser.run(Duration::from_millis(random.draw() % longest))?;
        chooser.hold(Duration::from_millis(random.draw() % 4_000))?;
    }
    // UDP comes and goes all the time.
    for _ in 0..50 {
        chooser.change_network([true; 2]);
        chooser.run(Duration::from_secs(12))?;
        chooser.change_network([false, true]);
        chooser.run(Duration::from_secs(4))?;
    }
    // A session that QUIC fails is on TLS soon, and in the end on QUIC again.
    chooser.change_network([true; 2]);
    chooser.run(UP_WITHIN + Duration::from_secs(1))?;
    chooser.change_network([false, true]);
    chooser.run(DOWN_WITHIN)?;
    match &chooser.phase {
        Phase::Open(change) if change.current() == Transport::Tls => Ok(()),
        Phase::Open(_) | Phase::Racing(_) | Phase::Waiting(_) => {
            broken("a session is on TLS three seconds after UDP is blocked", &chooser.lines)
        }
    }
}

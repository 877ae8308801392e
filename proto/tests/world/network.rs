//! What lies between the two ends: a NAT, a network that gets in the way, and an attacker who sees everything.
//!
//! ```text
//! client ─ link ─ NAT ─ attacker ─ blocks, sizes, marks ─ delay, loss, reordering (netem) ─ gateway
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_netem::{Impairment, Link, LinkDirection, Passage, Profile};

use crate::nat::Nat;

/// Datagrams on their way in one direction; newer ones are lost.
const CAPACITY: usize = 10_000;
/// Datagrams that the attacker keeps; the oldest go.
const KEPT: usize = 24;
/// How long what the attacker sends is on its way.
const ATTACKER_DELAY: Duration = Duration::from_millis(7);
/// The largest datagram of a network without tunnels.
pub(crate) const WIDE: usize = 1472;

/// Where the gateway is.
pub(crate) fn gateway() -> SocketAddr {
    "192.0.2.1:443".parse().unwrap()
}

/// Where the attacker is, who can also send in others' names.
pub(crate) fn attacker() -> SocketAddr {
    "203.0.113.66:6666".parse().unwrap()
}

/// A place of one direction in an array.
pub(crate) const fn way(direction: LinkDirection) -> usize {
    match direction {
        LinkDirection::Up => 0,
        LinkDirection::Down => 1,
    }
}

/// A datagram on its way.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
    /// Whether its IP header says that it is ECN-capable.
    pub(crate) marked: bool,
    /// Which sealed datagram it is; `None` if neither end sealed these bytes.
    pub(crate) number: Option<usize>,
}

/// What the attacker does to a datagram it has seen before it sends it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Nothing.
    Replay,
    /// Flips a bit.
    Forge,
    /// Sends it to the end that it came from.
    Reflect,
}

/// The network, which both ends see one end of.
pub(crate) struct Network {
    start: Instant,
    seed: u64,
    wires: [Wire; 2],
    /// Where the client is, as it sees it.
    pub(crate) client: SocketAddr,
    pub(crate) nat: Option<Nat>,
    /// Nothing passes, by TCP neither.
    pub(crate) unplugged: bool,
    /// UDP does not pass.
    pub(crate) blocked: [bool; 2],
    /// The largest datagram that passes.
    pub(crate) largest: [usize; 2],
    /// Whether the client's system refuses to send larger ones, so that it knows.
    pub(crate) refuses: bool,
    pub(crate) drops_marks: [bool; 2],
    /// Whether chance loses, delays or mixes up what passes.
    pub(crate) is_lossy: bool,
    /// How many datagrams the attacker holds back and sends in its own name.
    pub(crate) steals: [u32; 2],
    /// Whether the attacker forwards to the client what the gateway sends to the attacker.
    pub(crate) relays: bool,
    seen: [VecDeque<Frame>; 2],
    injected: VecDeque<(Instant, LinkDirection, Frame)>,
}

/// What is on its way in one direction: what was sent before the network changed, and after.
#[derive(Default)]
struct Wire {
    passages: Vec<Passage<Frame>>,
}

impl Network {
    /// A good network with a client behind no NAT.
    pub(crate) fn new(client: SocketAddr, seed: u64, start: Instant) -> Self {
        let mut network = Self {
            start,
            seed,
            wires: Default::default(),
            client,
            nat: None,
            unplugged: false,
            blocked: [false; 2],
            largest: [WIDE; 2],
            refuses: false,
            drops_marks: [false; 2],
            is_lossy: false,
            steals: [0; 2],
            relays: false,
            seen: Default::default(),
            injected: VecDeque::new(),
        };
        network.set_link(&Link::default());
        network
    }

    /// Another quality from now on; what is on its way stays so.
    pub(crate) fn set_link(&mut self, link: &Link) {
        self.seed = self.seed.wrapping_add(1);
        self.is_lossy = link.loss_percent > 0.0 || link.corrupt_percent > 0.0;
        let profile = Profile { name: String::new(), description: String::new(), up: link.clone(), down: link.clone() };
        for direction in [LinkDirection::Up, LinkDirection::Down] {
            let wire = &mut self.wires[way(direction)];
            wire.passages.retain(|passage| passage.poll_timeout().is_some());
            wire.passages.push(Passage::new(Impairment::new(&profile, direction, self.seed), CAPACITY));
        }
    }

    /// All that disturbs is over; a NAT stays where it is.
    pub(crate) fn heal(&mut self) {
        self.set_link(&Link { delay_ms: 10.0, ..Link::default() });
        (self.unplugged, self.blocked, self.largest) = (false, [false; 2], [WIDE; 2]);
        (self.refuses, self.drops_marks, self.steals, self.relays) = (false, [false; 2], [0; 2], false);
        if let Some(nat) = &mut self.nat {
            nat.timeout = Duration::from_secs(120);
        }
    }

    /// Whether datagrams pass in both directions.
    pub(crate) fn passes_udp(&self) -> bool {
        !self.unplugged && self.blocked == [false; 2]
    }

    /// One end sends.
    pub(crate) fn send(&mut self, direction: LinkDirection, mut frame: Frame, now: Instant) {
        if self.unplugged && direction == LinkDirection::Up {
            return;
        }
        if direction == LinkDirection::Up {
            frame.from = self.nat.as_mut().map_or(self.client, |nat| nat.outbound(self.client, now));
        }
        let at = way(direction);
        if self.seen[at].len() == KEPT {
            self.seen[at].pop_front();
        }
        self.seen[at].push_back(frame.clone());
        if frame.to == attacker() {
            if self.relays {
                self.inject(direction, frame, now);
            }
        } else if self.steals[at] > 0 {
            self.steals[at] -= 1;
            frame.from = attacker();
            self.inject(direction, frame, now);
        } else if !(self.blocked[at]
            || frame.bytes.len() > self.largest[at]
            || frame.marked && self.drops_marks[at]
            || self.unplugged)
        {
            let bytes = frame.bytes.len();
            let passage = self.wires[at].passages.last_mut().expect("there is always a quality");
            let _lost = passage.handle(now - self.start, frame, bytes);
        }
    }

    /// The attacker sends something that it saw `back` datagrams ago, in its own name or in that of who sent it.
    pub(crate) fn attack(
        &mut self,
        attack: Attack,
        direction: LinkDirection,
        back: usize,
        own_name: bool,
        now: Instant,
    ) {
        let seen = &self.seen[way(direction)];
        let Some(mut frame) = seen.iter().rev().nth(back % KEPT).cloned() else { return };
        let mut direction = direction;
        match attack {
            Attack::Replay => {}
            Attack::Forge => {
                let place = back * 37 % frame.bytes.len();
                frame.bytes[place] ^= 1 << (back % 8);
                frame.number = None;
            }
            Attack::Reflect => {
                (frame.from, frame.to) = (frame.to, frame.from);
                direction = other(direction);
            }
        }
        if own_name {
            frame.from = attacker();
        }
        self.inject(direction, frame, now);
    }

    /// The next datagram that arrives now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(LinkDirection, Frame)> {
        if self.injected.front().is_some_and(|(at, _, _)| *at <= now)
            && let Some((_, direction, frame)) = self.injected.pop_front()
        {
            return Some((direction, frame));
        }
        for direction in [LinkDirection::Up, LinkDirection::Down] {
            while let Some(frame) = self.wires[way(direction)].poll(now - self.start) {
                if direction == LinkDirection::Up || self.is_let_in(&frame, now) {
                    return Some((direction, frame));
                }
            }
        }
        None
    }

    /// When the next datagram may arrive.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let passages = self.wires.iter().flat_map(|wire| &wire.passages);
        let due = passages.filter_map(Passage::poll_timeout).map(|at| self.start + at);
        due.chain(self.injected.front().map(|(at, _, _)| *at)).min()
    }

    /// Whether a datagram for the client reaches it.
    fn is_let_in(&self, frame: &Frame, now: Instant) -> bool {
        let reaches = match &self.nat {
            Some(nat) => nat.lets_in(frame.to, self.client, now),
            None => frame.to == self.client,
        };
        reaches && !self.unplugged
    }

    fn inject(&mut self, direction: LinkDirection, frame: Frame, now: Instant) {
        self.injected.push_back((now + ATTACKER_DELAY, direction, frame));
    }
}

impl Wire {
    /// The next frame that is due, whole or damaged; one that comes twice is given twice.
    fn poll(&mut self, now: Duration) -> Option<Frame> {
        let due = self.passages.iter_mut().find(|passage| passage.poll_timeout().is_some_and(|at| at <= now))?;
        let delivery = due.poll(now)?;
        let mut frame = delivery.frame;
        if delivery.doubled {
            let copy = frame.clone();
            let bytes = copy.bytes.len();
            // The copy takes its chance on the way as any other, and so comes a little later.
            let _lost = due.handle(now, copy, bytes);
        }
        if let Some(bit) = delivery.damaged_bit.filter(|bit| bit / 8 < frame.bytes.len()) {
            frame.bytes[bit / 8] ^= 1 << (bit % 8);
            frame.number = None;
        }
        Some(frame)
    }
}

/// The way back.
pub(crate) const fn other(direction: LinkDirection) -> LinkDirection {
    match direction {
        LinkDirection::Up => LinkDirection::Down,
        LinkDirection::Down => LinkDirection::Up,
    }
}

//! A client and its gateway, what connects them, and time.

mod connecting;
mod rest;
mod waking;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use adit_netem::LinkDirection;
use adit_netem::random::Random;
use adit_proto::esp::session::Hints;
use adit_proto::role::Role;
use adit_proto::waking::Awakening;

use crate::cipher;
use crate::connection::{Connection, GATEWAY_GIVES_UP, Item};
use crate::moments::Moments;
use crate::network::{Frame, Network, gateway, way};
use crate::promises::{Kept, Ledger, Prospects, Tally, Watch, broken, origin_for};
use crate::scenario::Settings;
use crate::transcript::Transcript;
use crate::tunnel::{SendOutcome, Told, Tunnel};

use connecting::ORPHAN_ENDS;

/// Rounds in which everything of one moment has happened.
const MOST_ROUNDS: usize = 100;

/// A connection in the making.
#[derive(Debug, Clone, Copy)]
enum Dial {
    Waits(Instant),
    Handshake { done: Instant, over_tcp: bool },
}

/// A client, a gateway, and all between them.
pub(crate) struct World {
    start: Instant,
    pub(crate) now: Instant,
    random: Random,
    pub(crate) network: Network,
    settings: Settings,
    tunnels: [Option<Box<dyn Tunnel>>; 2],
    watches: [Watch; 2],
    sessions: u32,
    connection: Option<Connection>,
    dial: Option<Dial>,
    /// Since when the gateway has a session without a connection.
    orphaned: Option<Instant>,
    asleep: bool,
    awakening: Awakening,
    /// When answers of the gateway come that it was asked for, and how many came.
    answers: VecDeque<Instant>,
    received: u64,
    ledger: Ledger,
    transcript: Transcript,
}

/// The place of an end in an array.
const fn place(role: Role) -> usize {
    match role {
        Role::Client => 0,
        Role::Server => 1,
    }
}

const fn sends(role: Role) -> LinkDirection {
    match role {
        Role::Client => LinkDirection::Up,
        Role::Server => LinkDirection::Down,
    }
}

const fn receiver(direction: LinkDirection) -> Role {
    match direction {
        LinkDirection::Up => Role::Server,
        LinkDirection::Down => Role::Client,
    }
}

#[expect(clippy::disallowed_methods, reason = "a start is needed, and only differences from it matter")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

impl World {
    /// A client that begins to connect.
    pub(crate) fn new(settings: Settings, random: Random) -> Self {
        cipher::forget_nonces();
        let now = start();
        let mut network = Network::new(settings.client, settings.network_seed, now);
        network.nat = settings.nat();
        Self {
            start: now,
            now,
            random,
            network,
            settings,
            tunnels: [None, None],
            watches: Default::default(),
            sessions: 0,
            connection: None,
            dial: Some(Dial::Waits(now)),
            orphaned: None,
            asleep: false,
            awakening: Awakening::new(GATEWAY_GIVES_UP),
            answers: VecDeque::new(),
            received: 0,
            ledger: Ledger::default(),
            transcript: Transcript::default(),
        }
    }

    /// What happened so far, in one number.
    pub(crate) fn digest(&self) -> u64 {
        self.transcript.digest()
    }

    /// How often what.
    pub(crate) fn tally(&self) -> Tally {
        self.ledger.tally
    }

    /// How much time has passed.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// One end's session, if there is one.
    fn tunnel(&self, role: Role) -> Option<&dyn Tunnel> {
        self.tunnels[place(role)].as_deref()
    }

    /// An end sends a packet by the carrier there is; returns the packet's number.
    pub(crate) fn send_packet(&mut self, role: Role, full: bool) -> Kept<Option<usize>> {
        let extra = usize::try_from(self.random.draw() % 120).expect("a small number");
        let Some(mtu) = self.awake(role).map(|tunnel| tunnel.way().map_or(1280, |way| usize::from(way.mtu))) else {
            return Ok(None);
        };
        let (number, content) = self.ledger.write_packet(role, if full { mtu } else { 40 + extra });
        let Some(tunnel) = self.tunnels[place(role)].as_deref_mut() else { return Ok(None) };
        let outcome = tunnel.send_packet(&content, number, true, self.now)?;
        if outcome == SendOutcome::Sent {
            self.watch_packet(role, number)?;
        } else if let Some(connection) = &mut self.connection {
            connection.send(sends(role), Item::Packet(content), self.now);
        }
        self.pump(role)?;
        Ok(Some(number))
    }

    /// Looks whether the packet that an end has just sent goes where others went lost for long.
    fn watch_packet(&mut self, role: Role, number: usize) -> Kept {
        let direction = way(sends(role));
        let sessions = [Role::Client, Role::Server].map(|role| self.tunnel(role).map(|tunnel| tunnel.generation()));
        let is_bypassed = self.network.steals != [0; 2] || self.network.relays;
        let hole = !self.network.passes_udp() || self.asleep || sessions[0] != sessions[1];
        let hole = hole && !is_bypassed;
        let passes_else = !hole && !self.network.is_lossy;
        let Some(tunnel) = self.tunnels[place(role)].as_deref_mut() else { return Ok(()) };
        let outgoing = tunnel.outgoing().iter().find(|outgoing| outgoing.packet == Some(number));
        let Some(outgoing) = outgoing else { return Ok(()) };
        let large = outgoing.bytes.len() > self.network.largest[direction];
        let marked = outgoing.marked && self.network.drops_marks[direction];
        self.ledger.tally.marks_lost += u64::from(marked);
        let prospects = Prospects { hole, marked: marked && passes_else && !large, large: large && passes_else };
        self.watches[place(role)].handle_packet(tunnel, &prospects, self.now)
    }

    /// Packets in both directions, so often.
    pub(crate) fn busy(&mut self, time: Duration, every: Duration, ends: &[Role], full: bool) -> Kept {
        let end = self.now + time;
        while self.now < end {
            for &role in ends {
                self.send_packet(role, full)?;
            }
            self.run(every)?;
        }
        Ok(())
    }

    /// Hands hints to one end.
    pub(crate) fn hint(&mut self, role: Role, hints: Hints) -> Kept {
        let now = self.now;
        self.awake(role).map_or(Ok(()), |tunnel| tunnel.handle_hints(hints, now))?;
        self.pump(role)
    }

    /// An end leaves out numbers of its key, unless it sleeps.
    pub(crate) fn skip_numbers(&mut self, role: Role) -> Kept {
        self.awake(role).map_or(Ok(()), |tunnel| tunnel.skip_numbers())
    }

    /// The client hears that its network changed.
    pub(crate) fn rebind(&mut self) -> Kept {
        let now = self.now;
        self.awake(Role::Client).map_or(Ok(()), |tunnel| tunnel.handle_rebind(now))?;
        self.watches[place(Role::Client)].begin_anew();
        self.pump(Role::Client)
    }

    /// Where packets go or how they fare changed without a word to the ends.
    pub(crate) fn begin_watching_anew(&mut self) {
        self.watches.iter_mut().for_each(Watch::begin_anew);
    }

    /// The gateway's process is killed and started again.
    pub(crate) fn restart_gateway(&mut self) {
        self.tunnels[place(Role::Server)] = None;
        self.orphaned = None;
        if let Some(connection) = &mut self.connection {
            connection.forget(self.now);
        }
    }

    fn awake(&mut self, role: Role) -> Option<&mut dyn Tunnel> {
        let is_awake = role == Role::Server || !self.asleep;
        let tunnel = self.tunnels[place(role)].as_mut().filter(|_| is_awake)?;
        Some(tunnel.as_mut())
    }

    fn all_awake(&self) -> impl Iterator<Item = &dyn Tunnel> {
        let tunnels = self.tunnels.iter().flatten().map(|tunnel| &**tunnel);
        tunnels.filter(|tunnel| tunnel.role() == Role::Server || !self.asleep)
    }

    /// Whether a timeout of this moment has led to another one.
    fn is_due(&self) -> bool {
        self.all_awake().any(|tunnel| tunnel.poll_timeout(self.now).is_some_and(|at| at <= self.now))
    }

    fn check(&self) -> Kept {
        self.all_awake().try_for_each(|tunnel| self.ledger.check(tunnel, self.now))
    }

    /// Takes what an end has for the other onto its way.
    fn pump(&mut self, role: Role) -> Kept {
        let Some(tunnel) = self.tunnels[place(role)].as_deref_mut() else { return Ok(()) };
        let generation = tunnel.generation();
        for told in tunnel.told().drain(..) {
            self.transcript.note(&(self.now - self.start, role, told));
            let tally = &mut self.ledger.tally;
            match told {
                Told::Moved => tally.moves += 1,
                Told::Down => tally.downs += 1,
                Told::NewKeys => tally.rekeys += 1,
                Told::Narrow => tally.narrow += 1,
                Told::Up | Told::Other => {}
            }
        }
        for outgoing in tunnel.outgoing().drain(..) {
            let (to, bytes, marked) = (outgoing.to, outgoing.bytes, outgoing.marked);
            if outgoing.origin.is_some_and(|origin| origin != origin_for(to)) {
                return broken("datagrams leave where those of their receiver arrive", &(role, to, outgoing.origin));
            }
            if outgoing.packet.is_none() {
                self.watches[place(role)].handle_dummy(role, self.now)?;
            }
            let number = self.ledger.seal(role, generation, to, bytes.len(), outgoing.packet, self.now)?;
            self.transcript.note(&(self.now - self.start, role, to, marked));
            self.transcript.note_bytes(&bytes);
            let frame = Frame { from: gateway(), to, bytes, marked, number: Some(number) };
            self.network.send(sends(role), frame, self.now);
        }
        let is_unanswered = tunnel.take_unanswered();
        while let Some(capsule) = tunnel.poll_capsule() {
            if let Some(connection) = &mut self.connection {
                connection.send(sends(role), Item::Capsule(capsule), self.now);
            }
        }
        if let Some(connection) = self.connection.as_mut().filter(|_| role == Role::Client) {
            connection.speaks |= is_unanswered;
        }
        Ok(())
    }

    fn deliver_datagrams(&mut self) -> Kept<bool> {
        let mut arrived = false;
        while let Some((direction, frame)) = self.network.poll(self.now) {
            arrived = true;
            let (role, now) = (receiver(direction), self.now);
            let Some(tunnel) = self.awake(role) else { continue };
            let outcome = tunnel.receive(frame.from, origin_for(frame.from), frame.bytes.clone(), now)?;
            let tunnel = self.tunnels[place(role)].as_deref().expect("it has just received something");
            self.ledger.receive(tunnel, &frame, outcome, now)?;
            self.transcript.note(&(self.now - self.start, role, frame.from, frame.number));
            self.pump(role)?;
        }
        Ok(arrived)
    }

    fn deliver_items(&mut self) -> Kept<bool> {
        let mut arrived = false;
        while let Some(connection) = &mut self.connection
            && let Some((direction, item)) = connection.poll(&self.network, self.asleep, self.now)
        {
            arrived = true;
            let (role, now) = (receiver(direction), self.now);
            match item {
                Item::Capsule(capsule) => {
                    self.awake(role).map_or(Ok(()), |tunnel| tunnel.handle_capsule(capsule, now))?;
                }
                Item::Packet(content) => {
                    self.ledger.accept_packet(role, &content)?;
                    self.ledger.tally.by_connection += 1;
                    let by_datagram = self.awake(role).filter(|tunnel| tunnel.way().is_some());
                    by_datagram
                        .map_or(Ok(()), |tunnel| tunnel.handle_hints(Hints { doubt: true, ..Hints::default() }, now))?;
                }
            }
            self.pump(role)?;
        }
        Ok(arrived)
    }

    /// Tells the client's system which datagrams it refuses.
    pub(crate) fn tell_interface(&mut self) {
        let interface = if self.network.refuses { self.network.largest[way(LinkDirection::Up)] } else { usize::MAX };
        if let Some(tunnel) = &mut self.tunnels[place(Role::Client)] {
            tunnel.set_interface(interface);
        }
    }
}

impl Moments for World {
    fn now(&mut self) -> &mut Instant {
        &mut self.now
    }

    fn step(&mut self) -> Kept {
        for _ in 0..MOST_ROUNDS {
            for role in [Role::Client, Role::Server] {
                let now = self.now;
                self.awake(role).map_or(Ok(()), |tunnel| tunnel.handle_timeout(now))?;
                self.pump(role)?;
            }
            if !self.asleep {
                self.follow_awakening()?;
            }
            let is_busy = [self.deliver_datagrams()?, self.deliver_items()?, self.follow_connection()?];
            if is_busy == [false; 3] && !self.is_due() {
                return self.check();
            }
        }
        let due = self.all_awake().map(|tunnel| tunnel.poll_timeout(self.now).map(|at| at - self.start));
        broken("a moment ends", &(self.settings.kind, self.elapsed(), due.collect::<Vec<_>>()))
    }

    fn next_event(&self) -> Option<Instant> {
        let timers = self.all_awake().filter_map(|tunnel| tunnel.poll_timeout(self.now));
        let connection = self.connection.as_ref();
        let connection = connection.and_then(|connection| connection.poll_timeout(&self.network, self.asleep));
        let dial = self.dial.map(|dial| match dial {
            Dial::Waits(at) | Dial::Handshake { done: at, .. } => at,
        });
        let orphan = self.orphaned.map(|since| since + ORPHAN_ENDS);
        let awakening = self.awakening.poll_timeout().filter(|_| !self.asleep);
        let answer = self.answers.front().copied();
        let rest = [self.network.poll_timeout(), connection, dial, orphan, awakening, answer];
        timers.chain(rest.into_iter().flatten()).filter(|at| *at > self.now).min()
    }
}

//! What holds whatever happens, and the ledger of what was sealed, sent and accepted that shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use adit_proto::esp::probe::{Kind, NONCE_LEN, Probe};
use adit_proto::role::Role;

use crate::cipher;
use crate::network::{Frame, gateway};
use crate::tunnel::{Outcome, Tunnel};

/// How long an end may go on sending datagrams that get lost because they bear a mark.
const MARKED_HOLE: Duration = Duration::from_secs(6);
/// A pause after which an end does not count as one that sends all the time.
const PAUSE: Duration = Duration::from_millis(1100);
/// Most datagrams without a packet that an end sends in a second.
const DUMMIES: u32 = 150;
/// How many times the bytes that came from an address go there before it is proven.
const AMPLIFICATION: usize = 3;

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) promise: &'static str,
    pub(crate) detail: String,
}

/// What a step gives, if all promises were kept in it.
pub(crate) type Kept<T = ()> = Result<T, Broken>;

/// A promise was not kept.
///
/// # Errors
/// Always.
pub(crate) fn broken<T>(promise: &'static str, detail: &dyn Debug) -> Kept<T> {
    Err(Broken { promise, detail: format!("{detail:?}") })
}

/// Which session of a client, from 0.
pub(crate) type Generation = u32;

/// A datagram that an end sealed.
struct Sealed {
    sender: Role,
    session: Generation,
    at: Instant,
    accepted: bool,
    packet: Option<usize>,
}

/// A packet that an end sent.
struct Packet {
    sender: Role,
    content: Vec<u8>,
    accepted: bool,
    in_datagram: bool,
}

/// Everything that was sealed, sent and accepted.
#[derive(Default)]
pub(crate) struct Ledger {
    sealed: Vec<Sealed>,
    packets: Vec<Packet>,
    /// The gateway's questions that its client has opened, and where they were sent.
    asked: BTreeMap<[u8; NONCE_LEN], SocketAddr>,
    /// The addresses from which they were answered.
    proven: BTreeSet<(Generation, SocketAddr)>,
    /// The addresses from which something newer came than all before.
    newest: BTreeSet<(Generation, SocketAddr)>,
    /// Bytes that the gateway has authenticated from, and sent to, each address.
    heard: BTreeMap<(Generation, SocketAddr), usize>,
    told: BTreeMap<(Generation, SocketAddr), usize>,
    pub(crate) tally: Tally,
}

/// How often what a scenario is about did happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) sessions: u64,
    pub(crate) by_datagram: u64,
    pub(crate) by_connection: u64,
    pub(crate) probes: u64,
    pub(crate) replays_refused: u64,
    pub(crate) forgeries_refused: u64,
    pub(crate) moves: u64,
    pub(crate) downs: u64,
    pub(crate) rekeys: u64,
    pub(crate) narrow: u64,
    pub(crate) marks_lost: u64,
    pub(crate) unproven: u64,
}

impl Tally {
    /// What two runs had together.
    pub(crate) fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (ours, theirs) in self.fields().into_iter().zip(other.fields()) {
            *ours += *theirs;
        }
    }

    fn fields(&mut self) -> [&mut u64; 12] {
        [
            &mut self.sessions,
            &mut self.by_datagram,
            &mut self.by_connection,
            &mut self.probes,
            &mut self.replays_refused,
            &mut self.forgeries_refused,
            &mut self.moves,
            &mut self.downs,
            &mut self.rekeys,
            &mut self.narrow,
            &mut self.marks_lost,
            &mut self.unproven,
        ]
    }

    /// Whether everything happened at least once.
    pub(crate) fn is_complete(mut self) -> bool {
        self.fields().into_iter().all(|count| *count > 0)
    }
}

impl Ledger {
    /// A packet of `len` bytes, of which no two are alike.
    pub(crate) fn write_packet(&mut self, sender: Role, len: usize) -> (usize, Vec<u8>) {
        let number = self.packets.len();
        let mut content: Vec<u8> = (0..len).map(|place| (place * 7 + number) as u8).collect();
        content[0] = 0x45;
        content[1..9].copy_from_slice(&(number as u64).to_be_bytes());
        self.packets.push(Packet { sender, content: content.clone(), accepted: false, in_datagram: false });
        (number, content)
    }

    /// An end sends a datagram; returns its number.
    pub(crate) fn seal(
        &mut self,
        sender: Role,
        session: Generation,
        to: SocketAddr,
        len: usize,
        packet: Option<usize>,
        now: Instant,
    ) -> Kept<usize> {
        if cipher::a_nonce_was_used_twice() {
            return broken("no key seals two datagrams with the same nonce", &(sender, session));
        }
        match sender {
            Role::Client if to != gateway() => {
                return broken("a client sends to its gateway's address alone", &to);
            }
            Role::Client => {}
            Role::Server => self.tell(session, to, len)?,
        }
        if let Some(packet) = packet {
            self.packets[packet].in_datagram = true;
        }
        self.tally.probes += u64::from(packet.is_none());
        self.sealed.push(Sealed { sender, session, at: now, accepted: false, packet });
        Ok(self.sealed.len() - 1)
    }

    /// The gateway sends somewhere.
    fn tell(&mut self, session: Generation, to: SocketAddr, len: usize) -> Kept {
        let place = (session, to);
        if self.proven.contains(&place) {
            return Ok(());
        }
        self.tally.unproven += 1;
        if !self.newest.contains(&place) {
            return broken("late and replayed datagrams make no address worth a question", &to);
        }
        let told = self.told.entry(place).or_default();
        *told += len;
        let heard = self.heard.get(&place).copied().unwrap_or(0);
        if *told > AMPLIFICATION * heard {
            let promise = "an address that proved nothing gets three times what came from it at most";
            return broken(promise, &(to, *told, heard));
        }
        Ok(())
    }

    /// An end has made something of a datagram.
    pub(crate) fn receive(&mut self, tunnel: &dyn Tunnel, frame: &Frame, outcome: Outcome, now: Instant) -> Kept {
        match outcome {
            Outcome::Opened { probe, packet, newest } => {
                if newest {
                    self.newest.insert((tunnel.generation(), frame.from));
                }
                self.accept(tunnel, frame, probe, packet)
            }
            Outcome::Refused(reason) => self.refuse(tunnel, frame, reason, now),
            Outcome::Unsealed => {
                self.newest.insert((tunnel.generation(), frame.from));
                self.hear(tunnel, frame);
                Ok(())
            }
            Outcome::Cookie => self.prove_by_cookie(tunnel, frame),
        }
    }

    /// An end has opened a datagram.
    fn accept(&mut self, tunnel: &dyn Tunnel, frame: &Frame, probe: Option<Probe>, packet: Option<Vec<u8>>) -> Kept {
        let (receiver, session) = (tunnel.role(), tunnel.generation());
        let Some(number) = frame.number else {
            return broken("nothing is accepted that the peer did not seal", &(receiver, frame.from));
        };
        let sealed = &mut self.sealed[number];
        if sealed.sender == receiver || sealed.session != session {
            return broken("nothing is accepted that was sealed for somebody else", &(receiver, number));
        }
        if std::mem::replace(&mut sealed.accepted, true) {
            return broken("no datagram is accepted twice", &(receiver, number));
        }
        if packet.is_some() != sealed.packet.is_some() {
            return broken("what is opened is what was sealed", &(receiver, number));
        }
        self.hear(tunnel, frame);
        if let Some(probe) = probe {
            self.note_probe(receiver, session, frame, probe);
        }
        match packet {
            Some(content) => {
                self.tally.by_datagram += 1;
                self.accept_packet(receiver, &content)
            }
            None => Ok(()),
        }
    }

    /// The gateway has bytes from an address that it may answer.
    fn hear(&mut self, tunnel: &dyn Tunnel, frame: &Frame) {
        if tunnel.role() == Role::Server {
            *self.heard.entry((tunnel.generation(), frame.from)).or_default() += frame.bytes.len();
        }
    }

    /// A cookie came back: it was sent to the address that it comes from.
    fn prove_by_cookie(&mut self, tunnel: &dyn Tunnel, frame: &Frame) -> Kept {
        self.hear(tunnel, frame);
        let place = (tunnel.generation(), frame.from);
        if !self.told.contains_key(&place) {
            return broken("a cookie is good for the address that it was sent to", &frame.from);
        }
        self.proven.insert(place);
        Ok(())
    }

    /// A packet came, by whichever carrier.
    pub(crate) fn accept_packet(&mut self, receiver: Role, content: &[u8]) -> Kept {
        let number = content.get(1..9).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
        let known = number.and_then(|number| usize::try_from(number).ok()).and_then(|at| self.packets.get_mut(at));
        let Some(packet) = known.filter(|packet| packet.content == content && packet.sender != receiver) else {
            return broken("what arrives is what was sent", &(receiver, number));
        };
        if std::mem::replace(&mut packet.accepted, true) {
            return broken("no packet arrives twice", &(receiver, number));
        }
        Ok(())
    }

    /// Whether a packet has arrived, and whether it went in a datagram.
    pub(crate) fn fate(&self, packet: usize) -> (bool, bool) {
        (self.packets[packet].accepted, self.packets[packet].in_datagram)
    }

    fn note_probe(&mut self, receiver: Role, session: Generation, frame: &Frame, probe: Probe) {
        match (receiver, probe.kind) {
            (Role::Client, Kind::Request) => {
                self.asked.insert(probe.nonce, frame.to);
            }
            (Role::Server, Kind::Answer) if self.asked.get(&probe.nonce) == Some(&frame.from) => {
                self.proven.insert((session, frame.from));
            }
            (Role::Client, Kind::Answer) | (Role::Server, _) => {}
        }
    }

    /// An end has refused a datagram.
    fn refuse(&mut self, receiver: &dyn Tunnel, frame: &Frame, why: DropReason, now: Instant) -> Kept {
        let Some(sealed) = frame.number.map(|number| &self.sealed[number]) else {
            self.tally.forgeries_refused += 1;
            return Ok(());
        };
        if sealed.accepted {
            self.tally.replays_refused += 1;
            return Ok(());
        }
        let is_for_another = sealed.sender == receiver.role() || sealed.session != receiver.generation();
        // Numbers are skipped now and then.
        let is_too_old = why == DropReason::TooOld;
        if is_for_another || is_too_old || receiver.may_refuse(frame.from, &frame.bytes, now) {
            return Ok(());
        }
        broken("what the peer sealed and nobody touched is opened", &(receiver.role(), why, now - sealed.at))
    }

    /// What holds for an end after each step.
    pub(crate) fn check(&self, tunnel: &dyn Tunnel, now: Instant) -> Kept {
        tunnel.check(now)?;
        if tunnel.poll_timeout(now).is_some_and(|at| at <= now) {
            return broken("a timeout that was handled is gone", &tunnel.role());
        }
        let Some(way) = tunnel.way() else { return Ok(()) };
        if tunnel.role() == Role::Server && !self.proven.contains(&(tunnel.generation(), way.to)) {
            return broken("packets go to an address that has answered from there", &way.to);
        }
        if way.origin.is_some_and(|origin| origin != origin_for(way.to)) {
            return broken("packets leave where the peer's arrive", &way);
        }
        Ok(())
    }
}

/// The socket of a host at which datagrams of an address arrive: one for each family.
pub(crate) fn origin_for(address: SocketAddr) -> u32 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// Whether an end goes on sending where nothing arrives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Streak {
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Streak {
    /// Something was sent; says for how long all of it got lost, without a pause between.
    fn note(&mut self, is_lost: bool, now: Instant) -> Duration {
        let goes_on = is_lost && self.last.is_some_and(|last| now - last <= PAUSE);
        self.since = is_lost.then(|| self.since.filter(|_| goes_on).unwrap_or(now));
        self.last = Some(now);
        self.since.map_or(Duration::ZERO, |since| now - since)
    }
}

/// Watches what an end sends.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    hole: Streak,
    marked: Streak,
    large: Streak,
    second: Option<Instant>,
    dummies: u32,
}

/// What awaits a datagram with a packet.
pub(crate) struct Prospects {
    /// Nothing passes in one of the directions, or the peer has no such session.
    pub(crate) hole: bool,
    /// It is lost for its mark, or its size, and other probes are answered.
    pub(crate) marked: bool,
    pub(crate) large: bool,
}

impl Watch {
    /// What an end knew of its path is no longer so, and it knows.
    pub(crate) fn begin_anew(&mut self) {
        (self.hole, self.marked, self.large) = Default::default();
    }

    /// An end sends a packet in a datagram.
    pub(crate) fn handle_packet(&mut self, tunnel: &dyn Tunnel, prospects: &Prospects, now: Instant) -> Kept {
        let (role, patience) = (tunnel.role(), tunnel.patience());
        let spans = [
            (
                self.hole.note(prospects.hole, now),
                patience.hole,
                "packets go in datagrams into a hole for a short time",
            ),
            (self.marked.note(prospects.marked, now), MARKED_HOLE, "marks that get lost are given up in 6 seconds"),
            (self.large.note(prospects.large, now), patience.large, "sizes that get lost are given up in time"),
        ];
        match spans.into_iter().find(|(span, longest, _)| span > longest) {
            Some((span, _, promise)) => broken(promise, &(role, span)),
            None => Ok(()),
        }
    }

    /// An end sends a datagram without a packet.
    pub(crate) fn handle_dummy(&mut self, role: Role, now: Instant) -> Kept {
        if self.second.is_none_or(|second| now - second >= Duration::from_secs(1)) {
            (self.second, self.dummies) = (Some(now), 0);
        }
        self.dummies += 1;
        if self.dummies > DUMMIES {
            return broken("probes and answers are few", &(role, self.dummies));
        }
        Ok(())
    }
}

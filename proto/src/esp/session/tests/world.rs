//! Two ends of a session and a network between them, under virtual time.

use std::collections::BTreeMap;
use std::rc::Rc;

use adit_netem::{Impairment, Link, LinkDirection, Passage, Profile};

use super::super::*;
use crate::drop_reason::DropReason;
use crate::esp::capsule::Group;
use crate::esp::sa::Inbound;
use crate::sealing::replay::Arrival;
use crate::sealing::suite::Suite;
use crate::sealing::test_cipher::{AwsCipher, start};

/// The largest packet that either end may send.
pub(super) const LARGEST: u16 = 1438;

/// How long a capsule takes, on a stream that loses nothing.
const STREAM_DELAY: Duration = Duration::from_millis(2);
/// Frames that may be on their way.
const CAPACITY: usize = 10_000;
/// The pause between two packets of a busy end.
const PACKET_PAUSE: Duration = Duration::from_millis(10);

pub(super) type Handle = Rc<Outbound<AwsCipher>>;

pub(super) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn gateway() -> SocketAddr {
    "192.0.2.1:443".parse().unwrap()
}

pub(super) fn home() -> SocketAddr {
    "198.51.100.7:40000".parse().unwrap()
}

pub(super) fn roaming() -> SocketAddr {
    "[2001:db8::7]:40001".parse().unwrap()
}

pub(super) fn attacker() -> SocketAddr {
    "203.0.113.66:6666".parse().unwrap()
}

pub(super) fn answer() -> Answer {
    Answer { suite: Suite::Aes256Gcm, group: Group::X25519, vouched: true }
}

pub(super) fn policy() -> RekeyPolicy {
    RekeyPolicy::default()
}

/// One end with its worker, which opens what comes at once.
pub(super) struct End {
    pub(super) session: EspSession<Handle, u32>,
    role: Role,
    pub(super) address: SocketAddr,
    /// Nothing it sends arrives.
    pub(super) blocked: bool,
    /// Larger datagrams get lost.
    pub(super) passes: usize,
    /// Larger datagrams are refused by its system.
    pub(super) interface: usize,
    /// Datagrams with an ECN mark get lost.
    pub(super) drops_marks: bool,
    /// Bytes of the datagrams that its system refused, in order.
    pub(super) refused: Vec<usize>,
    /// Which of its sockets datagrams arrive at.
    pub(super) origin: u32,
    pub(super) route: Option<Route<Handle, u32>>,
    pub(super) epoch: Option<u32>,
    /// The smallest packet size of all routes so far.
    pub(super) smallest_mtu: Option<u16>,
    pub(super) claimed: Vec<Spi>,
    pub(super) inbound: BTreeMap<Spi, (u32, Inbound<AwsCipher>)>,
    drawn: u32,
    /// No index is free, so preparing an epoch fails.
    pub(super) lacks_indices: bool,
    share: Bytes,
    /// Says whether a packet sent is worth a signal.
    listens: bool,
    /// IP packets opened.
    pub(super) opened: u64,
    /// Datagrams that could not be opened, but for those that came twice.
    pub(super) failed: u64,
    /// Bytes of authenticated datagrams by the address they came from.
    heard: BTreeMap<SocketAddr, usize>,
    /// Bytes of datagrams by the address they were sent to.
    told: BTreeMap<SocketAddr, usize>,
    /// Datagrams sent: where to, and their bytes.
    sent: Vec<(SocketAddr, Vec<u8>)>,
    outbox: Vec<(SocketAddr, Vec<u8>)>,
}

impl End {
    fn new(role: Role, session: EspSession<Handle, u32>, address: SocketAddr, now: Instant) -> Self {
        let mut end = Self {
            session,
            role,
            address,
            blocked: false,
            passes: 1472,
            interface: usize::MAX,
            drops_marks: false,
            refused: Vec::new(),
            origin: 3,
            route: None,
            epoch: None,
            smallest_mtu: None,
            claimed: Vec::new(),
            inbound: BTreeMap::new(),
            drawn: 0,
            lacks_indices: false,
            share: Bytes::new(),
            listens: true,
            opened: 0,
            failed: 0,
            heard: BTreeMap::new(),
            told: BTreeMap::new(),
            sent: Vec::new(),
            outbox: Vec::new(),
        };
        end.execute(now);
        end
    }

    /// Carries the session's commands out, up to the first that fails.
    pub(super) fn execute(&mut self, now: Instant) {
        while let Some(command) = self.session.poll_command() {
            match command {
                Command::Prepare { .. } if self.lacks_indices => return,
                Command::Prepare { group, peer_share: _ } => self.prepare(group, now),
                Command::Install { peer_share } => self.install(&peer_share, now),
                Command::Retire(spi) => {
                    self.inbound.remove(&spi);
                    self.claimed.retain(|claimed| *claimed != spi);
                }
                Command::SetRoute(route) => {
                    let mtu = route.as_ref().map(|route| route.mtu);
                    self.smallest_mtu = self.smallest_mtu.into_iter().chain(mtu).min();
                    self.route = route;
                }
                Command::Send { datagram, .. } if datagram.len() > self.interface => {
                    self.refused.push(datagram.len());
                    self.session.handle_refused(datagram.len(), now);
                }
                Command::Send { ecn, .. } if ecn != ecn::NOT_ECT && self.drops_marks => {}
                Command::Send { to, datagram, .. } => self.put(to, datagram),
                Command::ListenForSent => self.listens = true,
                Command::Tell(Change::NewKeys { epoch }) => {
                    assert!(self.epoch.is_none_or(|before| before < epoch), "epochs only grow");
                    self.epoch = Some(epoch);
                }
                Command::Tell(_) => {}
            }
        }
    }

    /// Any bytes do for a share: what the two ends made of them is the secret.
    fn prepare(&mut self, group: Option<Group>, now: Instant) {
        self.drawn += 1;
        let spi = Spi::new(0, self.drawn + if self.role == Role::Client { 0x1000 } else { 0x2000 }).unwrap();
        let len = group.map_or(0, |group| match self.role {
            Role::Client => group.client_share_len(),
            Role::Server => group.server_share_len(),
        });
        self.claimed.push(spi);
        self.share = Bytes::from(vec![u8::try_from(self.drawn % 200).unwrap() + self.role as u8; len]);
        self.session.handle_prepared(spi, self.share.clone(), now);
    }

    fn install(&mut self, peer_share: &[u8], now: Instant) {
        let (ours, theirs) = (self.share.first(), peer_share.first());
        let secret = ours.zip(theirs).map(|(&ours, &theirs)| [(ours ^ theirs) | 0x80, ours.max(theirs)]);
        let new = self.session.handle_secret(secret.as_ref().map(|secret| &secret[..])).unwrap();
        let (epoch, accept) = (new.epoch, new.accept);
        let (inbound, outbound) = new.into_inbound_and_outbound();
        assert!(self.claimed.contains(&inbound.spi), "only a claimed index gets an SA");
        let outbound = Rc::new(Outbound::new(outbound.spi, outbound.keys).unwrap());
        self.inbound.insert(inbound.spi, (epoch, Inbound::new(inbound.spi, inbound.keys, accept).unwrap()));
        self.session.handle_installed(outbound, now);
    }

    fn put(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        *self.told.entry(to).or_default() += datagram.len();
        self.sent.push((to, datagram.clone()));
        self.outbox.push((to, datagram));
    }

    /// Sends an IP packet as a worker does; says whether it went by ESP.
    fn send_packet(&mut self, now: Instant) -> bool {
        let Some(route) = &self.route else { return false };
        let (sa, to) = (Rc::clone(&route.sa), route.to);
        let mut datagram = vec![0; packet::sealed_len(60)];
        datagram[PREFIX_LEN] = 0x45;
        sa.reserve(1, 60).unwrap().seal(&mut datagram, 60, NextHeader::Ipv4).unwrap();
        self.put(to, datagram);
        if std::mem::take(&mut self.listens) {
            self.session.handle_hints(Hints { sent: true, ..Hints::default() }, now);
            self.execute(now);
        }
        true
    }

    fn receive(&mut self, from: SocketAddr, mut datagram: Vec<u8>, now: Instant) {
        let len = datagram.len();
        let spi = Spi::from_wire(u32::from_be_bytes(*datagram.first_chunk().unwrap())).unwrap();
        let Some((epoch, sa)) = self.inbound.get_mut(&spi) else {
            self.failed += 1;
            return;
        };
        let opened = match sa.open(&mut datagram) {
            Ok(opened) => opened,
            Err(DropReason::Replayed | DropReason::TooOld) => return,
            Err(_) => {
                self.failed += 1;
                return;
            }
        };
        *self.heard.entry(from).or_default() += len;
        let is_dummy = opened.next_header == NextHeader::Nothing;
        self.opened += u64::from(!is_dummy);
        let probe = is_dummy.then(|| Probe::decode(&datagram[opened.range()])).flatten();
        let is_proven = self.route.as_ref().is_some_and(|route| route.to == from);
        if probe.is_some() || !is_proven {
            let (epoch, newest) = (*epoch, opened.arrival == Arrival::Newest);
            let report = Report { epoch, from, origin: self.origin, len, newest, probe };
            self.session.handle_report(&report, now);
            self.execute(now);
        }
    }

    /// What was sent to an address.
    pub(super) fn sent_to(&self, to: SocketAddr) -> Vec<Vec<u8>> {
        self.sent.iter().filter(|(address, _)| *address == to).map(|(_, datagram)| datagram.clone()).collect()
    }

    pub(super) fn route_to(&self) -> Option<SocketAddr> {
        self.route.as_ref().map(|route| route.to)
    }

    pub(super) fn route_from(&self) -> Option<u32> {
        self.route.as_ref()?.origin
    }

    pub(super) fn mtu(&self) -> Option<u16> {
        self.route.as_ref().map(|route| route.mtu)
    }

    /// What holds at any time.
    fn check(&self, now: Instant) {
        assert!(self.session.poll_timeout(now).is_none_or(|at| at > now), "a timeout that was handled is gone");
        assert_eq!(self.session.commands.len(), 0, "all commands are carried out");
        assert!(self.claimed.len() <= 18, "indices go back: {}", self.claimed.len());
        assert!(self.inbound.keys().all(|spi| self.claimed.contains(spi)), "no SA without its index");
        if let Some(route) = &self.route {
            assert_eq!(self.session.state(), PathState::Up, "packets go by ESP only while it passes");
            assert!((IPV6_MIN_MTU..=LARGEST).contains(&route.mtu), "{}", route.mtu);
            assert_eq!(self.session.path.address(), Some(route.to), "packets go to the proven address");
            assert!(Rc::ptr_eq(&route.sa, self.session.epochs.active().unwrap()), "with the keys in use");
        }
        let [told, heard] = [&self.told, &self.heard].map(|bytes| bytes.get(&attacker()).copied().unwrap_or(0));
        assert!(told <= 3 * heard, "an address that proves nothing gets three times what came from it at most");
    }
}

/// A datagram on its way.
#[derive(Debug, Clone)]
struct Frame {
    from: SocketAddr,
    to: SocketAddr,
    datagram: Vec<u8>,
}

/// What is on its way from one end.
struct Wire {
    datagrams: Passage<Frame>,
    capsules: VecDeque<(Instant, EspCapsule)>,
}

pub(super) struct World {
    start: Instant,
    pub(super) now: Instant,
    pub(super) client: End,
    pub(super) server: End,
    up: Wire,
    down: Wire,
    /// IP packets sent.
    pub(super) sent: u64,
}

impl World {
    pub(super) fn new(negotiated: Answer, policies: [RekeyPolicy; 2], link: &Link, seed: u64) -> Self {
        Self::build(negotiated, policies, link, seed, [[7; 32]; 2])
    }

    pub(super) fn usual() -> Self {
        let link = Link { delay_ms: 1.0, ..Link::default() };
        Self::new(answer(), [policy(), policy()], &link, 1)
    }

    pub(super) fn with_secrets(secrets: [[u8; 32]; 2]) -> Self {
        Self::build(answer(), [policy(), policy()], &Link::default(), 1, secrets)
    }

    fn build(
        negotiated: Answer,
        policies: [RekeyPolicy; 2],
        link: &Link,
        seed: u64,
        mut secrets: [[u8; 32]; 2],
    ) -> Self {
        let now = start();
        let (name, description) = (String::new(), String::new());
        let profile = Profile { name, description, up: link.clone(), down: link.clone() };
        let wire = |direction| {
            let datagrams = Passage::new(Impairment::new(&profile, direction, seed), CAPACITY);
            Wire { datagrams, capsules: VecDeque::new() }
        };
        let [client_secret, server_secret] = &mut secrets;
        let [client_policy, server_policy] = policies;
        let setup = |secret, policy, seed| Setup { negotiated, secret, policy, largest_packet: LARGEST, seed };
        let client = EspSession::client(setup(client_secret, client_policy, [1; 32]), gateway(), now);
        let server = EspSession::server(setup(server_secret, server_policy, [2; 32]), now);
        assert_eq!(secrets, [[0; 32]; 2], "taken and erased");
        Self {
            start: now,
            now,
            client: End::new(Role::Client, client, home(), now),
            server: End::new(Role::Server, server, gateway(), now),
            up: wire(LinkDirection::Up),
            down: wire(LinkDirection::Down),
            sent: 0,
        }
    }

    /// Lets time pass, from one thing that happens to the next.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.step();
            match self.next_event().filter(|at| *at <= end) {
                Some(at) => self.now = at,
                None => break,
            }
        }
        self.now = end;
        self.step();
    }

    /// Lets time pass with packets in both directions every 10 ms; returns when the first end stopped sending by ESP.
    pub(super) fn run_busy(&mut self, time: Duration) -> Option<Duration> {
        let began = self.now;
        let mut stopped = None;
        while self.now - began < time {
            let by_esp = [&mut self.client, &mut self.server].map(|end| end.send_packet(self.now));
            self.sent += by_esp.iter().filter(|went| **went).count() as u64;
            if by_esp.contains(&false) && stopped.is_none() {
                stopped = Some(self.now - began);
            }
            self.run(PACKET_PAUSE);
        }
        stopped
    }

    pub(super) fn send_packet_from_client(&mut self) -> bool {
        self.client.send_packet(self.now)
    }

    /// A datagram reaches the server from anywhere.
    pub(super) fn deliver_to_server(&mut self, from: SocketAddr, datagram: Vec<u8>) {
        self.server.receive(from, datagram, self.now);
    }

    pub(super) fn block(&mut self, blocked: bool) {
        (self.client.blocked, self.server.blocked) = (blocked, blocked);
    }

    pub(super) fn by_esp(&self) -> [bool; 2] {
        [self.client.route.is_some(), self.server.route.is_some()]
    }

    /// Datagrams that the network lost.
    pub(super) fn lost(&self) -> u64 {
        self.up.datagrams.counts().lost + self.down.datagrams.counts().lost
    }

    /// Everything that is due now.
    fn step(&mut self) {
        loop {
            let (client, server, now) = (&mut self.client, &mut self.server, self.now);
            for end in [&mut *client, &mut *server] {
                end.session.handle_timeout(now);
                end.execute(now);
            }
            let elapsed = now - self.start;
            let is_busy = exchange(client, server, &mut self.up, now, elapsed)
                | exchange(server, client, &mut self.down, now, elapsed);
            if !is_busy {
                break;
            }
        }
        self.client.check(self.now);
        self.server.check(self.now);
    }

    fn next_event(&self) -> Option<Instant> {
        let ends = [&self.client, &self.server].map(|end| end.session.poll_timeout(self.now));
        let wires = [&self.up, &self.down].map(|wire| {
            let datagram = wire.datagrams.poll_timeout().map(|at| self.start + at);
            datagram.into_iter().chain(wire.capsules.front().map(|(at, _)| *at)).min()
        });
        ends.into_iter().chain(wires).flatten().min()
    }
}

/// Moves what one end has for the other onto the wire, and what is due off it; says whether something arrived.
fn exchange(from: &mut End, to: &mut End, wire: &mut Wire, now: Instant, elapsed: Duration) -> bool {
    while let Some(capsule) = from.session.poll_transmit() {
        wire.capsules.push_back((now + STREAM_DELAY, capsule));
    }
    for (address, datagram) in from.outbox.drain(..) {
        if !from.blocked && datagram.len() <= from.passes {
            let bytes = datagram.len();
            wire.datagrams.handle(elapsed, Frame { from: from.address, to: address, datagram }, bytes);
        }
    }
    let mut arrived = false;
    while wire.capsules.front().is_some_and(|(at, _)| *at <= now)
        && let Some((_, capsule)) = wire.capsules.pop_front()
    {
        arrived = true;
        to.session.handle_capsule(capsule, now).unwrap();
        to.execute(now);
    }
    while let Some(delivery) = wire.datagrams.poll(elapsed) {
        arrived = true;
        let Frame { from, to: address, datagram } = delivery.frame;
        if address == to.address {
            for _ in 0..=usize::from(delivery.doubled) {
                to.receive(from, datagram.clone(), now);
            }
        }
    }
    arrived
}

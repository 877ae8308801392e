//! A client, a gateway and a network between them, under virtual time.

use std::net::SocketAddr;
use std::rc::Rc;

use adit_netem::{Impairment, Link, LinkDirection, Passage, Profile};
use zeroize::Zeroizing;

use super::super::*;
use crate::dtls::greeting::{Greeter, Greeting};
use crate::dtls::handshake::Credential;
use crate::dtls::message::HelloBeginning;
use crate::dtls::record::Header;
use crate::dtls::secret::MasterSecret;
use crate::sealing::test_cipher::{AwsCipher, start};

pub(super) type End = Association<AwsCipher, Rc<Outbound<AwsCipher>>>;

const CAPACITY: usize = 10_000;
pub(super) const SESSION: [u8; 32] = [5; 32];

pub(super) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) fn psk(suites: &[CipherSuite]) -> Credential {
    Credential::PreSharedKey { key: Zeroizing::new(vec![6; 32]), suites: suites.to_vec() }
}

pub(super) fn resumed(suite: CipherSuite) -> Credential {
    Credential::Resumed { master: MasterSecret::new([7; 48]), suite }
}

pub(super) fn setup(credential: Credential, seed: u8) -> Setup {
    Setup { credential, session_id: SESSION.to_vec(), random: [seed; 32], largest_datagram: 1200 }
}

/// How both ends are set up.
pub(super) struct Plan {
    pub(super) client: Setup,
    pub(super) server: Setup,
    pub(super) link: Link,
    pub(super) seed: u64,
    /// Whether the gateway asks for a cookie.
    pub(super) asks: bool,
}

impl Plan {
    pub(super) fn new(client: Credential, server: Credential) -> Self {
        let link = Link { delay_ms: 10.0, ..Link::default() };
        Self { client: setup(client, 1), server: setup(server, 2), link, seed: 1, asks: true }
    }

    pub(super) fn psk(suite: CipherSuite) -> Self {
        Self::new(psk(&CipherSuite::PSK), psk(&[suite]))
    }

    pub(super) fn resumed(suite: CipherSuite) -> Self {
        Self::new(resumed(suite), resumed(suite))
    }
}

pub(super) struct World {
    start: Instant,
    pub(super) now: Instant,
    greeter: Greeter,
    asks: bool,
    /// What the gateway will begin an association with, once a client is introduced.
    waiting: Option<Setup>,
    pub(super) client: End,
    pub(super) server: Option<End>,
    up: Passage<Vec<u8>>,
    down: Passage<Vec<u8>>,
    /// All datagrams that were sent: by whom and when.
    pub(super) sent: Vec<(Role, Duration, Vec<u8>)>,
    /// What happens to the datagram with that number of an end; `None` loses it.
    pub(super) tamper: fn(Role, usize, Vec<u8>) -> Option<Vec<u8>>,
    pub(super) client_events: Vec<Event>,
    pub(super) server_events: Vec<Event>,
    /// Records and datagrams that an end refused.
    pub(super) dropped: Vec<DropReason>,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let now = start();
        let Plan { client, server, link, seed, asks } = plan;
        let profile = Profile { name: String::new(), description: String::new(), up: link.clone(), down: link };
        let passage = |direction| Passage::new(Impairment::new(&profile, direction, seed), CAPACITY);
        Self {
            start: now,
            now,
            greeter: Greeter::new([9; 32], now),
            asks,
            waiting: Some(server),
            client: Association::client(client, now),
            server: None,
            up: passage(LinkDirection::Up),
            down: passage(LinkDirection::Down),
            sent: Vec::new(),
            tamper: |_, _, datagram| Some(datagram),
            client_events: Vec::new(),
            server_events: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Lets that much time pass.
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
    }

    /// Both ends are established, or the test has failed.
    pub(super) fn established(plan: Plan) -> Self {
        let mut world = Self::new(plan);
        world.run(ms(200));
        assert_eq!(world.client_events, [Event::Established]);
        assert_eq!(world.server_events, [Event::Established]);
        world.client_events.clear();
        world.server_events.clear();
        world
    }

    pub(super) fn server(&mut self) -> &mut End {
        self.server.as_mut().unwrap()
    }

    pub(super) fn is_established(&self) -> [bool; 2] {
        [&self.client_events, &self.server_events].map(|events| events.contains(&Event::Established))
    }

    /// Something that an attacker or a network puts in front of the gateway.
    pub(super) fn inject_to_server(&mut self, datagram: &[u8]) {
        self.deliver_to_server(datagram.to_vec());
        self.step();
    }

    pub(super) fn inject_to_client(&mut self, datagram: &[u8]) {
        self.dropped.extend(self.client.handle_datagram(&mut datagram.to_vec(), self.now).err());
        self.step();
    }

    /// The datagrams that an end sent so far.
    pub(super) fn sent_by(&self, role: Role) -> Vec<Vec<u8>> {
        self.sent.iter().filter(|(by, ..)| *by == role).map(|(.., datagram)| datagram.clone()).collect()
    }

    fn next_event(&self) -> Option<Instant> {
        let wires = [&self.up, &self.down].map(|wire| wire.poll_timeout().map(|at| self.start + at));
        let ends = [self.client.poll_timeout(), self.server.as_ref().and_then(End::poll_timeout)];
        wires.into_iter().chain(ends).flatten().min()
    }

    fn step(&mut self) {
        loop {
            self.client.handle_timeout(self.now);
            self.server.iter_mut().for_each(|server| server.handle_timeout(self.now));
            self.drain();
            let elapsed = self.now - self.start;
            let (to_server, to_client) = (self.up.poll(elapsed), self.down.poll(elapsed));
            if to_server.is_none() && to_client.is_none() {
                break;
            }
            if let Some(delivery) = to_server {
                (0..=usize::from(delivery.doubled)).for_each(|_| self.deliver_to_server(delivery.frame.clone()));
            }
            if let Some(delivery) = to_client {
                for _ in 0..=usize::from(delivery.doubled) {
                    self.dropped.extend(self.client.handle_datagram(&mut delivery.frame.clone(), self.now).err());
                }
            }
        }
        for end in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            assert!(end.poll_timeout().is_none_or(|at| at > self.now), "a timeout that was handled is gone");
        }
    }

    /// As a gateway does: a hello goes to the greeter first, everything else to the association of its address.
    fn deliver_to_server(&mut self, mut datagram: Vec<u8>) {
        let from: SocketAddr = "198.51.100.7:40000".parse().unwrap();
        let greeting = if self.asks { self.greeter.greet(&datagram, from, self.now) } else { take(&datagram) };
        match greeting {
            Ok(Greeting::Ask(answer)) => return self.transmit(Role::Server, answer),
            Ok(Greeting::Proven(introduction)) if introduction.session == SESSION => {
                if let Some(setup) = self.waiting.take() {
                    self.server = Some(Association::server(setup, &introduction, self.now));
                }
            }
            Ok(Greeting::Proven(_)) | Err(_) => {}
        }
        let Some(server) = &mut self.server else { return };
        self.dropped.extend(server.handle_datagram(&mut datagram, self.now).err());
    }

    fn drain(&mut self) {
        self.client_events.extend(std::iter::from_fn(|| self.client.poll_event()));
        let from_client: Vec<_> = std::iter::from_fn(|| self.client.poll_transmit()).collect();
        from_client.into_iter().for_each(|datagram| self.transmit(Role::Client, datagram));
        let Some(server) = &mut self.server else { return };
        self.server_events.extend(std::iter::from_fn(|| server.poll_event()));
        let from_server: Vec<_> = std::iter::from_fn(|| server.poll_transmit()).collect();
        from_server.into_iter().for_each(|datagram| self.transmit(Role::Server, datagram));
    }

    pub(super) fn transmit(&mut self, by: Role, datagram: Vec<u8>) {
        let elapsed = self.now - self.start;
        let number = self.sent.iter().filter(|(other, ..)| *other == by).count();
        self.sent.push((by, elapsed, datagram.clone()));
        let Some(datagram) = (self.tamper)(by, number, datagram) else { return };
        let (wire, bytes) = (if by == Role::Client { &mut self.up } else { &mut self.down }, datagram.len());
        wire.handle(elapsed, datagram, bytes);
    }
}

/// Takes whoever says hello at its word, as gateways do that ask for no cookie.
fn take(datagram: &[u8]) -> Result<Greeting, DropReason> {
    let header = Header::parse(datagram)?;
    let (fragment, _) = Fragment::split_first(&datagram[HEADER_LEN..]).ok_or(DropReason::BadRecord)?;
    let is_hello = header.epoch == 0 && fragment.kind == Kind::ClientHello && fragment.offset == 0;
    let (hello, _) = HelloBeginning::parse(fragment.part).filter(|_| is_hello).ok_or(DropReason::BadRecord)?;
    Ok(Greeting::Proven(Introduction {
        session: hello.session_id.to_vec(),
        random: hello.random,
        number: fragment.number,
        sequence: header.sequence,
    }))
}

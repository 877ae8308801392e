use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::drop_reason::DropReason;
use crate::esp::keys::KeyChain;
use crate::esp::packet::{MAX_OVERHEAD, NextHeader, PREFIX_LEN};
use crate::esp::sa::{Acceptance, Inbound, IvRule, Outbound};
use crate::sealing::test_cipher::{AwsCipher, start};

const NEGOTIATED: Answer = Answer { suite: Suite::Aes256Gcm, group: Group::X25519, vouched: true };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One end with its SAs, as the shell has them.
struct End {
    rekey: Rekey,
    chain: KeyChain,
    outbound: BTreeMap<u32, Outbound<AwsCipher>>,
    inbound: BTreeMap<u32, Inbound<AwsCipher>>,
    active: Option<u32>,
    drawn: u32,
    received: BTreeSet<u32>,
    refused: Vec<DropReason>,
}

impl End {
    fn new(role: Role) -> Self {
        Self {
            rekey: Rekey::new(role, &NEGOTIATED),
            chain: KeyChain::new(&mut [7; 32]),
            outbound: BTreeMap::new(),
            inbound: BTreeMap::new(),
            active: None,
            drawn: 0,
            received: BTreeSet::new(),
            refused: Vec::new(),
        }
    }

    fn install(&mut self, client: &SaInit, server: &SaInit) {
        let shared: Vec<u8> = client.share.iter().zip(&server.share).map(|(a, b)| a ^ b | 1).collect();
        let keys = self.chain.advance(client, server, client.group.map(|_| &shared[..])).unwrap();
        let accept = Acceptance { iv: IvRule::IsSequence, vouched: true };
        let (outbound, inbound) = match self.rekey.role {
            Role::Client => ((server.spi, keys.client_to_server), (client.spi, keys.server_to_client)),
            Role::Server => ((client.spi, keys.server_to_client), (server.spi, keys.client_to_server)),
        };
        self.outbound.insert(client.epoch, Outbound::new(outbound.0, outbound.1).unwrap());
        self.inbound.insert(client.epoch, Inbound::new(inbound.0, inbound.1, accept).unwrap());
    }

    fn seal(&self, epoch: u32, packet: &[u8], next_header: NextHeader) -> Vec<u8> {
        let mut slot = [&[0; PREFIX_LEN], packet, &[0; MAX_OVERHEAD - PREFIX_LEN]].concat();
        let mut reservation = self.outbound[&epoch].reserve(1, packet.len()).unwrap();
        let len = reservation.seal(&mut slot, packet.len(), next_header).unwrap();
        slot.truncate(len);
        slot
    }

    /// Does what the machine asks for; returns datagrams to send.
    fn drain(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while let Some(event) = self.rekey.poll_event() {
            match event {
                RekeyEvent::Prepare { epoch, group, .. } => {
                    self.drawn += 1;
                    let spi = Spi::new(0, self.drawn).unwrap();
                    let share = vec![u8::try_from(epoch % 200).unwrap(); group.map_or(0, Group::client_share_len)];
                    self.rekey.handle_prepared(spi, share.into());
                }
                RekeyEvent::Install { client, server } => {
                    self.install(&client, &server);
                    self.rekey.handle_installed(now);
                }
                RekeyEvent::ProbeOutbound { epoch } => datagrams.push(self.seal(epoch, &[], NextHeader::Nothing)),
                RekeyEvent::ActivateOutbound { epoch } => {
                    self.active = Some(epoch);
                    self.outbound.retain(|&other, _| other >= epoch);
                }
                RekeyEvent::RetireInbound { epoch } => drop(self.inbound.remove(&epoch)),
                RekeyEvent::RetireOutbound => {
                    self.active = None;
                    self.outbound.clear();
                }
            }
        }
        datagrams
    }

    /// Opens a datagram; a probe is answered with the active SA.
    fn receive(&mut self, mut datagram: Vec<u8>, now: Instant) -> Vec<Vec<u8>> {
        let spi = u32::from_be_bytes(datagram[..4].try_into().unwrap());
        let Some((&epoch, inbound)) = self.inbound.iter_mut().find(|(_, inbound)| inbound.spi().get() == spi) else {
            self.refused.push(DropReason::UnknownSpi);
            return Vec::new();
        };
        match inbound.open(&mut datagram) {
            Err(reason) => {
                self.refused.push(reason);
                Vec::new()
            }
            Ok(opened) => {
                self.rekey.handle_authenticated(epoch, now);
                let mut out = self.drain(now);
                if opened.next_header == NextHeader::Nothing && self.rekey.role == Role::Server {
                    out.push(self.seal(self.active.unwrap(), &[], NextHeader::Nothing));
                } else if opened.next_header == NextHeader::Ipv4 {
                    let packet = &datagram[opened.range()];
                    self.received.insert(u32::from_be_bytes(packet[1..5].try_into().unwrap()));
                }
                out
            }
        }
    }
}

/// What is on its way to one end: capsules in order, datagrams with their time.
#[derive(Default)]
struct Wire {
    capsules: VecDeque<(Instant, EspCapsule)>,
    datagrams: Vec<(Instant, Vec<u8>)>,
}

/// Two ends and a network with delay, jitter and loss, under virtual time.
struct World {
    now: Instant,
    ends: [End; 2],
    to: [Wire; 2],
    random: u64,
    loss_percent: u64,
    jitter_ms: u64,
    lost: [BTreeSet<u32>; 2],
    sent: u32,
}

impl World {
    fn new(loss_percent: u64, jitter_ms: u64) -> Self {
        Self {
            now: start(),
            ends: [End::new(Role::Client), End::new(Role::Server)],
            to: [Wire::default(), Wire::default()],
            random: 0x1234_5678_9abc_def1,
            loss_percent,
            jitter_ms,
            lost: [BTreeSet::new(), BTreeSet::new()],
            sent: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    fn transmit(&mut self, from: usize, datagram: Vec<u8>) -> bool {
        let at = self.now + ms(5 + self.draw(self.jitter_ms + 1));
        let lost = self.draw(100) < self.loss_percent;
        if !lost {
            self.to[1 - from].datagrams.push((at, datagram));
        }
        !lost
    }

    fn send_packet(&mut self, from: usize) {
        let Some(epoch) = self.ends[from].active else { return };
        self.sent += 1;
        let number = self.sent;
        let packet = [&[0x45][..], &number.to_be_bytes(), &[0; 20]].concat();
        let datagram = self.ends[from].seal(epoch, &packet, NextHeader::Ipv4);
        if !self.transmit(from, datagram) {
            self.lost[1 - from].insert(number);
        }
    }

    fn step(&mut self) {
        self.now += ms(1);
        for side in 0..2 {
            let now = self.now;
            self.ends[side].rekey.handle_timeout(now);
            let mut out = self.ends[side].drain(now);
            while self.to[side].capsules.front().is_some_and(|(at, _)| *at <= now) {
                let (_, capsule) = self.to[side].capsules.pop_front().unwrap();
                self.ends[side].rekey.handle_capsule(capsule, now).unwrap();
                out.extend(self.ends[side].drain(now));
            }
            let (due, rest) = std::mem::take(&mut self.to[side].datagrams).into_iter().partition(|(at, _)| *at <= now);
            self.to[side].datagrams = rest;
            for (_, datagram) in due {
                out.extend(self.ends[side].receive(datagram, now));
            }
            while let Some(capsule) = self.ends[side].rekey.poll_transmit() {
                let at = now + ms(5 + self.draw(self.jitter_ms * 3 + 1));
                let at = self.to[1 - side].capsules.back().map_or(at, |(before, _)| at.max(*before));
                self.to[1 - side].capsules.push_back((at, capsule));
            }
            for datagram in out {
                self.transmit(side, datagram);
            }
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    fn connect(loss_percent: u64, jitter_ms: u64) -> Self {
        let mut world = Self::new(loss_percent, jitter_ms);
        world.ends[0].rekey.handle_rekey_wanted();
        world.run(ms(2000));
        assert_eq!(world.ends.each_ref().map(|end| end.active), [Some(0), Some(0)]);
        world
    }
}

#[test]
fn first_epoch_is_up_after_two_round_trips() {
    let mut world = World::new(0, 0);
    world.ends[0].rekey.handle_rekey_wanted();
    world.run(ms(24));
    assert_eq!(world.ends.each_ref().map(|end| end.active), [Some(0), Some(0)]);
}

#[test]
fn rekey_every_second_under_load_loses_nothing() {
    for (loss, jitter) in [(0, 0), (0, 40), (10, 40), (30, 150)] {
        let mut world = World::connect(loss, jitter);
        for second in 0..25 {
            world.ends[second % 2].rekey.handle_rekey_wanted();
            for _ in 0..1000 {
                world.send_packet(0);
                world.send_packet(1);
                world.step();
            }
        }
        world.run(ms(500));
        for side in 0..2 {
            assert_eq!(world.ends[side].refused, [], "loss {loss}, jitter {jitter}");
        }
        let delivered = world.ends[0].received.len() + world.ends[1].received.len();
        let lost = world.lost[0].len() + world.lost[1].len();
        assert_eq!(delivered + lost, world.sent as usize);
        assert!(world.sent >= 50_000 && world.ends.iter().all(|end| end.active >= Some(10)));
    }
}

#[test]
fn old_inbound_sa_goes_ten_seconds_after_the_new_one_works() {
    let mut world = World::connect(0, 0);
    world.ends[0].rekey.handle_rekey_wanted();
    world.run(ms(100));
    assert!(world.ends.iter().all(|end| end.active == Some(1) && end.inbound.len() == 2));
    assert!(world.ends.iter().all(|end| end.outbound.len() == 1), "the old outbound SA goes at once");
    world.run(ms(9800));
    assert!(world.ends.iter().all(|end| end.inbound.len() == 2));
    world.run(ms(200));
    assert!(world.ends.iter().all(|end| end.inbound.keys().eq([&1])));
    assert!(world.ends.iter().all(|end| end.rekey.poll_timeout().is_none()));
}

#[test]
fn old_inbound_sa_goes_after_sixty_seconds_at_the_latest() {
    let mut world = World::connect(0, 0);
    world.loss_percent = 100;
    world.ends[0].rekey.handle_rekey_wanted();
    world.run(Duration::from_secs(59));
    assert!(world.ends.iter().all(|end| end.active == Some(0) && end.inbound.len() == 2));
    world.run(Duration::from_secs(2));
    assert!(world.ends.iter().all(|end| end.active == Some(1) && end.inbound.keys().eq([&1])));
}

#[test]
fn outbound_switches_only_after_the_new_sa_proved_itself() {
    let mut world = World::connect(0, 0);
    world.loss_percent = 100;
    world.ends[0].rekey.handle_rekey_wanted();
    world.run(ms(3000));
    assert!(world.ends.iter().all(|end| end.active == Some(0)), "both SAs exist, nothing came through");
    world.loss_percent = 0;
    world.run(ms(5000));
    assert!(world.ends.iter().all(|end| end.active == Some(1)));
}

#[test]
fn both_ends_want_new_keys_at_once_and_get_one_epoch() {
    let mut world = World::connect(0, 20);
    for _ in 0..3 {
        world.ends[1].rekey.handle_rekey_wanted();
        world.ends[0].rekey.handle_rekey_wanted();
    }
    world.run(ms(1000));
    assert!(
        world.ends.iter().all(|end| end.active == Some(1)),
        "the client's start wins, the server's wish was a hint"
    );
}

#[test]
fn server_asks_once_and_the_client_starts() {
    let mut world = World::connect(0, 0);
    world.ends[1].rekey.handle_rekey_wanted();
    world.ends[1].rekey.handle_rekey_wanted();
    assert_eq!(world.ends[1].rekey.poll_transmit(), Some(EspCapsule::RekeyRequest(1)));
    assert_eq!(world.ends[1].rekey.poll_transmit(), None);
    let now = world.now;
    for epoch in [0, 2, 1, 1] {
        world.ends[0].rekey.handle_capsule(EspCapsule::RekeyRequest(epoch), now).unwrap();
    }
    world.run(ms(100));
    assert!(world.ends.iter().all(|end| end.active == Some(1)), "stale and repeated requests start nothing");
}

#[test]
fn close_ends_all_sas_at_once_and_for_good() {
    let mut world = World::connect(0, 0);
    world.ends[0].rekey.handle_rekey_wanted();
    world.run(ms(100));
    let now = world.now;
    for end in &mut world.ends {
        end.rekey.handle_closed();
        assert!(end.drain(now).is_empty());
        assert!(end.inbound.is_empty() && end.outbound.is_empty() && end.active.is_none());
        end.rekey.handle_rekey_wanted();
        end.rekey.handle_authenticated(1, now);
        end.rekey.handle_capsule(EspCapsule::RekeyRequest(2), now).unwrap();
        end.rekey.handle_timeout(now + Duration::from_secs(100));
        assert_eq!((end.rekey.poll_event(), end.rekey.poll_transmit(), end.rekey.poll_timeout()), (None, None, None));
    }
}

fn offer(epoch: u32, spi: u32) -> SaInit {
    let group = (epoch > 0).then_some(Group::X25519);
    let share = vec![1; group.map_or(0, Group::client_share_len)].into();
    SaInit { epoch, suite: Suite::Aes256Gcm, flags: 3, spi: Spi::new(1, spi).unwrap(), group, share }
}

#[test]
fn peer_that_breaks_the_rules_is_refused() {
    let mut world = World::connect(0, 0);
    let now = world.now;
    let [client, server] = &mut world.ends;
    let mut refuse = |init: SaInit, error| {
        assert_eq!(server.rekey.handle_capsule(EspCapsule::SaInit(init), now), Err(error));
    };
    refuse(offer(0, 9), RekeyError::Epoch);
    refuse(offer(2, 9), RekeyError::Epoch);
    refuse(SaInit { suite: Suite::Aes128Gcm, ..offer(1, 9) }, RekeyError::Choice);
    refuse(SaInit { group: None, share: Bytes::new(), ..offer(1, 9) }, RekeyError::Choice);
    refuse(SaInit { share: vec![1; 31].into(), ..offer(1, 9) }, RekeyError::Choice);
    refuse(SaInit { spi: Spi::new(0, 1).unwrap(), ..offer(1, 9) }, RekeyError::Spi);
    let request = EspCapsule::RekeyRequest(1);
    assert_eq!(server.rekey.handle_capsule(request, now), Err(RekeyError::Unexpected));
    assert_eq!(client.rekey.handle_capsule(EspCapsule::SaInit(offer(1, 9)), now), Err(RekeyError::Unexpected));
    server.rekey.handle_capsule(EspCapsule::SaInit(offer(1, 9)), now).unwrap();
    let again = EspCapsule::SaInit(offer(1, 9));
    assert_eq!(server.rekey.handle_capsule(again, now), Err(RekeyError::Unexpected), "one at a time");
}

#[test]
fn flood_of_epochs_is_bounded_in_time_and_memory() {
    let now = start();
    let mut server = End::new(Role::Server);
    let mut outcome = Ok(());
    let mut epochs = 0;
    while outcome.is_ok() {
        outcome = server.rekey.handle_capsule(EspCapsule::SaInit(offer(epochs, 100 + epochs)), now);
        drop(server.drain(now));
        while server.rekey.poll_transmit().is_some() {}
        epochs += 1;
        assert!(server.inbound.len() <= MAX_INBOUND);
    }
    assert_eq!((outcome, epochs), (Err(RekeyError::TooOften), EPOCHS_AT_ONCE + 1));
}

#[test]
fn server_that_gets_the_next_epoch_takes_the_last_as_confirmed() {
    let now = start();
    let mut server = End::new(Role::Server);
    for epoch in 0..2 {
        server.rekey.handle_capsule(EspCapsule::SaInit(offer(epoch, 100 + epoch)), now).unwrap();
        drop(server.drain(now));
    }
    assert_eq!(server.active, Some(0));
}

#[test]
fn wish_while_an_epoch_is_confirmed_is_kept() {
    let now = start();
    for role in [Role::Client, Role::Server] {
        let mut rekey = Rekey::new(role, &NEGOTIATED);
        rekey.next_epoch = 3;
        rekey.state = State::Confirming { epoch: 2, anyway_at: now, probe_at: None, pause: PROBE_PAUSE };
        match role {
            Role::Client => rekey.handle_capsule(EspCapsule::RekeyRequest(3), now).unwrap(),
            Role::Server => rekey.handle_rekey_wanted(),
        }
        assert!(rekey.poll_transmit().is_none() && rekey.poll_event().is_none());
        rekey.handle_authenticated(2, now);
        assert_eq!(rekey.poll_event(), Some(RekeyEvent::ActivateOutbound { epoch: 2 }));
        match role {
            Role::Client => assert!(matches!(rekey.poll_event(), Some(RekeyEvent::Prepare { epoch: 3, .. }))),
            Role::Server => assert_eq!(rekey.poll_transmit(), Some(EspCapsule::RekeyRequest(3))),
        }
    }
}

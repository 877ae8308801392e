//! Two ends and a network between them, under virtual time.

use adit_netem::{Impairment, Link, LinkDirection, Passage, Profile};
use proptest::prelude::*;

use super::*;

const CAPACITY: usize = 1000;
/// A handshake's patience in openvpn.
const HAND_WINDOW: Duration = Duration::from_secs(60);
const LARGEST: usize = 100;

struct World {
    start: Instant,
    now: Instant,
    ends: [Reliability; 2],
    /// From each end to the other.
    wires: [Passage<Packet>; 2],
    received: [Vec<u8>; 2],
    /// Packets that each end sent.
    sent: [usize; 2],
}

impl World {
    fn new(link: &Link, seed: u64) -> Self {
        let profile = Profile { name: String::new(), description: String::new(), up: link.clone(), down: link.clone() };
        let wire = |direction| Passage::new(Impairment::new(&profile, direction, seed), CAPACITY);
        Self {
            start: start(),
            now: start(),
            ends: [Reliability::new(0), Reliability::new(0)],
            wires: [wire(LinkDirection::Up), wire(LinkDirection::Down)],
            received: [Vec::new(), Vec::new()],
            sent: [0; 2],
        }
    }

    fn is_settled(&self) -> bool {
        self.ends.iter().all(Reliability::is_settled)
    }

    /// Until nothing is waited for, or a handshake would have been given up.
    fn run(&mut self) {
        let end = self.start + HAND_WINDOW;
        while !self.is_settled() {
            self.step();
            let wires = self.wires.iter().filter_map(Passage::poll_timeout).map(|at| self.start + at);
            let timers = self.ends.iter().filter_map(Reliability::poll_timeout);
            match wires.chain(timers).min().filter(|at| *at <= end) {
                Some(at) => self.now = at,
                None => break,
            }
        }
    }

    fn step(&mut self) {
        let elapsed = self.now - self.start;
        for from in 0..2 {
            while let Some(delivery) = self.wires[from].poll(elapsed) {
                for _ in 0..=usize::from(delivery.doubled) {
                    self.deliver(1 - from, delivery.frame.clone());
                }
            }
        }
        for from in 0..2 {
            self.ends[from].handle_timeout(self.now);
            while let Some(out) = self.ends[from].poll_transmit(self.now) {
                self.sent[from] += 1;
                let bytes = out.message.as_ref().map_or(0, |message| message.payload.len()) + 50;
                self.wires[from].handle(elapsed, out.packet(KeyId::FIRST, THERE, HERE), bytes);
            }
        }
    }

    fn deliver(&mut self, to: usize, packet: Packet) {
        let taken = self.ends[to].handle_packet(packet);
        assert!(matches!(taken, Ok(()) | Err(DropReason::Replayed)), "no end sends what the other has no room for");
        while let Some(message) = self.ends[to].poll_message() {
            self.received[to].extend(message.payload);
        }
    }
}

fn stream(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|index| seed.wrapping_add(u8::try_from(index % 251).unwrap())).collect()
}

#[test]
fn quiet_network_needs_no_repetition() {
    let mut world = World::new(&Link { delay_ms: 50.0, ..Link::default() }, 1);
    let bytes = stream(3, 30 * LARGEST);
    world.ends[0].handle_stream(&bytes, LARGEST).unwrap();
    world.run();
    assert_eq!(world.received[1], bytes);
    assert_eq!(world.sent, [30, 5], "each message once, and one acknowledgement for each window of them");
}

#[test]
fn handshake_gets_through_where_a_third_is_lost() {
    let link = Link { delay_ms: 50.0, loss_percent: 33.0, ..Link::default() };
    let settled = (0..50).filter(|seed| {
        let mut world = World::new(&link, *seed);
        world.ends[0].handle_stream(&stream(1, 3 * LARGEST), LARGEST).unwrap();
        world.ends[1].handle_stream(&stream(2, 6 * LARGEST), LARGEST).unwrap();
        world.run();
        world.is_settled()
    });
    assert!(settled.count() >= 45, "seeds are fixed, so this is no chance");
}

#[test]
fn silence_is_met_with_few_packets() {
    let mut world = World::new(&Link { loss_percent: 100.0, ..Link::default() }, 1);
    world.ends[0].handle_stream(&stream(1, 40 * LARGEST), LARGEST).unwrap();
    world.run();
    let repetitions = [0, 1, 3, 7, 15, 31, 47].len();
    assert_eq!(world.sent, [repetitions * usize::try_from(WINDOW).unwrap(), 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streams_come_through_whole_whatever_the_network_does(
        seed in any::<u64>(),
        loss in 0.0..20.0,
        reorder in 0.0..30.0,
        duplicate in 0.0..30.0,
        lengths in [0..40_usize, 0..40],
    ) {
        let link = Link {
            delay_ms: 20.0,
            jitter_ms: 5.0,
            loss_percent: loss,
            reorder_percent: reorder,
            reorder_ms: 30.0,
            duplicate_percent: duplicate,
            ..Link::default()
        };
        let mut world = World::new(&link, seed);
        let streams = [stream(1, lengths[0] * LARGEST), stream(2, lengths[1] * LARGEST)];
        for (end, stream) in world.ends.iter_mut().zip(&streams) {
            end.handle_stream(stream, LARGEST).unwrap();
        }
        world.run();
        for (received, stream) in [(&world.received[1], &streams[0]), (&world.received[0], &streams[1])] {
            prop_assert!(stream.starts_with(received), "in order, and nothing twice");
            prop_assert!(!world.is_settled() || received == stream);
        }
        prop_assert!(world.sent.iter().sum::<usize>() < 40 * (lengths[0] + lengths[1]) + 1);
    }
}

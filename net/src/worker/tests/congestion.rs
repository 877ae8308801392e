//! A queue that stands in front of a worker is told to the senders.

use adit_proto::packet::ecn;

use super::super::mailbox::{Command, Mailbox};
use super::super::receive::{Receive, Surroundings};
use super::*;
use crate::tun::Tun;

/// Datagrams of one message.
const SEGMENTS: usize = 40;
/// How long the worker takes for a message.
const WORK: Duration = Duration::from_micros(500);

/// A receive side between a peer and a real device.
struct Scene {
    receive: Receive<Session>,
    router: Router,
    mailbox: Mailbox<Session>,
    tun: Tun,
    socket: EspSocket,
    peer: Peer,
    session: Arc<Session>,
    /// Where the packets end.
    inside: EspSocket,
    /// What the peer sends again and again: one message.
    packets: Vec<Vec<u8>>,
    messages: usize,
}

impl Scene {
    fn new(ecn: u8) -> Self {
        let tun = device(1, 1);
        let (socket, address) = outer();
        let [near, far] = [1, 2].map(|random| Spi::new(0, random).unwrap());
        let sas = sas(near, far, true);
        let (session, _keeper) = session();
        let sessions = vec![("10.9.0.2".parse().unwrap(), Arc::clone(&session))];
        let router = Router { sessions, counters: Counters::default() };
        let mut receive = Receive::new();
        let reports = mpsc::channel(1).0;
        let installation = Installation { sa: sas.near.1, epoch: 0, session: Arc::clone(&session), reports };
        receive.apply(vec![Command::Install(Box::new(installation))]);
        let (inside, port) = joined();
        let payloads: Vec<_> = (0..SEGMENTS).map(|number| content(1300, number)).collect();
        let packets = flow(Udp { ecn, ..Udp::to(port, Checksums::Full) }, &payloads);
        let (mailbox, peer) = (Mailbox::new().unwrap(), Peer::new(address, sas.far));
        Self { receive, router, mailbox, tun, socket, peer, session, inside, packets, messages: 0 }
    }

    /// So many messages come.
    fn arrive(&mut self, count: usize) {
        (0..count).for_each(|_| self.peer.send_packets(&self.packets, false));
        self.messages += count;
    }

    /// The worker takes a message; whether there was one.
    fn take(&mut self) -> bool {
        thread::sleep(WORK);
        let around = Surroundings { routing: &self.router, mailbox: &self.mailbox, queue: &*self.tun.queues()[0] };
        self.receive.step(&around, 0, &self.socket).is_some()
    }

    /// The ECN bits of the packets of each message that came in since this was last asked.
    fn came_in(&self) -> Vec<Vec<u8>> {
        let messages = std::iter::from_fn(|| message(&self.inside, Duration::from_millis(5)));
        let packets: Vec<_> = messages.flat_map(|(message, parts)| vec![message.ecn; parts.len()]).collect();
        packets.chunks(SEGMENTS).map(<[u8]>::to_vec).collect()
    }

    /// Fails unless the condition comes true while the queue stays as long as it is.
    fn stand_until(&mut self, holds: impl Fn(&Self) -> bool) {
        eventually("a queue that stands", || {
            self.arrive(1);
            assert!(self.take());
            holds(self)
        });
    }

    fn lost(&self, reason: DropReason) -> usize {
        let counters = [self.session.carriers.counters(), &self.router.counters];
        usize::try_from(counters.map(|counters| drops(counters, reason)).iter().sum::<u64>()).unwrap()
    }
}

#[test]
fn single_packets_are_marked_whose_ends_know_ecn() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::ECT_0);
        scene.arrive(20);
        let began = Instant::now();
        scene.stand_until(|_| began.elapsed() > Duration::from_millis(30));
        while scene.take() {}
        let messages = scene.came_in();
        assert_eq!(
            (messages.concat().len(), scene.session.carriers.counters().traffic().drops),
            (scene.messages * SEGMENTS, vec![])
        );
        let marks = |message: &Vec<u8>| message.iter().filter(|&&bits| bits == ecn::CE).count();
        assert_eq!(messages.iter().map(marks).max(), Some(1));
        // The first ones came before the queue stood; the first of a message is marked, so that its sender hears
        // soonest.
        assert_eq!(marks(&messages[0]), 0);
        assert!(messages.iter().all(|message| message[1..] == [ecn::ECT_0; SEGMENTS - 1]));
    });
}

#[test]
fn single_packets_are_lost_whose_ends_do_not() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::NOT_ECT);
        scene.arrive(20);
        scene.stand_until(|scene| scene.lost(DropReason::CongestionExperienced) >= 2);
        while scene.take() {}
        let lost = scene.lost(DropReason::CongestionExperienced);
        assert!(lost < scene.messages, "{lost} packets of {} messages", scene.messages);
        assert_eq!(scene.came_in().concat().len() + lost, scene.messages * SEGMENTS);
    });
}

#[test]
fn sign_waits_for_a_packet_that_can_bear_it() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::ECT_0);
        let first = scene.peer.seal(&scene.packets, false);
        let len = first.len() / SEGMENTS;
        scene.peer.send(&first, len, 0);
        assert!(scene.take());
        let replay = &first[..len];
        let send = |scene: &Scene| {
            let sealed = scene.peer.seal(&scene.packets, false);
            let mut forged = sealed[..len].to_vec();
            forged[len - 1] ^= 1;
            scene.peer.send(&[&forged[..], replay, &sealed[len..]].concat(), len, 0);
        };
        (0..20).for_each(|_| send(&scene));
        let is_marked = (0..10_000).any(|_| {
            send(&scene);
            assert!(scene.take());
            scene.came_in().concat().contains(&ecn::CE)
        });
        assert!(is_marked);
    });
}

#[test]
fn lone_messages_cost_nothing_however_late_the_worker_is() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::NOT_ECT);
        for _ in 0..20 {
            scene.arrive(1);
            thread::sleep(Duration::from_millis(5));
            // It never looks for a second one.
            assert!(scene.take());
        }
        assert_eq!(scene.came_in().concat().len(), scene.messages * SEGMENTS);
    });
}

#[test]
fn what_waits_too_long_for_a_sign_to_help_is_lost() {
    in_namespace(|| {
        let mut scene = Scene::new(ecn::NOT_ECT);
        scene.arrive(60);
        scene.stand_until(|scene| scene.lost(DropReason::QueueFull) > 0);
        assert_eq!(scene.lost(DropReason::QueueFull), SEGMENTS);
        assert_eq!(scene.lost(DropReason::CongestionExperienced), 16, "signs come first");
        // What comes later passes again.
        while scene.take() {}
        scene.came_in();
        scene.arrive(1);
        assert!(scene.take());
        assert_eq!(scene.came_in(), [[ecn::NOT_ECT; SEGMENTS]]);
    });
}

//! A receive side that takes messages when a test says so.

use super::super::mailbox::{Command, Mailbox};
use super::super::receive::{Receive, Surroundings};
use super::*;
use crate::tun::Tun;

/// Datagrams of one message.
pub(super) const SEGMENTS: usize = 40;
/// How long the worker takes for a message.
const WORK: Duration = Duration::from_micros(500);

/// A receive side between a peer and a real device.
pub(super) struct Scene {
    receive: Receive<Session>,
    router: Router,
    mailbox: Mailbox<Session>,
    tun: Tun,
    socket: EspSocket,
    pub(super) peer: Peer,
    pub(super) session: Arc<Session>,
    /// Where the packets end.
    pub(super) inside: EspSocket,
    /// What the peer sends again and again: one message.
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) messages: usize,
}

impl Scene {
    pub(super) fn new(ecn: u8) -> Self {
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
    pub(super) fn arrive(&mut self, count: usize) {
        (0..count).for_each(|_| self.peer.send_packets(&self.packets, false));
        self.messages += count;
    }

    /// The worker takes a message, and writes what was in it; whether there was one.
    pub(super) fn take(&mut self) -> bool {
        thread::sleep(WORK);
        let taken = self.hold();
        self.flush();
        taken
    }

    /// The worker takes a message, of which it may hold what is in it; whether there was one.
    pub(super) fn hold(&mut self) -> bool {
        let around = Surroundings { routing: &self.router, mailbox: &self.mailbox, queue: &*self.tun.queues()[0] };
        self.receive.step(&around, 0, &self.socket).is_some()
    }

    /// The worker writes what it holds.
    pub(super) fn flush(&mut self) {
        let around = Surroundings { routing: &self.router, mailbox: &self.mailbox, queue: &*self.tun.queues()[0] };
        self.receive.flush(&around);
    }

    /// The ECN bits of the packets of each message that came in since this was last asked.
    pub(super) fn came_in(&self) -> Vec<Vec<u8>> {
        let messages = std::iter::from_fn(|| message(&self.inside, Duration::from_millis(5)));
        let packets: Vec<_> = messages.flat_map(|(message, parts)| vec![message.ecn; parts.len()]).collect();
        packets.chunks(SEGMENTS).map(<[u8]>::to_vec).collect()
    }

    /// Fails unless the condition comes true while the queue stays as long as it is.
    pub(super) fn stand_until(&mut self, holds: impl Fn(&Self) -> bool) {
        eventually("a queue that stands", || {
            self.arrive(1);
            assert!(self.take());
            holds(self)
        });
    }

    pub(super) fn lost(&self, reason: DropReason) -> usize {
        let counters = [self.session.carriers.counters(), &self.router.counters];
        usize::try_from(counters.map(|counters| drops(counters, reason)).iter().sum::<u64>()).unwrap()
    }
}

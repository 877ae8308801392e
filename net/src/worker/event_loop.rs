//! The loop of one worker.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::mailbox::{Command, Mailbox};
use super::readiness::{Readiness, Ready};
use super::receive::{Receive, Surroundings};
use super::transmit::Transmit;
use super::{Installation, Routing, Settings};
use crate::tun::{PacketQueue, Queue};
use crate::udp::{DatagramSocket, EspSocket};

/// Superpackets or messages moved in one direction before the other gets its turn.
const BUDGET: usize = 8;
/// Single packets that cost as much as one superpacket or message. A whole turn of them fills one call of UDP_SEGMENT,
/// or one superpacket.
const SINGLES: usize = 8;

/// So many turns in a row that found one packet each make the next ones expect no more than one.
const LONELY: u8 = 4;
/// So many more of them, and a turn looks whether that is still true.
const LONELY_TURNS: u8 = 7;

/// Whether every turn takes a tenth longer than it needs. The feature exists so that a maintainer can see whether a
/// comparison of builds finds a slower one (`docs/comparing.md`, "Trusting a machine"). A build without it has no trace
/// of this.
const IS_SLOWED: bool = cfg!(feature = "slow-packets");

/// How packets have come from one side of late.
///
/// To read until nothing is left takes a call more than there are packets. Where packets come one at a time, as those
/// of a conversation do, that call is most of what it costs to look, and the packet waits for it.
#[derive(Debug, Default)]
struct Rhythm {
    /// Turns in a row that found one packet.
    lonely: u8,
}

impl Rhythm {
    const fn expects_one(&self) -> bool {
        self.lonely >= LONELY && self.lonely < LONELY + LONELY_TURNS
    }

    /// Takes note of how many reads of a turn found something.
    const fn note(&mut self, found: usize) {
        self.lonely = match found {
            0 => self.lonely,
            1 if self.lonely < LONELY + LONELY_TURNS => self.lonely + 1,
            1 => LONELY,
            _ => 0,
        };
    }
}

/// What one call that moved so many packets takes of a turn's budget.
const fn cost(packets: usize) -> usize {
    if packets > 1 { SINGLES } else { 1 }
}

/// What a turn moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moved {
    Nothing,
    /// Single packets only.
    Packets,
    /// Many packets in one call.
    Superpackets,
}

impl Moved {
    /// One call that moved so many packets.
    fn by(packets: usize) -> Self {
        if packets > 1 { Self::Superpackets } else { Self::Packets }
    }
}

/// One worker and all that it owns.
pub struct Worker<R: Routing, Q = Queue, D = EspSocket> {
    routing: Arc<R>,
    queue: Arc<Q>,
    mailbox: Arc<Mailbox<R::Session>>,
    transmit: Transmit<R::Session, D>,
    receive: Receive<R::Session>,
    settings: Settings,
    /// Of the queue, and of all sockets.
    rhythms: [Rhythm; 2],
}

impl<R: Routing, Q: PacketQueue, D: DatagramSocket> Worker<R, Q, D> {
    pub(super) fn new(
        routing: Arc<R>,
        queue: Arc<Q>,
        sockets: Vec<Arc<D>>,
        mailbox: Arc<Mailbox<R::Session>>,
        settings: Settings,
    ) -> Self {
        let (transmit, receive) = (Transmit::new(R::TOO_BIG_PARTS, sockets), Receive::new());
        Self { routing, queue, mailbox, transmit, receive, settings, rhythms: Default::default() }
    }

    /// Makes a worker without a thread, which moves packets only in [`Self::step`]. It is for measurements: no control
    /// side can reach it.
    ///
    /// # Errors
    /// The system gives no event descriptor.
    pub fn alone(routing: Arc<R>, queue: Arc<Q>, socket: Arc<D>) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::new()?);
        Ok(Self::new(routing, queue, vec![socket], mailbox, Settings::default()))
    }

    /// Opens the packets of this SA from now on.
    pub fn install(&mut self, installation: Installation<R::Session>) {
        self.receive.apply(vec![Command::Install(Box::new(installation))]);
    }

    /// Moves a bounded number of packets in each direction, and tells whether there were any.
    ///
    /// # Errors
    /// Packets can no longer be read.
    pub fn step(&mut self) -> io::Result<bool> {
        Ok(self.turn(Ready::PERHAPS_ALL)? != Moved::Nothing)
    }

    /// Moves a bounded number of packets in each direction, and sends all that was collected.
    fn turn(&mut self, ready: Ready) -> io::Result<Moved> {
        let mut moved = Moved::Nothing;
        let [of_queue, of_sockets] = self.rhythms.each_ref().map(|rhythm| ready.is_told() && rhythm.expects_one());
        let mut left = match (ready.queue, of_queue) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => BUDGET * SINGLES,
        };
        let mut found = 0;
        while left > 0
            && let Some(segments) = self.transmit.step(&*self.routing, &*self.queue)?
        {
            found += 1;
            left = left.saturating_sub(cost(segments));
            moved = moved.max(Moved::by(segments));
        }
        self.rhythms[0].note(found);
        self.transmit.flush();
        let around = Surroundings { routing: &*self.routing, mailbox: &self.mailbox, queue: &*self.queue };
        let sockets = self.transmit.sockets().iter().enumerate();
        found = 0;
        for (number, socket) in sockets.filter(|(number, _)| ready.socket(*number)) {
            let mut left = if of_sockets { 1 } else { BUDGET * SINGLES };
            while left > 0
                && let Some(datagrams) = self.receive.step(&around, number, &**socket)
            {
                found += 1;
                left = left.saturating_sub(cost(datagrams));
                moved = moved.max(Moved::by(datagrams));
            }
        }
        self.receive.flush(&around);
        self.rhythms[1].note(found);
        Ok(moved)
    }
}

impl<R: Routing, Q: PacketQueue + AsFd, D: DatagramSocket + AsFd> Worker<R, Q, D> {
    /// Moves packets until it is stopped, or fails because the TUN device is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        let sockets = self.transmit.sockets().iter().map(AsFd::as_fd);
        let mut readiness = Readiness::new(self.queue.as_fd(), self.mailbox.as_fd(), sockets)?;
        let (mut yields, mut ready) = (0, Ready::PERHAPS_ALL);
        while !self.mailbox.is_stopped() {
            self.receive.apply(self.mailbox.take());
            let moved = if IS_SLOWED { stretched(|| self.turn(ready))? } else { self.turn(ready)? };
            ready = match moved {
                // More of them follow most of the time.
                Moved::Superpackets => {
                    yields = self.settings.yields;
                    Ready::PERHAPS_ALL
                }
                Moved::Nothing if yields > 0 => {
                    // The other end of a transfer may run now. If nobody wants to, yielding is still cheaper than
                    // sleeping and being woken. After single packets there is no yielding: the next one rarely comes at
                    // once.
                    yields -= 1;
                    std::thread::yield_now();
                    Ready::PERHAPS_ALL
                }
                // The program that waits for these packets often waits for this core as well. One call that
                // waits lets it run; trying to read from each descriptor would take one call each.
                Moved::Packets | Moved::Nothing => self.wait(&mut readiness)?,
            };
        }
        Ok(())
    }

    /// Sleeps until there is something to read.
    fn wait(&mut self, readiness: &mut Readiness) -> io::Result<Ready> {
        self.transmit.forget();
        let ready = readiness.wait(&*self.queue, self.transmit.is_waiting())?;
        if ready.mailbox {
            self.mailbox.clear();
        }
        Ok(ready)
    }
}

/// Makes a turn that moved something take a tenth longer.
fn stretched(turn: impl FnOnce() -> io::Result<Moved>) -> io::Result<Moved> {
    let started = Instant::now();
    let moved = turn()?;
    let enough = started.elapsed().mul_f64(1.1);
    while moved != Moved::Nothing && started.elapsed() < enough {
        std::hint::spin_loop();
    }
    Ok(moved)
}

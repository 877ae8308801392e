//! The loop of one worker.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::mailbox::{Command, Mailbox};
use super::receive::{Receive, Surroundings};
use super::transmit::Transmit;
use super::{Installation, MAX_SOCKETS, Routing, Settings};
use crate::tun::{PacketQueue, Queue};
use crate::udp::{DatagramSocket, EspSocket};

/// Superpackets or messages moved in one direction before the other gets its turn.
const BUDGET: usize = 8;
/// Single packets that cost as much as one superpacket. A whole turn of them fills one call of UDP_SEGMENT.
const SINGLES: usize = 8;

/// What a worker waits for: its queue, its mailbox and its sockets.
const PLACES: usize = MAX_SOCKETS + 2;

/// How soon a full socket is tried again, in milliseconds: the shortest that poll(2) sleeps at all. Three tries fit in
/// the patience of the transmit side, and 125 KB leave a card of 1 Gbit/s between two.
const RETRY_MS: u16 = 1;

/// What may have something to read.
#[derive(Debug, Clone, Copy)]
struct Ready {
    queue: bool,
    /// One bit for each socket, the first one the lowest.
    sockets: u32,
}

impl Ready {
    /// To be found out by reading.
    const PERHAPS_ALL: Self = Self { queue: true, sockets: u32::MAX };

    fn socket(self, number: usize) -> bool {
        self.sockets >> number & 1 == 1
    }
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

/// One worker and all it owns.
pub struct Worker<R: Routing, Q = Queue, D = EspSocket> {
    routing: Arc<R>,
    queue: Arc<Q>,
    mailbox: Arc<Mailbox<R::Session>>,
    transmit: Transmit<R::Session, D>,
    receive: Receive<R::Session>,
    settings: Settings,
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
        Self { routing, queue, mailbox, transmit, receive, settings }
    }

    /// Makes a worker without a thread, for who measures what it does: nobody else reaches it.
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

    /// Moves a bounded number of packets in each direction.
    fn turn(&mut self, ready: Ready) -> io::Result<Moved> {
        let mut moved = Moved::Nothing;
        let mut left = if ready.queue { BUDGET * SINGLES } else { 0 };
        while left > 0
            && let Some(segments) = self.transmit.step(&*self.routing, &*self.queue)?
        {
            left = left.saturating_sub(if segments > 1 { SINGLES } else { 1 });
            moved = moved.max(Moved::by(segments));
        }
        self.transmit.flush();
        let around = Surroundings { routing: &*self.routing, mailbox: &self.mailbox, queue: &*self.queue };
        let sockets = self.transmit.sockets().iter().enumerate();
        for (number, socket) in sockets.filter(|(number, _)| ready.socket(*number)) {
            for _ in 0..BUDGET {
                let Some(datagrams) = self.receive.step(&around, number, &**socket) else { break };
                moved = moved.max(Moved::by(datagrams));
            }
        }
        Ok(moved)
    }
}

impl<R: Routing, Q: PacketQueue + AsFd, D: DatagramSocket + AsFd> Worker<R, Q, D> {
    /// A turn that takes a tenth longer than it needs, so that tests know whether a comparison of builds finds that.
    #[cfg(feature = "slow-packets")]
    fn slow_turn(&mut self, ready: Ready) -> io::Result<Moved> {
        let started = std::time::Instant::now();
        let moved = self.turn(ready)?;
        let enough = started.elapsed().mul_f64(1.1);
        while moved != Moved::Nothing && started.elapsed() < enough {
            std::hint::spin_loop();
        }
        Ok(moved)
    }

    /// Moves packets until it is stopped, or fails because the TUN device is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        let (mut yields, mut ready) = (0, Ready::PERHAPS_ALL);
        while !self.mailbox.is_stopped() {
            self.receive.apply(self.mailbox.take());
            #[cfg(not(feature = "slow-packets"))]
            let moved = self.turn(ready)?;
            #[cfg(feature = "slow-packets")]
            let moved = self.slow_turn(ready)?;
            ready = match moved {
                // More of them follow most of the time.
                Moved::Superpackets => {
                    yields = self.settings.yields;
                    Ready::PERHAPS_ALL
                }
                Moved::Nothing if yields > 0 => {
                    // The other end of a transfer runs now, or nobody does; both are cheaper than sleeping and being woken. After single
                    // packets it would be the wrong guess, and who sleeps is woken ahead of others.
                    yields -= 1;
                    std::thread::yield_now();
                    Ready::PERHAPS_ALL
                }
                // Whoever waits for these packets often waits for this core too: one call, not one for each descriptor, lets it run.
                Moved::Packets | Moved::Nothing => self.wait()?,
            };
        }
        Ok(())
    }

    /// Sleeps until there is something to read.
    fn wait(&mut self) -> io::Result<Ready> {
        self.transmit.forget();
        let mut wanted: [PollFd<'_>; PLACES] =
            std::array::from_fn(|_| PollFd::new(self.queue.as_fd(), PollFlags::POLLIN));
        // What a full socket refused is tried again soon: that it is half empty, of which poll(2) would tell, comes too late.
        let holds = self.transmit.is_waiting();
        let patience = if holds { PollTimeout::from(RETRY_MS) } else { PollTimeout::NONE };
        if let Some(queue) = wanted.first_mut().filter(|_| holds) {
            queue.set_events(PollFlags::empty());
        }
        let others = std::iter::once(self.mailbox.as_fd()).chain(self.transmit.sockets().iter().map(AsFd::as_fd));
        let mut count = 1;
        for (place, fd) in wanted.iter_mut().skip(1).zip(others) {
            *place = PollFd::new(fd, PollFlags::POLLIN);
            count += 1;
        }
        match poll(&mut wanted[..count], patience) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // An event without a name is one, too.
        let mut some = wanted[..count].iter().map(|place| place.any() != Some(false));
        let queue = some.next() == Some(true) || holds;
        if some.next() == Some(true) {
            self.mailbox.clear();
        }
        let sockets = some.enumerate().fold(0, |bits, (number, some)| bits | u32::from(some) << number);
        Ok(Ready { queue, sockets })
    }
}

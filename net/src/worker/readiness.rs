//! What a worker waits for: its queue of the TUN device, its mailbox and its sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::MAX_SOCKETS;

/// The queue, the mailbox and the sockets.
const PLACES: usize = MAX_SOCKETS + 2;
/// What the kernel tells of the queue. The sockets follow by their numbers.
const QUEUE: u64 = MAX_SOCKETS as u64;
/// What it tells of the mailbox.
const MAILBOX: u64 = QUEUE + 1;

/// How soon a full socket is tried again, in milliseconds: the shortest time that epoll_wait(2) sleeps at all. Three
/// tries fit in the patience of the transmit side, and a link of 1 Gbit/s carries 125 KB between two of them.
const RETRY_MS: u8 = 1;

/// What may have something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) queue: bool,
    pub(super) mailbox: bool,
    /// One bit for each socket, the first one the lowest.
    sockets: u32,
}

impl Ready {
    /// To be found out by reading.
    pub(super) const PERHAPS_ALL: Self = Self { queue: true, mailbox: true, sockets: u32::MAX };
    const NOTHING: Self = Self { queue: false, mailbox: false, sockets: 0 };

    /// Whether the kernel said so, which then says as well what else there is.
    pub(super) fn is_told(self) -> bool {
        self.sockets != u32::MAX
    }

    pub(super) fn socket(self, number: usize) -> bool {
        self.sockets >> number & 1 == 1
    }

    fn note(&mut self, place: u64) {
        match place {
            QUEUE => self.queue = true,
            MAILBOX => self.mailbox = true,
            socket => self.sockets |= 1 << socket,
        }
    }
}

/// The descriptors of a worker, told to the kernel once: a worker sleeps for nearly every packet of a conversation, and
/// poll(2) would enter and leave all of them each time.
pub(super) struct Readiness {
    epoll: Epoll,
    /// Whether packets that come into the queue wake the worker.
    is_queue_awaited: bool,
}

impl Readiness {
    /// Awaits these descriptors, which must stay open for as long as this is used.
    ///
    /// # Errors
    /// The system gives no descriptor, or one of these cannot be waited for.
    pub(super) fn new<'a>(
        queue: BorrowedFd<'_>,
        mailbox: BorrowedFd<'_>,
        sockets: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(queue, event(QUEUE, EpollFlags::EPOLLIN))?;
        epoll.add(mailbox, event(MAILBOX, EpollFlags::EPOLLIN))?;
        for (socket, place) in sockets.zip(0..QUEUE) {
            epoll.add(socket, event(place, EpollFlags::EPOLLIN))?;
        }
        Ok(Self { epoll, is_queue_awaited: true })
    }

    /// Sleeps until there is something to read.
    ///
    /// While a full socket holds packets of `queue` up, nothing is read from there, and the sleep is short: the kernel
    /// would say that the socket can be written only once it is half empty, which is too late.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub(super) fn wait(&mut self, queue: impl AsFd, is_held_up: bool) -> io::Result<Ready> {
        if self.is_queue_awaited == is_held_up {
            let wanted = if is_held_up { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
            self.epoll.modify(queue, &mut event(QUEUE, wanted))?;
            self.is_queue_awaited = !is_held_up;
        }
        let timeout = if is_held_up { EpollTimeout::from(RETRY_MS) } else { EpollTimeout::NONE };
        let mut events = [EpollEvent::empty(); PLACES];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        // An event of another kind than asked for counts as well: reading shows what it is.
        let mut ready = Ready { queue: is_held_up, ..Ready::NOTHING };
        events.iter().take(count).for_each(|event| ready.note(event.data()));
        Ok(ready)
    }
}

fn event(place: u64, wanted: EpollFlags) -> EpollEvent {
    EpollEvent::new(wanted, place)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What a worker waits for, with the ends that fill it.
    struct Ends {
        queue: [UnixStream; 2],
        mailbox: [UnixStream; 2],
        sockets: [[UnixStream; 2]; 2],
    }

    impl Ends {
        fn new() -> Self {
            let pair = || UnixStream::pair().map(<[_; 2]>::from).expect("a pair of sockets");
            Self { queue: pair(), mailbox: pair(), sockets: [pair(), pair()] }
        }

        fn readiness(&self) -> Readiness {
            let sockets = self.sockets.iter().map(|[end, _]| end.as_fd());
            Readiness::new(self.queue[0].as_fd(), self.mailbox[0].as_fd(), sockets).expect("an epoll descriptor")
        }
    }

    fn fill(mut end: &UnixStream) {
        end.write_all(b"packet").expect("an open pair");
    }

    #[test]
    fn each_descriptor_is_told_by_its_own_name() {
        let ends = Ends::new();
        let mut readiness = ends.readiness();
        fill(&ends.sockets[1][1]);
        let second = readiness.wait(&ends.queue[0], false).unwrap();
        assert_eq!(second, Ready { sockets: 0b10, ..Ready::NOTHING });
        assert!(second.is_told() && second.socket(1) && !second.socket(0));
        fill(&ends.queue[1]);
        fill(&ends.mailbox[1]);
        let all = readiness.wait(&ends.queue[0], false).unwrap();
        assert_eq!(all, Ready { queue: true, mailbox: true, sockets: 0b10 });
    }

    #[test]
    fn held_up_queue_is_looked_at_soon_whether_or_not_it_has_packets() {
        let ends = Ends::new();
        let mut readiness = ends.readiness();
        let only_queue = Ready { queue: true, ..Ready::NOTHING };
        assert_eq!(readiness.wait(&ends.queue[0], true).unwrap(), only_queue);
        fill(&ends.queue[1]);
        assert_eq!(readiness.wait(&ends.queue[0], true).unwrap(), only_queue);
        fill(&ends.sockets[0][1]);
        assert_eq!(readiness.wait(&ends.queue[0], true).unwrap(), Ready { sockets: 1, ..only_queue });
    }

    #[test]
    fn queue_is_awaited_again_once_it_is_held_up_no_more() {
        let ends = Ends::new();
        let mut readiness = ends.readiness();
        readiness.wait(&ends.queue[0], true).unwrap();
        fill(&ends.queue[1]);
        assert!(readiness.wait(&ends.queue[0], false).unwrap().queue);
    }
}

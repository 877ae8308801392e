//! A cable with a fault in it: frames between two links of a host, carried by threads that impair them.
//!
//! The relay is a host without addresses that stands in the middle of a cable. Two packet sockets, one for each of its
//! links, and a thread for each direction hand frames on as they are, so that both ends see each other's addresses, MAC
//! addresses included, as on a plain cable. Each thread sleeps until a frame arrives or is due, to the microsecond, and
//! holds at most [`HELD_FRAMES`] frames. What it cannot read, hold or send in time is lost, and counted apart
//! ([`Counts::overrun`]).

use std::io::IoSliceMut;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use adit_netem::{Counts, Delivery, Impairment, LinkDirection, Passage, Profile};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, bind, recvmsg, send, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use super::Host;

/// `ETH_P_ALL` (linux/if_ether.h).
const ALL_PROTOCOLS: u16 = 3;
/// Room for a frame: an Ethernet and a VLAN header and the 1,500 bytes of a cable, with some to spare.
const FRAME: usize = 2_048;
/// Length of an Ethernet header (IEEE 802.3), which is no part of the packet.
const HEADER: usize = 14;
/// Frames of one direction on their way at most, 64 MiB of memory: a second at 400 Mbit/s of large packets.
const HELD_FRAMES: usize = 32 * 1_024;
/// What the kernel keeps for a thread that does not run at once. It counts small frames as at least 768 bytes.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Frames read, and frames sent, before the others get their turn. The clock is read once for them: at two microseconds
/// each they tell its time to 32.
const BATCH: usize = 16;
/// How late the kernel may wake a thread, in nanoseconds; the default is 50 µs.
const TIMER_SLACK_NANOSECONDS: u64 = 1_000;
/// Pause after an error of a socket, of which none lasts unless a link is gone.
const AFTER_ERROR: Duration = Duration::from_millis(1);

/// Threads that carry frames both ways; they end on drop.
#[derive(Debug)]
pub(super) struct Relay {
    stop: Arc<EventFd>,
    counts: [Arc<Mutex<Counts>>; 2],
    /// The longest frame that goes on, either way.
    longest: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Joins two links of `host`, `near` on the client's side and `far` on the gateway's, both of which are down, and
    /// sets them up.
    pub(super) fn start(host: &Host, near: &str, far: &str, profile: &Profile, seed: u64) -> Result<Self> {
        let links = [near.to_owned(), far.to_owned()];
        // While they are down, so that no socket has frames of another link from the time before it was bound.
        let [near_end, far_end] = host.run(move || links.map(|link| open(&link).map(Arc::new)));
        let (near_end, far_end) = (near_end?, far_end?);
        host.set_link(near, true)?;
        host.set_link(far, true)?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).context("make an event descriptor")?);
        let longest = Arc::new(AtomicUsize::new(FRAME));
        let mut relay = Self { stop, counts: Default::default(), longest, threads: Vec::new() };
        let ways = [(LinkDirection::Up, &near_end, &far_end), (LinkDirection::Down, &far_end, &near_end)];
        for ((direction, from, to), counts) in ways.into_iter().zip(&relay.counts) {
            let impairment = Impairment::new(profile, direction, seed);
            let longest = Arc::clone(&relay.longest);
            let carrier = Carrier::new(Arc::clone(from), Arc::clone(to), impairment, longest, Arc::clone(counts));
            let stop = Arc::clone(&relay.stop);
            relay.threads.push(host.start(move || carrier.run(&stop)));
        }
        Ok(relay)
    }

    /// From now on drops packets of more than `mtu` bytes either way, and tells nobody.
    pub(super) fn narrow(&self, mtu: usize) {
        self.longest.store(mtu.saturating_add(HEADER), Ordering::Relaxed);
    }

    /// What became of the frames so far, upwards and downwards.
    pub(super) fn counts(&self) -> [Counts; 2] {
        self.counts.each_ref().map(|counts| *counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.write(1).expect("a fresh event descriptor takes a number");
        for thread in self.threads.drain(..) {
            // A panic of the thread was already reported when it happened.
            drop(thread.join());
        }
    }
}

/// Opens a socket for all frames of one link, which does not see those it sends itself.
fn open(link: &str) -> Result<Socket> {
    let protocol = Protocol::from(i32::from(ALL_PROTOCOLS.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("open a packet socket")?;
    // The list of addresses has a link's own, which is what such a socket is bound to.
    let address = getifaddrs()
        .context("list links")?
        .filter(|interface| interface.interface_name == link)
        .find_map(|interface| interface.address.and_then(|address| address.as_link_addr().copied()));
    let address = address.with_context(|| format!("find the link {link}"))?;
    bind(socket.as_raw_fd(), &address).with_context(|| format!("bind a packet socket to {link}"))?;
    let forced = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    forced.or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)).context("enlarge a receive buffer")?;
    setsockopt(&socket, sockopt::RxqOvfl, &1).context("count the frames a socket drops")?;
    Ok(socket)
}

/// A frame and the memory it lies in, which outlives it.
#[derive(Debug)]
struct Frame {
    bytes: Box<[u8; FRAME]>,
    length: usize,
}

impl Frame {
    fn contents(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }
}

/// What carries the frames of one direction.
#[derive(Debug)]
struct Carrier {
    from: Arc<Socket>,
    to: Arc<Socket>,
    passage: Passage<Frame>,
    longest: Arc<AtomicUsize>,
    began: Instant,
    /// Frames that were read but have not begun their way.
    arrived: Vec<Frame>,
    /// Memory of frames that are gone.
    spare: Vec<Frame>,
    control: Vec<u8>,
    /// Frames the kernel could not keep until they were read, by its own count.
    unread: u32,
    /// Frames that did not fit into the memory for one, or that the kernel did not take.
    refused: u64,
    counts: Arc<Mutex<Counts>>,
}

impl Carrier {
    fn new(
        from: Arc<Socket>,
        to: Arc<Socket>,
        impairment: Impairment,
        longest: Arc<AtomicUsize>,
        counts: Arc<Mutex<Counts>>,
    ) -> Self {
        Self {
            from,
            to,
            passage: Passage::new(impairment, HELD_FRAMES),
            longest,
            began: Instant::now(),
            arrived: Vec::with_capacity(BATCH),
            spare: Vec::new(),
            control: nix::cmsg_space!(u32),
            unread: 0,
            refused: 0,
            counts,
        }
    }

    fn run(mut self, stop: &EventFd) {
        // Without it frames are a little later.
        let _later = prctl::set_timerslack(TIMER_SLACK_NANOSECONDS);
        while self.wait(stop) {
            self.read();
            // After they were read: no frame counts as arrived before it was.
            let (now, longest) = (self.began.elapsed(), self.longest.load(Ordering::Relaxed));
            for frame in self.arrived.drain(..) {
                let length = frame.length;
                let gone = if length > longest { Some(frame) } else { self.passage.handle(now, frame, length) };
                self.spare.extend(gone);
            }
            self.deliver();
            self.tell();
        }
    }

    /// Sleeps until a frame has arrived or is due (`true`), or the relay shall end.
    fn wait(&self, stop: &EventFd) -> bool {
        let timeout = self.passage.poll_timeout().map(|due| TimeSpec::from(due.saturating_sub(self.began.elapsed())));
        let mut descriptors =
            [PollFd::new(stop.as_fd(), PollFlags::POLLIN), PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        // An interruption by a signal is a wake-up like another.
        let _interrupted = ppoll(&mut descriptors, timeout, None);
        let [stopped, _arrived] = descriptors;
        !stopped.any().unwrap_or(false)
    }

    /// Reads the frames that have arrived, as many as are one batch.
    fn read(&mut self) {
        while self.arrived.len() < BATCH {
            let fresh = || Frame { bytes: Box::new([0; FRAME]), length: 0 };
            let mut frame = self.spare.pop().unwrap_or_else(fresh);
            match self.receive(&mut frame) {
                Ok(length) if length <= FRAME => {
                    frame.length = length;
                    self.arrived.push(frame);
                }
                Ok(_too_large) => {
                    self.refused += 1;
                    self.spare.push(frame);
                }
                Err(error) => {
                    self.spare.push(frame);
                    if !matches!(error, Errno::EAGAIN | Errno::EINTR) {
                        thread::sleep(AFTER_ERROR);
                    }
                    return;
                }
            }
        }
    }

    /// Reads one frame; returns its length, also where it did not fit.
    fn receive(&mut self, frame: &mut Frame) -> nix::Result<usize> {
        let mut parts = [IoSliceMut::new(frame.bytes.as_mut_slice())];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let message = recvmsg::<()>(self.from.as_raw_fd(), &mut parts, Some(&mut self.control), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::RxqOvfl(total) = control {
                self.unread = total;
            }
        }
        Ok(message.bytes)
    }

    /// Sends the frames whose time has come, as many as are one batch.
    fn deliver(&mut self) {
        let now = self.began.elapsed();
        for _ in 0..BATCH {
            let Some(Delivery { mut frame, doubled, damaged_bit }) = self.passage.poll(now) else { return };
            if let Some(bit) = damaged_bit
                && let Some(byte) = frame.contents().get_mut(bit / 8)
            {
                *byte ^= 1 << (bit % 8);
            }
            for _ in 0..=usize::from(doubled) {
                let sent = send(self.to.as_raw_fd(), frame.contents(), MsgFlags::MSG_DONTWAIT);
                self.refused += u64::from(sent.is_err());
            }
            self.spare.push(frame);
        }
    }

    fn tell(&self) {
        let mut counts = self.passage.counts();
        counts.overrun += u64::from(self.unread) + self.refused;
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

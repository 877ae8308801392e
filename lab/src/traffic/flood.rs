//! Datagrams of a stranger's making, many at a time.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};

use super::Service;
use crate::Host;

/// Pause of a sender that is not behind.
const PAUSE: Duration = Duration::from_millis(1);
/// What a sender may be behind and still make up for.
const BACKLOG: Duration = Duration::from_millis(100);

/// Datagrams of one size that the kernel takes in one call (UDP_SEGMENT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volley {
    segment: u16,
    bytes: Vec<u8>,
}

impl Volley {
    /// Most datagrams in one call.
    pub const MOST: usize = 64;
    /// Most bytes in one call, and in one datagram.
    pub const MOST_BYTES: usize = 65_507;

    /// As many datagrams of `size` bytes as one call takes, each made by `fill`.
    ///
    /// # Panics
    /// Panics for a size that no datagram can have.
    pub fn new(size: usize, mut fill: impl FnMut(&mut [u8])) -> Self {
        assert!((1..=Self::MOST_BYTES).contains(&size), "a datagram has 1 to 65,507 bytes");
        let mut bytes = vec![0; size * Self::MOST.min(Self::MOST_BYTES / size)];
        bytes.chunks_mut(size).for_each(&mut fill);
        Self { segment: u16::try_from(size).expect("checked above"), bytes }
    }

    fn datagrams(&self) -> u64 {
        self.bytes.len().div_ceil(usize::from(self.segment).max(1)) as u64
    }
}

/// A sender that goes through its volleys again and again at a rate; it stops on drop.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    _service: Service,
}

impl Flood {
    /// Starts to send `rate` datagrams a second from `host`, from a port of its own.
    ///
    /// # Errors
    /// Fails where there is no such socket.
    pub fn start(host: &Host, target: SocketAddr, volleys: Vec<Volley>, rate: u32) -> Result<Self> {
        let any = if target.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0; 16], 0)) };
        let socket = host.run(move || UdpSocket::bind(any)).context("bind a UDP socket")?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = host.start({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || run(&socket, target, &volleys, rate, &sent, &stop)
        });
        Ok(Self { sent, _service: Service::new(stop, thread) })
    }

    /// Datagrams that the kernel took so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn run(socket: &UdpSocket, target: SocketAddr, volleys: &[Volley], rate: u32, sent: &AtomicU64, stop: &AtomicBool) {
    let target = SockaddrStorage::from(target);
    let mut due = Instant::now();
    for volley in volleys.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        while Instant::now() < due {
            thread::sleep(PAUSE);
        }
        if fire(socket, &target, volley).is_ok() {
            sent.fetch_add(volley.datagrams(), Ordering::Relaxed);
        }
        let earliest = Instant::now().checked_sub(BACKLOG).unwrap_or(due);
        due = due.max(earliest) + Duration::from_secs(1) * u32::try_from(volley.datagrams()).unwrap_or(1) / rate.max(1);
    }
}

fn fire(socket: &UdpSocket, target: &SockaddrStorage, volley: &Volley) -> io::Result<usize> {
    let together = [ControlMessage::UdpGsoSegments(&volley.segment)];
    let control = if volley.datagrams() > 1 { &together[..] } else { &[] };
    let bytes = [IoSlice::new(&volley.bytes)];
    Ok(sendmsg(socket.as_raw_fd(), &bytes, control, MsgFlags::empty(), Some(target))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volley_is_as_large_as_one_call_permits() {
        assert_eq!(Volley::new(1, |_| {}).datagrams(), 64);
        assert_eq!(Volley::new(1_400, |_| {}).datagrams(), 46);
        assert_eq!(Volley::new(Volley::MOST_BYTES, |_| {}).datagrams(), 1);
        let volley = Volley::new(3, |datagram| datagram.copy_from_slice(b"abc"));
        assert!(volley.bytes.starts_with(b"abcabcabc"));
    }
}

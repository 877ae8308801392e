//! Numbered UDP packets sent to an echo server and counted when they come back.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{STOP_CHECK, Service, enlarge_receive_buffer, readable};
use crate::Host;

/// Silence after the last packet was sent that counts as the end.
const QUIET: Duration = Duration::from_secs(3);

/// Pause between two packets of a [`Heartbeat`].
const BEAT: Duration = Duration::from_millis(5);

/// Larger than any packet sent here.
const BUFFER: usize = 2048;

/// An echo server in a lab host; it ends on drop.
#[derive(Debug)]
pub struct UdpEcho {
    address: SocketAddr,
    _service: Service,
}

impl UdpEcho {
    /// Starts an echo server at `address` and a free port.
    pub fn start(host: &Host, address: IpAddr) -> Result<Self> {
        let socket = host.run(move || UdpSocket::bind((address, 0))).context("bind a UDP socket")?;
        enlarge_receive_buffer(&socket).context("enlarge a receive buffer")?;
        let address = socket.local_addr().context("read a socket's address")?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = host.start({
            let stop = Arc::clone(&stop);
            move || serve(&socket, &stop)
        });
        Ok(Self { address, _service: Service::new(stop, thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EchoReport {
    /// Packets sent.
    pub sent: u32,
    /// Different packets that came back.
    pub received: u32,
    /// Packets that came back after a later one.
    pub reordered: u32,
    /// Packets that came back more than once.
    pub duplicated: u32,
}

impl EchoReport {
    /// Packets that never came back.
    pub fn lost(&self) -> u32 {
        self.sent - self.received
    }
}

/// Sends `count` packets of `size` payload bytes (at least 4) at `rate` per second from `host` to an echo server.
///
/// # Errors
/// Fails where a socket does; lost packets are no error.
pub fn echo(host: &Host, server: SocketAddr, count: u32, rate: u32, size: usize) -> Result<EchoReport> {
    host.run(move || client(server, count, rate, size)).with_context(|| format!("UDP echo with {server}"))
}

fn client(server: SocketAddr, count: u32, rate: u32, size: usize) -> io::Result<EchoReport> {
    let socket = connected(server)?;
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&socket, count, &finished));
        let sending = send(&socket, count, rate, size);
        finished.store(true, Ordering::Relaxed);
        let report = receiver.join().expect("counting does not panic");
        sending.and(report)
    })
}

/// A socket with a large buffer that talks to `server` only.
fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = if server.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0; 16], 0)) };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    enlarge_receive_buffer(&socket)?;
    Ok(socket)
}

fn send(socket: &UdpSocket, count: u32, rate: u32, size: usize) -> io::Result<()> {
    let start = Instant::now();
    let mut packet = vec![0x5a; size.clamp(4, BUFFER)];
    for number in 0..count {
        let due = start + Duration::from_secs(1) * number / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if let Some(head) = packet.first_chunk_mut() {
            *head = number.to_be_bytes();
        }
        socket.send(&packet)?;
    }
    Ok(())
}

fn receive(socket: &UdpSocket, count: u32, finished: &AtomicBool) -> io::Result<EchoReport> {
    let mut report = EchoReport { sent: count, ..EchoReport::default() };
    let mut seen = vec![false; usize::try_from(count).expect("an address has 32 bits at least")];
    let mut newest = None;
    let mut last = Instant::now();
    let mut buffer = [0; BUFFER];
    while report.received < count && !(finished.load(Ordering::Relaxed) && last.elapsed() > QUIET) {
        if !readable(socket, STOP_CHECK)? {
            continue;
        }
        last = Instant::now();
        let length = socket.recv(&mut buffer)?;
        let Some(number) = buffer.get(..length).and_then(<[u8]>::first_chunk).map(|head| u32::from_be_bytes(*head))
        else {
            continue;
        };
        match usize::try_from(number).ok().and_then(|index| seen.get_mut(index)) {
            Some(seen) if *seen => report.duplicated += 1,
            Some(seen) => {
                *seen = true;
                report.received += 1;
                report.reordered += u32::from(newest.is_some_and(|newest| number < newest));
                newest = newest.max(Some(number));
            }
            None => {}
        }
    }
    Ok(report)
}

/// Small packets sent without a pause to an echo server, to find out when a way ends; it stops on drop.
#[derive(Debug)]
pub struct Heartbeat {
    replies: Arc<AtomicUsize>,
    _service: Service,
}

impl Heartbeat {
    /// Starts to send a packet every 5 ms from `host`.
    pub fn start(host: &Host, server: SocketAddr) -> Result<Self> {
        let socket = host.run(move || connected(server)).context("open a UDP socket")?;
        let (stop, replies) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = host.start({
            let (stop, replies) = (Arc::clone(&stop), Arc::clone(&replies));
            move || beat(&socket, &stop, &replies)
        });
        Ok(Self { replies, _service: Service::new(stop, thread) })
    }

    /// Echoes that came back so far.
    pub fn replies(&self) -> usize {
        self.replies.load(Ordering::Relaxed)
    }
}

fn beat(socket: &UdpSocket, stop: &AtomicBool, replies: &AtomicUsize) {
    let mut buffer = [0; BUFFER];
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            // Where there is no way for a packet, there is no echo either, which is what is looked for.
            drop(socket.send(b"beat"));
            next = Instant::now() + BEAT;
        }
        let pause = next.saturating_duration_since(Instant::now());
        if readable(socket, pause.max(Duration::from_millis(1))).unwrap_or(false) && socket.recv(&mut buffer).is_ok() {
            replies.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn serve(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; BUFFER];
    while !stop.load(Ordering::Relaxed) {
        if !readable(socket, STOP_CHECK).unwrap_or(false) {
            continue;
        }
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            // A packet that cannot go back is lost, and counted as such at the other end.
            drop(socket.send_to(&buffer[..length], peer));
        }
    }
}

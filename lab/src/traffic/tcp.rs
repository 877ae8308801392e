//! TCP transfers with a SHA-256 at both ends.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{Context as Hash, SHA256, SHA256_OUTPUT_LEN};

use super::{STOP_CHECK, Service, readable};
use crate::Host;

/// Bytes handed to the kernel at once.
const BLOCK: usize = 64 * 1024;

/// Longest silence within a transfer.
const STALL: Duration = Duration::from_secs(20);

/// Which way the bytes go, seen from whoever opened the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Upload,
    /// From the server.
    Download,
}

/// A finished transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the connection's start to the arrival of the other end's checksum.
    pub elapsed: Duration,
    /// The longest time in which nothing arrived that was still to come, in whole milliseconds.
    pub silence: Duration,
    /// SHA-256 of what was sent.
    pub sent: [u8; SHA256_OUTPUT_LEN],
    /// SHA-256 of what arrived.
    pub received: [u8; SHA256_OUTPUT_LEN],
}

impl Transfer {
    /// Whether everything arrived as it was sent.
    pub fn is_intact(&self) -> bool {
        self.sent == self.received
    }

    /// Megabits per second.
    pub fn megabits_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
        let bits = self.bytes as f64 * 8.0;
        bits / self.elapsed.as_secs_f64() / 1e6
    }

    /// The checksum of what arrived, in hexadecimal.
    pub fn checksum(&self) -> String {
        self.received.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A server in a lab host that takes or gives bytes; it ends on drop.
#[derive(Debug)]
pub struct TcpServer {
    address: SocketAddr,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    _service: Service,
}

impl TcpServer {
    /// Starts a server at `address` and a free port.
    pub fn start(host: &Host, address: IpAddr) -> Result<Self> {
        let listener = host.run(move || TcpListener::bind((address, 0))).context("listen for TCP")?;
        let address = listener.local_addr().context("read a listener's address")?;
        let (stop, peers) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let thread = host.start({
            let (stop, peers) = (Arc::clone(&stop), Arc::clone(&peers));
            move || accept(&listener, &stop, &peers)
        });
        Ok(Self { address, peers, _service: Service::new(stop, thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who connected so far, as the server sees them.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Moves `bytes` between `host` and a [`TcpServer`].
///
/// # Errors
/// Fails where the connection does, or nothing moves for 20 s.
pub fn transfer(host: &Host, server: SocketAddr, direction: Direction, bytes: u64) -> Result<Transfer> {
    transfer_within(host, server, direction, bytes, Duration::ZERO)
}

/// As [`transfer`], with the bytes spread evenly over so much time, if they need less.
///
/// # Errors
/// As [`transfer`].
pub fn transfer_within(
    host: &Host,
    server: SocketAddr,
    direction: Direction,
    bytes: u64,
    time: Duration,
) -> Result<Transfer> {
    let pace = Pace { begins: Instant::now(), bytes, time };
    host.run(move || client(server, direction, &pace)).with_context(|| format!("TCP transfer with {server}"))
}

/// When which part of a transfer may move.
#[derive(Debug)]
struct Pace {
    begins: Instant,
    bytes: u64,
    time: Duration,
}

impl Pace {
    /// A transfer of so many bytes that is as fast as it can be.
    fn full(bytes: u64) -> Self {
        Self { begins: Instant::now(), bytes, time: Duration::ZERO }
    }

    /// Waits until all but `left` bytes may have moved.
    fn wait(&self, left: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
        let share = self.bytes.saturating_sub(left) as f64 / self.bytes.max(1) as f64;
        let due = self.begins + self.time.mul_f64(share);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn client(server: SocketAddr, direction: Direction, pace: &Pace) -> io::Result<Transfer> {
    let (start, bytes) = (Instant::now(), pace.bytes);
    let mut stream = TcpStream::connect_timeout(&server, STALL)?;
    limit_silence(&stream)?;
    stream.write_all(&[u8::from(direction == Direction::Download)])?;
    stream.write_all(&bytes.to_be_bytes())?;
    let (sent, received) = match direction {
        Direction::Upload => {
            let sent = give(&mut stream, pace)?;
            stream.shutdown(Shutdown::Write)?;
            (sent, Tally::read_from(&mut stream)?)
        }
        Direction::Download => {
            let received = take(&mut stream, pace)?;
            (Tally::read_from(&mut stream)?, received)
        }
    };
    let Tally { bytes, silence, digest: received } = received;
    Ok(Transfer { bytes, elapsed: start.elapsed(), silence, sent: sent.digest, received })
}

/// What one end counted; the server sends its own after the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    bytes: u64,
    /// The longest silence of an end that takes bytes.
    silence: Duration,
    digest: [u8; SHA256_OUTPUT_LEN],
}

impl Tally {
    fn new(bytes: u64, silence: Duration, hash: Hash) -> Self {
        let digest = hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Self { bytes, silence, digest }
    }

    fn write_to(self, stream: &mut TcpStream) -> io::Result<()> {
        let silence = u64::try_from(self.silence.as_millis()).unwrap_or(u64::MAX);
        stream.write_all(&self.bytes.to_be_bytes())?;
        stream.write_all(&silence.to_be_bytes())?;
        stream.write_all(&self.digest)
    }

    fn read_from(stream: &mut TcpStream) -> io::Result<Self> {
        let (mut bytes, mut silence, mut digest) = ([0; 8], [0; 8], [0; SHA256_OUTPUT_LEN]);
        stream.read_exact(&mut bytes)?;
        stream.read_exact(&mut silence)?;
        stream.read_exact(&mut digest)?;
        let silence = Duration::from_millis(u64::from_be_bytes(silence));
        Ok(Self { bytes: u64::from_be_bytes(bytes), silence, digest })
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool, peers: &Mutex<Vec<SocketAddr>>) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            if !readable(listener, STOP_CHECK).unwrap_or(false) {
                continue;
            }
            if let Ok((stream, peer)) = listener.accept() {
                peers.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
                // What went wrong here is seen at the other end.
                scope.spawn(move || drop(serve(stream)));
            }
        }
    });
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    limit_silence(&stream)?;
    let (mut download, mut bytes) = ([0], [0; 8]);
    stream.read_exact(&mut download)?;
    stream.read_exact(&mut bytes)?;
    let bytes = u64::from_be_bytes(bytes);
    let pace = Pace::full(bytes);
    let tally = if download == [1] { give(&mut stream, &pace)? } else { take(&mut stream, &pace)? };
    tally.write_to(&mut stream)
}

fn limit_silence(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))
}

/// Sends bytes that neither compress nor repeat.
fn give(stream: &mut TcpStream, pace: &Pace) -> io::Result<Tally> {
    let mut block = noise();
    let mut hash = Hash::new(&SHA256);
    let mut left = pace.bytes;
    while left > 0 {
        pace.wait(left);
        if let Some(stamp) = block.first_chunk_mut() {
            *stamp = left.to_be_bytes();
        }
        let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        let piece = &block[..length];
        stream.write_all(piece)?;
        hash.update(piece);
        left -= u64::try_from(length).unwrap_or(left);
    }
    Ok(Tally::new(pace.bytes, Duration::ZERO, hash))
}

fn take(stream: &mut TcpStream, pace: &Pace) -> io::Result<Tally> {
    let mut block = vec![0; BLOCK];
    let mut hash = Hash::new(&SHA256);
    let mut stream = stream.take(pace.bytes);
    let (mut taken, mut silence, mut last) = (0, Duration::ZERO, Instant::now());
    loop {
        pace.wait(stream.limit());
        match stream.read(&mut block)? {
            0 if stream.limit() > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => return Ok(Tally::new(taken, silence, hash)),
            length => {
                silence = silence.max(last.elapsed());
                last = Instant::now();
                let piece = &block[..length];
                hash.update(piece);
                taken += u64::try_from(piece.len()).unwrap_or_default();
            }
        }
    }
}

/// A block of pseudo-random bytes (xorshift64, Marsaglia 2003).
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..BLOCK / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    });
    words.collect()
}

//! TCP connections that carry as much as they can, and what arrives of it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::prctl;
use socket2::{Domain, SockRef, Socket, Type};

use super::Direction;
use crate::Host;

/// Bytes handed to the kernel, and taken from it, at once.
const BLOCK: usize = 128 * 1024;

/// A paced sender wakes up this often.
const PACE: Duration = Duration::from_micros(250);
/// How late the kernel may wake a paced sender, in nanoseconds; the default is 50 µs.
const TIMER_SLACK_NANOSECONDS: u64 = 1_000;
/// What a paced sender that had to wait for a processor makes up for. More would leave in one burst at full speed,
/// which fills queues as no sender of that rate does.
const BACKLOG: Duration = Duration::from_millis(1);

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPlan {
    /// Where they go to.
    pub server: SocketAddr,
    /// How many at once.
    pub connections: usize,
    /// Which way the bytes go, seen from the client.
    pub direction: Direction,
    /// The congestion control of every socket, as the kernel names it.
    pub congestion: String,
}

/// Connections under full load; they end on drop.
#[derive(Debug)]
pub struct Streams {
    received: Arc<AtomicU64>,
    sockets: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Streams {
    /// Opens all connections from `client` to `server` and starts to send.
    ///
    /// # Errors
    /// Fails where a connection does not come about, or the kernel lacks the congestion control.
    pub fn start(client: &Host, server: &Host, plan: &StreamPlan) -> Result<Self> {
        Self::at_rate(client, server, plan, None)
    }

    /// As [`start`](Self::start), but each connection sends no more than `rate` bytes per second, evenly.
    ///
    /// # Errors
    /// Fails where a connection does not come about, or the kernel lacks the congestion control.
    pub fn start_paced(client: &Host, server: &Host, plan: &StreamPlan, rate: f64) -> Result<Self> {
        Self::at_rate(client, server, plan, Some(rate))
    }

    fn at_rate(client: &Host, server: &Host, plan: &StreamPlan, rate: Option<f64>) -> Result<Self> {
        let listener = server.run({
            let plan = plan.clone();
            move || listen(&plan)
        });
        let (listener, address) = (listener.context("listen for TCP")?, plan.server);
        let mut streams = Self { received: Arc::default(), sockets: Vec::new(), threads: Vec::new() };
        for _ in 0..plan.connections {
            let congestion = plan.congestion.clone();
            let near = client.run(move || connect(address, &congestion));
            let near = near.with_context(|| format!("connect to {address} with {}", plan.congestion))?;
            let (far, _peer) = listener.accept().context("accept a connection")?;
            let (from, to) = match plan.direction {
                Direction::Upload => ((client, near), (server, far)),
                Direction::Download => ((server, far), (client, near)),
            };
            streams.add(from, to, rate)?;
        }
        Ok(streams)
    }

    /// Bytes that arrived since the start.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn add(&mut self, from: (&Host, TcpStream), to: (&Host, TcpStream), rate: Option<f64>) -> Result<()> {
        let (sender, receiver) = (from.1, to.1);
        for socket in [&sender, &receiver] {
            self.sockets.push(socket.try_clone().context("copy a socket's descriptor")?);
        }
        let received = Arc::clone(&self.received);
        self.threads.push(to.0.start(move || take(receiver, &received)));
        self.threads.push(from.0.start(move || match rate {
            Some(rate) => give_paced(sender, rate),
            None => give(sender),
        }));
        Ok(())
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for socket in self.sockets.drain(..) {
            // A connection that broke before has ended as well.
            drop(socket.shutdown(Shutdown::Both));
        }
        for thread in self.threads.drain(..) {
            // A panic of the thread was already reported when it happened.
            drop(thread.join());
        }
    }
}

fn listen(plan: &StreamPlan) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(plan.server)?;
    // Accepted sockets inherit it.
    SockRef::from(&listener).set_tcp_congestion(plan.congestion.as_bytes())?;
    Ok(listener)
}

fn connect(address: SocketAddr, congestion: &str) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_tcp_congestion(congestion.as_bytes())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    Ok(socket.into())
}

/// Sends until the connection is shut down.
fn give(mut stream: TcpStream) {
    let block = vec![0x5a; BLOCK];
    while stream.write(&block).is_ok_and(|sent| sent > 0) {}
}

/// Sends what is due at `rate` bytes per second, until the connection is shut down.
fn give_paced(mut stream: TcpStream, rate: f64) {
    // Without it the steps are coarser, and the rate is the same.
    let _coarse = prctl::set_timerslack(TIMER_SLACK_NANOSECONDS);
    let block = vec![0x5a; BLOCK];
    let mut last = Instant::now();
    loop {
        let passed = last.elapsed().min(BACKLOG);
        last = Instant::now();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few milliseconds of a rate")]
        let mut due = (rate * passed.as_secs_f64()) as usize;
        while due > 0 {
            match stream.write(block.get(..due.min(BLOCK)).unwrap_or_default()) {
                Ok(sent) if sent > 0 => due -= sent,
                Ok(_) | Err(_) => return,
            }
        }
        thread::sleep(PACE);
    }
}

/// Counts what arrives until the connection is shut down.
fn take(mut stream: TcpStream, received: &AtomicU64) {
    let mut block = vec![0; BLOCK];
    while let Ok(length) = stream.read(&mut block) {
        if length == 0 {
            break;
        }
        received.fetch_add(u64::try_from(length).unwrap_or_default(), Ordering::Relaxed);
    }
}

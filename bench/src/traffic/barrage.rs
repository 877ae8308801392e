//! UDP packets in one direction, numbered, at a chosen rate or as fast as the sender can, and what arrived of them.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt, sockopt};

use super::{STOP_CHECK, Service};
use crate::lab::Host;

/// Packets given to the kernel at once, at most.
const BATCH: usize = 32;
/// A paced sender wakes up this often, unless its rate needs less: fine enough for queues of a few hundred packets.
const PACE: Duration = Duration::from_micros(200);
/// How late the kernel may wake a paced sender; the default is 50 µs.
const TIMER_SLACK_NANOSECONDS: u64 = 1_000;
/// The receiver's buffer in bytes: it shall not be what loses packets when its thread waits for a processor.
const RECEIVE_BUFFER: usize = 32 << 20;
/// Bytes looked at of each packet: its step and its number.
const HEAD: usize = 8;
/// Room for packets taken from the kernel at once.
const RECEIVED_AT_ONCE: usize = 64;

/// The receiving end, in a lab host; it ends on drop.
#[derive(Debug)]
pub struct BarrageTarget {
    address: SocketAddr,
    tally: Arc<Tally>,
    _service: Service,
}

/// What the receiver counts; packets of another step than the present one are late and do not count.
#[derive(Debug, Default)]
struct Tally {
    step: AtomicU32,
    received: AtomicU64,
    reordered: AtomicU64,
}

/// Packets to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarragePlan {
    /// UDP payload of each, at least 8 bytes.
    pub size: usize,
    /// Packets per second; `None` for as many as the sender can.
    pub rate: Option<u32>,
    /// How long to send before counting; for a flood only.
    pub warm_up: Duration,
    /// How long to send while counting.
    pub duration: Duration,
    /// Packets that arrive later than this after the last was sent count as lost, as a queue that grows is no rate that
    /// holds; not for a flood.
    pub drain: Duration,
}

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BarrageReport {
    /// Packets sent while counting.
    pub sent: u64,
    /// Packets that arrived; of a flood, while it lasted.
    pub received: u64,
    /// Packets that arrived after one with a higher number.
    pub reordered: u64,
    /// Time of sending.
    pub elapsed: Duration,
}

impl BarrageReport {
    /// Packets sent per second.
    #[must_use]
    pub fn offered(&self) -> f64 {
        per_second(self.sent, self.elapsed)
    }

    /// Packets that arrived per second.
    #[must_use]
    pub fn delivered(&self) -> f64 {
        per_second(self.received, self.elapsed)
    }

    /// The share that was lost, from 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        let share =
            per_second(self.received, Duration::from_secs(1)) / per_second(self.sent.max(1), Duration::from_secs(1));
        (1.0 - share).max(0.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

impl BarrageTarget {
    /// Starts to receive at `address`.
    ///
    /// # Errors
    ///
    /// Fails where the address is not the host's.
    pub fn start(host: &Host, address: SocketAddr) -> Result<Self> {
        let socket = host.run(move || UdpSocket::bind(address)).context("bind a UDP socket")?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("enlarge a receive buffer")?;
        socket.set_read_timeout(Some(STOP_CHECK)).context("set a time-out")?;
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::<Tally>::default());
        let thread = host.start({
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            move || receive(&socket, &stop, &tally)
        });
        Ok(Self { address, tally, _service: Service::new(stop, thread) })
    }

    /// Sends from `host` what `plan` says, and counts.
    ///
    /// # Errors
    ///
    /// Fails where the sender's socket does; lost packets are no error.
    pub fn send_from(&self, host: &Host, plan: BarragePlan) -> Result<BarrageReport> {
        let (server, tally) = (self.address, Arc::clone(&self.tally));
        host.run(move || barrage(server, plan, &tally)).with_context(|| format!("UDP to {}", self.address))
    }
}

fn barrage(server: SocketAddr, plan: BarragePlan, tally: &Tally) -> Result<BarrageReport> {
    let any = if server.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0; 16], 0)) };
    let socket = UdpSocket::bind(any).context("bind a UDP socket")?;
    socket.connect(server).context("connect a UDP socket")?;
    prctl::set_timerslack(TIMER_SLACK_NANOSECONDS).context("ask for precise timers")?;
    let step = tally.step.fetch_add(1, Ordering::Relaxed) + 1;
    let mut sender = Sender::new(&socket, plan.size, step);
    let Some(rate) = plan.rate else { return flood(&mut sender, plan, tally) };
    tally.received.store(0, Ordering::Relaxed);
    tally.reordered.store(0, Ordering::Relaxed);
    let elapsed = paced(&mut sender, rate, plan.duration)?;
    drain(tally, sender.sent, plan.drain);
    Ok(BarrageReport {
        sent: sender.sent,
        received: tally.received.load(Ordering::Relaxed),
        reordered: tally.reordered.load(Ordering::Relaxed),
        elapsed,
    })
}

/// Sends without a pause; counts what is sent and what arrives between the end of the warm-up and the last packet.
fn flood(sender: &mut Sender<'_>, plan: BarragePlan, tally: &Tally) -> Result<BarrageReport> {
    let counters = |sender: &Sender<'_>| {
        (sender.sent, tally.received.load(Ordering::Relaxed), tally.reordered.load(Ordering::Relaxed))
    };
    let warm = Instant::now() + plan.warm_up;
    while Instant::now() < warm {
        sender.send(BATCH)?;
    }
    let (start, before) = (Instant::now(), counters(sender));
    while start.elapsed() < plan.duration {
        sender.send(BATCH)?;
    }
    let (elapsed, after) = (start.elapsed(), counters(sender));
    let [sent, received, reordered] = [after.0 - before.0, after.1 - before.1, after.2 - before.2];
    Ok(BarrageReport { sent, received, reordered, elapsed })
}

/// Sends at a rate; where the sender falls behind it sends batch after batch until it has caught up.
fn paced(sender: &mut Sender<'_>, rate: u32, duration: Duration) -> Result<Duration> {
    let start = Instant::now();
    let pace = PACE.min(Duration::from_secs(1) * u32::try_from(BATCH).unwrap_or(1) / rate.max(1));
    loop {
        let elapsed = start.elapsed();
        if elapsed >= duration {
            return Ok(elapsed);
        }
        let due = u64::try_from(elapsed.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX);
        match usize::try_from(due.saturating_sub(sender.sent)).unwrap_or(BATCH) {
            0 => thread::sleep(pace),
            behind if behind > BATCH => sender.send(BATCH)?,
            some => {
                sender.send(some)?;
                thread::sleep(pace);
            }
        }
    }
}

/// Waits until everything arrived, or what has not is late.
fn drain(tally: &Tally, sent: u64, limit: Duration) {
    let deadline = Instant::now() + limit;
    while tally.received.load(Ordering::Relaxed) < sent && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A socket with packets ready to be numbered and sent.
struct Sender<'a> {
    socket: &'a UdpSocket,
    packets: Vec<Vec<u8>>,
    headers: MultiHeaders<()>,
    sent: u64,
}

impl<'a> Sender<'a> {
    fn new(socket: &'a UdpSocket, size: usize, step: u32) -> Self {
        let mut packet = vec![0x5a; size.max(HEAD)];
        if let Some(head) = packet.first_chunk_mut() {
            *head = step.to_be_bytes();
        }
        Self { socket, packets: vec![packet; BATCH], headers: MultiHeaders::preallocate(BATCH, None), sent: 0 }
    }

    /// Sends up to [`BATCH`] packets; those the kernel has no room for are lost, as it does not say which were.
    fn send(&mut self, count: usize) -> io::Result<()> {
        let mut number = u32::try_from(self.sent & u64::from(u32::MAX)).unwrap_or_default();
        for packet in self.packets.iter_mut().take(count) {
            if let Some(field) = packet.get_mut(4..).and_then(<[u8]>::first_chunk_mut) {
                *field = number.to_be_bytes();
            }
            number = number.wrapping_add(1);
        }
        let slices: Vec<_> = self.packets.iter().take(count).map(|packet| [IoSlice::new(packet)]).collect();
        let nowhere = [None; BATCH];
        let outcome = sendmmsg(self.socket.as_raw_fd(), &mut self.headers, &slices, nowhere, [], MsgFlags::empty())
            .map(Iterator::count);
        match outcome {
            Ok(sent) => self.sent += u64::try_from(sent).unwrap_or_default(),
            Err(Errno::ENOBUFS | Errno::ECONNREFUSED | Errno::EINTR) => self.sent += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, tally: &Tally) {
    let mut heads = [[0_u8; HEAD]; RECEIVED_AT_ONCE];
    let mut headers = MultiHeaders::<()>::preallocate(RECEIVED_AT_ONCE, None);
    let (mut step, mut newest) = (0, None);
    while !stop.load(Ordering::Relaxed) {
        let mut slices = heads.each_mut().map(|head| [IoSliceMut::new(head)]);
        let flags = MsgFlags::MSG_WAITFORONE;
        let count = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None).map_or(0, Iterator::count);
        if count == 0 {
            continue;
        }
        let now = tally.step.load(Ordering::Relaxed);
        if now != step {
            (step, newest) = (now, None);
        }
        let (mut received, mut reordered) = (0, 0);
        for head in heads.iter().take(count) {
            let [of, number] = [head.first_chunk(), head.last_chunk()].map(|b| b.map_or(0, |b| u32::from_be_bytes(*b)));
            if of == step {
                received += 1;
                reordered += u64::from(newest.is_some_and(|newest| number < newest));
                newest = newest.max(Some(number));
            }
        }
        tally.received.fetch_add(received, Ordering::Relaxed);
        tally.reordered.fetch_add(reordered, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_the_share_that_did_not_arrive() {
        let report = BarrageReport { sent: 200, received: 150, reordered: 0, elapsed: Duration::from_millis(500) };
        assert!((report.loss() - 0.25).abs() < 1e-9);
        assert!((report.delivered() - 300.0).abs() < 1e-9 && (report.offered() - 400.0).abs() < 1e-9);
        let nothing = BarrageReport { sent: 0, received: 0, reordered: 0, elapsed: Duration::ZERO };
        assert!(nothing.loss() <= 1.0);
    }
}

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
use crate::Host;

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
    duplicated: AtomicU64,
}

/// What was counted until some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    sent: u64,
    received: u64,
    reordered: u64,
    duplicated: u64,
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
    /// Different packets that arrived; of a flood, while it lasted.
    pub received: u64,
    /// Packets that arrived after one with a higher number.
    pub reordered: u64,
    /// Packets that arrived again.
    pub duplicated: u64,
    /// Time of sending.
    pub elapsed: Duration,
}

impl BarrageReport {
    /// Packets sent per second.
    pub fn offered(&self) -> f64 {
        per_second(self.sent, self.elapsed)
    }

    /// Packets that arrived per second.
    pub fn delivered(&self) -> f64 {
        per_second(self.received, self.elapsed)
    }

    /// The share that was lost, from 0 to 1.
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
    /// Fails where the sender's socket does, and as soon as `check` does, which is asked before each batch; lost
    /// packets are no error.
    pub fn send_from(
        &self,
        host: &Host,
        plan: BarragePlan,
        check: impl Fn() -> Result<()> + Send + 'static,
    ) -> Result<BarrageReport> {
        let (server, tally) = (self.address, Arc::clone(&self.tally));
        host.run(move || barrage(server, plan, &tally, &check)).with_context(|| format!("UDP to {}", self.address))
    }
}

impl Tally {
    /// What is counted by now, while so many packets were sent.
    fn counts(&self, sent: u64) -> Counts {
        let [received, reordered, duplicated] =
            [&self.received, &self.reordered, &self.duplicated].map(|counter| counter.load(Ordering::Relaxed));
        Counts { sent, received, reordered, duplicated }
    }
}

impl Counts {
    /// What came after `before`, in this time.
    fn since(self, before: Self, elapsed: Duration) -> BarrageReport {
        BarrageReport {
            sent: self.sent - before.sent,
            received: self.received - before.received,
            reordered: self.reordered - before.reordered,
            duplicated: self.duplicated - before.duplicated,
            elapsed,
        }
    }
}

fn barrage(
    server: SocketAddr,
    plan: BarragePlan,
    tally: &Tally,
    check: &dyn Fn() -> Result<()>,
) -> Result<BarrageReport> {
    let any = if server.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0; 16], 0)) };
    let socket = UdpSocket::bind(any).context("bind a UDP socket")?;
    socket.connect(server).context("connect a UDP socket")?;
    prctl::set_timerslack(TIMER_SLACK_NANOSECONDS).context("ask for precise timers")?;
    let step = tally.step.fetch_add(1, Ordering::Relaxed) + 1;
    let mut sender = Sender::new(&socket, plan.size, step);
    let Some(rate) = plan.rate else { return flood(&mut sender, plan, tally, check) };
    let before = tally.counts(0);
    let elapsed = paced(&mut sender, rate, plan.duration, check)?;
    drain(tally, before.received + sender.sent, plan.drain, check)?;
    Ok(tally.counts(sender.sent).since(before, elapsed))
}

/// Sends without a pause; counts what is sent and what arrives between the end of the warm-up and the last packet.
fn flood(
    sender: &mut Sender<'_>,
    plan: BarragePlan,
    tally: &Tally,
    check: &dyn Fn() -> Result<()>,
) -> Result<BarrageReport> {
    let warm = Instant::now() + plan.warm_up;
    while Instant::now() < warm {
        check()?;
        sender.send(BATCH)?;
    }
    let (start, before) = (Instant::now(), tally.counts(sender.sent));
    while start.elapsed() < plan.duration {
        check()?;
        sender.send(BATCH)?;
    }
    Ok(tally.counts(sender.sent).since(before, start.elapsed()))
}

/// Sends at a rate; where the sender falls behind it sends batch after batch until it has caught up.
fn paced(sender: &mut Sender<'_>, rate: u32, duration: Duration, check: &dyn Fn() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    let pace = PACE.min(Duration::from_secs(1) * u32::try_from(BATCH).unwrap_or(1) / rate.max(1));
    loop {
        check()?;
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

/// Waits until so many arrived, or what has not is late.
fn drain(tally: &Tally, received: u64, limit: Duration, check: &dyn Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while tally.received.load(Ordering::Relaxed) < received && Instant::now() < deadline {
        check()?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
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
    let (mut step, mut seen) = (0, Seen::default());
    while !stop.load(Ordering::Relaxed) {
        let mut slices = heads.each_mut().map(|head| [IoSliceMut::new(head)]);
        let flags = MsgFlags::MSG_WAITFORONE;
        let count = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None).map_or(0, Iterator::count);
        if count == 0 {
            continue;
        }
        let now = tally.step.load(Ordering::Relaxed);
        if now != step {
            step = now;
            seen.clear();
        }
        let (mut received, mut reordered, mut duplicated) = (0, 0, 0);
        for head in heads.iter().take(count) {
            let [of, number] = [head.first_chunk(), head.last_chunk()].map(|b| b.map_or(0, |b| u32::from_be_bytes(*b)));
            if of != step {
                continue;
            }
            match seen.note(number) {
                Arrival::First => received += 1,
                Arrival::Late => (received, reordered) = (received + 1, reordered + 1),
                Arrival::Again => duplicated += 1,
            }
        }
        tally.received.fetch_add(received, Ordering::Relaxed);
        tally.reordered.fetch_add(reordered, Ordering::Relaxed);
        tally.duplicated.fetch_add(duplicated, Ordering::Relaxed);
    }
}

/// How a packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// After none with a higher number.
    First,
    /// After one with a higher number.
    Late,
    /// Not for the first time.
    Again,
}

/// The numbers of a step that arrived, a bit each: 125 KB for each million.
#[derive(Debug, Default)]
struct Seen {
    words: Vec<u64>,
    newest: Option<u32>,
}

impl Seen {
    /// Begins a step.
    fn clear(&mut self) {
        self.words.clear();
        self.newest = None;
    }

    /// Notes that a number arrived.
    fn note(&mut self, number: u32) -> Arrival {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let Some(word) = self.words.get_mut(word) else { return Arrival::Again };
        if *word & bit != 0 {
            return Arrival::Again;
        }
        *word |= bit;
        let is_late = self.newest.is_some_and(|newest| number < newest);
        self.newest = self.newest.max(Some(number));
        if is_late { Arrival::Late } else { Arrival::First }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_the_share_that_did_not_arrive() {
        let counts = Counts { sent: 200, received: 150, ..Counts::default() };
        let report = counts.since(Counts::default(), Duration::from_millis(500));
        assert!((report.loss() - 0.25).abs() < 1e-9);
        assert!((report.delivered() - 300.0).abs() < 1e-9 && (report.offered() - 400.0).abs() < 1e-9);
        let nothing = Counts::default().since(Counts::default(), Duration::ZERO);
        assert!(nothing.loss() <= 1.0);
    }

    #[test]
    fn packet_that_comes_again_is_neither_received_nor_late() {
        let mut seen = Seen::default();
        let arrivals = [0, 200, 64, 200, 64, 63, 201, 0].map(|number| seen.note(number));
        use Arrival::{Again, First, Late};
        assert_eq!(arrivals, [First, First, Late, Again, Again, Late, First, Again]);
        seen.clear();
        assert_eq!(seen.note(0), First);
    }

    /// A receiver in this process, and a socket that sends to it.
    fn receiver() -> (UdpSocket, Arc<Tally>, Service) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(STOP_CHECK)).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(socket.local_addr().unwrap()).unwrap();
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::<Tally>::default());
        let thread = thread::spawn({
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            move || receive(&socket, &stop, &tally)
        });
        (sender, tally, Service::new(stop, thread))
    }

    #[test]
    fn receiver_tells_duplicates_and_late_ones_from_what_it_waits_for() {
        let (sender, tally, _service) = receiver();
        tally.step.store(1, Ordering::Relaxed);
        let packet = |step: u32, number: u32| [step.to_be_bytes(), number.to_be_bytes()].concat();
        for packet in [packet(1, 0), packet(1, 2), packet(1, 2), packet(0, 1), packet(1, 1), packet(1, 0), packet(1, 3)]
        {
            sender.send(&packet).unwrap();
        }
        drain(&tally, 4, Duration::from_secs(10), &|| Ok(())).unwrap();
        let BarrageReport { received, reordered, duplicated, .. } =
            tally.counts(4).since(Counts::default(), Duration::from_secs(1));
        assert_eq!((received, reordered, duplicated), (4, 1, 2));
    }

    #[test]
    fn every_kind_of_barrage_ends_as_soon_as_it_shall() {
        let (socket, tally, _service) = receiver();
        let server = socket.peer_addr().unwrap();
        let hour = Duration::from_secs(3600);
        let flood =
            BarragePlan { size: HEAD, rate: None, warm_up: Duration::ZERO, duration: hour, drain: Duration::ZERO };
        let warming = BarragePlan { warm_up: hour, ..flood };
        let paced = BarragePlan { rate: Some(10_000), ..flood };
        let start = Instant::now();
        for plan in [flood, warming, paced] {
            let began = Instant::now();
            let check = move || {
                anyhow::ensure!(began.elapsed() < Duration::from_millis(20), "interrupted");
                Ok(())
            };
            assert_eq!(barrage(server, plan, &tally, &check).unwrap_err().to_string(), "interrupted");
        }
        let waiting = || anyhow::bail!("interrupted");
        assert!(drain(&tally, u64::MAX, hour, &waiting).is_err());
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

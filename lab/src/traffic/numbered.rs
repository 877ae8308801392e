//! UDP flows in one direction whose packets are numbered and whose contents are checked at the other end.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Direction, STOP_CHECK, enlarge_receive_buffer, readable};
use crate::Host;

/// Longest wait until a packet of each size of a flow gets through.
const OPENING: Duration = Duration::from_secs(20);
/// Pause between two packets that open a flow.
const KNOCK: Duration = Duration::from_millis(50);
/// Silence after the last packet was sent that counts as the end.
const QUIET: Duration = Duration::from_secs(1);
/// The number of packets that open a flow and are not counted.
const UNCOUNTED: u32 = u32::MAX;
/// What the far end of a flow is opened with.
const HELLO: &[u8] = b"hello";
/// A packet bears its number from this size on; smaller ones its last bytes.
const NUMBER: usize = 4;
/// Most packets of a plan with sizes too small for a number; one value is for those that open a flow.
const MOST_TINY: u32 = 255;
/// Larger than any packet.
const BUFFER: usize = 1 << 16;
/// How often a socket may report an error of an earlier packet (RFC 1191's included) before that counts as its own.
const STALE_ERRORS: usize = 8;

/// Flows to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedPlan {
    /// Which way they go, seen from the client, which opens them in either case.
    pub direction: Direction,
    /// How many at once, each with its own ports.
    pub flows: usize,
    /// UDP payloads in bytes, taken in turn; at least one.
    pub sizes: Vec<usize>,
    /// Packets of each flow.
    pub packets: u32,
    /// Packets of each flow per second.
    pub rate: u32,
}

/// What arrived, of all flows together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NumberedReport {
    /// Packets sent.
    pub sent: u64,
    /// Different packets that arrived as they were sent.
    pub received: u64,
    /// Packets that arrived after a later one of their flow.
    pub reordered: u64,
    /// Packets that arrived more than once.
    pub duplicated: u64,
    /// Packets that arrived in another length or with other contents.
    pub damaged: u64,
    /// When the last packet arrived.
    pub last: Option<Instant>,
}

impl NumberedReport {
    /// Whether every packet arrived once, unchanged and in order.
    pub fn is_flawless(&self) -> bool {
        self.sent == self.received && self.reordered == 0 && self.duplicated == 0 && self.damaged == 0
    }

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            reordered: self.reordered + other.reordered,
            duplicated: self.duplicated + other.duplicated,
            damaged: self.damaged + other.damaged,
            last: self.last.max(other.last),
        }
    }
}

/// Sends numbered flows between `client` and `address` of `server`. A flow begins once a packet of each of its sizes
/// got through, so that both ends know what the path takes.
///
/// # Errors
/// Fails where a socket does, or nothing gets through in 20 s; lost packets are no error.
///
/// # Panics
/// Panics where the plan has no sizes, or some below 4 and more than 255 packets.
pub fn numbered(client: &Host, server: &Host, address: IpAddr, plan: &NumberedPlan) -> Result<NumberedReport> {
    assert!(!plan.sizes.is_empty(), "a plan has sizes");
    let tiny = plan.sizes.iter().any(|size| *size < NUMBER);
    assert!(!tiny || plan.packets <= MOST_TINY, "a packet of one byte tells no more than {MOST_TINY} apart");
    let mut flows = Vec::with_capacity(plan.flows);
    for _ in 0..plan.flows {
        let (near, far) = open(client, server, address).with_context(|| format!("open a flow to {address}"))?;
        flows.push(match plan.direction {
            Direction::Upload => (near, far),
            Direction::Download => (far, near),
        });
    }
    let reports = thread::scope(|scope| {
        let running: Vec<_> = flows.iter().map(|(from, to)| scope.spawn(move || run(from, to, plan))).collect();
        running.into_iter().map(|flow| flow.join().expect("a flow does not panic")).collect::<Result<Vec<_>>>()
    })?;
    Ok(reports.into_iter().fold(NumberedReport::default(), NumberedReport::add))
}

/// Two sockets connected to each other, through whatever translates addresses in between.
fn open(client: &Host, server: &Host, address: IpAddr) -> Result<(UdpSocket, UdpSocket)> {
    let far = server.run(move || UdpSocket::bind((address, 0)))?;
    let target = far.local_addr()?;
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let near = client.run(move || UdpSocket::bind(any))?;
    near.connect(target)?;
    for socket in [&near, &far] {
        enlarge_receive_buffer(socket)?;
    }
    let deadline = Instant::now() + OPENING;
    let mut buffer = [0; HELLO.len()];
    while Instant::now() < deadline {
        send(&near, HELLO)?;
        if readable(&far, KNOCK)? {
            let (_, peer) = far.recv_from(&mut buffer)?;
            far.connect(peer)?;
            return Ok((near, far));
        }
    }
    anyhow::bail!("nothing arrives in {OPENING:?}")
}

fn run(from: &UdpSocket, to: &UdpSocket, plan: &NumberedPlan) -> Result<NumberedReport> {
    let (opened, finished) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(to, plan, &opened, &finished));
        let sending = give(from, plan, &opened);
        finished.store(true, Ordering::Relaxed);
        let report = receiver.join().expect("counting does not panic")?;
        Ok(NumberedReport { sent: sending?, ..report })
    })
}

fn give(socket: &UdpSocket, plan: &NumberedPlan, opened: &AtomicBool) -> Result<u64> {
    let sizes: BTreeSet<usize> = plan.sizes.iter().copied().collect();
    let deadline = Instant::now() + OPENING;
    while !opened.load(Ordering::Relaxed) {
        anyhow::ensure!(Instant::now() < deadline, "packets of {sizes:?} bytes do not all arrive in {OPENING:?}");
        sizes.iter().try_for_each(|size| send(socket, &content(UNCOUNTED, *size)))?;
        thread::sleep(KNOCK);
    }
    let start = Instant::now();
    for number in 0..plan.packets {
        let due = start + Duration::from_secs(1) * number / plan.rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        send(socket, &content(number, size(plan, number)))?;
    }
    Ok(plan.packets.into())
}

/// Sends a packet, though the socket has errors of earlier ones to report.
fn send(socket: &UdpSocket, packet: &[u8]) -> io::Result<()> {
    let mut outcome = socket.send(packet);
    for _ in 0..STALE_ERRORS {
        if outcome.is_ok() {
            break;
        }
        outcome = socket.send(packet);
    }
    match outcome {
        // Where there is no way for a packet it is lost, which is counted at the other end.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(error),
        _ => Ok(()),
    }
}

fn receive(
    socket: &UdpSocket,
    plan: &NumberedPlan,
    opened: &AtomicBool,
    finished: &AtomicBool,
) -> Result<NumberedReport> {
    let mut tally = Tally::new(plan);
    // Smaller ones have no number, and get through wherever larger ones do.
    let mut missing: BTreeSet<usize> = plan.sizes.iter().copied().filter(|size| *size >= NUMBER).collect();
    opened.store(missing.is_empty(), Ordering::Relaxed);
    let mut active = Instant::now();
    let mut buffer = vec![0; BUFFER];
    let wanted = u64::from(plan.packets);
    while tally.report.received < wanted && !(finished.load(Ordering::Relaxed) && active.elapsed() > QUIET) {
        if !readable(socket, STOP_CHECK)? {
            continue;
        }
        // An error is of a packet that was sent before.
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        active = Instant::now();
        let packet = &buffer[..length];
        if number_of(packet) == Some(UNCOUNTED) {
            missing.remove(&length);
            opened.store(missing.is_empty(), Ordering::Relaxed);
        } else if packet != HELLO && !is_unnumbered_opening(packet) {
            tally.add(packet, active);
        }
    }
    Ok(tally.report)
}

/// What the receiver of a flow knows.
struct Tally<'a> {
    plan: &'a NumberedPlan,
    seen: Vec<bool>,
    newest: Option<usize>,
    report: NumberedReport,
}

impl<'a> Tally<'a> {
    fn new(plan: &'a NumberedPlan) -> Self {
        let seen = vec![false; usize::try_from(plan.packets).expect("an address has 32 bits at least")];
        Self { plan, seen, newest: None, report: NumberedReport::default() }
    }

    fn add(&mut self, packet: &[u8], now: Instant) {
        self.report.last = Some(now);
        let Some(index) = self.identify(packet) else {
            self.report.damaged += 1;
            return;
        };
        match self.seen.get_mut(index) {
            Some(seen) if !*seen => *seen = true,
            _ => {
                self.report.duplicated += 1;
                return;
            }
        }
        self.report.received += 1;
        self.report.reordered += u64::from(self.newest.is_some_and(|newest| index < newest));
        self.newest = self.newest.max(Some(index));
    }

    /// The packet's number, where the packet is exactly what was sent under it. One too small for a number is taken for
    /// the first like it that is missing.
    fn identify(&self, packet: &[u8]) -> Option<usize> {
        let fits = |number: u32| size(self.plan, number) == packet.len() && content(number, packet.len()) == packet;
        let number = if packet.len() < NUMBER {
            let missing =
                |number: &u32| usize::try_from(*number).is_ok_and(|index| self.seen.get(index) == Some(&false));
            let all = || 0..self.plan.packets;
            all().filter(missing).find(|number| fits(*number)).or_else(|| all().find(|number| fits(*number)))
        } else {
            number_of(packet).filter(|number| *number < self.plan.packets && fits(*number))
        };
        number.and_then(|number| usize::try_from(number).ok())
    }
}

/// Whether a packet opens a flow, but is too small to say so: no packet of a plan has such a number.
fn is_unnumbered_opening(packet: &[u8]) -> bool {
    packet.len() < NUMBER && content(UNCOUNTED, packet.len()) == packet
}

fn number_of(packet: &[u8]) -> Option<u32> {
    packet.first_chunk::<NUMBER>().map(|head| u32::from_be_bytes(*head))
}

fn size(plan: &NumberedPlan, number: u32) -> usize {
    let turn = usize::try_from(number).expect("an address has 32 bits at least") % plan.sizes.len().max(1);
    plan.sizes.get(turn).copied().unwrap_or_default()
}

/// The payload of a packet: its number, and bytes that depend on number and place.
fn content(number: u32, size: usize) -> Vec<u8> {
    let head = number.to_be_bytes();
    if let Some(skipped) = NUMBER.checked_sub(size) {
        return head.get(skipped..).unwrap_or_default().to_vec();
    }
    let mut state = u64::from(number) | 1 << 32;
    let words = (0..size.div_ceil(8)).flat_map(|_| {
        // xorshift64, Marsaglia 2003
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    });
    head.into_iter().chain(words).take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(sizes: &[usize], packets: u32) -> NumberedPlan {
        NumberedPlan { direction: Direction::Upload, flows: 1, sizes: sizes.to_vec(), packets, rate: 100 }
    }

    fn tally_of(plan: &NumberedPlan, packets: &[Vec<u8>]) -> NumberedReport {
        let mut tally = Tally::new(plan);
        packets.iter().for_each(|packet| tally.add(packet, Instant::now()));
        NumberedReport { last: None, ..tally.report }
    }

    #[test]
    fn packets_of_every_size_are_known_by_their_content() {
        let plan = plan(&[1, 2, 3, 4, 5, 65_507], 12);
        let all: Vec<_> = (0..12).map(|number| content(number, size(&plan, number))).collect();
        assert!(all.iter().zip(0..).all(|(packet, number)| packet.len() == size(&plan, number)));
        assert_eq!(tally_of(&plan, &all), NumberedReport { received: 12, ..NumberedReport::default() });
    }

    #[test]
    fn faults_are_told_apart() {
        let plan = plan(&[100], 4);
        let packet = |number| content(number, 100);
        let mut other = packet(3);
        other[99] ^= 1;
        let seen = [packet(1), packet(0), packet(1), other, packet(2)[..99].to_vec(), packet(9)];
        let expected =
            NumberedReport { received: 2, reordered: 1, duplicated: 1, damaged: 3, ..NumberedReport::default() };
        assert_eq!(tally_of(&plan, &seen), expected);
        assert!(!expected.is_flawless());
    }
}

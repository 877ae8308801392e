//! Numbered UDP packets in both directions at once, and when each arrived.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{STOP_CHECK, Service, enlarge_receive_buffer, readable};
use crate::Host;

/// Bytes of a packet: its number, and what a voice packet may have.
const SIZE: usize = 160;
/// How long packets may be under way that were sent last.
const DRAIN: Duration = Duration::from_millis(500);

/// Two hosts that send each other packets at a steady rate; they stop on drop.
#[derive(Debug)]
pub struct Dialogue {
    up: Arc<Lane>,
    down: Arc<Lane>,
    senders: Vec<Service>,
    receivers: Vec<Service>,
}

/// What went in one direction.
#[derive(Debug, Default)]
struct Lane {
    sent: AtomicU32,
    arrivals: Mutex<Vec<(u32, Instant)>>,
}

/// What became of the packets of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// Packets sent.
    pub sent: u32,
    /// The number of each packet that arrived, and when, in the order of arrival.
    pub arrivals: Vec<(u32, Instant)>,
}

impl Dialogue {
    /// Starts to send `rate` packets a second each way. The client opens the flow, so that it passes address
    /// translation.
    ///
    /// # Errors
    /// Fails where a socket does.
    pub fn start(client: &Host, server: &Host, address: IpAddr, rate: u32) -> Result<Self> {
        let far = server.run(move || UdpSocket::bind((address, 0))).context("bind a UDP socket")?;
        let to = far.local_addr().context("read a socket's address")?;
        let near = client.run(move || connect(to)).with_context(|| format!("open a flow to {to}"))?;
        enlarge_receive_buffer(&near).context("enlarge a receive buffer")?;
        enlarge_receive_buffer(&far).context("enlarge a receive buffer")?;
        let (up, down) = (Arc::new(Lane::default()), Arc::new(Lane::default()));
        let peer = Arc::new(Mutex::new(None));
        let copy = |socket: &UdpSocket| socket.try_clone().context("copy a socket's descriptor");
        let (near, near_copy, far_copy) =
            (near.try_clone().context("copy a socket's descriptor")?, copy(&near)?, copy(&far)?);
        let ask = |peer: &Mutex<Option<SocketAddr>>| *peer.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = vec![
            serve(client, &up, move |lane, stop| send(&near, lane, stop, rate, || Some(to))),
            serve(server, &down, {
                let peer = Arc::clone(&peer);
                move |lane, stop| send(&far, lane, stop, rate, || ask(&peer))
            }),
        ];
        let receivers = vec![
            serve(client, &down, move |lane, stop| receive(&near_copy, lane, stop, |_from| {})),
            serve(server, &up, move |lane, stop| {
                receive(&far_copy, lane, stop, |from| {
                    *peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(from)
                });
            }),
        ];
        Ok(Self { up, down, senders, receivers })
    }

    /// Packets that arrived at the server and at the client since `since`.
    pub fn arrived_since(&self, since: Instant) -> [usize; 2] {
        [&self.up, &self.down].map(|lane| lane.arrivals().iter().filter(|(_, at)| *at >= since).count())
    }

    /// The longest silence at the server and at the client between two moments, the second of which is over.
    pub fn longest_silence(&self, from: Instant, to: Instant) -> [Duration; 2] {
        [&self.up, &self.down].map(|lane| longest_silence(&lane.arrivals(), from, to))
    }

    /// Stops, lets what is under way arrive, and returns what went to the server and to the client.
    pub fn finish(mut self) -> [Course; 2] {
        self.senders.clear();
        thread::sleep(DRAIN);
        self.receivers.clear();
        [&self.up, &self.down]
            .map(|lane| Course { sent: lane.sent.load(Ordering::Relaxed), arrivals: lane.arrivals().clone() })
    }
}

impl Lane {
    fn arrivals(&self) -> std::sync::MutexGuard<'_, Vec<(u32, Instant)>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Course {
    /// Packets that never arrived.
    pub fn lost(&self) -> usize {
        usize::try_from(self.sent).unwrap_or(usize::MAX).saturating_sub(self.numbers().len())
    }

    /// Packets that arrived more than once.
    pub fn duplicated(&self) -> usize {
        self.arrivals.len() - self.numbers().len()
    }

    /// How long after a later packet one arrived, at most.
    pub fn latest(&self) -> Duration {
        let mut passed: Vec<(u32, Instant)> = Vec::new();
        let mut latest = Duration::ZERO;
        for &(number, at) in &self.arrivals {
            if passed.last().is_none_or(|(newest, _)| number > *newest) {
                passed.push((number, at));
            } else if let Some((_, first)) = passed.get(passed.partition_point(|(newest, _)| *newest <= number)) {
                latest = latest.max(at.duration_since(*first));
            }
        }
        latest
    }

    /// Packets that arrived after a later one.
    pub fn reordered(&self) -> usize {
        let mut newest = 0;
        let late = |(number, _): &&(u32, Instant)| {
            let is_late = *number < newest;
            newest = newest.max(*number);
            is_late
        };
        self.arrivals.iter().filter(late).count()
    }

    fn numbers(&self) -> std::collections::BTreeSet<u32> {
        self.arrivals.iter().map(|(number, _)| *number).collect()
    }
}

fn longest_silence(arrivals: &[(u32, Instant)], from: Instant, to: Instant) -> Duration {
    let within = arrivals.iter().map(|(_, at)| *at).filter(|at| (from..to).contains(at));
    let (longest, last) = within
        .chain([to])
        .fold((Duration::ZERO, from), |(longest, last), at| (longest.max(at.duration_since(last)), at));
    debug_assert_eq!(last, to, "the end comes last");
    longest
}

fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0; 16], 0)) };
    UdpSocket::bind(any)
}

fn serve(host: &Host, lane: &Arc<Lane>, work: impl FnOnce(&Lane, &AtomicBool) + Send + 'static) -> Service {
    let (stop, lane) = (Arc::new(AtomicBool::new(false)), Arc::clone(lane));
    let thread = host.start({
        let stop = Arc::clone(&stop);
        move || work(&lane, &stop)
    });
    Service::new(stop, thread)
}

/// Sends at a rate to whoever `to` names at the time; what the system refuses counts as sent and lost.
fn send(socket: &UdpSocket, lane: &Lane, stop: &AtomicBool, rate: u32, to: impl Fn() -> Option<SocketAddr>) {
    let mut packet = [0x5a; SIZE];
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        due += Duration::from_secs(1) / rate.max(1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let Some(to) = to() else { continue };
        let number = lane.sent.fetch_add(1, Ordering::Relaxed);
        if let Some(head) = packet.first_chunk_mut() {
            *head = number.to_be_bytes();
        }
        socket.send_to(&packet, to).ok();
    }
}

fn receive(socket: &UdpSocket, lane: &Lane, stop: &AtomicBool, heard: impl Fn(SocketAddr)) {
    let mut buffer = [0; SIZE];
    while !stop.load(Ordering::Relaxed) {
        if !readable(socket, STOP_CHECK).unwrap_or(false) {
            continue;
        }
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(number) = buffer.get(..length).and_then(<[u8]>::first_chunk) {
            lane.arrivals().push((u32::from_be_bytes(*number), Instant::now()));
            heard(from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(sent: u32, numbers: &[(u32, u64)]) -> (Instant, Course) {
        let start = Instant::now();
        let arrivals = numbers.iter().map(|(number, at)| (*number, start + Duration::from_millis(*at))).collect();
        (start, Course { sent, arrivals })
    }

    #[test]
    fn late_double_and_missing_packets_are_told_apart() {
        let (_, course) = course(6, &[(0, 0), (3, 10), (1, 15), (4, 20), (2, 40), (4, 41)]);
        assert_eq!((course.lost(), course.duplicated(), course.reordered()), (1, 1, 2));
        assert_eq!(course.latest(), Duration::from_millis(30), "2 came 30 ms after 3");
    }

    #[test]
    fn silence_counts_to_the_end() {
        let (start, course) = course(3, &[(0, 0), (1, 10), (2, 30)]);
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(longest_silence(&course.arrivals, start, at(31)), Duration::from_millis(20));
        assert_eq!(longest_silence(&course.arrivals, start, at(90)), Duration::from_millis(60));
        assert_eq!(longest_silence(&course.arrivals, at(40), at(50)), Duration::from_millis(10));
    }
}

//! Round-trip times of echo requests sent at a steady rate, with the kernel's own time of each answer's arrival.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sys::prctl;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use super::{checksum, readable};
use crate::Host;

/// Identifies our echo requests to ourselves.
const IDENTIFIER: [u8; 2] = *b"ad";
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// ICMP header and payload, as `ping` has it.
const LENGTH: usize = 64;
/// Longest wait for the last answers.
const DRAIN: Duration = Duration::from_millis(500);
/// How late the kernel may wake the sender, in nanoseconds; the default is 50 µs.
const TIMER_SLACK_NANOSECONDS: u64 = 1_000;

/// Round-trip times, sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Latencies {
    microseconds: Vec<f64>,
    sent: usize,
}

impl Latencies {
    /// Sorts what was measured.
    fn new(mut microseconds: Vec<f64>, sent: usize) -> Self {
        microseconds.sort_by(f64::total_cmp);
        Self { microseconds, sent }
    }

    /// The time that `share` (0 to 1) of all answers did not exceed, in microseconds; `None` without answers.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a rank needs no more than 52 bits")]
        let rank = (share * self.microseconds.len() as f64).ceil().max(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is small and positive")]
        self.microseconds.get(rank as usize - 1).copied()
    }

    /// The share (0 to 1) of all requests that was answered within a time, as pairs of microseconds and share, both
    /// rising; at most 119 of them, which are dense where the share comes near to 1.
    pub fn distribution(&self) -> Vec<(f64, f64)> {
        let answers = self.microseconds.len();
        #[expect(clippy::cast_precision_loss, reason = "requests are far fewer than 2^52")]
        let (of_answers, of_requests) =
            (|rank: usize| rank as f64 / answers as f64, |rank| rank as f64 / self.sent as f64);
        let mut pairs: Vec<(f64, f64)> = Vec::new();
        let mut wanted = shares();
        let mut next = wanted.next();
        for (time, rank) in self.microseconds.iter().zip(1..) {
            let reached = next.is_some_and(|share| of_answers(rank) >= share);
            while next.is_some_and(|share| of_answers(rank) >= share) {
                next = wanted.next();
            }
            if reached || rank == answers {
                pairs.push((*time, of_requests(rank)));
            }
        }
        pairs
    }

    /// Requests without an answer.
    pub fn lost(&self) -> usize {
        self.sent - self.microseconds.len()
    }
}

/// Shares of a distribution worth a point: each percent, then each tenth and hundredth of the last one.
fn shares() -> impl Iterator<Item = f64> {
    let steps = [(0..=99, 0.01, 0.0), (1..=9, 0.001, 0.99), (1..=10, 0.000_1, 0.999)];
    steps.into_iter().flat_map(|(range, step, base)| range.map(move |n| base + step * f64::from(n)))
}

/// Sends `count` echo requests from `host`, `rate` per second, and collects the answers.
///
/// # Errors
/// Fails where the socket does, and as soon as `check` does, which is asked before each request; a lost answer is no
/// error.
pub fn echoes(
    host: &Host,
    target: Ipv4Addr,
    rate: u32,
    count: u32,
    check: impl Fn() -> Result<()> + Send + 'static,
) -> Result<Latencies> {
    host.run(move || exchange(target, rate, count, &check)).with_context(|| format!("ping {target}"))
}

fn exchange(target: Ipv4Addr, rate: u32, count: u32, check: &dyn Fn() -> Result<()>) -> Result<Latencies> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("open a raw socket")?;
    socket.connect(&SocketAddr::from((target, 0)).into()).context("connect a raw socket")?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("ask for time stamps")?;
    prctl::set_timerslack(TIMER_SLACK_NANOSECONDS).context("ask for precise timers")?;
    let mut answers = Answers::with_capacity(usize::try_from(count).expect("an address has 32 bits at least"));
    let start = Instant::now();
    for number in 0..count {
        check()?;
        let due = start + Duration::from_secs(1) * number / rate;
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            answers.collect(&socket, left)?;
        }
        answers.sent_at.push(Some(now()));
        // What cannot be sent is lost.
        drop(socket.send(&request(number)));
    }
    let end = Instant::now() + DRAIN;
    while answers.times.len() < answers.sent_at.len() {
        let Some(left) = end.checked_duration_since(Instant::now()) else { break };
        answers.collect(&socket, left)?;
    }
    Ok(Latencies::new(answers.times, answers.sent_at.len()))
}

struct Answers {
    buffer: [u8; 2 * LENGTH],
    /// When each request was sent; `None` once it was answered.
    sent_at: Vec<Option<Duration>>,
    times: Vec<f64>,
}

impl Answers {
    fn with_capacity(requests: usize) -> Self {
        let (sent_at, times) = (Vec::with_capacity(requests), Vec::with_capacity(requests));
        Self { buffer: [0; 2 * LENGTH], sent_at, times }
    }

    /// Waits at most `limit` for an answer, and notes its time.
    fn collect(&mut self, socket: &Socket, limit: Duration) -> Result<()> {
        if !readable(socket, limit)? {
            return Ok(());
        }
        let mut control = nix::cmsg_space!(TimeSpec);
        let (arrived, length) = {
            let mut slices = [IoSliceMut::new(&mut self.buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags);
            let message = message.map_err(io::Error::from).context("receive an answer")?;
            let stamp = message.cmsgs().context("read a time stamp")?.find_map(|message| {
                if let ControlMessageOwned::ScmTimestampns(at) = message { Some(Duration::from(at)) } else { None }
            });
            (stamp.unwrap_or_else(now), message.bytes)
        };
        if let Some(number) = answered(&self.buffer[..length]) {
            self.note(number, arrived);
        }
        Ok(())
    }

    /// Notes the time of an answer, unless the same came before: a network may double packets.
    fn note(&mut self, number: usize, arrived: Duration) {
        if let Some(sent) = self.sent_at.get_mut(number).and_then(Option::take) {
            self.times.push(arrived.saturating_sub(sent).as_secs_f64() * 1e6);
        }
    }
}

/// Time of day, as the kernel stamps packets.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// An echo request (RFC 792) that bears its number in its payload, where 16 bits are not the limit.
pub(super) fn request(number: u32) -> [u8; LENGTH] {
    let mut packet = [0x61; LENGTH];
    let [_, _, high, low] = number.to_be_bytes();
    let head = [ECHO_REQUEST, 0, 0, 0, IDENTIFIER[0], IDENTIFIER[1], high, low];
    for (to, from) in packet.iter_mut().zip(head.into_iter().chain(number.to_be_bytes())) {
        *to = from;
    }
    let [high, low] = checksum(&[&packet]).to_be_bytes();
    (packet[2], packet[3]) = (high, low);
    packet
}

/// The number of the request that an IPv4 packet answers; `None` where it is something else.
pub(super) fn answered(packet: &[u8]) -> Option<usize> {
    let icmp = packet.get(usize::from(packet.first()? & 0x0f) * 4..)?;
    let mine = *icmp.first()? == ECHO_REPLY && icmp.get(4..6)? == IDENTIFIER;
    let number = u32::from_be_bytes(*icmp.get(8..)?.first_chunk()?);
    if mine { usize::try_from(number).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks_of_what_was_measured() {
        let latencies = Latencies::new((1..=1_000).rev().map(f64::from).collect(), 1_001);
        let quantiles = [0.5, 0.9, 0.99, 0.999].map(|share| latencies.quantile(share));
        assert_eq!(quantiles, [Some(500.0), Some(900.0), Some(990.0), Some(999.0)]);
        assert_eq!(latencies.lost(), 1);
        assert_eq!(Latencies::default().quantile(0.5), None);
    }

    #[test]
    fn distribution_rises_to_the_share_that_was_answered() {
        let latencies = Latencies::new((1..=9_000).rev().map(f64::from).collect(), 10_000);
        let pairs = latencies.distribution();
        assert!(pairs.len() <= 119, "{}", pairs.len());
        assert!(pairs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{pairs:?}");
        assert_eq!((pairs[0], pairs[pairs.len() - 1]), ((1.0, 0.0001), (9_000.0, 0.9)));
        let median = pairs.iter().find(|(time, _)| *time >= 4_500.0).unwrap();
        assert!((median.1 - 0.45).abs() < 1e-9, "{median:?}");
        assert_eq!(Latencies::new(vec![7.0], 1).distribution(), [(7.0, 1.0)]);
        assert_eq!(Latencies::default().distribution(), []);
    }

    #[test]
    fn doubled_answers_do_not_hide_lost_ones() {
        let mut answers = Answers::with_capacity(3);
        answers.sent_at = [10, 20, 30].map(|millisecond| Some(Duration::from_millis(millisecond))).to_vec();
        for (number, arrived) in [(0, 11), (0, 12), (2, 33), (2, 33), (0, 40), (7, 50)] {
            answers.note(number, Duration::from_millis(arrived));
        }
        let latencies = Latencies::new(answers.times, answers.sent_at.len());
        assert_eq!((latencies.lost(), latencies.quantile(0.5), latencies.quantile(1.0)), (1, Some(1e3), Some(3e3)));
        assert_eq!(latencies.distribution().last(), Some(&(3e3, 2.0 / 3.0)));
    }

    #[test]
    fn only_answers_to_own_requests_have_a_number() {
        let mut packet = vec![0x45; 20];
        packet.extend(request(70_000));
        assert_eq!(checksum(&[&packet[20..]]), 0);
        assert_eq!(answered(&packet), None, "a request is no answer");
        packet[20] = ECHO_REPLY;
        assert_eq!(answered(&packet), Some(70_000));
        packet[24] = b'x';
        assert_eq!(answered(&packet), None);
        assert_eq!(answered(&[]), None);
    }
}

//! Small pieces of traffic between lab hosts, and what arrived of it.
//!
//! A server here is a thread in the namespaces of its host that ends when the value is dropped. Every wait is bounded.

mod barrage;
mod beacon;
mod capture;
mod dialogue;
mod flood;
mod inject;
mod latency;
mod numbered;
mod ping;
mod search;
mod stream;
mod tcp;
mod udp;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

pub use barrage::{BarragePlan, BarrageReport, BarrageTarget};
pub use beacon::Beacon;
pub use capture::{Capture, Captured};
pub use dialogue::{Course, Dialogue};
pub use flood::{Flood, Volley};
pub use inject::{inject, inject_marked, udp_packet};
pub use latency::{Latencies, echoes};
pub use numbered::{NumberedPlan, NumberedReport, numbered};
pub use ping::{PingOutcome, ping, ping_with_ttl};
pub use search::{Search, highest_rate};
pub use stream::{StreamPlan, Streams};
pub use tcp::{Direction, TcpServer, Transfer, transfer, transfer_within};
pub use udp::{EchoReport, Heartbeat, UdpEcho, echo};

/// How often a server looks whether it shall end.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// Receive buffer of a socket whose owner may not run at once, on a machine that does much else.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A thread that works until this is dropped.
#[derive(Debug)]
struct Service {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn new(stop: Arc<AtomicBool>, thread: JoinHandle<()>) -> Self {
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already reported when it happened.
            drop(thread.join());
        }
    }
}

/// Waits until `socket` can be read, `limit` is over (`false`) or it fails.
fn readable(socket: &impl AsFd, limit: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut sockets, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a socket a large receive buffer, beyond the system's limit where that is permitted.
fn enlarge_receive_buffer(socket: &impl AsFd) -> io::Result<()> {
    let forced = setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    forced.or_else(|_| setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER)).map_err(io::Error::from)
}

/// The Internet checksum (RFC 1071) of `parts`, each of which has an even length but the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum = words.fold(0_u32, |sum, word| {
        let high = word.first().copied().unwrap_or_default();
        let low = word.get(1).copied().unwrap_or_default();
        sum + u32::from(u16::from_be_bytes([high, low]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the carries were folded in")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{GATEWAY_V4, GATEWAY_V6, Host, Lab, check_permission};
    use adit_testing::skip;

    #[test]
    fn checksum_is_that_of_rfc_1071_section_3() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    /// Hosts that are neighbours: `client` and `gateway`.
    fn neighbours() -> Option<(Lab, Host, Host)> {
        if let Err(failure) = check_permission() {
            skip(failure);
            return None;
        }
        let mut lab = Lab::standard().unwrap();
        let (client, gateway) = (lab.host("client").unwrap(), lab.host("gateway").unwrap());
        Some((lab, client, gateway))
    }

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn transfers_arrive_intact_both_ways() {
        let Some((_lab, client, gateway)) = neighbours() else { return };
        let server = TcpServer::start(&gateway, GATEWAY_V4.into()).unwrap();
        for direction in [Direction::Upload, Direction::Download] {
            let done = transfer(&client, server.address(), direction, 3_000_001).unwrap();
            assert!(done.is_intact());
            assert_eq!(done.bytes, 3_000_001);
        }
        assert_eq!(server.peers().len(), 2);
    }

    #[test]
    fn echoes_are_counted() {
        let Some((_lab, client, gateway)) = neighbours() else { return };
        let server = UdpEcho::start(&gateway, GATEWAY_V6.into()).unwrap();
        let report = echo(&client, server.address(), 500, 5_000, 100).unwrap();
        assert_eq!(report, EchoReport { sent: 500, received: 500, reordered: 0, duplicated: 0 });
    }

    #[test]
    fn neighbours_answer_pings_of_both_families() {
        let Some((_lab, client, _gateway)) = neighbours() else { return };
        for target in [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)] {
            assert!(ping(&client, target, LIMIT).unwrap().rtt().is_some());
        }
        let nobody = IpAddr::from([192, 0, 2, 29]);
        assert_eq!(ping(&client, nobody, Duration::from_millis(100)).unwrap(), PingOutcome::Silence);
    }

    #[test]
    fn injected_packets_of_any_source_are_captured_at_the_other_end() {
        let Some((_lab, client, gateway)) = neighbours() else { return };
        let capture = Capture::start(&gateway).unwrap();
        let v4 = |source: &str| udp_packet(source.parse().unwrap(), (GATEWAY_V4, 9).into(), 7, b"adit-inject");
        let v6 = |source: &str| udp_packet(source.parse().unwrap(), (GATEWAY_V6, 9).into(), 7, b"adit-inject");
        let sources = ["10.9.8.7:1", "224.0.0.1:1", "127.0.0.1:1", "[2001:db8:9::9]:1", "[ff02::1]:1", "[::1]:1"];
        for source in sources {
            let packet = if source.starts_with('[') { v6(source) } else { v4(source) };
            inject(&client, "eth0", vec![packet]).unwrap();
            let source = source.parse::<std::net::SocketAddr>().unwrap().ip();
            let seen = capture.wait_for(LIMIT, |packet| packet.source == source && packet.contains(b"adit-inject"));
            assert_eq!(seen.unwrap().ttl, 7);
        }
    }
}

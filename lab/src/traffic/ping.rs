//! ICMP and ICMPv6 echo (RFC 792, RFC 4443) over raw sockets.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::{checksum, readable};
use crate::Host;

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const UNREACHABLE_V4: u8 = 3;
const TIME_EXCEEDED_V4: u8 = 11;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const UNREACHABLE_V6: u8 = 1;
const PACKET_TOO_BIG_V6: u8 = 2;
const TIME_EXCEEDED_V6: u8 = 3;

/// Payload of an echo request, as `ping` has it.
const PAYLOAD: [u8; 56] = [0x61; 56];

/// What an echo request brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingOutcome {
    /// The target answered.
    Reply {
        /// Time from sending to receiving.
        rtt: Duration,
    },
    /// A router on the way dropped it because its TTL ran out.
    TimeExceeded {
        /// Length of the answer's way is unknown; this is the time until it came.
        rtt: Duration,
    },
    /// A router on the way refused it; the type and code of its message.
    Refused {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
    /// Nothing came in time.
    Silence,
}

impl PingOutcome {
    /// The round-trip time, where the target answered.
    pub fn rtt(&self) -> Option<Duration> {
        match self {
            Self::Reply { rtt } => Some(*rtt),
            Self::TimeExceeded { .. } | Self::Refused { .. } | Self::Silence => None,
        }
    }
}

/// Sends one echo request from `host` and waits at most `limit` for the answer.
pub fn ping(host: &Host, target: IpAddr, limit: Duration) -> Result<PingOutcome> {
    ping_with_ttl(host, target, 64, limit)
}

/// Sends one echo request with a TTL (IPv6: hop limit) of its own.
pub fn ping_with_ttl(host: &Host, target: IpAddr, ttl: u8, limit: Duration) -> Result<PingOutcome> {
    host.run(move || exchange(target, ttl, limit)).with_context(|| format!("ping {target}"))
}

fn exchange(target: IpAddr, ttl: u8, limit: Duration) -> io::Result<PingOutcome> {
    static NUMBER: AtomicU16 = AtomicU16::new(1);
    let id = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let (domain, protocol) = match target {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    match target {
        IpAddr::V4(_) => socket.set_ttl_v4(ttl.into())?,
        IpAddr::V6(_) => socket.set_unicast_hops_v6(ttl.into())?,
    }
    let start = Instant::now();
    if let Err(error) = socket.send_to(&request(target, id), &SocketAddr::new(target, 0).into()) {
        // The last is what a host's own packet filter says.
        let no_way = matches!(
            error.kind(),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::PermissionDenied
        );
        return if no_way { Ok(PingOutcome::Silence) } else { Err(error) };
    }
    let mut buffer = [0; 2048];
    while let Some(left) = limit.checked_sub(start.elapsed()) {
        if !readable(&socket, left)? {
            break;
        }
        // An error queued on the socket is an ICMP message, which is read below as a packet of its own.
        let Ok(length) = socket.read(&mut buffer) else { continue };
        let packet = &buffer[..length];
        if let Some(answer) = answer(target, id, packet, start.elapsed()) {
            return Ok(answer);
        }
    }
    Ok(PingOutcome::Silence)
}

/// An echo request; the kernel computes the checksum of ICMPv6, which covers addresses.
fn request(target: IpAddr, id: [u8; 2]) -> Vec<u8> {
    let kind = if target.is_ipv4() { ECHO_REQUEST_V4 } else { ECHO_REQUEST_V6 };
    let mut packet = vec![kind, 0, 0, 0, id[0], id[1], 0, 1];
    packet.extend_from_slice(&PAYLOAD);
    if target.is_ipv4() {
        let sum = checksum(&[&packet]);
        if let Some(field) = packet.get_mut(2..4) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
    packet
}

/// The answer to the request `id` that `packet` holds; `None` for everybody else's.
fn answer(target: IpAddr, id: [u8; 2], packet: &[u8], rtt: Duration) -> Option<PingOutcome> {
    // A raw IPv4 socket gives the IP header too, a raw IPv6 one does not.
    let icmp = if target.is_ipv4() { after_ipv4_header(packet)? } else { packet };
    let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
    // Errors hold the refused packet after 8 bytes.
    let mine = |request: &[u8]| request.get(4..6) == Some(&id);
    let quoted = || {
        let original = icmp.get(8..)?;
        if target.is_ipv4() { after_ipv4_header(original) } else { original.get(40..) }
    };
    match (target.is_ipv4(), kind) {
        (true, ECHO_REPLY_V4) | (false, ECHO_REPLY_V6) => mine(icmp).then_some(PingOutcome::Reply { rtt }),
        (true, TIME_EXCEEDED_V4) | (false, TIME_EXCEEDED_V6) => {
            mine(quoted()?).then_some(PingOutcome::TimeExceeded { rtt })
        }
        (true, UNREACHABLE_V4) | (false, UNREACHABLE_V6 | PACKET_TOO_BIG_V6) => {
            mine(quoted()?).then_some(PingOutcome::Refused { kind, code })
        }
        _ => None,
    }
}

fn after_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 0x0f) * 4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn request_has_a_valid_checksum() {
        assert_eq!(checksum(&[&request(TARGET, [1, 2])]), 0);
    }

    #[test]
    fn only_the_answer_to_the_own_request_counts() {
        let mut reply = vec![0x45; 20];
        reply.extend_from_slice(&[ECHO_REPLY_V4, 0, 0, 0, 1, 2, 0, 1]);
        let rtt = Duration::from_millis(3);
        assert_eq!(answer(TARGET, [1, 2], &reply, rtt), Some(PingOutcome::Reply { rtt }));
        assert_eq!(answer(TARGET, [1, 3], &reply, rtt), None);
        assert_eq!(answer(TARGET, [1, 2], &reply[..3], rtt), None);
    }

    #[test]
    fn error_about_the_own_request_is_recognised() {
        let mut error = vec![0x45; 20];
        error.extend_from_slice(&[TIME_EXCEEDED_V4, 0, 0, 0, 0, 0, 0, 0]);
        error.extend_from_slice(&[0x45; 20]);
        error.extend_from_slice(&[ECHO_REQUEST_V4, 0, 0, 0, 1, 2, 0, 1]);
        let rtt = Duration::from_millis(3);
        assert_eq!(answer(TARGET, [1, 2], &error, rtt), Some(PingOutcome::TimeExceeded { rtt }));
        assert_eq!(answer(TARGET, [9, 9], &error, rtt), None);
    }
}

//! The IP packets a lab host sees, on all its links.

use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{LinkAddr, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};

use super::{STOP_CHECK, Service, enlarge_receive_buffer, readable};
use crate::Host;

/// `ETH_P_ALL` (linux/if_ether.h).
const ALL_PROTOCOLS: u16 = 3;
/// The protocol number of UDP.
const UDP: u8 = 17;
/// Packets kept; later ones are not (drop newest). At 2 KiB each that is at most 64 MiB.
const CAPACITY: usize = 32 * 1024;
/// Bytes kept of each packet.
const SNAP: usize = 2048;

/// One IP packet as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Index of the link it was seen on.
    pub link: usize,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The packet from its IP header on, cut after 2 KiB.
    pub bytes: Vec<u8>,
}

impl Captured {
    fn parse(link: usize, bytes: &[u8]) -> Option<Self> {
        let (source, destination, ttl) = match bytes.first()? >> 4 {
            4 => (
                IpAddr::from(*bytes.get(12..)?.first_chunk::<4>()?),
                IpAddr::from(*bytes.get(16..)?.first_chunk::<4>()?),
                *bytes.get(8)?,
            ),
            6 => (
                IpAddr::from(*bytes.get(8..)?.first_chunk::<16>()?),
                IpAddr::from(*bytes.get(24..)?.first_chunk::<16>()?),
                *bytes.get(7)?,
            ),
            _ => return None,
        };
        Some(Self { link, source, destination, ttl, bytes: bytes.to_vec() })
    }

    /// Ports of source and destination and the payload, if it is a UDP packet without IP options and extension headers.
    pub fn udp(&self) -> Option<(u16, u16, &[u8])> {
        let (protocol, header) = if self.source.is_ipv4() { (9, 20) } else { (6, 40) };
        if self.bytes.get(protocol) != Some(&UDP) {
            return None;
        }
        let (udp, payload) = self.bytes.get(header..)?.split_first_chunk::<8>()?;
        let [a, b, c, d, ..] = *udp;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), payload))
    }

    /// Whether `text` occurs anywhere in the packet.
    pub fn contains(&self, text: &[u8]) -> bool {
        self.bytes.windows(text.len().max(1)).any(|window| window == text)
    }
}

/// A running capture; it ends on drop.
#[derive(Debug)]
pub struct Capture {
    packets: Arc<Mutex<Vec<Captured>>>,
    _service: Service,
}

impl Capture {
    /// Starts to capture in `host`.
    pub fn start(host: &Host) -> Result<Self> {
        Self::start_for(host, |_packet| true)
    }

    /// Starts to capture what `wanted` picks in `host`.
    pub fn start_for(host: &Host, wanted: impl Fn(&Captured) -> bool + Send + 'static) -> Result<Self> {
        // A datagram packet socket hands over packets without their link header.
        let protocol = Protocol::from(i32::from(ALL_PROTOCOLS.to_be()));
        let socket = host.run(move || Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)));
        let socket = socket.context("open a packet socket")?;
        enlarge_receive_buffer(&socket).context("enlarge a receive buffer")?;
        let (stop, packets) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let thread = host.start({
            let (stop, packets) = (Arc::clone(&stop), Arc::clone(&packets));
            move || {
                let mut buffer = [0; SNAP];
                while !stop.load(Ordering::Relaxed) {
                    if !readable(&socket, STOP_CHECK).unwrap_or(false) {
                        continue;
                    }
                    let Ok((length, from)) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) else { continue };
                    let link = from.map_or(0, |address| address.ifindex());
                    let mut kept = packets.lock().unwrap_or_else(PoisonError::into_inner);
                    if kept.len() < CAPACITY {
                        let seen = Captured::parse(link, &buffer[..length]);
                        kept.extend(seen.filter(&wanted));
                    }
                }
            }
        });
        Ok(Self { packets, _service: Service::new(stop, thread) })
    }

    /// The packets so far that `filter` picks.
    pub fn packets(&self, filter: impl Fn(&Captured) -> bool) -> Vec<Captured> {
        let packets = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        packets.iter().filter(|packet| filter(packet)).cloned().collect()
    }

    /// Waits until `filter` picks at least one packet; returns the first, or `None` after `limit`.
    pub fn wait_for(&self, limit: Duration, filter: impl Fn(&Captured) -> bool) -> Option<Captured> {
        let deadline = Instant::now() + limit;
        loop {
            let found = self.packets(&filter).into_iter().next();
            if found.is_some() || Instant::now() >= deadline {
                return found;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

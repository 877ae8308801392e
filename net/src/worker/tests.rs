//! Workers between a real TUN device and a peer, which is the test.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use adit_proto::esp::packet::NextHeader;
use adit_proto::offload::split::Checksums;
use nix::sys::socket::{setsockopt, sockopt};

mod across;
mod congestion;
mod embedded;
mod full;
mod held;
mod lifecycle;
mod receive;
mod records;
mod reports;
mod scene;
mod transmit;

use super::*;
use crate::testing::world::*;
use crate::udp::bind_any;
use adit_testing::namespace::{in_namespace, ip};

/// A socket of this host inside the tunnel.
fn local_v4() -> UdpSocket {
    UdpSocket::bind("10.9.0.1:0").unwrap()
}

/// A socket of this host that tells how the kernel handed datagrams over: joined ones together.
fn joined() -> (EspSocket, u16) {
    let socket = bind_any(false, None, true).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Bytes that say where they belong.
fn content(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ at >> 7 ^ seed.wrapping_mul(97)).to_le_bytes()[0]).collect()
}

/// Has the kernel cut what a socket sends into datagrams of `size` bytes.
fn segment(socket: &UdpSocket, size: usize) {
    setsockopt(socket, sockopt::UdpGsoSegment, &i32::try_from(size).unwrap()).unwrap();
}

fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(within(PATIENCE, holds), "not in time: {what}");
}

fn within(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

fn drops(counters: &Counters, reason: DropReason) -> u64 {
    counters.traffic().drops.iter().find(|(label, _)| *label == reason.label()).map_or(0, |(_, count)| *count)
}

/// The next message of a socket and its datagrams; `None` if none comes in time.
fn message(socket: &EspSocket, patience: Duration) -> Option<(crate::udp::Message, Vec<Vec<u8>>)> {
    let mut buffer = vec![0; 65_536];
    let mut received = None;
    within(patience, || {
        received = socket.receive(&mut buffer).ok();
        received.is_some()
    });
    let message = received?;
    Some((message, buffer[..message.len].chunks(message.segment.max(1)).map(<[u8]>::to_vec).collect()))
}

/// So many datagrams, and in how many messages they came.
fn datagrams(socket: &EspSocket, count: usize) -> (Vec<Vec<u8>>, usize) {
    let (mut datagrams, mut messages) = (Vec::new(), 0);
    while datagrams.len() < count {
        let next = message(socket, PATIENCE);
        datagrams.extend(next.unwrap_or_else(|| panic!("{} of {count} datagrams", datagrams.len())).1);
        messages += 1;
    }
    (datagrams, messages)
}

fn nothing_comes(socket: &EspSocket) {
    assert!(message(socket, Duration::from_millis(50)).is_none());
}

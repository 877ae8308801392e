//! Hands packets that wait to their QUIC connection.
//!
//! A connection is behind a lock that its driver holds while it seals and sends. A worker that handed over packet by
//! packet would have to sleep on that lock for many packets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_proto::drop_reason::DropReason;
use quinn::SendDatagramError;
use tokio::time::timeout;

use crate::carrier::counters::Counters;
use crate::carrier::outbox::{Bounds, Outbox};

/// What waits where the path is slow: so few bytes that they do not become a long delay. At 50 Mbit/s they pass in half
/// of the time. Where a connection takes nothing at all, that is 2 MiB of memory from [`STALLED`] on.
pub(super) const BOUNDS: Bounds = Bounds { few: 64 * 1024, long: Duration::from_millis(20) };
/// When a connection has taken nothing for so long, what is too much is dropped, even if no more packets come.
const STALLED: Duration = Duration::from_secs(1);
/// Datagrams that are taken from the outbox at a time.
const PORTION: usize = 32;

/// Feeds what waits to its connection, as fast as that sends, and counts packets as sent or dropped; in each datagram
/// there are `prefix` bytes before the packet. Never ends: with its connection gone, it drops what comes.
pub(super) async fn feed(outbox: Arc<Outbox>, quic: quinn::Connection, prefix: usize, counters: Arc<Counters>) {
    let mut portion = Vec::new();
    loop {
        outbox.take(&mut portion, PORTION);
        if portion.is_empty() {
            outbox.filled().await;
        }
        for datagram in portion.drain(..) {
            let len = datagram.len() - prefix;
            match timeout(STALLED, quic.send_datagram_wait(datagram)).await {
                Ok(Ok(())) => counters.count_tx(1, len as u64),
                Ok(Err(error)) => {
                    // The path may have become narrower.
                    outbox.set_known_mtu(0);
                    counters.count_drop(drop_reason(&error));
                }
                Err(_stalled) => counters.count_drops(1 + outbox.expire(Instant::now()), DropReason::QueueFull),
            }
        }
    }
}

fn drop_reason(error: &SendDatagramError) -> DropReason {
    match error {
        SendDatagramError::TooLarge => DropReason::TooBig,
        SendDatagramError::ConnectionLost(_) => DropReason::NotConnected,
        SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => DropReason::SendFailed,
    }
}

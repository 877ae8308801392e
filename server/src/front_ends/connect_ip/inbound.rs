//! The datagrams of one connection: read from the handshake on, handed to its tunnel while it has one, else dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_net::carrier::quic::{self, Datagrams};
use adit_net::worker::Routing as _;
use adit_proto::drop_reason::DropReason;
use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::core::router::Router;
use crate::core::sessions::Session;

/// Datagrams taken from a connection at a time.
const BATCH: usize = 64;

/// Where a connection's datagrams go.
#[derive(Default)]
pub(super) struct Inbound {
    claimed: AtomicBool,
    tunnel: ArcSwapOption<OpenTunnel>,
}

struct OpenTunnel {
    datagrams: Arc<Datagrams>,
    session: Arc<Session>,
}

/// The right to the connection's one tunnel; given back when dropped.
pub(super) struct Claim<'a>(&'a Inbound);

impl Inbound {
    /// Claims the connection's one tunnel; `None` while there is another.
    pub(super) fn claim(&self) -> Option<Claim<'_>> {
        (!self.claimed.swap(true, Ordering::AcqRel)).then_some(Claim(self))
    }

    /// From now on the packets in `datagrams` go to the session.
    pub(super) fn open(&self, datagrams: Arc<Datagrams>, session: Arc<Session>) {
        self.tunnel.store(Some(Arc::new(OpenTunnel { datagrams, session })));
    }

    /// From now on datagrams are dropped.
    pub(super) fn close(&self) {
        self.tunnel.store(None);
    }

    /// Reads datagrams until the connection ends.
    pub(super) async fn receive(self: Arc<Self>, quic: quinn::Connection, router: Arc<Router>) {
        let (mut datagrams, mut packets) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        while quic::receive(&quic, &mut datagrams, BATCH).await.is_ok() {
            let more = datagrams.len() == BATCH;
            let tunnel = self.tunnel.load();
            for datagram in datagrams.drain(..) {
                match &*tunnel {
                    None => router.counters().count_drop(DropReason::NotConnected),
                    Some(tunnel) => match tunnel.datagrams.packet(datagram) {
                        Ok(packet) => packets.push(packet),
                        Err(reason) => tunnel.session.carriers.counters().count_drop(reason),
                    },
                }
            }
            if let Some(tunnel) = &*tunnel {
                hand_over(&router, &tunnel.session, &mut packets);
            }
            drop(tunnel);
            if more {
                // Reading what is there never waits: others have their turn before the next batch.
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.claimed.store(false, Ordering::Release);
    }
}

/// Hands packets that came by a session's connection to the core, and empties `packets`.
///
/// A client sends by ESP while that passes, so packets that come another way cast doubt on it.
pub(super) fn hand_over(router: &Router, session: &Session, packets: &mut Vec<Bytes>) {
    if !packets.is_empty() {
        session.carriers.note_doubt();
    }
    router.from_client(session, packets);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_has_one_tunnel_at_a_time() {
        let inbound = Inbound::default();
        let first = inbound.claim();
        assert!(first.is_some());
        assert!(inbound.claim().is_none());
        drop(first);
        assert!(inbound.claim().is_some());
    }
}

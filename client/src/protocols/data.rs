//! The packet side of a connection. With a TUN device a worker moves packets, and one task hands over what comes by
//! another carrier; for an embedder two tasks move batches between its packet source and that carrier.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::carrier::quic::Datagrams;
use adit_net::carrier::{Carried as _, Carrier, Carriers};
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::drop_reason::DropReason;
use adit_proto::packet::IpPacket;
use adit_proto::packet::icmp::TooBigAnswers;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{ConnectError, ConnectionEvent, ConnectionStats};
use crate::packet_source::{PacketSource, Packets, TunnelSession};

/// Packets taken from the source at a time.
const BATCH: usize = 64;
/// Packets that may wait after arriving in DATAGRAM capsules; newer ones are dropped.
const CAPSULE_QUEUE: usize = 64;
/// "Too big" answers per second, and at once.
const TOO_BIG_RATE: (u32, u32) = (50, 20);

/// What both directions and the control side share.
pub(super) struct DataPath {
    connection: Arc<dyn Carrier>,
    session: Arc<TunnelSession>,
    packets: Packets,
    capsule_packets: mpsc::Sender<Bytes>,
    from_capsules: tokio::sync::Mutex<mpsc::Receiver<Bytes>>,
}

impl DataPath {
    /// Moves `packets` by the carrier of a connection.
    pub(super) fn new(connection: Arc<dyn Carrier>, packets: Packets) -> Self {
        let (capsule_packets, from_capsules) = mpsc::channel(CAPSULE_QUEUE);
        Self {
            session: Arc::new(TunnelSession::new(Arc::clone(&connection))),
            connection,
            packets,
            capsule_packets,
            from_capsules: tokio::sync::Mutex::new(from_capsules),
        }
    }

    /// The session as the packet path sees it.
    pub(super) fn session(&self) -> &Arc<TunnelSession> {
        &self.session
    }

    /// Who moves the packets.
    pub(super) fn packets(&self) -> &Packets {
        &self.packets
    }

    /// Packets flow from now on.
    pub(super) fn begin(&self) {
        if let Some(workers) = self.packets.workers() {
            workers.begin(&self.session);
        }
    }

    /// The connection is over; no packet passes by any carrier any more.
    pub(super) fn end(&self) {
        self.carriers().close();
        if let Some(workers) = self.packets.workers() {
            workers.end(&self.session);
        }
    }

    /// Largest packet the carrier in use takes now, in bytes.
    pub(super) fn mtu(&self) -> u16 {
        self.carriers().mtu()
    }

    /// Name of the carrier in use now.
    pub(super) fn carrier(&self) -> &'static str {
        self.carriers().name()
    }

    /// Packets to other addresses than these are dropped.
    pub(super) fn set_addresses(&self, addresses: Vec<IpAddr>) {
        self.session.set_addresses(addresses);
    }

    /// Takes a packet that came in a DATAGRAM capsule instead of a QUIC datagram.
    pub(super) fn deliver_capsule(&self, packet: Bytes) {
        if self.capsule_packets.try_send(packet).is_err() {
            self.carriers().counters().count_drop(DropReason::QueueFull);
        }
    }

    /// Counters of a connection with this round-trip time and this other end.
    pub(super) fn stats(&self, rtt: Duration, remote: SocketAddr) -> ConnectionStats {
        let carriers = self.carriers();
        let traffic = carriers.counters().traffic();
        ConnectionStats {
            carrier: carriers.name(),
            suite: carriers.suite().map(|suite| suite.label()),
            rekeys: carriers.rekeys(),
            rx_packets: traffic.rx_packets,
            rx_bytes: traffic.rx_bytes,
            rx_reordered: traffic.rx_reordered,
            tx_packets: traffic.tx_packets,
            tx_bytes: traffic.tx_bytes,
            drops: traffic.drops,
            rtt,
            path_mtu: None,
            remote: Some(remote),
            not_by_udp: None,
        }
    }

    fn carriers(&self) -> &Carriers {
        self.session.carriers()
    }

    fn count_drop(&self, reason: DropReason) {
        self.carriers().counters().count_drop(reason);
    }

    /// Hands packets that came from the gateway by its connection to the host or the embedder, and empties the batch.
    pub(super) fn deliver(&self, batch: &mut Vec<Bytes>) {
        // The gateway may have its reasons not to send datagrams.
        self.carriers().note_doubt();
        self.hand_over(batch);
    }

    /// As [`Self::deliver`], where the packets came in datagrams.
    pub(super) fn hand_over(&self, batch: &mut Vec<Bytes>) {
        let counters = self.carriers().counters();
        batch.retain(|packet| match self.check(packet) {
            Ok(()) => true,
            Err(reason) => {
                counters.count_drop(reason);
                false
            }
        });
        counters.count_rx(batch.len() as u64, batch.iter().map(|packet| packet.len() as u64).sum());
        for _refused in self.packets.deliver(batch)..batch.len() {
            counters.count_drop(DropReason::TunWriteFailed);
        }
        batch.clear();
    }

    /// Whether a packet from the gateway is well-formed and for this device.
    fn check(&self, packet: &[u8]) -> Result<(), DropReason> {
        self.session.check(&IpPacket::parse(packet)?)
    }
}

/// Has packets moved to the gateway until their source fails, which it tells as the end of the connection.
pub(super) async fn move_out(path: Arc<DataPath>, publish: mpsc::Sender<ConnectionEvent>) {
    let error = match path.packets.clone() {
        Packets::Device(workers) => workers.failed().await,
        Packets::Embedder(source) => uplink(path, source).await,
    };
    let _reader_gone = publish.send(ConnectionEvent::Closed(ConnectError::Source(error))).await;
}

/// Moves packets from an embedder's source to the gateway until the source fails, which is what it returns.
async fn uplink(path: Arc<DataPath>, source: Arc<dyn PacketSource>) -> io::Error {
    let mut batch = Vec::with_capacity(BATCH);
    let (per_second, burst) = TOO_BIG_RATE;
    // The embedder is the only source.
    let mut too_big = TooBigAnswers::new(per_second, burst, 1, RandomState::new().build_hasher().finish());
    loop {
        if let Err(error) = source.receive(&mut batch, BATCH).await {
            return error;
        }
        let mtu = path.connection.mtu();
        batch.retain(|packet: &PacketBuffer| match IpPacket::parse(packet.packet()) {
            Err(reason) => {
                path.count_drop(reason);
                false
            }
            Ok(parsed) if parsed.len > usize::from(mtu) => {
                path.count_drop(DropReason::TooBig);
                if let Some(answer) = too_big.answer(packet.packet(), mtu, Instant::now()) {
                    source.deliver(&[Bytes::copy_from_slice(answer)]);
                }
                false
            }
            Ok(_) => true,
        });
        path.connection.send(&mut batch);
    }
}

/// Hands packets that come by QUIC to the host or the embedder until the connection ends or the task is dropped.
pub(super) async fn downlink(path: Arc<DataPath>, datagrams: Arc<Datagrams>) {
    let mut from_capsules = path.from_capsules.lock().await;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            received = datagrams.receive(&mut batch, BATCH) => if received.is_err() {
                return; // The connection has ended.
            },
            Some(packet) = from_capsules.recv() => batch.push(packet),
        }
        let more = batch.len() == BATCH;
        path.deliver(&mut batch);
        if more {
            // Reading what is there never waits: ESP's probes and all else have their turn before the next batch.
            tokio::task::yield_now().await;
        }
    }
}

//! The packet side of a connection: two tasks that move batches between the packet source and the carrier.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use adit_net::counters::Counters;
use adit_net::datagrams::Datagrams;
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::drop_reason::DropReason;
use adit_proto::packet::IpPacket;
use adit_proto::packet::icmp::TooBigAnswers;
use arc_swap::ArcSwap;
use bytes::Bytes;
use ipnet::IpNet;
use tokio::sync::mpsc;

use super::ConnectionStats;
use crate::packet_source::PacketSource;

/// Packets taken from the source at a time.
const BATCH: usize = 64;
/// Packets that may wait after arriving in DATAGRAM capsules; newer ones are dropped.
const CAPSULE_QUEUE: usize = 64;
/// "Too big" answers per second, and at once.
const TOO_BIG_RATE: (u32, u32) = (50, 20);

/// What both directions share.
pub(super) struct DataPath {
    carrier: Datagrams,
    counters: Counters,
    addresses: ArcSwap<Vec<IpNet>>,
    capsule_packets: mpsc::Sender<Bytes>,
    from_capsules: tokio::sync::Mutex<mpsc::Receiver<Bytes>>,
}

impl DataPath {
    pub(super) fn new(quic: quinn::Connection, stream_id: u64) -> Self {
        let (capsule_packets, from_capsules) = mpsc::channel(CAPSULE_QUEUE);
        Self {
            carrier: Datagrams::new(quic, stream_id),
            counters: Counters::default(),
            addresses: ArcSwap::default(),
            capsule_packets,
            from_capsules: tokio::sync::Mutex::new(from_capsules),
        }
    }

    /// Largest packet the carrier takes now, in bytes.
    pub(super) fn mtu(&self) -> u16 {
        self.carrier.mtu()
    }

    /// Packets to other addresses than these are dropped.
    pub(super) fn set_addresses(&self, addresses: &[IpNet]) {
        self.addresses.store(Arc::new(addresses.to_vec()));
    }

    /// Takes a packet that came in a DATAGRAM capsule instead of a QUIC datagram.
    pub(super) fn deliver_capsule(&self, packet: Bytes) {
        if self.capsule_packets.try_send(packet).is_err() {
            self.counters.count_drop(DropReason::QueueFull);
        }
    }

    /// Number of UDP datagrams that came from the gateway, of whatever kind.
    pub(super) fn datagrams_received(&self) -> u64 {
        self.carrier.quic().stats().udp_rx.datagrams
    }

    pub(super) fn stats(&self) -> ConnectionStats {
        let traffic = self.counters.traffic();
        let quic = self.carrier.quic();
        ConnectionStats {
            carrier: "quic",
            rx_packets: traffic.rx_packets,
            rx_bytes: traffic.rx_bytes,
            tx_packets: traffic.tx_packets,
            tx_bytes: traffic.tx_bytes,
            drops: traffic.drops,
            rtt: quic.rtt(),
            remote: Some(quic.remote_address()),
        }
    }

    /// Whether a packet from the gateway is well-formed and for this device.
    fn check(&self, packet: &[u8]) -> Result<(), DropReason> {
        let parsed = IpPacket::parse(packet)?;
        let addressed = self.addresses.load().iter().any(|prefix| prefix.contains(&parsed.destination));
        if addressed { Ok(()) } else { Err(DropReason::DestinationNotLeased) }
    }
}

/// Moves packets from the source to the gateway until the source fails, which is what it returns.
pub(super) async fn uplink(path: Arc<DataPath>, source: Arc<dyn PacketSource>) -> io::Error {
    let mut batch = Vec::with_capacity(BATCH);
    let mut too_big = TooBigAnswers::new(TOO_BIG_RATE.0, TOO_BIG_RATE.1);
    loop {
        if let Err(error) = source.receive(&mut batch, BATCH).await {
            return error;
        }
        let mtu = path.mtu();
        batch.retain(|packet: &PacketBuffer| match IpPacket::parse(packet.packet()) {
            Err(reason) => {
                path.counters.count_drop(reason);
                false
            }
            Ok(parsed) if parsed.len > usize::from(mtu) => {
                path.counters.count_drop(DropReason::TooBig);
                if let Some(answer) = too_big.answer(packet.packet(), mtu, Instant::now()) {
                    source.deliver(&[Bytes::copy_from_slice(answer)]);
                }
                false
            }
            Ok(_) => true,
        });
        path.carrier.send(&mut batch, &path.counters);
    }
}

/// Moves packets from the gateway to the source until the connection ends or the task is dropped.
pub(super) async fn downlink(path: Arc<DataPath>, source: Arc<dyn PacketSource>) {
    let mut from_capsules = path.from_capsules.lock().await;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            received = path.carrier.receive(&mut batch, BATCH, &path.counters) => if received.is_err() {
                return; // The connection has ended.
            },
            Some(packet) = from_capsules.recv() => batch.push(packet),
        }
        batch.retain(|packet| match path.check(packet) {
            Ok(()) => true,
            Err(reason) => {
                path.counters.count_drop(reason);
                false
            }
        });
        path.counters.count_rx(batch.len() as u64, batch.iter().map(|packet| packet.len() as u64).sum());
        for _refused in source.deliver(&batch)..batch.len() {
            path.counters.count_drop(DropReason::TunWriteFailed);
        }
        batch.clear();
    }
}

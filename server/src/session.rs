//! Sessions: one authenticated client device, its addresses, its carrier and its counters.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use adit_net::counters::Counters;
use adit_net::datagrams::Datagrams;
use adit_net::packet_buffer::PacketBuffer;
use adit_proto::address_pool::Lease;
use adit_proto::policy::SourcePolicy;

use crate::gateway::SessionInfo;
use crate::store::Device;

pub use table::SessionTable;

mod table;

/// How the packets of a session travel to its client. The batch is the unit.
pub trait Carrier: Send + Sync {
    /// The carrier's name, such as `quic`.
    fn name(&self) -> &'static str;
    /// Largest packet it takes now, in bytes.
    fn mtu(&self) -> u16;
    /// Sends the packets, emptying `packets`, and counts each as sent or dropped. Never waits.
    fn send(&self, packets: &mut Vec<PacketBuffer>, counters: &Counters);
    /// The client's outer address.
    fn remote(&self) -> SocketAddr;
    /// Ends the connection underneath and tells the client why.
    fn close(&self, ending: Ending);
}

/// Why the gateway ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The device connected again.
    Replaced,
    /// The device may not connect any longer.
    Revoked,
    /// The gateway stops.
    Shutdown,
}

impl Ending {
    /// The reason in words, for the client.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Replaced => "the same device connected again",
            Self::Revoked => "this device was revoked",
            Self::Shutdown => "the gateway is shutting down",
        }
    }
}

/// One live session.
pub struct Session {
    /// Number, unique in this run of the gateway.
    pub id: u64,
    /// The device behind it.
    pub device: Device,
    /// Its inner addresses.
    pub lease: Lease,
    /// Which sources its packets may have.
    pub source: SourcePolicy,
    /// How its packets travel.
    pub carrier: Box<dyn Carrier>,
    /// Its traffic.
    pub counters: Counters,
    /// When it began.
    pub since: Instant,
}

impl Session {
    /// Makes a session that begins `now`.
    pub fn new(id: u64, device: Device, lease: Lease, carrier: Box<dyn Carrier>, now: Instant) -> Arc<Self> {
        let source = SourcePolicy::from(lease);
        Arc::new(Self { id, device, lease, source, carrier, counters: Counters::default(), since: now })
    }

    /// Its inner addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.lease.v4.map(IpAddr::V4).into_iter().chain(self.lease.v6.map(IpAddr::V6))
    }

    /// The session as administrators see it.
    pub fn info(&self, now: Instant) -> SessionInfo {
        let traffic = self.counters.traffic();
        SessionInfo {
            session: self.id,
            user: self.device.user.clone(),
            device: self.device.id.clone(),
            device_name: self.device.name.clone(),
            addresses: self.addresses().collect(),
            remote: self.carrier.remote(),
            carrier: self.carrier.name().to_owned(),
            mtu: self.carrier.mtu(),
            seconds: now.saturating_duration_since(self.since).as_secs(),
            rx_packets: traffic.rx_packets,
            rx_bytes: traffic.rx_bytes,
            tx_packets: traffic.tx_packets,
            tx_bytes: traffic.tx_bytes,
            drops: traffic.drops.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
        }
    }
}

impl Carrier for Arc<Datagrams> {
    fn name(&self) -> &'static str {
        "quic"
    }

    fn mtu(&self) -> u16 {
        Datagrams::mtu(self)
    }

    fn send(&self, packets: &mut Vec<PacketBuffer>, counters: &Counters) {
        Datagrams::send(self, packets, counters);
    }

    fn remote(&self) -> SocketAddr {
        self.quic().remote_address()
    }

    fn close(&self, ending: Ending) {
        use adit_proto::h3::error::Code;
        let code = match ending {
            // Tells the client that trying again is useless.
            Ending::Revoked => Code::REQUEST_REJECTED,
            Ending::Replaced | Ending::Shutdown => Code::NO_ERROR,
        };
        adit_net::h3::close(self.quic(), code, ending.reason());
    }
}

//! Sessions: one authenticated client device, its addresses, and how its packets travel.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use adit_net::carrier::{Carried, Carrier, Carriers};
use adit_proto::address_pool::Lease;
use adit_proto::policy::SourcePolicy;

use crate::accounts::Device;

pub use table::SessionTable;

mod table;

/// What a session was opened on. It carries the session's packets when no faster carrier does, and is the session's life: when it
/// ends, the session does.
pub trait Connection: Carrier {
    /// The client's outer address.
    fn remote(&self) -> SocketAddr;
    /// Ends the connection and tells the client why.
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
    /// What it was opened on.
    pub connection: Arc<dyn Connection>,
    /// How its packets travel, and its traffic.
    pub carriers: Carriers,
    /// When it began.
    pub since: Instant,
}

impl Session {
    /// Makes a session that begins `now`.
    pub fn new(id: u64, device: Device, lease: Lease, connection: Arc<dyn Connection>, now: Instant) -> Arc<Self> {
        let source = SourcePolicy::from(lease);
        let carriers = Carriers::new(Arc::<dyn Connection>::clone(&connection));
        Arc::new(Self { id, device, lease, source, connection, carriers, since: now })
    }

    /// Ends its connection and tells the client why; at once nothing passes by any other carrier.
    pub fn close(&self, ending: Ending) {
        self.carriers.close();
        self.connection.close(ending);
    }

    /// Its inner addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.lease.v4.map(IpAddr::V4).into_iter().chain(self.lease.v6.map(IpAddr::V6))
    }
}

impl Carried for Session {
    fn carriers(&self) -> &Carriers {
        &self.carriers
    }
}

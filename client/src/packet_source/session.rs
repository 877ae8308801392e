//! One connection as those see it who move its packets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_net::carrier::{Carried, Carrier, Carriers};
use adit_proto::drop_reason::DropReason;
use adit_proto::packet::IpPacket;
use arc_swap::ArcSwap;

/// How packets of one connection travel, and to which addresses of this host.
pub struct TunnelSession {
    carriers: Carriers,
    addresses: ArcSwap<Vec<IpAddr>>,
    /// The host is configured for it.
    begun: AtomicBool,
}

impl TunnelSession {
    /// A session that has the carrier of its connection only, and no address yet.
    pub(crate) fn new(connection: Arc<dyn Carrier>) -> Self {
        let carriers = Carriers::new(connection);
        Self { carriers, addresses: ArcSwap::default(), begun: AtomicBool::new(false) }
    }

    /// Packets to other addresses than these, which this host has set up, are dropped from now on.
    pub(crate) fn set_addresses(&self, addresses: Vec<IpAddr>) {
        self.addresses.store(Arc::new(addresses));
    }

    /// The host is configured: what comes by ESP is admitted from now on.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Nothing more is admitted.
    pub(crate) fn end(&self) {
        self.begun.store(false, Ordering::Release);
    }

    /// Whether a packet from the gateway is for this device.
    pub(crate) fn check(&self, packet: &IpPacket) -> Result<(), DropReason> {
        let addressed = self.addresses.load().contains(&packet.destination);
        if addressed { Ok(()) } else { Err(DropReason::DestinationNotLeased) }
    }

    /// Whether a packet from the gateway may reach this host now. By ESP packets can come before the host is ready for
    /// them.
    ///
    /// # Errors
    /// Why it is dropped: `NotConnected`, or `DestinationNotLeased`.
    pub fn admit(&self, packet: &IpPacket) -> Result<(), DropReason> {
        if !self.begun.load(Ordering::Acquire) {
            return Err(DropReason::NotConnected);
        }
        self.check(packet)
    }
}

impl Carried for TunnelSession {
    fn carriers(&self) -> &Carriers {
        &self.carriers
    }
}

//! Where inner packets come from and go to: workers that serve a device, or whatever an embedder gives.

mod session;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use adit_net::carrier::counters::Counters;
use adit_net::carrier::esp::EspSettings;
use adit_net::packet_buffer::PacketBuffer;
use adit_net::worker::AssociationPlane;
use bytes::Bytes;

pub use session::TunnelSession;

/// A boxed future of this crate's object-safe async methods.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where inner packets come from (`receive`) and go to (`deliver`). The batch is the unit: both take many.
pub trait PacketSource: Send + Sync + 'static {
    /// Waits for at least one packet to send into the tunnel, then takes what is there, appending at most `limit`
    /// packets to `batch`.
    fn receive<'a>(&'a self, batch: &'a mut Vec<PacketBuffer>, limit: usize) -> BoxFuture<'a, io::Result<()>>;

    /// Hands packets that came out of the tunnel to the host. Never waits; what does not fit is dropped. Returns how
    /// many were taken.
    fn deliver(&self, packets: &[Bytes]) -> usize;
}

/// Threads that move packets between a device and the session in use, by ESP or DTLS, or else by the carrier of the
/// session's connection. They outlive the sessions they serve. [`PacketPath`](crate::packet_path::PacketPath) is the
/// one for a TUN device.
pub trait PacketWorkers: Send + Sync + 'static {
    /// What to offer to a gateway, and when keys are replaced; `None` if ESP is not wanted or not possible.
    fn esp(&self) -> Option<&EspSettings>;

    /// Largest packet that goes by ESP or DTLS, in bytes.
    fn mtu(&self) -> u16;

    /// Whether there is any socket for datagrams.
    fn has_sockets(&self) -> bool;

    /// How the control side of a session installs and retires its security associations.
    fn plane(&self) -> Arc<dyn AssociationPlane<TunnelSession>>;

    /// From now on packets go to and come from this session.
    fn begin(&self, session: &Arc<TunnelSession>);

    /// The session is over; nothing if another one has begun.
    fn end(&self, session: &Arc<TunnelSession>);

    /// Hands packets that came by another carrier to the device; returns how many it took. Never waits.
    fn deliver(&self, packets: &[Bytes]) -> usize;

    /// Counts the packets that belonged to no session and were dropped.
    fn counters(&self) -> &Counters;

    /// Waits until packets can no longer be moved, as when the device was deleted; returns why. Safe to drop and call
    /// again.
    fn failed(&self) -> BoxFuture<'_, io::Error>;
}

/// Who moves the packets of a session. Cheap to clone.
#[derive(Clone)]
pub enum Packets {
    /// Workers move them between a device and the gateway.
    Device(Arc<dyn PacketWorkers>),
    /// Tasks move them between what an embedder gives and the gateway, by `quic`.
    Embedder(Arc<dyn PacketSource>),
}

impl Packets {
    /// The workers, if there is a device.
    pub(crate) fn workers(&self) -> Option<&Arc<dyn PacketWorkers>> {
        match self {
            Self::Device(workers) => Some(workers),
            Self::Embedder(_) => None,
        }
    }

    /// See [`PacketSource::deliver`].
    pub(crate) fn deliver(&self, packets: &[Bytes]) -> usize {
        match self {
            Self::Device(workers) => workers.deliver(packets),
            Self::Embedder(source) => source.deliver(packets),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::pending;

    use super::*;

    /// A source of an embedder that has no packets.
    struct NoPackets;

    impl PacketSource for NoPackets {
        fn receive<'a>(&'a self, _batch: &'a mut Vec<PacketBuffer>, _limit: usize) -> BoxFuture<'a, io::Result<()>> {
            Box::pin(pending())
        }

        fn deliver(&self, packets: &[Bytes]) -> usize {
            packets.len()
        }
    }

    pub(crate) fn no_packets() -> Packets {
        Packets::Embedder(Arc::new(NoPackets))
    }
}

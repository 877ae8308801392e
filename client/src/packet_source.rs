//! Where inner packets come from and go to: a TUN device, or whatever an embedder gives.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use adit_net::packet_buffer::PacketBuffer;
use bytes::Bytes;

use crate::packet_path::PacketPath;

/// A boxed future of this crate's object-safe async methods.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where inner packets come from (`receive`) and go to (`deliver`). The batch is the unit: both take many.
pub trait PacketSource: Send + Sync + 'static {
    /// Waits for at least one packet to send into the tunnel, then takes what is there, appending at most `limit` packets to `batch`.
    fn receive<'a>(&'a self, batch: &'a mut Vec<PacketBuffer>, limit: usize) -> BoxFuture<'a, io::Result<()>>;

    /// Hands packets that came out of the tunnel to the host. Never waits; what does not fit is dropped. Returns how many were taken.
    fn deliver(&self, packets: &[Bytes]) -> usize;
}

/// Who moves the packets of a session. Cheap to clone.
#[derive(Clone)]
pub enum Packets {
    /// A worker moves them between a TUN device and the gateway, by `esp` or else by `quic`.
    Device(Arc<PacketPath>),
    /// Tasks move them between what an embedder gives and the gateway, by `quic`.
    Embedder(Arc<dyn PacketSource>),
}

impl Packets {
    /// The packet path, if there is a TUN device.
    pub(crate) fn path(&self) -> Option<&Arc<PacketPath>> {
        match self {
            Self::Device(path) => Some(path),
            Self::Embedder(_) => None,
        }
    }

    /// See [`PacketSource::deliver`].
    pub(crate) fn deliver(&self, packets: &[Bytes]) -> usize {
        match self {
            Self::Device(path) => path.deliver(packets),
            Self::Embedder(source) => source.deliver(packets),
        }
    }
}

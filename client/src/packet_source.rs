//! Where inner packets come from and go to: a TUN device, or whatever an embedder gives.

use std::future::Future;
use std::io;
use std::pin::Pin;

use adit_net::packet_buffer::{Arena, PacketBuffer};
use adit_net::tun::{LARGEST_PACKET, Tun};
use bytes::Bytes;
use tokio::sync::Mutex;

/// A boxed future of this crate's object-safe async methods.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where inner packets come from (`receive`) and go to (`deliver`). The batch is the unit: both take many.
pub trait PacketSource: Send + Sync + 'static {
    /// Waits for at least one packet to send into the tunnel, then takes what is there, appending at most `limit` packets to `batch`.
    fn receive<'a>(&'a self, batch: &'a mut Vec<PacketBuffer>, limit: usize) -> BoxFuture<'a, io::Result<()>>;

    /// Hands packets that came out of the tunnel to the host. Never waits; what does not fit is dropped. Returns how many were taken.
    fn deliver(&self, packets: &[Bytes]) -> usize;
}

/// A TUN device as packet source.
pub struct TunSource {
    tun: Tun,
    /// Only `receive` takes it, one caller at a time.
    arena: Mutex<Arena>,
}

impl TunSource {
    /// Takes packets from and gives packets to `tun`.
    pub fn new(tun: Tun) -> Self {
        Self { tun, arena: Mutex::new(Arena::new(LARGEST_PACKET)) }
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.tun.name()
    }
}

impl PacketSource for TunSource {
    fn receive<'a>(&'a self, batch: &'a mut Vec<PacketBuffer>, limit: usize) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let mut arena = self.arena.lock().await;
            self.tun.receive(&mut arena, batch, limit).await
        })
    }

    fn deliver(&self, packets: &[Bytes]) -> usize {
        self.tun.send(packets)
    }
}

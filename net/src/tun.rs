//! The TUN device: layer-3 packets to and from the host's kernel.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::packet_buffer::{Arena, PacketBuffer};

/// Largest packet a TUN device hands over without offloads, in bytes: the largest MTU we ever set.
pub const LARGEST_PACKET: usize = 9216;

/// An open TUN device, non-blocking. The device disappears when this is dropped.
pub struct Tun {
    name: String,
    device: AsyncFd<tun::Device>,
}

impl Tun {
    /// Creates the device in the network namespace of the calling thread. It is down and has no address yet.
    ///
    /// Must be called inside a tokio runtime with I/O enabled. Errors: `NotFound` without `/dev/net/tun`, `PermissionDenied` without
    /// CAP_NET_ADMIN or access to `/dev/net/tun`, `ResourceBusy` if another process holds a device of this name.
    pub fn create(name: &str) -> io::Result<Self> {
        let mut configuration = tun::Configuration::default();
        configuration.tun_name(name);
        // Addresses, MTU and state belong to `host`, which can undo them.
        configuration.platform_config(|platform| {
            platform.ensure_root_privileges(false);
        });
        let device = tun::create(&configuration).map_err(into_io_error)?;
        device.set_nonblock()?;
        Ok(Self { name: name.to_owned(), device: register(device)? })
    }

    /// The device's name, such as `adit0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for at least one packet, then takes what is there, at most `limit`, appending to `batch`.
    pub async fn receive(&self, arena: &mut Arena, batch: &mut Vec<PacketBuffer>, limit: usize) -> io::Result<()> {
        let full = batch.len().saturating_add(limit);
        loop {
            let mut guard = self.device.readable().await?;
            while batch.len() < full {
                match guard.try_io(|device| arena.fill_with(|space| device.get_ref().recv(space))) {
                    Ok(packet) => batch.push(packet?),
                    Err(_would_block) => break,
                }
            }
            if !batch.is_empty() {
                return Ok(());
            }
        }
    }

    /// Gives one packet to the kernel; its whole receive path runs inside this call, which never waits.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.device.try_io(Interest::WRITABLE, |device| device.send(packet)).map(|_| ())
    }
}

/// Registers the device with the runtime's reactor.
fn register(device: tun::Device) -> io::Result<AsyncFd<tun::Device>> {
    // SAFETY: the device owns its descriptor, and nothing closes or replaces it while the `AsyncFd` owns the device.
    #[expect(unsafe_code, reason = "the crate's device does not implement AsFd")]
    let registered = unsafe { AsyncFd::register(device) };
    registered.map_err(io::Error::from)
}

fn into_io_error(error: tun::Error) -> io::Error {
    if let tun::Error::Io(error) = error { error } else { io::Error::new(io::ErrorKind::InvalidInput, error) }
}

//! The TUN device: layer-3 packets to and from the host's kernel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::uio::writev;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::packet_buffer::{Arena, PacketBuffer};

mod offload;
mod scratch;

use scratch::with_scratch;

/// Largest packet a TUN device hands over without offloads, in bytes: the largest MTU we ever set.
pub const LARGEST_PACKET: usize = 9216;

/// An open TUN device, non-blocking. The device disappears when this is dropped.
pub struct Tun {
    name: String,
    device: AsyncFd<tun::Device>,
    /// The kernel takes packets one by one only.
    single: AtomicBool,
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
            platform.vnet_hdr(true);
        });
        let device = tun::create(&configuration).map_err(into_io_error)?;
        device.set_nonblock()?;
        offload::enable(&device);
        Ok(Self { name: name.to_owned(), device: register(device)?, single: AtomicBool::new(false) })
    }

    /// The device's name, such as `adit0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for at least one packet, then takes what is there, about `limit`, appending to `batch`: a superpacket of the
    /// kernel becomes up to 64 packets at once. Fails when the device was
    /// deleted.
    pub async fn receive(&self, arena: &mut Arena, batch: &mut Vec<PacketBuffer>, limit: usize) -> io::Result<()> {
        let full = batch.len().saturating_add(limit);
        loop {
            // A device that was deleted shows an error only, which is no readiness to read.
            let mut guard = self.device.ready(Interest::READABLE | Interest::ERROR).await?;
            while batch.len() < full {
                let taken = guard.try_io(|device| {
                    with_scratch(|scratch| scratch.take(arena, batch, |space| device.get_ref().recv(space)))
                });
                match taken {
                    Ok(taken) => taken?,
                    Err(_would_block) => break,
                }
            }
            if !batch.is_empty() {
                return Ok(());
            }
        }
    }

    /// Gives packets to the kernel and returns how many it took. Its whole receive path runs inside this call, which never waits.
    ///
    /// Neighbours that belong to one flow go in one call.
    pub fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> usize {
        let single = self.single.load(Ordering::Relaxed);
        let given = with_scratch(|scratch| {
            scratch.give(packets, single, |pieces| {
                self.device.try_io(Interest::WRITABLE, |device| Ok(writev(descriptor(device), pieces)?))
            })
        });
        if given.refused && !self.single.swap(true, Ordering::Relaxed) {
            tracing::warn!("this kernel refuses superpackets; packets go to it one by one from now on");
        }
        given.packets
    }
}

/// The device's descriptor, for calls its crate does not make.
fn descriptor(device: &tun::Device) -> BorrowedFd<'_> {
    // SAFETY: the device owns the descriptor and keeps it open as long as it is borrowed.
    #[expect(unsafe_code, reason = "the crate's device does not implement AsFd")]
    unsafe {
        BorrowedFd::borrow_raw(device.as_raw_fd())
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

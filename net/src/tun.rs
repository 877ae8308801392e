//! The TUN device: layer-3 packets to and from the host's kernel.
//!
//! A device has one or more queues. The kernel hands each packet to one of them, a flow always to the same, and answers
//! of a flow come out of the queue that wrote to it last. Every packet has a virtio-net header in front
//! (`adit_proto::offload::virtio`), and may be a superpacket of up to 64 KiB.

mod gather;
mod offload;
mod open;
mod scratch;

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::uio::{readv, writev};

pub(crate) use gather::{Lost, write_runs};
pub use scratch::take_apart;
use scratch::with_scratch;

/// Largest packet a TUN device hands over without offloads, in bytes: the largest MTU we ever set.
pub const LARGEST_PACKET: usize = 9216;

/// Where the packets of this host come from and go to: a [`Queue`] of a TUN device, or something in its place. No call
/// waits, and any thread may make one.
pub trait PacketQueue {
    /// Takes one packet or superpacket: its virtio-net header, then the packet, scattered over `pieces`. What does not
    /// fit is cut off without notice. Returns how many bytes were written to `pieces`.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; of a TUN device another error when it is down (`EIO`) or was deleted (`EBADFD`).
    fn read_vectored(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Gives one packet or superpacket away, gathered from `pieces`, the virtio-net header first. With a TUN device the
    /// kernel's whole receive path runs inside this call.
    ///
    /// # Errors
    /// It was not taken: `EINVAL` if a kernel refuses the headers, `EIO` if the device is down or the kernel refuses
    /// superpackets.
    fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Gives packets away, without virtio-net headers, and returns how many were taken. Neighbours that belong to one
    /// flow go together.
    fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> usize;
}

/// An open TUN device, non-blocking. The device disappears when this and all references to its queues are dropped.
pub struct Tun {
    name: String,
    queues: Vec<Arc<Queue>>,
}

impl Tun {
    /// Creates the device with so many queues in the network namespace of the calling thread. It is down and has no
    /// address yet.
    ///
    /// The kernel spreads packets over all queues, so each must be read. With `offload` the kernel hands over
    /// superpackets and leaves checksums to us; without, single packets with complete checksums.
    ///
    /// # Errors
    /// `NotFound` without `/dev/net/tun`, `PermissionDenied` without CAP_NET_ADMIN or access to `/dev/net/tun`,
    /// `ResourceBusy` if there is a link of this name, `InvalidInput` if the name is too long or there are no queues.
    pub fn create(name: &str, queues: usize, offload: bool) -> io::Result<Self> {
        let opened = open::open(name, queues, offload)?;
        let queues = opened.into_iter().map(|device| Arc::new(Queue { device, single: AtomicBool::new(false) }));
        Ok(Self { name: name.to_owned(), queues: queues.collect() })
    }

    /// Takes over a device of one queue that somebody else has opened and set up, as an embedder without CAP_NET_ADMIN
    /// has it from a system service. It has to be a TUN device with virtio-net headers (`IFF_VNET_HDR`) and without
    /// packet information (`IFF_NO_PI`); its offloads stay as they are.
    ///
    /// # Errors
    /// `InvalidInput` if it is another kind of device; `EBADFD` or `ENOTTY` if the descriptor is no device.
    pub fn from_fd(descriptor: OwnedFd) -> io::Result<Self> {
        let (name, device) = open::adopt(descriptor)?;
        Ok(Self { name, queues: vec![Arc::new(Queue { device, single: AtomicBool::new(false) })] })
    }

    /// The device's name, such as `adit0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The queues, at least one.
    pub fn queues(&self) -> &[Arc<Queue>] {
        &self.queues
    }

    /// Gives packets to the kernel through the first queue; see [`PacketQueue::send`].
    pub fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> usize {
        self.queues.first().map_or(0, |queue| queue.send(packets))
    }
}

/// One queue of a TUN device.
pub struct Queue {
    device: tun::Device,
    /// The kernel takes packets one by one only.
    single: AtomicBool,
}

impl PacketQueue for Queue {
    fn read_vectored(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(readv(self, pieces)?)
    }

    fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(writev(self, pieces)?)
    }

    fn send<P: AsRef<[u8]>>(&self, packets: &[P]) -> usize {
        let single = self.single.load(Ordering::Relaxed);
        let given = with_scratch(|scratch| scratch.give(packets, single, |pieces| self.write_vectored(pieces)));
        if given.refused && !self.single.swap(true, Ordering::Relaxed) {
            tracing::warn!("this kernel refuses superpackets; packets go to it one by one from now on");
        }
        given.packets
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the device owns the descriptor and keeps it open as long as it is borrowed.
        #[expect(unsafe_code, reason = "the crate's device does not implement AsFd")]
        unsafe {
            BorrowedFd::borrow_raw(self.device.as_raw_fd())
        }
    }
}

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;

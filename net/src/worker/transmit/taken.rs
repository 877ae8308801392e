//! What was read from the TUN device last: a packet or a superpacket, in one piece.
//!
//! Reading it scattered, each payload to the place where it is sealed, would spare a copy. It gained nothing that could be measured (in
//! three runs of 7 to 9 rounds, rates 0.88 to 1.12 times and processor time per gigabyte 0.91 to 1.10 times those of one piece): the kernel
//! fills one piece faster than 46, and what is copied is in the cache then, as are the few places that are sealed in turn.

use std::io::{self, IoSliceMut};

use adit_proto::offload::MAX_SUPERPACKET_LEN;
use adit_proto::offload::virtio::{self, VirtioHeader};

use crate::worker::ends::PacketQueue;

/// One packet or superpacket behind its virtio-net header.
pub(super) struct Taken {
    virtio: [u8; virtio::LEN],
    packet: Box<[u8]>,
}

impl Taken {
    pub(super) fn new() -> Self {
        Self { virtio: [0; virtio::LEN], packet: vec![0; MAX_SUPERPACKET_LEN].into_boxed_slice() }
    }

    /// Reads one packet and returns its length.
    pub(super) fn read(&mut self, queue: &impl PacketQueue) -> io::Result<usize> {
        let mut pieces = [IoSliceMut::new(&mut self.virtio), IoSliceMut::new(&mut self.packet)];
        let read = queue.read_vectored(&mut pieces)?;
        read.checked_sub(virtio::LEN).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The virtio-net header of what was read.
    pub(super) fn header(&self) -> VirtioHeader {
        VirtioHeader::decode(&self.virtio)
    }

    /// The packet of `len` bytes that was read.
    pub(super) fn packet(&self, len: usize) -> &[u8] {
        self.packet.get(..len).unwrap_or_default()
    }

    /// The same, to be completed.
    pub(super) fn packet_mut(&mut self, len: usize) -> &mut [u8] {
        self.packet.get_mut(..len).unwrap_or_default()
    }
}

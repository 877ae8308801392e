//! What was read from the TUN device last: a packet or a superpacket, in one piece.
//!
//! It is read in one piece and then copied to the place where it is sealed, rather than scattered there at once: the
//! kernel fills one piece faster than 46, and what is copied is in the processor's cache by then. `docs/benchmarks.md`
//! has the figures.

use std::io::{self, IoSliceMut};

use adit_proto::offload::MAX_SUPERPACKET_LEN;
use adit_proto::offload::virtio::{self, VirtioHeader};

use crate::tun::PacketQueue;

/// One packet or superpacket behind its virtio-net header.
pub(super) struct LastRead {
    virtio: [u8; virtio::LEN],
    packet: Box<[u8]>,
}

impl LastRead {
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

    /// The packet that was read, which has `len` bytes.
    pub(super) fn packet(&self, len: usize) -> &[u8] {
        self.packet.get(..len).expect(FITS)
    }

    /// The packet that was read, so that its checksum can be completed.
    pub(super) fn packet_mut(&mut self, len: usize) -> &mut [u8] {
        self.packet.get_mut(..len).expect(FITS)
    }
}

/// Why a packet of a given length is there.
const FITS: &str = "no packet that was read is longer than the buffer it was read into";

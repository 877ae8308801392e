//! Where superpackets are read to, so that each segment lies where it is sealed.
//!
//! ```text
//! slot 0: [prefix][headers][payload 0][trailer, ICV]  slot 1: [prefix][room for headers][payload 1][trailer, ICV]  …
//! ```
//!
//! The kernel copies a superpacket into pieces of memory that are named before it is known. The pieces are laid out for the shape of
//! the superpacket before: flows of one path MTU and one set of options all have the same. What has another shape is gathered into one piece.

use std::io::{self, IoSliceMut};

use adit_proto::esp::packet::{PREFIX_LEN, sealed_len};
use adit_proto::offload::MAX_SUPERPACKET_LEN;
use adit_proto::offload::superpacket::{Shape, Superpacket};
use adit_proto::offload::virtio::{self, VirtioHeader};

use crate::udp::{MAX_BYTES, MAX_SEGMENTS};
use crate::worker::ends::PacketQueue;

/// Bytes of all slots. With fewer than 160 bytes around each payload it holds a superpacket of 64 segments.
const ROOM: usize = MAX_SUPERPACKET_LEN + MAX_SLOTS * 160;
/// Slots at most: as many segments as the kernel puts in a superpacket of 1,000 bytes and more each.
const MAX_SLOTS: usize = 66;
/// Pieces of one read: the virtio-net header, the slots, and the rest.
const PIECES: usize = MAX_SLOTS + 2;

/// Single packets in a row after which a superpacket is no longer expected: naming all slots costs a tenth of a small packet.
const SINGLES: u32 = 16;

/// The shape to begin with: TCP with timestamps in IPv4 at an MTU of 1,420.
const FIRST_SHAPE: Shape = Shape { header_len: 52, gso_size: 1368 };

/// One superpacket, scattered.
pub(super) struct Slots {
    virtio: [u8; virtio::LEN],
    buffer: Box<[u8]>,
    /// What did not fit the slots.
    rest: Box<[u8]>,
    shape: Shape,
    stride: usize,
    count: usize,
    /// Slots that the last read named; what did not fit them is in `rest`.
    named: usize,
    /// Single packets since the last superpacket.
    singles: u32,
}

impl Slots {
    pub(super) fn new() -> Self {
        let mut slots = Self {
            virtio: [0; virtio::LEN],
            buffer: vec![0; ROOM].into_boxed_slice(),
            rest: vec![0; MAX_SUPERPACKET_LEN].into_boxed_slice(),
            shape: FIRST_SHAPE,
            stride: 0,
            count: 0,
            named: 0,
            singles: 0,
        };
        slots.reshape(FIRST_SHAPE);
        slots
    }

    /// Bytes from one slot to the next: a sealed packet with a full payload.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Slots that one call can send, at least 1.
    pub(super) fn at_once(&self) -> usize {
        (MAX_BYTES / self.stride).clamp(1, MAX_SEGMENTS).min(self.count)
    }

    /// Lays the slots out for superpackets of this shape. What they held is lost.
    pub(super) fn reshape(&mut self, shape: Shape) {
        self.shape = shape;
        self.stride = sealed_len(shape.header_len + shape.gso_size);
        self.count = (self.buffer.len() / self.stride).clamp(1, MAX_SLOTS);
    }

    /// Reads one packet and returns its length.
    pub(super) fn read(&mut self, queue: &impl PacketQueue) -> io::Result<usize> {
        let Shape { header_len, gso_size } = self.shape;
        self.named = if self.singles < SINGLES { self.count } else { 1 };
        let mut pieces: [IoSliceMut<'_>; PIECES] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut places = pieces.iter_mut();
        let mut put = |piece| {
            if let Some(place) = places.next() {
                *place = IoSliceMut::new(piece);
            }
        };
        put(&mut self.virtio);
        for (number, slot) in self.buffer.chunks_exact_mut(self.stride).take(self.named).enumerate() {
            let from = if number == 0 { PREFIX_LEN } else { PREFIX_LEN + header_len };
            if let Some(piece) = slot.get_mut(from..PREFIX_LEN + header_len + gso_size) {
                put(piece);
            }
        }
        put(&mut self.rest);
        let read = queue.read_vectored(&mut pieces[..self.named + 2])?;
        let is_single = self.virtio.get(1).is_some_and(|&gso_type| gso_type == virtio::GSO_NONE);
        self.singles = if is_single { self.singles.saturating_add(1) } else { 0 };
        let len = read.checked_sub(virtio::LEN).filter(|&len| len <= MAX_SUPERPACKET_LEN);
        len.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The virtio-net header of what was read.
    pub(super) fn header(&self) -> VirtioHeader {
        VirtioHeader::decode(&self.virtio)
    }

    /// The beginning of the packet of `len` bytes that was read: all of it, or its headers and first payload.
    pub(super) fn head(&self, len: usize) -> &[u8] {
        let end = PREFIX_LEN + len.min(self.first_len());
        self.buffer.get(PREFIX_LEN..end).unwrap_or_default()
    }

    /// Whether all segments of the superpacket that was read lie in their places.
    pub(super) fn holds(&self, superpacket: &Superpacket) -> bool {
        superpacket.shape() == self.shape && superpacket.segments <= self.named
    }

    /// Copies the packet of `len` bytes that was read to the beginning of `linear`, which it returns.
    pub(super) fn gather<'a>(&self, len: usize, linear: &'a mut [u8]) -> &'a mut [u8] {
        let Shape { header_len, gso_size } = self.shape;
        let mut copied = 0;
        for (number, slot) in self.buffer.chunks_exact(self.stride).take(self.named).enumerate() {
            let from = if number == 0 { PREFIX_LEN } else { PREFIX_LEN + header_len };
            let piece = slot.get(from..PREFIX_LEN + header_len + gso_size).unwrap_or_default();
            copied += copy(piece, len - copied, &mut linear[copied..]);
            if copied == len {
                break;
            }
        }
        copy(&self.rest, len - copied, &mut linear[copied..]);
        &mut linear[..len]
    }

    /// The packet of `len` bytes that was read, in one piece: where it is, if the first slot holds all of it, else in `linear`.
    pub(super) fn whole_mut<'a>(&'a mut self, len: usize, linear: &'a mut [u8]) -> &'a mut [u8] {
        if len <= self.first_len() {
            return &mut self.buffer[PREFIX_LEN..PREFIX_LEN + len];
        }
        self.gather(len, linear)
    }

    /// The packet of `len` bytes that [`Self::whole_mut`] has put where it is.
    pub(super) fn whole<'a>(&'a self, len: usize, linear: &'a [u8]) -> &'a [u8] {
        if len <= self.first_len() { self.head(len) } else { linear.get(..len).unwrap_or_default() }
    }

    /// A slot: room for a sealed packet.
    pub(super) fn slot_mut(&mut self, number: usize) -> &mut [u8] {
        let start = number * self.stride;
        self.buffer.get_mut(start..start + self.stride).unwrap_or_default()
    }

    /// All slots, one behind the other.
    pub(super) fn buffer(&self) -> &[u8] {
        &self.buffer
    }

    fn first_len(&self) -> usize {
        self.shape.header_len + self.shape.gso_size
    }
}

fn copy(from: &[u8], wanted: usize, to: &mut [u8]) -> usize {
    let len = from.len().min(wanted).min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

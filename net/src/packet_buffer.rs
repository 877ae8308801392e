//! Buffers that inner packets travel in, with headroom for a carrier's prefix.

use bytes::{Bytes, BytesMut};

/// Bytes kept free in front of every packet, enough for the longest carrier prefix (two varints of 8 bytes).
pub const HEADROOM: usize = 16;

/// One inner packet with [`HEADROOM`] free bytes in front of it.
#[derive(Debug)]
pub struct PacketBuffer {
    buffer: BytesMut,
}

impl PacketBuffer {
    /// Copies a packet into a buffer of its own.
    pub fn copy_from(packet: &[u8]) -> Self {
        let mut buffer = BytesMut::with_capacity(HEADROOM + packet.len());
        buffer.resize(HEADROOM, 0);
        buffer.extend_from_slice(packet);
        Self { buffer }
    }

    /// The packet.
    pub fn packet(&self) -> &[u8] {
        self.buffer.get(HEADROOM..).expect("every buffer is made with its headroom")
    }

    /// The packet with `prefix` written right in front of it, without copying the packet.
    ///
    /// # Panics
    /// If the prefix is longer than [`HEADROOM`].
    pub fn with_prefix(self, prefix: &[u8]) -> Bytes {
        assert!(prefix.len() <= HEADROOM, "carrier prefixes fit the headroom");
        let start = HEADROOM - prefix.len();
        let mut buffer = self.buffer;
        buffer[start..HEADROOM].copy_from_slice(prefix);
        buffer.freeze().split_off(start)
    }
}

/// Hands out packet buffers cut from chunks, so that a full-sized packet costs no allocation of its own.
///
/// A packet that waits in a queue keeps its whole chunk alive. Chunks are therefore small, and packets below
/// [`COPY_BELOW`] bytes are copied out. So a queue of `n` bytes keeps at most `n / COPY_BELOW` chunks alive, which is
/// 32 times its own size.
#[derive(Debug)]
pub struct Arena {
    chunk: BytesMut,
    largest: usize,
}

/// Bytes allocated at a time.
const CHUNK: usize = 16 * 1024;
/// Packets shorter than this many bytes get a buffer of their own size.
pub const COPY_BELOW: usize = 512;

impl Arena {
    /// Makes an arena for packets of at most `largest` bytes.
    pub fn new(largest: usize) -> Self {
        Self { chunk: BytesMut::new(), largest }
    }

    /// Lets `fill` write one packet into free space and cuts off what it wrote. `fill` returns the packet's length.
    pub fn fill_with<E>(&mut self, fill: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<PacketBuffer, E> {
        let needed = HEADROOM + self.largest;
        if self.chunk.len() < needed {
            self.chunk = BytesMut::zeroed(CHUNK.max(needed));
        }
        let length = fill(&mut self.chunk[HEADROOM..needed])?.min(self.largest);
        if length < COPY_BELOW {
            return Ok(PacketBuffer::copy_from(&self.chunk[HEADROOM..HEADROOM + length]));
        }
        Ok(PacketBuffer { buffer: self.chunk.split_to(HEADROOM + length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_written_in_front_of_the_packet() {
        let buffer = PacketBuffer::copy_from(b"packet");
        assert_eq!(buffer.packet(), b"packet");
        assert_eq!(&buffer.with_prefix(&[1, 2])[..], b"\x01\x02packet");
    }

    #[test]
    fn arena_cuts_packets_from_one_chunk() {
        let mut arena = Arena::new(1500);
        for number in 0..1000_u32 {
            let buffer = arena
                .fill_with(|space| {
                    assert_eq!(space.len(), 1500);
                    space[..4].copy_from_slice(&number.to_be_bytes());
                    Ok::<_, ()>(4)
                })
                .unwrap();
            assert_eq!(buffer.packet(), number.to_be_bytes());
        }
    }

    #[test]
    fn small_packets_do_not_keep_a_chunk_alive() {
        let mut arena = Arena::new(1500);
        let small = arena.fill_with(|_| Ok::<_, ()>(COPY_BELOW - 1)).unwrap();
        assert!(small.buffer.capacity() < 2 * COPY_BELOW);
        let large = arena.fill_with(|_| Ok::<_, ()>(COPY_BELOW)).unwrap();
        assert_eq!(large.packet().len(), COPY_BELOW);
    }

    #[test]
    fn failed_fill_keeps_the_space() {
        let mut arena = Arena::new(100);
        assert!(arena.fill_with(|_| Err::<usize, _>("no packet")).is_err());
        assert_eq!(arena.fill_with(|_| Ok::<_, ()>(0)).unwrap().packet(), b"");
    }
}

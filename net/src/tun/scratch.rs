//! Where superpackets are taken apart and put together: one set of buffers per thread, since neither ever waits.

use std::cell::RefCell;
use std::io::{self, IoSlice};

use adit_proto::drop_reason::DropReason;
use adit_proto::offload::MAX_SUPERPACKET_LEN;
use adit_proto::offload::coalesce::{Coalescer, Limits};
use adit_proto::offload::split::{Checksums, Split};
use adit_proto::offload::superpacket::Superpacket;
use adit_proto::offload::virtio::{self, VirtioHeader};
use adit_proto::packet::IpPacket;

use super::gather::{Lost, write_runs};
use crate::packet_buffer::{Arena, PacketBuffer};

/// Bytes of packets, and of the room in front of them, that are put together at a time.
const GATHERED: usize = 2 * MAX_SUPERPACKET_LEN;

/// Buffers of one thread: about 130 KiB.
pub(super) struct Scratch {
    /// Packets on their way to the kernel, one behind the other, with room for a virtio-net header in front of each.
    gathered: Vec<u8>,
    coalescer: Coalescer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// Runs `work` with this thread's buffers. `work` must not call this again.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(work)
}

impl Scratch {
    fn new() -> Self {
        Self { gathered: Vec::with_capacity(GATHERED), coalescer: Coalescer::new(Limits::default()) }
    }

    /// Gives packets to the kernel by `write`, neighbours of a flow in one call unless `single`; returns how many it
    /// took and whether it refused to take several at once.
    pub(super) fn give<P: AsRef<[u8]>>(
        &mut self,
        packets: &[P],
        single: bool,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Given {
        let mut given = Given::default();
        let segments = if single { 1 } else { Limits::default().tcp_segments };
        self.coalescer.set_segments(segments, segments);
        self.gathered.clear();
        for packet in packets {
            let packet = packet.as_ref();
            if self.gathered.len() + virtio::LEN + packet.len() > GATHERED {
                self.flush(&mut write, &mut given);
            }
            // The packet is copied behind room for a virtio-net header.
            let start = self.gathered.len() + virtio::LEN;
            self.gathered.resize(start, 0);
            self.gathered.extend_from_slice(packet);
            let at = start..start + packet.len();
            let collected =
                IpPacket::parse(packet).and_then(|ip| self.coalescer.handle_packet(&self.gathered, at, &ip, false));
            if collected.is_ok() {
                given.packets += 1;
            } else {
                // The coalescer does not take it, but the kernel may.
                let alone = [IoSlice::new(&[0; virtio::LEN]), IoSlice::new(packet)];
                given.packets += usize::from(write(&alone).is_ok());
            }
        }
        self.flush(&mut write, &mut given);
        given
    }

    /// Writes what was collected, and takes back from `given` what the kernel did not take.
    fn flush(&mut self, write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>, given: &mut Given) {
        let lost = |lost: Lost<'_>| given.packets -= lost.packets;
        let refused = write_runs(&mut self.coalescer, &mut self.gathered, write, lost);
        given.refused |= refused.is_some();
        self.gathered.clear();
    }
}

/// What became of a batch.
#[derive(Default)]
pub(super) struct Given {
    /// Packets the kernel took.
    pub(super) packets: usize,
    /// It refused a superpacket, and got the packets one by one.
    pub(super) refused: bool,
}

/// Appends the packets of one superpacket, with complete checksums, to `batch`; `header` is what the kernel put in
/// front of it. A single packet keeps its place in `packet`, where its checksum is completed too.
///
/// # Errors
/// Those of [`Superpacket::parse`]; `TooBig` if a packet is larger than the arena's. Packets before it were appended.
pub fn take_apart(
    header: VirtioHeader,
    packet: &mut [u8],
    arena: &mut Arena,
    batch: &mut Vec<PacketBuffer>,
) -> Result<(), DropReason> {
    let superpacket = Superpacket::parse(header, packet, packet.len())?;
    if superpacket.segments == 1 {
        if let Some(partial) = superpacket.partial {
            partial.complete(packet)?;
        }
        batch.push(arena.fill_with(|slot| {
            let slot = slot.get_mut(..packet.len()).ok_or(DropReason::TooBig)?;
            slot.copy_from_slice(packet);
            Ok(packet.len())
        })?);
        return Ok(());
    }
    let split = Split::new(&superpacket, packet)?;
    for segment in split.segments() {
        batch.push(
            arena.fill_with(|slot| {
                split.write_packet(&segment, packet, slot, Checksums::Full).map(|()| segment.len())
            })?,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use adit_proto::packet::checksum::Checksum;

    use super::*;

    const PAYLOAD: usize = 1000;
    const HEADERS: usize = 40;

    /// A TCP segment at byte `position` of its stream, from 10.64.0.2 to 192.0.2.1, with correct checksums.
    fn segment(position: u32, payload: &[u8]) -> Vec<u8> {
        let addresses = [10, 64, 0, 2, 192, 0, 2, 1];
        let length = u16::try_from(HEADERS + payload.len()).unwrap().to_be_bytes();
        let mut packet = [&[0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 6, 0, 0][..], &addresses].concat();
        let header_checksum = Checksum::new().with(&packet).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&header_checksum);
        packet.extend([0x30, 0x39, 0, 80]);
        packet.extend(position.to_be_bytes());
        packet.extend([0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(payload);
        let tcp_length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let pseudo = [&addresses[..], &[0, 6], &tcp_length].concat();
        let checksum = Checksum::new().with(&pseudo).with(&packet[20..]).finish().to_be_bytes();
        packet[36..38].copy_from_slice(&checksum);
        packet
    }

    fn stream(segments: u32) -> Vec<Vec<u8>> {
        let at =
            |number: u32| segment(1 + number * u32::try_from(PAYLOAD).unwrap(), &[number.to_le_bytes()[0]; PAYLOAD]);
        (0..segments).map(at).collect()
    }

    fn joined(pieces: &[IoSlice<'_>]) -> Vec<u8> {
        pieces.iter().flat_map(|piece| piece.to_vec()).collect()
    }

    /// Takes apart what stands behind a virtio-net header.
    fn take(superpacket: &[u8]) -> Result<Vec<Vec<u8>>, DropReason> {
        let (header, packet) = superpacket.split_first_chunk().unwrap();
        let mut batch = Vec::new();
        take_apart(VirtioHeader::decode(header), &mut packet.to_vec(), &mut Arena::new(1500), &mut batch)?;
        Ok(batch.iter().map(|buffer| buffer.packet().to_vec()).collect())
    }

    #[test]
    fn neighbours_of_a_flow_go_in_one_call_and_come_apart_as_they_were() {
        let packets = stream(40);
        let mut writes = Vec::new();
        let given = with_scratch(|scratch| {
            scratch.give(&packets, false, |pieces| {
                writes.push(joined(pieces));
                Ok(0)
            })
        });
        assert_eq!((given.packets, given.refused, writes.len()), (40, false, 1));
        assert_eq!(writes[0].len(), virtio::LEN + HEADERS + 40 * PAYLOAD);
        let expected = |packet: &Vec<u8>| packet[HEADERS..].to_vec();
        let apart = take(&writes[0]).unwrap();
        assert_eq!(apart.iter().map(expected).collect::<Vec<_>>(), packets.iter().map(expected).collect::<Vec<_>>());
        for (apart, packet) in apart.iter().zip(&packets) {
            assert_eq!(apart[20..28], packet[20..28], "ports and sequence number");
            assert!(IpPacket::parse(apart).is_ok());
        }
    }

    #[test]
    fn kernel_that_refuses_superpackets_gets_every_packet_alone() {
        let packets = stream(5);
        let mut taken = Vec::new();
        let given = with_scratch(|scratch| {
            scratch.give(&packets, false, |pieces| {
                let write = joined(pieces);
                if write.len() > virtio::LEN + HEADERS + PAYLOAD {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                taken.push(write[virtio::LEN..].to_vec());
                Ok(0)
            })
        });
        assert_eq!((given.packets, given.refused), (5, true));
        assert_eq!(
            taken.iter().map(|packet| packet[HEADERS..].to_vec()).collect::<Vec<_>>(),
            packets.iter().map(|packet| packet[HEADERS..].to_vec()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn device_that_is_down_refuses_no_superpackets() {
        let refuse = |_: &[IoSlice<'_>]| Err(io::Error::from_raw_os_error(libc::EIO));
        let given = with_scratch(|scratch| scratch.give(&stream(3), false, refuse));
        assert_eq!((given.packets, given.refused), (0, false));
    }

    #[test]
    fn single_mode_joins_nothing() {
        let mut writes = 0;
        let count = |_: &[IoSlice<'_>]| {
            writes += 1;
            Ok(0)
        };
        assert_eq!(with_scratch(|scratch| scratch.give(&stream(3), true, count)).packets, 3);
        assert_eq!(writes, 3);
    }

    #[test]
    fn packets_the_kernel_does_not_take_are_not_counted() {
        let refuse = |_: &[IoSlice<'_>]| Err(io::ErrorKind::WouldBlock.into());
        assert_eq!(with_scratch(|scratch| scratch.give(&stream(3), false, refuse)).packets, 0);
    }

    #[test]
    fn more_than_fits_the_buffer_goes_in_several_calls() {
        let packets = stream(200);
        let mut bytes = 0;
        let given = with_scratch(|scratch| {
            scratch.give(&packets, false, |pieces| {
                bytes += joined(pieces).len();
                Ok(0)
            })
        });
        assert_eq!(given.packets, 200);
        assert!(bytes > 200 * PAYLOAD);
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        assert!(take(&[0; virtio::LEN]).is_err());
        assert!(take(&[0xff; 60]).is_err());
    }
}

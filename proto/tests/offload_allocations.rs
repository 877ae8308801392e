//! The packet path of superpackets takes no memory once it runs.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait; it only counts and passes on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;

use adit_proto::offload::coalesce::{Coalescer, Limits};
use adit_proto::offload::split::{Checksums, Split};
use adit_proto::offload::superpacket::Superpacket;
use adit_proto::offload::virtio::{self, VirtioHeader};
use adit_proto::packet::IpPacket;
use adit_proto::packet::checksum::Checksum;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> usize {
    ALLOCATIONS.with(Cell::get)
}

/// The payload of a segment at an MTU of 1,420 with TCP timestamps, and how many fill a superpacket.
const GSO_SIZE: usize = 1_368;
const SEGMENTS: usize = 47;
const HEADER_LEN: usize = 52;

/// A TCP superpacket in IPv4, with its virtio-net header.
fn superpacket() -> (VirtioHeader, Vec<u8>) {
    let total = u16::try_from(HEADER_LEN + GSO_SIZE * SEGMENTS).expect("fits").to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 64, 0, 2, 192, 0, 2, 1];
    let checksum = Checksum::new().with(&packet).finish().to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    packet.extend([0x9c, 0x40, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x18, 1, 0, 0, 0, 0, 0]);
    packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet.resize(HEADER_LEN + GSO_SIZE * SEGMENTS, 0x5a);
    let header = VirtioHeader {
        flags: virtio::NEEDS_CSUM,
        gso_type: virtio::GSO_TCPV4,
        hdr_len: 52,
        gso_size: 1_368,
        csum_start: 20,
        csum_offset: 16,
    };
    (header, packet)
}

/// Splits into `slots`, as the transmitting side does.
fn split(header: VirtioHeader, packet: &[u8], slots: &mut [u8], checksums: Checksums) {
    let superpacket = Superpacket::parse(header, packet, packet.len()).expect("valid");
    let split = Split::new(&superpacket, packet).expect("short headers");
    for (segment, slot) in split.segments().zip(slots.chunks_mut(HEADER_LEN + GSO_SIZE)) {
        split.write_packet(&segment, packet, slot, checksums).expect("slot is long enough");
    }
}

/// Puts the packets in `slots` together again, as the receiving side does; the number of writes.
fn coalesce(coalescer: &mut Coalescer, slots: &mut [u8], vouched: bool) -> usize {
    for index in 0..SEGMENTS {
        let start = index * (HEADER_LEN + GSO_SIZE);
        let at: Range<usize> = start..start + HEADER_LEN + GSO_SIZE;
        let ip = IpPacket::parse(&slots[at.clone()]).expect("valid");
        coalescer.handle_packet(slots, at, &ip, vouched).expect("room");
    }
    let mut writes = 0;
    while let Some(gather) = coalescer.poll_write(slots) {
        assert_eq!(gather.rest().map(|payload| payload.len()).sum::<usize>(), (SEGMENTS - 1) * GSO_SIZE);
        writes += 1;
    }
    writes
}

#[test]
fn split_and_coalesce_take_no_memory() {
    let (header, packet) = superpacket();
    let mut slots = vec![0; SEGMENTS * (HEADER_LEN + GSO_SIZE)];
    let mut coalescer = Coalescer::new(Limits::default());
    let before = allocations();
    for _ in 0..100 {
        split(header, &packet, &mut slots, Checksums::Partial);
        assert_eq!(coalesce(&mut coalescer, &mut slots, true), 1);
        split(header, &packet, &mut slots, Checksums::Full);
        assert_eq!(coalesce(&mut coalescer, &mut slots, false), 1);
    }
    assert_eq!(allocations(), before);
}

#[test]
fn the_counter_counts() {
    let before = allocations();
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert!(allocations() > before);
}

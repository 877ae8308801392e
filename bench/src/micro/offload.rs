//! Taking superpackets apart and putting them together again.

use std::hint::black_box;
use std::ops::Range;

use adit_proto::offload::coalesce::{Coalescer, Limits};
use adit_proto::offload::split::{Checksums, Split};
use adit_proto::offload::superpacket::Superpacket;
use adit_proto::offload::virtio::VirtioHeader;
use adit_proto::packet::IpPacket;

use super::packets::{FULL, Sum, Transport};
use super::{Prepared, Repeated, SEGMENTS, Subject};

pub(super) fn subjects() -> Vec<Subject> {
    let both = [Transport::Tcp, Transport::Udp];
    let split =
        both.into_iter().flat_map(|transport| [split_up(transport, Sum::Partial), split_up(transport, Sum::Complete)]);
    let joined =
        both.into_iter().flat_map(|transport| [Sum::Partial, Sum::Complete].map(|sum| coalesce(transport, sum)));
    split.chain(joined).collect()
}

/// One superpacket becomes its segments, with partial checksums for a peer that takes them, or else complete ones.
fn split_up(transport: Transport, sum: Sum) -> Subject {
    let (how, checksums) = match sum {
        Sum::Partial => ("vouched", Checksums::Partial),
        Sum::Complete => ("complete", Checksums::Full),
    };
    Subject::new(format!("split/{}/{how}", transport.label()), SEGMENTS, SEGMENTS * FULL, move || {
        let (header, packet) = transport.superpacket(SEGMENTS, FULL);
        let mut slots = vec![0; SEGMENTS * FULL];
        Repeated(move || {
            let split = split(header, &packet);
            for (segment, slot) in split.segments().zip(slots.chunks_mut(FULL)) {
                split.write_packet(&segment, &packet, slot, checksums).expect("the slot is long enough");
            }
            black_box(&slots);
        })
    })
}

fn split(header: VirtioHeader, packet: &[u8]) -> Split {
    let superpacket = Superpacket::parse(black_box(header), black_box(packet), packet.len());
    superpacket.and_then(|superpacket| Split::new(&superpacket, packet)).expect("it is what a kernel hands over")
}

/// The packets of one message as they come out of the tunnel.
struct Received {
    buffer: Vec<u8>,
    original: Vec<u8>,
    places: Vec<Range<usize>>,
    coalescer: Coalescer,
}

/// Packets that were vouched for, or else verified, become one write.
fn coalesce(transport: Transport, sum: Sum) -> Subject {
    let how = match sum {
        Sum::Partial => "vouched",
        Sum::Complete => "verified",
    };
    Subject::new(format!("coalesce/{}/{how}", transport.label()), SEGMENTS, SEGMENTS * FULL, move || {
        let original = transport.flow(SEGMENTS, FULL, sum).concat();
        let places = (0..SEGMENTS).map(|number| number * FULL..(number + 1) * FULL).collect();
        let coalescer = Coalescer::new(Limits::default());
        Prepared {
            state: Received { buffer: original.clone(), original, places, coalescer },
            // The headers of the first packet were patched.
            prepare: |received: &mut Received| received.buffer.copy_from_slice(&received.original),
            run: move |received: &mut Received| received.join(sum == Sum::Partial),
        }
    })
}

impl Received {
    fn join(&mut self, vouched: bool) {
        let Self { buffer, places, coalescer, .. } = self;
        for at in &*places {
            let taken = IpPacket::parse(&buffer[at.clone()])
                .and_then(|ip| coalescer.handle_packet(buffer, at.clone(), &ip, vouched));
            taken.expect("the packets are well-formed and fit a batch");
        }
        let mut writes = 0;
        while let Some(gather) = coalescer.poll_write(buffer) {
            writes += 1;
            black_box(gather.rest().fold(gather.first.end, |last, piece| last.max(piece.end)));
        }
        assert_eq!(writes, 1, "neighbours of a flow become one write");
    }
}

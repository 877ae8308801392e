//! Seeds for the targets of superpackets.

use adit_proto::packet::checksum::Checksum;

use super::{Seed, ipv4, ipv6, seeds};

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A TCP or UDP packet of one flow, with right checksums; `number` counts the packets of 20 bytes before it.
fn packet(v6: bool, tcp: bool, number: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let sequence = number * 20;
    let mut upper = if tcp {
        vec![
            0x9c, 0x40, 1, 0xbb, 0, 0, 1, sequence, 0, 0, 0, 9, 0x80, flags, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 1,
            0, 0, 0, 2,
        ]
    } else {
        let len = u16::try_from(8 + payload.len()).expect("short packet").to_be_bytes();
        vec![0x9c, 0x40, 1, 0xbb, len[0], len[1], 0, 0]
    };
    upper.extend(payload);
    let protocol = if tcp { 6 } else { 17 };
    let mut packet = if v6 { ipv6(protocol, &upper) } else { ipv4(0x4000, protocol, &upper) };
    let (addresses, start) = if v6 { (packet[8..40].to_vec(), 40) } else { (packet[12..20].to_vec(), 20) };
    if !v6 {
        packet[5] = number;
        let sum = Checksum::new().with(&packet[..20]).finish().to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
    }
    let len = u32::try_from(upper.len()).expect("short packet");
    let sum = Checksum::pseudo_header(&addresses, len, protocol).with(&upper).finish().to_be_bytes();
    let field = start + if tcp { 16 } else { 6 };
    packet[field..field + 2].copy_from_slice(&sum);
    packet
}

/// A superpacket behind its virtio-net header.
fn superpacket(gso_type: u8, gso_size: u8, start: u8, offset: u8, packet: &[u8]) -> Vec<u8> {
    [&[1, gso_type, 0, 0, gso_size, 0, start, 0, offset, 0][..], packet].concat()
}

/// A batch of packets, all vouched for or none.
fn batch(refuses: bool, vouched: bool, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![u8::from(refuses)];
    for packet in packets {
        let len = u16::try_from(packet.len()).expect("short packet") | if vouched { 0x8000 } else { 0 };
        out.extend(len.to_be_bytes());
        out.extend(packet);
    }
    out
}

pub(super) fn superpackets() -> Vec<Seed> {
    let payload: Vec<u8> = (0..90).collect();
    let splits = seeds(
        "offload_split",
        [
            ("tcp4", superpacket(1, 20, 20, 16, &packet(false, true, 0, ACK | PSH, &payload))),
            ("tcp4_with_ecn", superpacket(0x81, 20, 20, 16, &packet(false, true, 0, ACK | 0x80, &payload))),
            ("tcp6", superpacket(4, 20, 40, 16, &packet(true, true, 0, ACK, &payload))),
            ("udp4", superpacket(5, 30, 20, 6, &packet(false, false, 0, 0, &payload))),
            ("udp6", superpacket(5, 30, 40, 6, &packet(true, false, 0, 0, &payload))),
            ("one_segment", superpacket(5, 100, 20, 6, &packet(false, false, 0, 0, &payload))),
            ("single_with_partial_checksum", superpacket(0, 0, 20, 16, &packet(false, true, 0, ACK, &payload))),
            ("ufo", superpacket(3, 20, 20, 6, &packet(false, false, 0, 0, &payload))),
            ("wrong_version", superpacket(4, 20, 20, 16, &packet(false, true, 0, ACK, &payload))),
            ("checksum_elsewhere", superpacket(0, 0, 30, 16, &packet(false, true, 0, ACK, &payload))),
        ],
    );
    let run = |v6: bool, tcp: bool| -> Vec<Vec<u8>> {
        (0..4)
            .map(|number| {
                let (flags, len) = if number == 3 { (ACK | PSH, 10) } else { (ACK, 20) };
                packet(v6, tcp, number, flags, &payload[..len])
            })
            .collect()
    };
    let interleaved: Vec<_> =
        [run(false, true), run(true, false)].concat().chunks(2).rev().flat_map(<[_]>::to_vec).collect();
    let with_plain = [run(false, true), vec![ipv4(0x4000, 1, &[8, 0, 0, 0, 0, 1, 0, 1])], run(false, false)].concat();
    let batches = seeds(
        "offload_coalesce",
        [
            ("tcp4_vouched", batch(false, true, &run(false, true))),
            ("tcp6_verified", batch(false, false, &run(true, true))),
            ("udp4_verified", batch(false, false, &run(false, false))),
            ("udp6_vouched", batch(false, true, &run(true, false))),
            ("refused", batch(true, true, &run(false, true))),
            ("interleaved", batch(false, true, &interleaved)),
            ("with_plain", batch(false, false, &with_plain)),
            ("vouched_plain", batch(false, true, &with_plain)),
        ],
    );
    [splits, batches].into_iter().flatten().collect()
}

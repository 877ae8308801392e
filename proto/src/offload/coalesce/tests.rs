use proptest::prelude::*;

use super::*;
use crate::offload::samples::{ACK, ALL_KINDS, CWR, ECE, FIN, PSH, RST, SYN, Sample, URG, is_valid};
use crate::offload::split::{Checksums, Split};
use crate::offload::superpacket::Superpacket;
use crate::packet::tests::ipv4;

/// The payload of the kernel's self-test.
const LEN: usize = 100;

/// One packet or superpacket as the kernel would get it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    header: VirtioHeader,
    packet: Vec<u8>,
    segments: usize,
}

impl Written {
    fn parse(&self) -> Superpacket {
        Superpacket::parse(self.header, &self.packet, self.packet.len()).unwrap()
    }
}

/// Packets in a receive buffer, each with room in front as behind a tunnel header.
struct Batch {
    coalescer: Coalescer,
    buffer: Vec<u8>,
}

impl Batch {
    fn new(limits: Limits) -> Self {
        Self { coalescer: Coalescer::new(limits), buffer: Vec::new() }
    }

    fn handle(&mut self, packet: &[u8], vouched: bool) -> Result<(), DropReason> {
        self.buffer.extend([0xee; 16]);
        let at = self.buffer.len()..self.buffer.len() + packet.len();
        self.buffer.extend(packet);
        let ip = IpPacket::parse(packet).unwrap();
        self.coalescer.handle_packet(&self.buffer, at, &ip, vouched)
    }

    fn poll(&mut self) -> Option<Written> {
        let gather = self.coalescer.poll_write(&mut self.buffer)?;
        let mut packet = self.buffer[gather.first.clone()].to_vec();
        gather.rest().for_each(|range| packet.extend(&self.buffer[range]));
        assert_eq!(gather.rest().count() + 1, gather.segments);
        let Gather { header, segments, len, .. } = gather;
        assert_eq!(packet.len(), len);
        Some(Written { header, packet, segments })
    }

    fn drain(&mut self) -> Vec<Written> {
        let written: Vec<_> = std::iter::from_fn(|| self.poll()).collect();
        assert!(self.coalescer.is_empty());
        written
    }
}

fn written(packets: impl IntoIterator<Item = (Vec<u8>, bool)>) -> Vec<Written> {
    let mut batch = Batch::new(Limits::default());
    for (packet, vouched) in packets {
        batch.handle(&packet, vouched).unwrap();
    }
    batch.drain()
}

/// The payloads that come out when the packets go in, first as vouched and then, which must not differ, with full
/// checksums.
fn payloads(samples: &[Sample]) -> Vec<usize> {
    let lengths = |all: &[Written]| all.iter().map(|one| one.parse().payload_len()).collect::<Vec<_>>();
    let vouched = written(samples.iter().map(|sample| (sample.build_partial(), true)));
    let full = written(samples.iter().map(|sample| (sample.build(), false)));
    assert_eq!(lengths(&vouched), lengths(&full));
    for one in vouched.iter().chain(&full) {
        assert_segments_are_valid(one);
    }
    lengths(&full)
}

fn assert_segments_are_valid(written: &Written) {
    let superpacket = written.parse();
    assert_eq!(superpacket.segments, written.segments);
    if superpacket.kind == Kind::Plain {
        return;
    }
    let split = Split::new(&superpacket, &written.packet).unwrap();
    for segment in split.segments() {
        let mut slot = vec![0; segment.len()];
        split.write_packet(&segment, &written.packet, &mut slot, Checksums::Full).unwrap();
        assert!(is_valid(&slot, superpacket.ip.upper_layer));
        assert!(IpPacket::parse(&slot).is_ok());
    }
}

fn two_of(v6: bool, tcp: bool, change: impl Fn(&mut Sample)) -> [Sample; 2] {
    let first = Sample::new(v6, tcp, LEN);
    let mut second = first.next(LEN);
    change(&mut second);
    [first, second]
}

/// The cases of `tools/testing/selftests/net/gro.c` in Linux 6.18, by the names of its tests.
mod kernel_gro_selftest {
    use super::*;

    fn for_both_versions(test: impl Fn(bool)) {
        test(false);
        test(true);
    }

    /// Five packets, the third with `flags` and `len` bytes.
    fn third_with(v6: bool, flags: u8, len: usize) -> Vec<Sample> {
        let first = Sample::new(v6, true, LEN);
        let second = first.next(LEN);
        let third = Sample { flags, ..second.next(len) };
        let fourth = Sample { flags: ACK, sequence: second.sequence + 200, ..third.next(LEN) };
        let fifth = fourth.next(LEN);
        vec![first, second, third, fourth, fifth]
    }

    #[test]
    fn data_same_size_coalesces() {
        for_both_versions(|v6| assert_eq!(payloads(&two_of(v6, true, |_| ())), [2 * LEN]));
    }

    #[test]
    fn data_large_followed_by_smaller_coalesces() {
        for_both_versions(|v6| {
            assert_eq!(payloads(&two_of(v6, true, |second| second.payload.truncate(LEN / 2))), [LEN + LEN / 2]);
        });
    }

    #[test]
    fn data_small_followed_by_larger_does_not() {
        for_both_versions(|v6| {
            let first = Sample::new(v6, true, LEN / 2);
            assert_eq!(payloads(&[first.clone(), first.next(LEN)]), [LEN / 2, LEN]);
        });
    }

    #[test]
    fn duplicate_and_pure_acks_do_not() {
        for_both_versions(|v6| {
            let ack = Sample::new(v6, true, 0);
            let next = Sample { acknowledgement: ack.acknowledgement + 1, ..ack.clone() };
            assert_eq!(payloads(&[ack.clone(), ack, next]), [0, 0, 0]);
        });
    }

    #[test]
    fn psh_flag_ends_coalescing() {
        for_both_versions(|v6| assert_eq!(payloads(&third_with(v6, ACK | PSH, LEN)), [3 * LEN, 2 * LEN]));
    }

    #[test]
    fn syn_flag_ends_coalescing() {
        for_both_versions(|v6| assert_eq!(payloads(&third_with(v6, ACK | SYN, 0)), [2 * LEN, 0, 2 * LEN]));
    }

    #[test]
    fn rst_flag_ends_coalescing() {
        for_both_versions(|v6| assert_eq!(payloads(&third_with(v6, ACK | RST, 0)), [2 * LEN, 0, 2 * LEN]));
    }

    #[test]
    fn urg_flag_ends_coalescing() {
        for_both_versions(|v6| assert_eq!(payloads(&third_with(v6, ACK | URG, 0)), [2 * LEN, 0, 2 * LEN]));
    }

    #[test]
    fn fin_flag_ends_coalescing() {
        for_both_versions(|v6| assert_eq!(payloads(&third_with(v6, ACK | FIN, LEN)), [2 * LEN, LEN, 2 * LEN]));
    }

    /// The kernel lets CWR begin a run, so that its second and third packet are one; here CWR goes alone.
    #[test]
    fn cwr_flag_ends_coalescing() {
        for_both_versions(|v6| {
            let mut packets = third_with(v6, ACK | CWR, LEN);
            packets[1].flags |= CWR;
            assert_eq!(payloads(&packets), [LEN, LEN, LEN, 2 * LEN]);
        });
    }

    #[test]
    fn changed_checksum_does_not_coalesce() {
        for (v6, tcp) in ALL_KINDS {
            let [first, second] = two_of(v6, tcp, |_| ());
            let mut wrong = second.build();
            wrong[second.ip_len() + second.csum_offset()] ^= 1;
            let out = written([(first.build(), false), (wrong.clone(), false)]);
            assert_eq!(out.len(), 2);
            let expected = Written { header: VirtioHeader::default(), packet: wrong.clone(), segments: 1 };
            assert_eq!(out[1], expected, "and is left for the host to refuse");
            let mut third = second.next(LEN);
            third.sequence = second.sequence;
            assert_eq!(written([(wrong, false), (third.build(), false)]).len(), 2, "the first of a run counts too");
        }
    }

    #[test]
    fn wrong_sequence_number_does_not_coalesce() {
        for_both_versions(|v6| assert_eq!(payloads(&two_of(v6, true, |second| second.sequence += 1)), [LEN, LEN]));
    }

    #[test]
    fn different_timestamps_or_their_place_do_not_coalesce() {
        let timestamp = |value: u8| [8, 10, 0, 0, 0, value, 0, 0, 0, 0];
        let options = |value, order: usize| match order {
            0 => [&[1, 1][..], &timestamp(value)].concat(),
            1 => [&[1][..], &timestamp(value), &[1]].concat(),
            _ => [&timestamp(value)[..], &[1, 1]].concat(),
        };
        for_both_versions(|v6| {
            let first = Sample { tcp_options: options(0, 0), ..Sample::new(v6, true, LEN) };
            let second = first.next(LEN);
            let third = Sample { tcp_options: options(100, 0), ..second.next(LEN) };
            let fourth = Sample { tcp_options: options(100, 1), ..third.next(LEN) };
            let fifth = Sample { tcp_options: options(100, 2), ..fourth.next(LEN) };
            assert_eq!(payloads(&[first, second, third, fourth, fifth]), [2 * LEN, LEN, LEN, LEN]);
        });
    }

    #[test]
    fn different_options_do_not_coalesce() {
        for_both_versions(|v6| {
            let first = Sample { tcp_options: vec![1; 12], ..Sample::new(v6, true, LEN) };
            let second = first.next(LEN);
            let third = Sample { tcp_options: vec![1, 3, 3, 0], ..second.next(LEN) };
            assert_eq!(payloads(&[first, second, third]), [2 * LEN, LEN]);
        });
    }

    #[test]
    fn different_ecn_does_not_coalesce() {
        for (v6, tcp) in ALL_KINDS {
            assert_eq!(payloads(&two_of(v6, tcp, |second| second.tos ^= 2)), [LEN, LEN]);
        }
    }

    #[test]
    fn different_tos_does_not_coalesce() {
        for (v6, tcp) in ALL_KINDS {
            assert_eq!(payloads(&two_of(v6, tcp, |second| second.tos = 0xf0)), [LEN, LEN]);
        }
    }

    /// The kernel does not compare hop limits; here they count as the TTL does.
    #[test]
    fn different_ttl_does_not_coalesce() {
        for (v6, tcp) in ALL_KINDS {
            assert_eq!(payloads(&two_of(v6, tcp, |second| second.ttl = 7)), [LEN, LEN]);
        }
    }

    #[test]
    fn ip_options_do_not_coalesce() {
        for tcp in [true, false] {
            let first = Sample::new(false, tcp, LEN);
            let second = Sample { ip_options: vec![68, 4, 5, 0], ..first.next(LEN) };
            let third = Sample { ip_options: Vec::new(), ..second.next(LEN) };
            assert_eq!(payloads(&[first, second, third]), [LEN, LEN, LEN]);
        }
    }

    #[test]
    fn fragmented_ip4_does_not_coalesce() {
        for fragment in [0x6000, 0x2000, 0x0001] {
            let [first, second] = two_of(false, true, |second| second.fragment = fragment);
            let out = written([(first.build(), false), (second.build(), false), (second.next(LEN).build(), false)]);
            assert_eq!(out.iter().map(|one| one.segments).collect::<Vec<_>>(), [1, 1, 1]);
        }
    }

    /// The outcome of two or three packets with these identifications.
    fn with_ids(dont_fragment: bool, ids: &[u16]) -> Vec<usize> {
        let mut packets = vec![Sample::new(false, true, LEN)];
        for _ in 1..ids.len() {
            packets.push(packets[packets.len() - 1].next(LEN));
        }
        for (packet, id) in packets.iter_mut().zip(ids) {
            packet.id = *id;
            packet.fragment = if dont_fragment { 0x4000 } else { 0 };
        }
        payloads(&packets)
    }

    #[test]
    fn df_1_incrementing_coalesces() {
        assert_eq!(with_ids(true, &[8, 9]), [2 * LEN]);
    }

    #[test]
    fn df_1_fixed_coalesces() {
        assert_eq!(with_ids(true, &[8, 8]), [2 * LEN]);
    }

    #[test]
    fn df_0_incrementing_coalesces() {
        assert_eq!(with_ids(false, &[8, 9]), [2 * LEN]);
    }

    #[test]
    fn df_0_fixed_coalesces() {
        assert_eq!(with_ids(false, &[8, 8]), [2 * LEN]);
    }

    #[test]
    fn df_1_two_incrementing_and_one_fixed_coalesce_only_the_first_two() {
        assert_eq!(with_ids(true, &[8, 9, 9]), [2 * LEN, LEN]);
    }

    #[test]
    fn df_1_two_fixed_and_one_incrementing_coalesce_only_the_first_two() {
        assert_eq!(with_ids(true, &[8, 8, 9]), [2 * LEN, LEN]);
    }

    #[test]
    fn identification_wraps_and_does_not_jump() {
        assert_eq!(with_ids(true, &[0xffff, 0]), [2 * LEN]);
        assert_eq!(with_ids(true, &[8, 10]), [LEN, LEN]);
        assert_eq!(with_ids(true, &[8, 7]), [LEN, LEN]);
    }

    #[test]
    fn different_df_does_not_coalesce() {
        assert_eq!(payloads(&two_of(false, true, |second| second.fragment = 0)), [LEN, LEN]);
    }

    #[test]
    fn fragmented_ip6_does_not_coalesce() {
        let first = Sample::new(true, true, LEN);
        let second = first.next(LEN);
        let third = second.next(LEN);
        let fourth = third.next(LEN);
        let mut fragment = third.build();
        fragment.splice(40..40, [6, 0, 0, 1, 0, 0, 0, 9]);
        fragment[6] = 44;
        fragment[5] += 8;
        let out = written([first.build(), second.build(), fragment, fourth.build()].map(|packet| (packet, false)));
        assert_eq!(out.iter().map(|one| one.segments).collect::<Vec<_>>(), [2, 1, 1]);
    }

    /// The kernel merges when the extension headers are equal; here they never are.
    #[test]
    fn ip6_with_extension_header_does_not_coalesce() {
        for second_value in [1, 2] {
            let first = Sample { ip_options: vec![0, 0, 1, 4, 1, 1, 1, 1], ..Sample::new(true, true, LEN) };
            let mut second = first.next(LEN);
            second.ip_options[5] = second_value;
            assert_eq!(payloads(&[first, second]), [LEN, LEN]);
        }
    }

    #[test]
    fn large_total_does_not_exceed_the_longest_ip_packet() {
        for_both_versions(|v6| {
            let first = Sample::new(v6, true, 1_400);
            let most = MAX_SUPERPACKET_LEN - first.header_len();
            let (full, remainder) = (most / 1_400, most % 1_400);
            for (last, expected) in [
                (remainder, vec![most, remainder]),
                (remainder + 1, vec![most - remainder, remainder + 1, remainder + 1]),
            ] {
                let mut packets = vec![first.clone()];
                for index in 1..full + 2 {
                    let len = if index < full { 1_400 } else { last };
                    packets.push(packets[index - 1].next(len));
                }
                assert_eq!(payloads(&packets), coalesce_tail(expected, last));
            }
        });
    }

    /// Two packets of equal length that follow each other are a run of their own here, while the kernel lets the packet
    /// that was too much for a run begin none.
    fn coalesce_tail(expected: Vec<usize>, last: usize) -> Vec<usize> {
        match *expected {
            [rest, one, two] if one == last && two == last => vec![rest, one + two],
            _ => expected,
        }
    }
}

#[test]
fn differing_fields_keep_packets_apart() {
    let changes: [fn(&mut Sample); 4] = [
        |second| second.acknowledgement += 1,
        |second| second.window += 1,
        |second| second.source_port += 1,
        |second| second.flags |= ECE,
    ];
    for change in changes {
        for v6 in [false, true] {
            assert_eq!(payloads(&two_of(v6, true, change)), [LEN, LEN]);
        }
    }
    assert_eq!(payloads(&two_of(true, true, |second| second.flow_label += 1)), [LEN, LEN]);
    assert_eq!(payloads(&two_of(true, false, |second| second.flow_label += 1)), [LEN, LEN]);
}

#[test]
fn wrong_ipv4_header_checksum_is_not_made_right() {
    for vouched in [false, true] {
        for wrong in [0, 1] {
            let mut packets = two_of(false, true, |_| ()).map(|sample| sample.build());
            packets[wrong][10] ^= 1;
            let before = packets[wrong][10];
            let out = written(packets.map(|packet| (packet, vouched)));
            assert_eq!(out.len(), 2);
            assert_eq!(out[wrong].packet[10], before);
        }
    }
}

#[test]
fn udp_of_equal_length_coalesces_until_a_shorter_one() {
    for v6 in [false, true] {
        let first = Sample::new(v6, false, LEN);
        let second = first.next(LEN);
        let third = second.next(1);
        let fourth = third.next(1);
        assert_eq!(payloads(&[first, second, third, fourth]), [2 * LEN + 1, 1]);
    }
}

#[test]
fn udp_without_checksum_stays_without() {
    let packets = two_of(false, false, |_| ()).map(|sample| {
        let mut packet = sample.build();
        packet[26..28].fill(0);
        packet
    });
    let out = written(packets.clone().map(|packet| (packet, false)));
    assert_eq!(out.into_iter().map(|one| one.packet).collect::<Vec<_>>(), packets);
}

#[test]
fn empty_udp_goes_alone() {
    assert_eq!(payloads(&[Sample::new(false, false, 0), Sample::new(false, false, 0)]), [0, 0]);
}

#[test]
fn tiny_tcp_payload_begins_no_run() {
    let first = Sample::new(false, true, 7);
    assert_eq!(payloads(&[first.clone(), first.next(7)]), [7, 7]);
    let first = Sample::new(false, true, 8);
    assert_eq!(payloads(&[first.clone(), first.next(7)]), [15]);
}

#[test]
fn superpacket_is_written_as_the_kernel_would() {
    for (v6, tcp) in ALL_KINDS {
        let first = Sample::new(v6, tcp, LEN);
        let second = Sample { flags: ACK | PSH, ..first.next(40) };
        let merged =
            Sample { payload: [&first.payload[..], &second.payload].concat(), flags: ACK | PSH, ..first.clone() };
        let expected = Written { header: merged.virtio(LEN), packet: merged.build_partial(), segments: 2 };
        for vouched in [true, false] {
            assert_eq!(written([&first, &second].map(|one| (one.build(), vouched))), std::slice::from_ref(&expected));
        }
    }
}

#[test]
fn single_vouched_packet_needs_its_checksum() {
    for (v6, tcp) in ALL_KINDS {
        let sample = Sample::new(v6, tcp, LEN);
        let mut unspecified = sample.build_partial();
        let field = sample.ip_len() + sample.csum_offset();
        unspecified[field..field + 2].fill(0x5a);
        let header = VirtioHeader { gso_type: virtio::GSO_NONE, gso_size: 0, ..sample.virtio(LEN) };
        let expected = Written { header, packet: sample.build_partial(), segments: 1 };
        assert_eq!(written([(unspecified, true)]), [expected]);
    }
}

#[test]
fn single_packet_that_nobody_vouches_for_is_left_alone() {
    for (v6, tcp) in ALL_KINDS {
        let mut packet = Sample::new(v6, tcp, LEN).build();
        let last = packet.len() - 1;
        packet[last] ^= 1;
        let expected = Written { header: VirtioHeader::default(), packet: packet.clone(), segments: 1 };
        assert_eq!(written([(packet, false)]), [expected]);
    }
}

#[test]
fn vouched_and_verified_packets_join_each_other() {
    let [first, second] = two_of(false, true, |_| ());
    let third = second.next(LEN);
    let packets = [(first.build(), false), (second.build_partial(), true), (third.build(), false)];
    let out = written(packets);
    assert_eq!(out.iter().map(|one| one.segments).collect::<Vec<_>>(), [3]);
    assert_segments_are_valid(&out[0]);
}

#[test]
fn vouched_packet_without_a_checksum_is_refused() {
    let mut batch = Batch::new(Limits::default());
    let echo = ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 1, &[], &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(batch.handle(&echo, true), Err(DropReason::BadVouched));
    let fragment = Sample { fragment: 0x2000, ..Sample::new(false, true, LEN) };
    assert_eq!(batch.handle(&fragment.build(), true), Err(DropReason::BadVouched));
    let mut short_header = Sample::new(false, true, LEN).build();
    short_header[32] = 0x40;
    assert_eq!(batch.handle(&short_header, true), Err(DropReason::BadVouched));
    let mut wrong_length = Sample::new(false, false, LEN).build();
    wrong_length[25] -= 1;
    assert_eq!(batch.handle(&wrong_length, true), Err(DropReason::BadVouched));
    assert!(batch.drain().is_empty());
}

#[test]
fn interleaved_flows_come_out_in_order_of_their_first_packets() {
    let flows = |count: u16, rounds: usize| {
        let mut samples: Vec<Vec<Sample>> = vec![
            (0..count)
                .map(|port| Sample { source_port: port, ..Sample::new(port % 2 == 0, port % 3 > 0, LEN) })
                .collect(),
        ];
        for _ in 1..rounds {
            samples.push(samples[samples.len() - 1].iter().map(|sample| sample.next(LEN)).collect());
        }
        samples.concat()
    };
    assert_eq!(payloads(&flows(8, 3)), [3 * LEN; 8]);
    let out = payloads(&flows(10, 3));
    assert_eq!(out.iter().filter(|len| **len == 3 * LEN).count(), 8, "the others go singly");
    assert_eq!(out.iter().sum::<usize>(), 30 * LEN);
}

#[test]
fn runs_of_idle_flows_make_room() {
    let flows: Vec<Sample> =
        (0..12).map(|port| Sample { source_port: port, ..Sample::new(false, true, LEN) }).collect();
    let bursts: Vec<Sample> = flows
        .iter()
        .flat_map(|first| std::iter::successors(Some(first.clone()), |before| Some(before.next(LEN))).take(4))
        .collect();
    assert_eq!(payloads(&bursts), [4 * LEN; 12]);
}

#[test]
fn fragment_ends_the_runs_between_its_hosts() {
    let [first, third] = two_of(false, false, |_| ());
    let fragment = Sample { fragment: 0x2001, source_port: 9, ..Sample::new(false, false, LEN) };
    let [other, other_next] = two_of(true, false, |_| ());
    let order = [&first, &other, &fragment, &third, &other_next];
    let out = written(order.map(|sample| (sample.build(), false)));
    assert_eq!(out.iter().map(|one| one.segments).collect::<Vec<_>>(), [1, 2, 1, 1]);
}

#[test]
fn segment_limits_are_kept() {
    for (v6, tcp) in ALL_KINDS {
        let mut samples = vec![Sample::new(v6, tcp, 20)];
        for index in 1..150 {
            samples.push(samples[index - 1].next(20));
        }
        assert_eq!(payloads(&samples), [64 * 20, 64 * 20, 22 * 20]);
        let limits = Limits { tcp_segments: 1, udp_segments: 0, ..Limits::default() };
        let mut batch = Batch::new(limits);
        samples.iter().for_each(|sample| batch.handle(&sample.build(), false).unwrap());
        assert_eq!(batch.drain().len(), 150);
        batch.coalescer.set_segments(128, 128);
        samples.iter().for_each(|sample| batch.handle(&sample.build(), false).unwrap());
        assert_eq!(batch.drain().iter().map(|one| one.segments).collect::<Vec<_>>(), [128, 22]);
    }
}

#[test]
fn full_batch_takes_no_more_until_it_is_written() {
    let mut batch = Batch::new(Limits { packets: 2, ..Limits::default() });
    let [first, second] = two_of(false, true, |_| ());
    batch.handle(&first.build(), false).unwrap();
    batch.handle(&second.build(), false).unwrap();
    assert_eq!(batch.handle(&second.next(LEN).build(), false), Err(DropReason::QueueFull));
    assert_eq!(batch.drain().len(), 1);
    batch.handle(&second.next(LEN).build(), false).unwrap();
    assert_eq!(batch.drain().len(), 1);
}

#[test]
fn range_outside_of_the_buffer_is_refused() {
    let mut coalescer = Coalescer::new(Limits::default());
    let packet = Sample::new(false, true, LEN).build();
    let ip = IpPacket::parse(&packet).unwrap();
    let len = packet.len();
    for range in [1..len + 1, 0..len - 1, len..len] {
        assert_eq!(coalescer.handle_packet(&packet, range, &ip, true), Err(DropReason::BadLength));
    }
}

#[test]
fn packet_after_the_first_write_belongs_to_no_run_before_it() {
    let [first, second] = two_of(false, true, |_| ());
    let mut batch = Batch::new(Limits::default());
    batch.handle(&first.build(), false).unwrap();
    assert!(batch.poll().is_some());
    batch.handle(&second.build(), false).unwrap();
    assert_eq!(batch.drain().iter().map(|one| one.segments).collect::<Vec<_>>(), [1]);
}

#[test]
fn refused_superpacket_goes_packet_by_packet() {
    for (v6, tcp) in ALL_KINDS {
        let first = Sample::new(v6, tcp, LEN);
        let second = first.next(LEN);
        let third = Sample { flags: ACK | PSH, ..second.next(30) };
        let after = Sample { source_port: 7, ..first.clone() };
        let samples = [first, second, third, after];
        let mut batch = Batch::new(Limits::default());
        samples.iter().for_each(|sample| batch.handle(&sample.build(), true).unwrap());
        assert_eq!(batch.poll().map(|one| one.segments), Some(3));
        batch.coalescer.retry_singly();
        let singles = batch.drain();
        let expected: Vec<_> = samples.iter().map(Sample::build_partial).collect();
        assert_eq!(singles.iter().map(|one| one.packet.clone()).collect::<Vec<_>>(), expected);
        assert!(singles.iter().all(|one| one.header.gso_type == virtio::GSO_NONE && one.header.flags == 1));
    }
}

#[test]
fn nothing_can_be_retried_twice_or_out_of_turn() {
    let mut batch = Batch::new(Limits::default());
    batch.coalescer.retry_singly();
    assert!(batch.poll().is_none());
    two_of(false, true, |_| ()).iter().for_each(|sample| batch.handle(&sample.build(), true).unwrap());
    batch.poll().unwrap();
    batch.coalescer.retry_singly();
    assert_eq!(batch.poll().map(|one| one.segments), Some(1));
    batch.coalescer.retry_singly();
    assert_eq!(batch.drain().len(), 1);
    batch.coalescer.retry_singly();
    assert!(batch.poll().is_none());
}

/// Superpackets as the kernel makes them.
fn superpacket() -> impl Strategy<Value = (Sample, usize)> {
    let options = prop::sample::select(vec![vec![], vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8], vec![1; 40]]);
    let numbers = (any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>(), any::<u8>(), 1..=255_u8);
    let shape = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), options);
    (shape, numbers, 8..3_000_usize, 2..=64_usize, any::<prop::sample::Index>()).prop_map(
        |((v6, tcp, push, dont_fragment, tcp_options), numbers, gso_size, segments, last)| {
            let (sequence, acknowledgement, window, id, tos, ttl) = numbers;
            let sample = Sample {
                sequence,
                acknowledgement,
                window,
                id,
                tos,
                ttl,
                flags: if push { ACK | PSH } else { ACK },
                fragment: if dont_fragment { 0x4000 } else { 0 },
                tcp_options: if tcp { tcp_options } else { Vec::new() },
                ..Sample::new(v6, tcp, 0)
            };
            let most = MAX_SUPERPACKET_LEN - sample.header_len();
            let len = (gso_size * (segments - 1) + 1 + last.index(gso_size)).min(most);
            (Sample { payload: Sample::new(v6, tcp, len).payload, ..sample }, gso_size)
        },
    )
}

proptest! {
    #[test]
    fn split_then_coalesce_is_the_identity((sample, gso_size) in superpacket(), vouched: bool) {
        let packet = sample.build_partial();
        let header = sample.virtio(gso_size);
        let superpacket = Superpacket::parse(header, &packet, packet.len()).unwrap();
        let checksums = if vouched { Checksums::Partial } else { Checksums::Full };
        let split = Split::new(&superpacket, &packet).unwrap();
        let segments = split.segments().map(|segment| {
            let mut slot = vec![0; segment.len()];
            split.write_packet(&segment, &packet, &mut slot, checksums).unwrap();
            (slot, vouched)
        });
        let out = written(segments);
        prop_assert_eq!(out.len(), 1);
        prop_assert_eq!(out[0].segments, superpacket.segments);
        prop_assert_eq!(&out[0].packet, &packet);
        prop_assert_eq!(out[0].header, header);
    }

    /// Whatever comes, the bytes of each flow come out in order, and no checksum is made right or wrong.
    #[test]
    fn random_neighbours_lose_nothing(
        steps in prop::collection::vec((0..3_u16, 0..8_u8, 0..40_usize, any::<bool>(), any::<bool>()), 1..60),
    ) {
        let mut flows: Vec<Sample> =
            (0..3).map(|port| Sample { source_port: port, ..Sample::new(port == 1, port != 2, 0) }).collect();
        let mut batch = Batch::new(Limits::default());
        let mut sent: Vec<Vec<u8>> = vec![Vec::new(); 3];
        for (port, change, len, vouched, is_same_len) in steps {
            let flow = &mut flows[usize::from(port)];
            *flow = flow.next(if is_same_len { 20 } else { len });
            match change {
                0 => flow.flags ^= PSH,
                1 => flow.ttl ^= 1,
                2 => flow.acknowledgement += 1,
                _ => {}
            }
            flow.payload.iter_mut().zip(0_u8..).for_each(|(byte, index)| *byte = index ^ change);
            sent[usize::from(port)].extend(&flow.payload);
            let packet = if vouched { flow.build_partial() } else { flow.build() };
            batch.handle(&packet, vouched).unwrap();
        }
        let mut received: Vec<Vec<u8>> = vec![Vec::new(); 3];
        for one in batch.drain() {
            assert_segments_are_valid(&one);
            let superpacket = one.parse();
            let port = usize::from(one.packet[superpacket.ip.upper_layer + 1]);
            received[port].extend(&one.packet[superpacket.header_len..]);
        }
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(
        packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..120), any::<bool>(), 0..8_u8), 0..20),
    ) {
        let mut batch = Batch::new(Limits::default());
        for (mut packet, vouched, shape) in packets {
            shape_ip(&mut packet, shape);
            if IpPacket::parse(&packet).is_ok() {
                let _ = batch.handle(&packet, vouched);
            }
        }
        batch.drain().iter().for_each(|one| assert_eq!(one.parse().segments, one.segments));
    }
}

/// Makes most of an arbitrary packet parse.
fn shape_ip(packet: &mut [u8], shape: u8) {
    let len = u8::try_from(packet.len()).unwrap();
    if packet.len() < 40 {
        return;
    }
    let protocol = if shape & 2 == 0 { 6 } else { 17 };
    if shape & 1 == 0 {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&[0, len]);
        packet[9] = protocol;
        packet[12..20].fill(9);
    } else {
        packet[0] = 0x60;
        packet[4..7].copy_from_slice(&[0, len - 40, protocol]);
        packet[8..40].fill(9);
    }
}

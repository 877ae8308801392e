//! What the pure parts of the packet path cost per packet.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use adit_net::packet_buffer::Arena;
use adit_proto::capsule::{self, Capsule, CapsuleDecoder};
use adit_proto::datagram::{self, Prefix};
use adit_proto::packet::IpPacket;
use adit_proto::packet::icmp::GatewayAddresses;
use adit_proto::policy::{DestinationPolicy, SourcePolicy};
use adit_proto::range::from_prefixes;
use adit_proto::route_table::RouteTable;
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;

/// Packet sizes in bytes: a bare acknowledgement, the old default, a full tunnel packet.
const SIZES: [usize; 3] = [64, 576, 1420];

/// A UDP packet from 10.64.0.2 to 192.0.2.1.
fn ipv4_packet(length: usize) -> Vec<u8> {
    let mut packet = vec![0; length];
    let total = u16::try_from(length).expect("benchmark packets are small");
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&Ipv4Addr::new(10, 64, 0, 2).octets());
    packet[16..20].copy_from_slice(&Ipv4Addr::new(192, 0, 2, 1).octets());
    packet
}

fn admit(c: &mut Criterion) {
    let source = SourcePolicy { v4: Some(Ipv4Addr::new(10, 64, 0, 2)), v6: None };
    let destinations = DestinationPolicy {
        pool_v4: "10.64.0.0/24".parse().ok(),
        pool_v6: "fd00::/64".parse().ok(),
        gateway: GatewayAddresses { v4: Some(Ipv4Addr::new(10, 64, 0, 1)), v6: None },
        client_to_client: false,
    };
    let mut group = c.benchmark_group("admit");
    for size in SIZES {
        let packet = ipv4_packet(size);
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::from_parameter(size), &packet, |b, packet| {
            b.iter(|| {
                let parsed = IpPacket::parse(black_box(packet)).expect("the packet is well-formed");
                source.check(&parsed).and_then(|()| destinations.check(&parsed))
            });
        });
    }
    group.finish();
}

fn datagrams(c: &mut Criterion) {
    let prefix = Prefix::new(0);
    let mut group = c.benchmark_group("datagram");
    for size in SIZES {
        let packet = ipv4_packet(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("encode", size), &packet, |b, packet| {
            let mut arena = Arena::new(2048);
            b.iter(|| {
                let buffer = arena.fill_with(|space| {
                    space[..packet.len()].copy_from_slice(packet);
                    Ok::<_, std::convert::Infallible>(packet.len())
                });
                buffer.map(|buffer| buffer.with_prefix(prefix.as_bytes()))
            });
        });
        let framed = Bytes::from([prefix.as_bytes(), &packet].concat());
        group.bench_with_input(BenchmarkId::new("decode", size), &framed, |b, framed| {
            b.iter(|| datagram::decode(black_box(framed.clone())));
        });
    }
    group.finish();
}

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("route_lookup");
    for count in [10_u32, 10_000, 100_000] {
        let mut table = RouteTable::new();
        for number in 0..count {
            let address = Ipv4Addr::from(0x0a00_0000 + (number << 6));
            let prefix = IpNet::new(address.into(), 26 + u8::try_from(number % 7).unwrap_or(0))
                .expect("a prefix length below 33");
            table.insert(prefix.trunc(), number);
        }
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::from_parameter(count), &table, |b, table| {
            let mut number = 0_u32;
            b.iter(|| {
                number = number.wrapping_add(0x9e37_79b9);
                table.lookup(Ipv4Addr::from(0x0a00_0000 + ((number % count) << 6)).into()).copied()
            });
        });
    }
    group.finish();
}

fn capsules(c: &mut Criterion) {
    let prefixes: Vec<IpNet> = (0..64_u16)
        .map(|number| {
            IpNet::new(Ipv6Addr::new(0xfd00, number * 2, 0, 0, 0, 0, 0, 0).into(), 48).expect("48 is below 129")
        })
        .collect();
    let routes = Capsule::RouteAdvertisement(from_prefixes(&prefixes));
    let mut encoded = Vec::new();
    capsule::encode(&routes, &mut encoded);
    let mut group = c.benchmark_group("capsule");
    group.throughput(Throughput::Bytes(encoded.len() as u64));
    group.bench_function("encode_64_routes", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            out.clear();
            capsule::encode(black_box(&routes), &mut out);
        });
    });
    group.bench_function("decode_64_routes", |b| {
        b.iter(|| {
            let mut decoder = CapsuleDecoder::new();
            decoder.handle(black_box(&encoded)).map(|()| decoder.poll_event())
        });
    });
    group.finish();
}

criterion_group!(packet_path, admit, datagrams, routes, capsules);
criterion_main!(packet_path);

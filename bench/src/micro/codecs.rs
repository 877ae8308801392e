//! What travels by QUIC: HTTP datagrams, and the capsules of the control stream.

use std::convert::Infallible;
use std::hint::black_box;
use std::net::Ipv6Addr;

use adit_net::packet_buffer::Arena;
use adit_proto::capsule::{self, Capsule, CapsuleDecoder};
use adit_proto::datagram::{self, Prefix};
use adit_proto::range::from_prefixes;
use bytes::Bytes;
use ipnet::{IpNet, Ipv6Net};

use super::packets::{SIZES, udp};
use super::{Repeated, Subject};

/// Packets in one round.
const PACKETS: usize = 64;
/// Routes in the capsule: many for a tunnel.
const ROUTES: u16 = 64;
/// Larger than any packet here, as the buffers of a tunnel are.
const BUFFER: usize = 2048;

pub(super) fn subjects() -> Vec<Subject> {
    let capsules = [encode_capsule(), decode_capsule()];
    capsules.into_iter().chain(SIZES.map(encode_datagram)).chain(SIZES.map(decode_datagram)).collect()
}

fn routes() -> Capsule {
    let prefix = |number| Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, number * 2, 0, 0, 0, 0, 0, 0), 48);
    let prefixes: Vec<IpNet> = (0..ROUTES).map(|number| prefix(number).into()).collect();
    Capsule::RouteAdvertisement(from_prefixes(&prefixes))
}

fn encoded() -> Vec<u8> {
    let mut bytes = Vec::new();
    capsule::encode(&routes(), &mut bytes);
    bytes
}

fn encode_capsule() -> Subject {
    let encode = || {
        let (routes, mut out) = (routes(), Vec::new());
        Repeated(move || {
            out.clear();
            capsule::encode(black_box(&routes), &mut out);
            black_box(&out);
        })
    };
    Subject::new("capsule/encode/64-routes", 1, encoded().len(), encode).allocating()
}

fn decode_capsule() -> Subject {
    let decode = || {
        let encoded = encoded();
        Repeated(move || {
            let mut decoder = CapsuleDecoder::new();
            decoder.handle(black_box(&encoded)).expect("it was encoded here");
            black_box(decoder.poll_event()).expect("it is complete");
        })
    };
    Subject::new("capsule/decode/64-routes", 1, encoded().len(), decode).allocating()
}

/// Allocates, since QUIC keeps what it sends: a buffer of its own for a small packet, a chunk for several large ones.
fn encode_datagram(size: usize) -> Subject {
    let encode = move || {
        let (packet, prefix, mut arena) = (udp(size), Prefix::new(0), Arena::new(BUFFER));
        Repeated(move || {
            for _ in 0..PACKETS {
                let filled = arena.fill_with(|space| {
                    space[..packet.len()].copy_from_slice(black_box(&packet));
                    Ok::<_, Infallible>(packet.len())
                });
                black_box(filled.map(|buffer| buffer.with_prefix(prefix.as_bytes()))).expect("filling cannot fail");
            }
        })
    };
    Subject::new(format!("datagram/encode/{size}"), PACKETS, PACKETS * size, encode).allocating()
}

fn decode_datagram(size: usize) -> Subject {
    Subject::new(format!("datagram/decode/{size}"), PACKETS, PACKETS * size, move || {
        let framed = Bytes::from([Prefix::new(0).as_bytes(), &udp(size)].concat());
        Repeated(move || {
            for _ in 0..PACKETS {
                black_box(datagram::decode(black_box(framed.clone()))).expect("it was encoded here");
            }
        })
    })
}

//! What a packet from a client must pass: its header is read, and its source and destination are checked.

use std::hint::black_box;

use adit_proto::drop_reason::DropReason;
use adit_proto::packet::IpPacket;
use adit_proto::packet::icmp::GatewayAddresses;
use adit_proto::policy::{DestinationPolicy, SourcePolicy};

use super::packets::{FULL, SOURCE_V4, SOURCE_V6, Transport, udp};
use super::{Repeated, Subject};

/// Packets in one round.
const PACKETS: usize = 64;

/// What a gateway asks of one client's packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    source: SourcePolicy,
    destinations: DestinationPolicy,
}

impl Policy {
    /// Both families, clients apart.
    pub(super) fn new() -> Self {
        Self {
            source: SourcePolicy { v4: Some(SOURCE_V4), v6: Some(SOURCE_V6) },
            destinations: DestinationPolicy {
                pool_v4: "10.64.0.0/24".parse().ok(),
                pool_v6: "fd00::/64".parse().ok(),
                gateway: GatewayAddresses { v4: "10.64.0.1".parse().ok(), v6: "fd00::1".parse().ok() },
                client_to_client: false,
            },
        }
    }

    pub(super) fn check(&self, packet: &IpPacket) -> Result<(), DropReason> {
        self.source.check(packet)?;
        self.destinations.check(packet)
    }
}

pub(super) fn subjects() -> Vec<Subject> {
    vec![subject("ipv4", udp), subject("ipv6", |len| Transport::Udp.packet_v6(len - 48))]
}

fn subject(family: &str, packet: fn(usize) -> Vec<u8>) -> Subject {
    Subject::new(format!("policy/admit/{family}"), PACKETS, PACKETS * FULL, move || {
        let (policy, packet) = (Policy::new(), packet(FULL));
        Repeated(move || {
            for _ in 0..PACKETS {
                let admitted = IpPacket::parse(black_box(&packet)).and_then(|ip| black_box(&policy).check(&ip));
                black_box(admitted).expect("the packet is the client's own");
            }
        })
    })
}

//! One packet and whether it can be part of a run.

use std::net::IpAddr;

use super::{MIN_TCP_GSO_SIZE, Trust};
use crate::offload::transport::{self, ACK, PSH};
use crate::offload::{Kind, MAX_SUPERPACKET_LEN};
use crate::offload::{u16_at, u32_at};
use crate::packet::checksum::Checksum;
use crate::packet::{IpPacket, protocol};

/// Whose packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    ports: u32,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
}

impl Flow {
    /// The flow of a TCP or UDP packet; `None` if the packet does not show its ports.
    pub(super) fn of(packet: &[u8], ip: &IpPacket) -> Option<Self> {
        let has_ports = matches!(ip.protocol, protocol::TCP | protocol::UDP) && !ip.fragment;
        let ports = u32_at(packet, ip.upper_layer).filter(|_| has_ports)?;
        Some(Self { ports, source: ip.source, destination: ip.destination, protocol: ip.protocol })
    }

    /// True if the packet goes from the same host to the same host.
    pub(super) fn is_between(&self, ip: &IpPacket) -> bool {
        self.source == ip.source && self.destination == ip.destination
    }
}

/// What the headers of a packet say about joining.
#[derive(Debug)]
pub(super) struct Candidate {
    /// `Plain` too if the TCP or UDP header is malformed.
    pub(super) kind: Kind,
    pub(super) csum_start: usize,
    /// The length of all headers, 0 if plain.
    pub(super) header_len: usize,
    pub(super) payload_len: usize,
    /// TCP only.
    pub(super) sequence: u32,
    /// TCP only.
    pub(super) psh: bool,
    /// IPv4 only.
    pub(super) id: u16,
    /// True if a run may begin with it.
    pub(super) may_lead: bool,
    /// True if it may join a run.
    pub(super) may_follow: bool,
    pub(super) checksum: Trust,
}

impl Candidate {
    pub(super) fn read(packet: &[u8], ip: &IpPacket, vouched: bool) -> Self {
        let checksum = if vouched { Trust::Vouched } else { Trust::Unknown };
        let plain = Self {
            kind: Kind::Plain,
            csum_start: ip.upper_layer,
            header_len: 0,
            payload_len: packet.len(),
            sequence: 0,
            psh: false,
            id: 0,
            may_lead: false,
            may_follow: false,
            checksum,
        };
        Self::well_formed(packet, ip, checksum).unwrap_or(plain)
    }

    fn well_formed(packet: &[u8], ip: &IpPacket, checksum: Trust) -> Option<Self> {
        let (kind, csum_start) = (Kind::of(ip), ip.upper_layer);
        let header_len = transport::header_end(kind, packet, csum_start)?;
        let payload_len = packet.len().checked_sub(header_len)?;
        let upper = packet.get(csum_start..)?;
        let (sequence, flags) = if kind.is_tcp() {
            (u32_at(upper, transport::TCP_SEQUENCE)?, *upper.get(transport::TCP_FLAGS)?)
        } else {
            transport::udp_length_holds(packet.len(), packet, csum_start).then_some((0, 0))?
        };
        let id = if kind.is_v6() { 0 } else { u16_at(packet, transport::IPV4_ID)? };
        let joins = payload_len > 0
            && packet.len() <= MAX_SUPERPACKET_LEN
            && ip_header_joins(kind, packet, csum_start)
            && upper_header_joins(kind, upper, flags, checksum);
        let psh = flags & PSH != 0;
        let may_lead = joins && !psh && (!kind.is_tcp() || payload_len >= MIN_TCP_GSO_SIZE);
        Some(Self {
            kind,
            csum_start,
            header_len,
            payload_len,
            sequence,
            psh,
            id,
            may_lead,
            may_follow: joins,
            checksum,
        })
    }

    /// The sequence number of the byte after the payload.
    pub(super) fn next_sequence(&self) -> u32 {
        self.sequence.wrapping_add(u32::try_from(self.payload_len).unwrap_or(u32::MAX))
    }
}

/// No options or extension headers, and an IPv4 header checksum that is right: a merged header gets a new one, which
/// must not make a broken header good.
fn ip_header_joins(kind: Kind, packet: &[u8], header_len: usize) -> bool {
    if kind.is_v6() {
        return header_len == transport::IPV6_LEN;
    }
    let header = packet.get(..header_len).filter(|header| header.len() == transport::IPV4_LEN);
    header.is_some_and(|header| Checksum::new().with(header).finish() == 0)
}

/// TCP: no flags but ACK and PSH, and ACK set. UDP: a checksum, as a merged packet is given one.
fn upper_header_joins(kind: Kind, upper: &[u8], flags: u8, checksum: Trust) -> bool {
    if kind.is_tcp() {
        return flags & !PSH == ACK && upper.get(12).is_some_and(|offset| offset & 0x0f == 0);
    }
    checksum == Trust::Vouched || u16_at(upper, transport::UDP_CHECKSUM).is_some_and(|checksum| checksum != 0)
}

/// True if the headers of a packet equal those of the first of the run in all that a split copies.
///
/// Addresses, ports and protocol are equal already, as both are of one flow.
pub(super) fn headers_match(candidate: &Candidate, first: &[u8], packet: &[u8]) -> bool {
    let same = |from: usize, to: usize| first.get(from..to).is_some_and(|bytes| packet.get(from..to) == Some(bytes));
    let ip_matches = if candidate.kind.is_v6() {
        same(0, transport::IPV6_PAYLOAD_LEN) && same(transport::IPV6_HOP_LIMIT, 8)
    } else {
        same(0, transport::IPV4_TOTAL_LEN) && same(transport::IPV4_FRAGMENT, transport::IPV4_TTL.saturating_add(1))
    };
    if !ip_matches || !candidate.kind.is_tcp() {
        return ip_matches;
    }
    let tcp = |offset: usize| candidate.csum_start.saturating_add(offset);
    // Of the flags only PSH may differ, as `upper_header_joins` holds for both.
    same(tcp(transport::TCP_ACKNOWLEDGEMENT), tcp(transport::TCP_FLAGS))
        && same(tcp(transport::TCP_WINDOW), tcp(transport::TCP_CHECKSUM))
        && same(tcp(transport::TCP_URGENT), candidate.header_len)
}

impl Trust {
    /// Verifies the checksum if nothing is known of it yet.
    pub(super) fn settle(self, kind: Kind, packet: &[u8], csum_start: usize) -> Self {
        match self {
            Self::Unknown if transport::checksum_holds(kind, packet, csum_start) => Self::Verified,
            Self::Unknown => Self::Wrong,
            Self::Vouched | Self::Verified | Self::Wrong => self,
        }
    }
}

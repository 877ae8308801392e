//! Addresses of special scope, which no router forwards.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::drop_reason::DropReason;
#[cfg(test)]
use crate::packet::IpPacket;

/// The reasons for which addresses of special scope are refused, on one side of a packet.
pub(super) struct Reasons {
    unspecified: DropReason,
    loopback: DropReason,
    multicast: DropReason,
    broadcast: DropReason,
    link_local: DropReason,
}

pub(super) const SOURCE_REASONS: Reasons = Reasons {
    unspecified: DropReason::SourceUnspecified,
    loopback: DropReason::SourceLoopback,
    multicast: DropReason::SourceMulticast,
    broadcast: DropReason::SourceMulticast,
    link_local: DropReason::SourceLinkLocal,
};

pub(super) const DESTINATION_REASONS: Reasons = Reasons {
    unspecified: DropReason::DestinationUnspecified,
    loopback: DropReason::DestinationLoopback,
    multicast: DropReason::DestinationMulticast,
    broadcast: DropReason::DestinationBroadcast,
    link_local: DropReason::DestinationLinkLocal,
};

/// Refuses what no router forwards (RFC 6890): 0/8, 127/8, 224/4, 255.255.255.255 and 169.254/16.
#[inline]
pub(super) fn check_v4(address: Ipv4Addr, reasons: &Reasons) -> Result<(), DropReason> {
    match address.octets() {
        [0, ..] => Err(reasons.unspecified),
        [127, ..] => Err(reasons.loopback),
        [224..=239, ..] => Err(reasons.multicast),
        [255, 255, 255, 255] => Err(reasons.broadcast),
        [169, 254, ..] => Err(reasons.link_local),
        _ => Ok(()),
    }
}

/// Refuses what no router forwards (RFC 6890): `::`, `::1`, ff00::/8, fe80::/10, and IPv4 addresses in IPv6 form
/// (::ffff:0:0/96) that would be refused as IPv4.
#[inline]
pub(super) fn check_v6(address: Ipv6Addr, reasons: &Reasons) -> Result<(), DropReason> {
    match address {
        Ipv6Addr::UNSPECIFIED => Err(reasons.unspecified),
        Ipv6Addr::LOCALHOST => Err(reasons.loopback),
        _ if address.is_multicast() => Err(reasons.multicast),
        _ if address.is_unicast_link_local() => Err(reasons.link_local),
        _ => address.to_ipv4_mapped().map_or(Ok(()), |mapped| check_v4(mapped, reasons)),
    }
}

/// A packet of which only the ends count.
#[cfg(test)]
pub(super) fn packet(source: &str, destination: &str) -> IpPacket {
    IpPacket {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: 17,
        ttl: 64,
        len: 100,
        upper_layer: 40,
        later_fragment: false,
        fragment: false,
    }
}

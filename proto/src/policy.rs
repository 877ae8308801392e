//! Which inner packets may pass: the source check against the lease, and the destinations clients may reach.
//!
//! Both checks read a parsed header only, and hold whatever the host's firewall says.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::address_pool::Lease;
use crate::drop_reason::DropReason;
use crate::packet::IpPacket;
use crate::packet::icmp::GatewayAddresses;

/// The source addresses a session may use (BCP 38, RFC 9484 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourcePolicy {
    /// The leased IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The leased IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl From<Lease> for SourcePolicy {
    fn from(lease: Lease) -> Self {
        Self { v4: lease.v4, v6: lease.v6 }
    }
}

impl SourcePolicy {
    /// Checks that the packet comes from exactly a leased address.
    ///
    /// # Errors
    /// The reason to drop the packet. Unspecified, loopback, multicast, broadcast and link-local sources have reasons
    /// of their own and are refused whatever the lease says.
    #[inline]
    pub fn check(&self, packet: &IpPacket) -> Result<(), DropReason> {
        let leased = match packet.source {
            IpAddr::V4(source) => {
                check_v4(source, &SOURCE_REASONS)?;
                self.v4 == Some(source)
            }
            IpAddr::V6(source) => {
                check_v6(source, &SOURCE_REASONS)?;
                self.v6 == Some(source)
            }
        };
        if leased { Ok(()) } else { Err(DropReason::SourceNotLeased) }
    }
}

/// The destinations a client's packets may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DestinationPolicy {
    /// The IPv4 network of the clients.
    pub pool_v4: Option<Ipv4Net>,
    /// The IPv6 network of the clients.
    pub pool_v6: Option<Ipv6Net>,
    /// The gateway's own addresses in these networks, which clients may always reach.
    pub gateway: GatewayAddresses,
    /// Whether clients may reach each other.
    pub client_to_client: bool,
}

impl DestinationPolicy {
    /// Checks that the packet goes to a host beyond the tunnel, to the gateway, or, where allowed, to another client.
    ///
    /// # Errors
    /// The reason to drop the packet: another client while clients are isolated; an unspecified, loopback, multicast,
    /// link-local or broadcast destination, among them the first and last address of the IPv4 pool.
    #[inline]
    pub fn check(&self, packet: &IpPacket) -> Result<(), DropReason> {
        let inside = match packet.destination {
            IpAddr::V4(destination) => {
                check_v4(destination, &DESTINATION_REASONS)?;
                let inside = self.pool_v4.filter(|pool| pool.contains(&destination));
                if inside.is_some_and(|pool| is_directed_broadcast(pool, destination)) {
                    return Err(DropReason::DestinationBroadcast);
                }
                inside.is_some() && self.gateway.v4 != Some(destination)
            }
            IpAddr::V6(destination) => {
                check_v6(destination, &DESTINATION_REASONS)?;
                let inside = self.pool_v6.is_some_and(|pool| pool.contains(&destination));
                inside && self.gateway.v6 != Some(destination)
            }
        };
        if inside && !self.client_to_client { Err(DropReason::DestinationIsolated) } else { Ok(()) }
    }
}

/// Tells whether the address is the last of `pool`, or the first, which was once a broadcast address too (RFC 1122
/// section 3.3.6). A /31 or /32 has neither.
#[inline]
fn is_directed_broadcast(pool: Ipv4Net, address: Ipv4Addr) -> bool {
    pool.prefix_len() < 31 && (address == pool.broadcast() || address == pool.network())
}

/// The reasons for which addresses of special scope are refused, on one side of a packet.
struct Reasons {
    unspecified: DropReason,
    loopback: DropReason,
    multicast: DropReason,
    broadcast: DropReason,
    link_local: DropReason,
}

const SOURCE_REASONS: Reasons = Reasons {
    unspecified: DropReason::SourceUnspecified,
    loopback: DropReason::SourceLoopback,
    multicast: DropReason::SourceMulticast,
    broadcast: DropReason::SourceMulticast,
    link_local: DropReason::SourceLinkLocal,
};

const DESTINATION_REASONS: Reasons = Reasons {
    unspecified: DropReason::DestinationUnspecified,
    loopback: DropReason::DestinationLoopback,
    multicast: DropReason::DestinationMulticast,
    broadcast: DropReason::DestinationBroadcast,
    link_local: DropReason::DestinationLinkLocal,
};

/// Refuses what no router forwards (RFC 6890): 0/8, 127/8, 224/4, 255.255.255.255 and 169.254/16.
#[inline]
fn check_v4(address: Ipv4Addr, reasons: &Reasons) -> Result<(), DropReason> {
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
fn check_v6(address: Ipv6Addr, reasons: &Reasons) -> Result<(), DropReason> {
    match address {
        Ipv6Addr::UNSPECIFIED => Err(reasons.unspecified),
        Ipv6Addr::LOCALHOST => Err(reasons.loopback),
        _ if address.is_multicast() => Err(reasons.multicast),
        _ if address.is_unicast_link_local() => Err(reasons.link_local),
        _ => address.to_ipv4_mapped().map_or(Ok(()), |mapped| check_v4(mapped, reasons)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: &str, destination: &str) -> IpPacket {
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

    fn from(source: &str) -> Result<(), DropReason> {
        let policy =
            SourcePolicy { v4: Some("10.64.0.2".parse().unwrap()), v6: Some("fd00:0:0:1::2".parse().unwrap()) };
        policy.check(&packet(source, source))
    }

    fn to(destination: &str, client_to_client: bool) -> Result<(), DropReason> {
        let policy = DestinationPolicy {
            pool_v4: Some("10.64.0.0/24".parse().unwrap()),
            pool_v6: Some("fd00:0:0:1::/64".parse().unwrap()),
            gateway: GatewayAddresses {
                v4: Some("10.64.0.1".parse().unwrap()),
                v6: Some("fd00:0:0:1::1".parse().unwrap()),
            },
            client_to_client,
        };
        policy.check(&packet(destination, destination))
    }

    #[test]
    fn only_the_leased_addresses_may_send() {
        assert_eq!(from("10.64.0.2"), Ok(()));
        assert_eq!(from("fd00:0:0:1::2"), Ok(()));
        for other in ["10.64.0.3", "10.64.0.1", "8.8.8.8", "fd00:0:0:1::3", "fd00:0:0:2::2", "::ffff:10.64.0.2"] {
            assert_eq!(from(other), Err(DropReason::SourceNotLeased), "{other}");
        }
    }

    #[test]
    fn special_sources_have_their_own_reason() {
        for (source, reason) in [
            ("0.0.0.0", DropReason::SourceUnspecified),
            ("::", DropReason::SourceUnspecified),
            ("127.0.0.1", DropReason::SourceLoopback),
            ("::1", DropReason::SourceLoopback),
            ("::ffff:127.0.0.1", DropReason::SourceLoopback),
            ("224.0.0.1", DropReason::SourceMulticast),
            ("255.255.255.255", DropReason::SourceMulticast),
            ("ff02::1", DropReason::SourceMulticast),
            ("169.254.1.1", DropReason::SourceLinkLocal),
            ("fe80::1", DropReason::SourceLinkLocal),
            ("febf::1", DropReason::SourceLinkLocal),
        ] {
            assert_eq!(from(source), Err(reason), "{source}");
        }
    }

    #[test]
    fn special_source_is_refused_even_when_leased() {
        let policy = SourcePolicy { v4: Some(Ipv4Addr::LOCALHOST), v6: None };
        assert_eq!(policy.check(&packet("127.0.0.1", "8.8.8.8")), Err(DropReason::SourceLoopback));
    }

    #[test]
    fn session_without_a_family_may_not_send_it() {
        let policy = SourcePolicy { v4: None, v6: None };
        assert_eq!(policy.check(&packet("10.64.0.2", "8.8.8.8")), Err(DropReason::SourceNotLeased));
    }

    #[test]
    fn gateway_and_the_world_are_always_reachable() {
        for destination in ["10.64.0.1", "fd00:0:0:1::1", "8.8.8.8", "10.64.1.2", "2001:db8::1", "fd00:0:0:2::5"] {
            assert_eq!(to(destination, false), Ok(()), "{destination}");
            assert_eq!(to(destination, true), Ok(()), "{destination}");
        }
    }

    #[test]
    fn clients_are_isolated_unless_allowed() {
        for destination in ["10.64.0.2", "10.64.0.254", "fd00:0:0:1::2", "fd00:0:0:1:ffff::"] {
            assert_eq!(to(destination, false), Err(DropReason::DestinationIsolated), "{destination}");
            assert_eq!(to(destination, true), Ok(()), "{destination}");
        }
    }

    #[test]
    fn special_destinations_are_refused() {
        for (destination, reason) in [
            ("0.0.0.0", DropReason::DestinationUnspecified),
            ("::", DropReason::DestinationUnspecified),
            ("127.8.8.8", DropReason::DestinationLoopback),
            ("::1", DropReason::DestinationLoopback),
            ("224.0.0.251", DropReason::DestinationMulticast),
            ("ff0e::1", DropReason::DestinationMulticast),
            ("255.255.255.255", DropReason::DestinationBroadcast),
            ("10.64.0.255", DropReason::DestinationBroadcast),
            ("10.64.0.0", DropReason::DestinationBroadcast),
            ("169.254.169.254", DropReason::DestinationLinkLocal),
            ("::ffff:169.254.169.254", DropReason::DestinationLinkLocal),
            ("fe80::1", DropReason::DestinationLinkLocal),
        ] {
            assert_eq!(to(destination, false), Err(reason), "{destination}");
            assert_eq!(to(destination, true), Err(reason), "{destination}");
        }
    }
}
